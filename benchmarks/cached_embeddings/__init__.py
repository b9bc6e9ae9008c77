"""What it costs to read embeddings again that are cached, beside LangChain, LiteLLM and plain SQLite in one run."""
