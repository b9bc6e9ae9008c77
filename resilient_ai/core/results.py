"""What comes back: results, usage, cost."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal

from pydantic import Field
from typing_extensions import TypeVar, override

from resilient_ai.core._base import FrozenModel
from resilient_ai.core._told import told_name
from resilient_ai.core.media import SUFFIXES
from resilient_ai.core.messages import AnyMessage, AssistantMessage, ToolCall
from resilient_ai.core.money import total
from resilient_ai.core.vectors import Vectors

if TYPE_CHECKING:
    import numpy.typing as npt

CacheStatus = Literal["hit", "stale", "joined", "miss", "off"]
CostSource = Literal["provider", "table", "estimate", "mixed", "cache"]
OutputT = TypeVar("OutputT", default=Any)
# What the service names in words of its own.
_TOLD = frozenset({"model", "request_id", "service_tier"})


class Usage(FrozenModel):
    """Billed tokens. A count the service did not report is None, never zero.

    Args:
        input_tokens: Tokens of the prompt, cached ones included.
        output_tokens: Tokens of the answer, reasoning included.
        cached_tokens: The part of `input_tokens` that the provider's prompt cache served.
        cache_write_tokens: The part of `input_tokens` that was written to that cache.
        reasoning_tokens: The part of `output_tokens` that was reasoning.
        raw: The usage block as it came, before any correction.
    """

    input_tokens: int | None = Field(default=None, ge=0)
    output_tokens: int | None = Field(default=None, ge=0)
    cached_tokens: int | None = Field(default=None, ge=0)
    cache_write_tokens: int | None = Field(default=None, ge=0)
    reasoning_tokens: int | None = Field(default=None, ge=0)
    raw: Mapping[str, Any] | None = Field(default=None, repr=False)

    @classmethod
    def total(cls, parts: "Iterable[Usage | None]") -> "Usage | None":
        """Add up the tokens of several sends; a count that is not known of each is None, and None of all is None.

        >>> Usage.total([Usage(input_tokens=9, output_tokens=1), Usage(input_tokens=1)])
        Usage(input_tokens=10, output_tokens=None, cached_tokens=None, cache_write_tokens=None, reasoning_tokens=None)
        """
        usages = list(parts)
        if not usages or any(usage is None for usage in usages):
            return None
        counts: dict[str, int] = {}
        for name in cls.model_fields.keys() - {"raw"}:
            values = [getattr(usage, name) for usage in usages]
            if None not in values:
                counts[name] = sum(values)
        return cls.model_validate(counts)

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; None where neither is known."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return (self.input_tokens or 0) + (self.output_tokens or 0)


class Cost(FrozenModel):
    """Money, exact. Where the amount is not known there is no `Cost` but None.

    Args:
        amount: What the whole call cost, failed sends of known cost included.
        wasted: The part of `amount` that was spent on sends whose answer was not used.
        source: "provider" for the service's own figure; "table" for what it reported, at the prices of the price table;
            "estimate" for tokens that we counted ourselves, as a stream broke off; "mixed" for several of these; "cache" for
            nothing sent.
        complete: False where a failed send may have cost something nobody told us.

    >>> str(Cost(amount=Decimal("0.0000097"), source="provider"))
    '0.0000097 USD'
    """

    amount: Decimal
    currency: Literal["USD"] = "USD"
    source: CostSource
    wasted: Decimal = Decimal(0)
    complete: bool = True

    @classmethod
    def total(cls, parts: "Iterable[Cost | None]") -> "Cost | None":
        """Add up several costs; None where one is not known.

        >>> str(Cost.total([Cost(amount=Decimal("0.1"), source="table"), Cost(amount=Decimal("0.2"), source="table")]))
        '0.3 USD'
        """
        costs = list(parts)
        known = [cost for cost in costs if cost is not None]
        if not known or len(known) < len(costs):
            return None
        source = known[0].source
        return cls(
            amount=total(cost.amount for cost in known),
            wasted=total(cost.wasted for cost in known),
            source=source if all(cost.source == source for cost in known) else "mixed",
            complete=all(cost.complete for cost in known),
        )

    @override
    def __str__(self) -> str:
        return f"{'' if self.complete else 'at least '}{self.amount:f} {self.currency}"


class Considered(FrozenModel):
    """A model that could have served a call, and what was thought of it.

    Args:
        model: Its id.
        place: Where it stood in the order in which models were to be asked, from 1; None where it was left out.
        why: Why it stood there, or was left out.
        cost: US dollars the call was expected to cost on it, None where nothing is known.
        seconds: Seconds its first token, or its whole answer, was expected to take, None where nothing is known.
    """

    model: str
    place: int | None
    why: str
    cost: Decimal | None = None
    seconds: float | None = None


class Result(FrozenModel):
    """What all results have in common.

    Args:
        model: The model as the service named it in its answer.
        served_by: The model id that was asked and answered.
        usage: Billed tokens, None where the service reported none.
        cost: What the call cost, None where that is not known.
        attempts: Requests that were sent for this answer, over all tries, models and batches; 0 for a cache hit.
        maybe_billed: Failed requests among them that the service may have billed as well, without our knowing how much.
        refused: Models that were to serve and could not, with the reason of each.
        considered: The models among which the route was chosen, and why it was chosen so; empty where nothing was to choose.
        cache: "hit" if it was kept; "stale" if it was kept and its time was over; "joined" if an identical call under way got it;
            "miss" if it, or a part of it, was looked up in vain; "off" if it was not looked up.
        cache_age: Seconds since the answer that was kept was made, of several vectors the oldest; None where none was.
        saved: US dollars that what was not sent would have cost, None where not known.
        request_id: The service's name for the request.
        service_tier: The tier that served it, where the service says so.
    """

    model: str
    served_by: str = ""
    usage: Usage | None = None
    cost: Cost | None = None
    attempts: int = 0
    maybe_billed: int = 0
    refused: Mapping[str, str] = Field(default_factory=dict[str, str])
    considered: tuple[Considered, ...] = ()
    cache: CacheStatus = "off"
    cache_age: float | None = None
    saved: Decimal | None = None
    request_id: str | None = None
    service_tier: str | None = None

    @override
    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        # A server may write anything there, and what was said is to be looked for in the answer alone.
        for name, value in super().__repr_args__():
            if name not in _TOLD or value is None or told_name(value) is not None:
                yield name, value


class TokenLogprob(FrozenModel):
    """A token of the answer, its log probability, and the most likely alternatives."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Choice(FrozenModel):
    """One of the `n` answers of a call."""

    index: int = 0
    text: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None


