"""How the client behaves when things go wrong, beside openai-python, LiteLLM and Pydantic AI in one run."""
