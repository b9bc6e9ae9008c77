"""What the tour asks, of which models, and the most that can cost."""

from dataclasses import dataclass
from decimal import Decimal

from resilient_ai.cli.demo.texts import KNOWN, NEW
from resilient_ai.cli.options import CHAT_MODEL, EMBEDDING_MODEL, IMAGE_MODEL
from resilient_ai.deepinfra.catalogue import PriceTable

# Every try of a send might be billed, also one whose answer never came.
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What one step may send.

    Args:
        model: Who is asked.
        calls: Answers at most.
        input_tokens: An upper bound for each; a token has at least one byte.
        max_tokens: The longest answer.
    """

    model: str
    calls: int = 1
    input_tokens: int = 500
    max_tokens: int


CHAT = Ask(model=CHAT_MODEL, max_tokens=60)
TOGETHER = Ask(model=CHAT_MODEL, max_tokens=60)
STREAM = Ask(model="deepseek-ai/DeepSeek-R1-0528", max_tokens=1200)
TOOLS = Ask(model=CHAT_MODEL, calls=6, input_tokens=3000, max_tokens=300)
VISION = Ask(model="google/gemma-3-12b-it", input_tokens=4000, max_tokens=120)
STRUCTURED = Ask(model=CHAT_MODEL, calls=2, input_tokens=2000, max_tokens=300)
CODE = Ask(model="Qwen/Qwen3-Coder-480B-A35B-Instruct-Turbo", max_tokens=400)
SIZE = (512, 512)

_ASKS = {
    "Chat": CHAT,
    "20 at once": TOGETHER,
    "Streaming": STREAM,
    "Tools": TOOLS,
    "Vision": VISION,
    "Structured output": STRUCTURED,
    "Code": CODE,
}


def most_it_can_cost() -> dict[str, Decimal | None]:
    """Return US dollars by step at list prices, None where a price is not known."""
    prices = PriceTable()
    most = {
        title: prices.chat_cost(
            ask.model, input_tokens=ask.calls * ask.input_tokens, output_tokens=ask.calls * ask.max_tokens
        )
        for title, ask in _ASKS.items()
    }
    texts = [*KNOWN, *NEW, "a question"]
    tokens = sum(len(text.encode()) + 2 for text in texts)
    most["Embeddings"] = prices.embedding_cost(EMBEDDING_MODEL, input_tokens=tokens)
    width, height = SIZE
    most["Image"] = prices.image_cost(IMAGE_MODEL, images=1, width=width, height=height)
    return {title: None if cost is None else cost * _TRIES for title, cost in most.items()}