class ChatResult(Result):
    """The answer of a language model; the properties speak of the first choice."""

    choices: tuple[Choice, ...] = Field(min_length=1)

    @property
    def text(self) -> str:
        """The answer without the reasoning."""
        return self.choices[0].text

    @property
    def reasoning(self) -> str | None:
        """What the model thought aloud before it answered, or None."""
        return self.choices[0].reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The functions the model wants called."""
        return self.choices[0].tool_calls

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped: "stop", "length", "tool_calls", or what the service said; None in a partial answer."""
        return self.choices[0].finish_reason

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """Log probabilities of the answer's tokens, where they were asked for."""
        return self.choices[0].logprobs

    @property
    def message(self) -> AssistantMessage:
        """The answer as a message, to be put at the end of the conversation."""
        return AssistantMessage(content=self.text or None, tool_calls=self.tool_calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoFar:
    """What had been done when a later round failed: of a tool loop, or of a chat whose answer was to fit a type.

    Args:
        answers: Every answer the model had given; each was paid for, and has its own cost.
        messages: The conversation by then, with what the functions returned, to go on from.
    """

    answers: tuple[ChatResult, ...]
    messages: tuple[AnyMessage, ...] = field(repr=False)

    @property
    def cost(self) -> Cost | None:
        """What the answers cost together; None where it is not known of each."""
        return Cost.total(answer.cost for answer in self.answers)

    @override
    def __str__(self) -> str:
        count = len(self.answers)
        cost = "a cost that is not known" if self.cost is None else str(self.cost)
        return f"after {count} {'answer' if count == 1 else 'answers'} for {cost}, which `so_far` has"


class StructuredResult(ChatResult, Generic[OutputT]):
    """A chat answer that was read into the type that was asked for."""

    output: OutputT


class EmbedResult(Result):
    """One vector per text, in input order: `vectors[i]` belongs to `texts[i]`.

    Args:
        vectors: The vectors, packed; all of length `dimensions`.
        hits: How many of the texts came from the cache.
    """

    vectors: Vectors
    hits: int = 0

    @property
    def dimensions(self) -> int:
        """The length of each vector."""
        return self.vectors.dimensions

    def to_numpy(self) -> "npt.NDArray[Any]":
        """Return a read-only array of shape (texts, dimensions) over the same memory; needs the `numpy` extra."""
        return self.vectors.to_numpy()


class Image(FrozenModel):
    """A picture.

    Args:
        data: The bytes of the file.
        media_type: Told by the bytes: "image/png", "image/jpeg", "image/webp", "image/gif" or "image/svg+xml".
        flagged: Whether the service marked it as not safe for work; None where it says nothing.
        revised_prompt: The prompt the service drew, where it changed it.
    """

    data: bytes = Field(repr=False)
    media_type: str
    flagged: bool | None = None
    revised_prompt: str | None = None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture and return where; a path without a fitting suffix gets the right one.

        Raises:
            OSError: If the file cannot be written.
        """
        target = Path(path)
        suffix = SUFFIXES.get(self.media_type, ".bin")
        fitting = {suffix, ".jpeg"} if suffix == ".jpg" else {suffix}
        if target.suffix.lower() not in fitting:
            target = target.with_name(target.name + suffix)
        target.write_bytes(self.data)
        return target


class ImageResult(Result):
    """Pictures, in the order the service returned them.

    Args:
        images: At least one picture.
        seed: The seed that was used, where the service says so.
    """

    images: tuple[Image, ...] = Field(min_length=1)
    seed: int | None = None
