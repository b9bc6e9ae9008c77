"""What a trace tells of calls: attempts, waits, and what else there was. Times are nanoseconds since 1970."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, TypeAlias

WaitKind: TypeAlias = Literal["retry", "rate", "concurrency"]
MarkKind: TypeAlias = Literal["hedge", "fallback", "resumed", "circuit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A span of somebody else, such as that of an HTTP client.

    Args:
        name: What it calls itself.
        start: When it began.
        end: When it ended.
        failed: Whether its status is an error.
        status: The HTTP status, None where there was none.
        depth: How deep it stands in what it belongs to, from 0.
    """

    name: str
    start: int
    end: int
    failed: bool
    status: int | None
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request to the service.

    Args:
        number: Which of the call it was, from 1; None where nobody said.
        kind: "initial", "retry", "hedge" or "fallback".
        model: The model asked.
        start: When it began.
        end: When it ended.
        outcome: "success", "error", "won", "lost" or "cancelled".
        error: The word for what went wrong.
        error_class: The class of the error.
        status: The HTTP status of a failure.
        cost: US dollars; None where that is not known.
        others: Spans under it, in the order of a tree.
    """

    number: int | None
    kind: str | None
    model: str | None
    start: int
    end: int
    outcome: str | None
    error: str | None
    error_class: str | None
    status: int | None
    cost: Decimal | None
    others: Sequence[Other] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Time in which nothing was under way: before a retry, or in a line for a permit.

    Args:
        kind: What was waited for.
        start: When it began.
        end: When it ended.
        source: Who said how long a wait for a retry is: "backoff", "retry_after" or "circuit_breaker".
        error: What had gone wrong before.
        model: The model whose permit it was.
    """

    kind: WaitKind
    start: int
    end: int
    source: str | None = None
    error: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened at one moment.

    Args:
        kind: What it was.
        at: When.
        text: What more is known: a model, a state, how a stream went on.
        error: What had gone wrong.
    """

    kind: MarkKind
    at: int
    text: str | None
    error: str | None = None


Part: TypeAlias = Attempt | Wait | Mark | Other


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What is known of how an answer came.

    Args:
        outcome: "completed", "interrupted", "cancelled" or "abandoned".
        chunks: How many pieces there were.
        first_chunk: Seconds until the first.
        first_content: Seconds until the first of the answer itself.
    """

    outcome: str | None
    chunks: int | None
    first_chunk: float | None
    first_content: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What was counted."""

    input: int | None
    output: int | None
    cached: int | None
    reasoning: int | None
    discarded_input: int | None
    discarded_output: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """US dollars; `wasted` is part of `amount`, and `complete` says whether it is all."""

    amount: Decimal | None
    wasted: Decimal | None
    source: str | None
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, or one function that a model has asked for.

    Args:
        trace: Its trace.
        span: Its span.
        above: The call or function it ran in, None for none.
        id: What logs and events call it.
        service: Who wrote it.
        operation: "chat", "embeddings", ..., or "execute_tool".
        title: The model it asked, or the name of the function.
        served_by: The model that answered.
        start: When it began.
        end: When it ended.
        outcome: "success", "error", "refused", "cancelled" or "abandoned"; None for a function.
        failed: Whether it ended with an error.
        complete: Whether its own span is in the file; what else there is tells of it otherwise.
        error: The word for what went wrong.
        error_class: The class of the error.
        details: Further facts, by name: each a number, a text or a list of texts.
        attempts: How many requests were sent; None where nobody said.
        cache: What the cache did.
        cache_age: Seconds since the cached answer was made.
        leader: Trace and span of the call whose answer it shares.
        tokens: What was counted.
        money: What it cost.
        stream: How the answer came, None where it was not streamed.
        parts: What happened within, in its order.
    """

    trace: str
    span: str
    above: str | None
    id: str | None
    service: str | None
    operation: str
    title: str | None
    served_by: str | None
    start: int
    end: int
    outcome: str | None
    failed: bool
    complete: bool
    error: str | None
    error_class: str | None
    details: dict[str, str | int | float | tuple[str, ...]]
    attempts: int | None
    cache: str | None
    cache_age: float | None
    leader: tuple[str, str] | None
    tokens: Tokens
    money: Money
    stream: Stream | None
    parts: Sequence[Part]

    @property
    def is_tool(self) -> bool:
        """Whether it is a function that a model has asked for."""
        return self.operation == "execute_tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Calls of one trace, in the order in which they began, one in another after that one.

    Args:
        id: Its number.
        root: What stands around all of them, None where nothing does.
        calls: The calls, each with how deep it stands.
    """

    id: str
    root: str | None
    calls: Sequence[tuple[int, Call]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found in a file.

    Args:
        traces: What is to be shown.
        calls: How many calls the file has. Functions that models have asked for are no calls.
        matching: How many of them were asked for.
        left_out: Spans for which there was no room.
        remarks: What is to be said about the file.
    """

    traces: Sequence[Trace]
    calls: int
    matching: int
    left_out: int = 0
    remarks: Sequence[str] = field(default=())

    @property
    def shown(self) -> list[Call]:
        """The calls and functions of all traces."""
        return [call for trace in self.traces for _, call in trace.calls]

    @property
    def shown_calls(self) -> list[Call]:
        """Those of them that are calls."""
        return [call for call in self.shown if not call.is_tool]
