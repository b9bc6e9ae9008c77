"""How large an operation is, and what that costs by the list."""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from resilient_ai.core.ledger import SendClosed
from resilient_ai.core.log import Log
from resilient_ai.core.operations import Image, Operation, Sampling, Stream
from resilient_ai.core.protocols import PriceBook
from resilient_ai.core.results import ChatResult, Usage
from resilient_ai.middleware._as_sent import as_sent
from resilient_ai.middleware._tokens import prompt_tokens

# The time before its first token, or text, is that of writing so many tokens, or of embedding so many.
_WRITTEN = 50.0
_EMBEDDED = 1_000.0

_log = Log()


class Size(NamedTuple):
    """How large an operation is.

    Attributes:
        prompt: Tokens of the prompt.
        answers: How many answers it asks for, 0 where it asks for no text.
        longest: Tokens that each of them may have.
        counted: What is counted where it asks for no text: pictures, or tokens that are embedded.
        base: Size of the work before an answer is written; 0 for a stream, of which the first token is all that counts.
    """

    prompt: int
    answers: int
    longest: float
    counted: int
    base: float

    @classmethod
    def of(cls, operation: Operation[Any]) -> "Size":
        """Measure an operation, as far as it can be told before it is sent."""
        prompt = prompt_tokens(operation)
        sent = as_sent(operation)
        if isinstance(operation, Sampling):
            return cls(prompt, sent.number, sent.longest or math.inf, 0, 0.0 if isinstance(operation, Stream) else 1.0)
        if isinstance(operation, Image):
            return cls(prompt, 0, 0.0, sent.number, float(sent.number))
        return cls(prompt, 0, 0.0, prompt, 1.0 + prompt / _EMBEDDED)

    def work(self, length: float) -> float:
        """Return the size of the work, where an answer has so many tokens; of a stream only its first token counts."""
        if not self.answers:
            return self.base
        return 1.0 + min(self.longest, length) / _WRITTEN if self.base else 1.0


def size_of_answer(result: object) -> float | None:
    """Return how large the work was, None where that cannot be told better than before."""
    if not isinstance(result, ChatResult) or result.usage is None or result.usage.output_tokens is None:
        return None
    return 1.0 + result.usage.output_tokens / _WRITTEN / max(1, len(result.choices))


# Returns the list price of a model for so many tokens of an answer, tokens that are embedded, or pictures.
Lister = Callable[[str, int], Decimal | None]


def lister(prices: PriceBook | None, operation: Operation[Any], prompt: int) -> Lister | None:
    """Return what tells the list price of an operation on any model."""
    if prices is None:
        return None
    tier = tier_of(operation)
    if isinstance(operation, Sampling):
        return lambda model, answer: prices.chat_cost(
            model, input_tokens=prompt, output_tokens=answer, service_tier=tier
        )
    if isinstance(operation, Image):
        sent = as_sent(operation)
        return lambda model, pictures: prices.image_cost(
            model, images=pictures, width=sent.width, height=sent.height, steps=sent.steps
        )
    return lambda model, tokens: prices.embedding_cost(model, input_tokens=tokens, service_tier=tier)


def tier_of(operation: Operation[Any]) -> str | None:
    """Return the service tier that is asked for, None for the default one."""
    tier = as_sent(operation).tier
    return None if tier == "default" else tier


def price_of(listed: Lister | None, model: str, units: int) -> float | None:
    try:
        price = None if listed is None else listed(model, units)
    except Exception as error:  # noqa: BLE001 - not to know a price must never fail a call
        _log.warning("prices raised %s", type(error).__name__)
        return None
    return None if price is None else float(price)


def length_of(operation: Operation[Any], row: SendClosed) -> float | None:
    """Return the tokens of each answer of a send, None where it gave none or that is not known."""
    if row.error is not None or row.usage is None or not isinstance(operation, Sampling):
        return None
    tokens = row.usage.output_tokens
    return None if tokens is None else tokens / as_sent(operation).number


def units_of(operation: Operation[Any], usage: Usage | None) -> float:
    """Return the tokens, or pictures, that a send was billed for; 0 where that is not known."""
    if isinstance(operation, Image):
        return as_sent(operation).number
    return 0 if usage is None else usage.total_tokens or 0
