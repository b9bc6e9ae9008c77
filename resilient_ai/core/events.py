"""Frozen facts that middleware report while a call is under way.

A subscriber receives one object per fact. Fields may be added to a fact; none is taken away.
"""

from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Literal

from typing_extensions import override

from resilient_ai.core.ledger import SendOutcome
from resilient_ai.core.results import Usage


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Event:
    """What all facts have in common.

    Of errors their repr shows the class alone, as the message may quote what was said.

    Args:
        call_id: The call during which it happened.
        model: The model it is about.
    """

    call_id: str
    model: str

    @override
    def __repr__(self) -> str:
        shown = ", ".join(f"{field.name}={_shown(getattr(self, field.name))}" for field in fields(self))
        return f"{type(self).__name__}({shown})"


def _shown(value: object) -> str:
    return f"<{type(value).__name__}>" if isinstance(value, BaseException) else repr(value)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SendStarted(Event):
    """A request is about to leave. `number` counts the requests of the call from 1."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SendSettled(Event):
    """A request came to its end.

    Args:
        send_id: The row in the ledger.
        state: "settled" with the service's own figure, "estimated" by us, "unknown", or "never_sent".
        cost: US dollars, None where not known.
        usage: The tokens that were counted, None where nobody told.
        error: Name of the error's class, None where it succeeded.
        elapsed: Seconds from before the request to the end of the answer or stream.
        kind: The operation: "chat", "stream", "complete", "embed" or "image".
        used: Whether its answer was given to the caller; what was not is wasted.
        origin: Where it was sent, such as "https://api.deepinfra.com/v1".
        part: Which body of the call it sent: a batch, another model, the rest of a broken stream; "" for the first.
        attempt: Which try of that body it was, from 1.
        hedge: Whether it was the second of two requests for one answer.
    """

    send_id: str
    state: SendOutcome
    cost: Decimal | None
    usage: Usage | None
    error: str | None
    elapsed: float
    kind: str = ""
    used: bool = True
    origin: str = ""
    part: str = ""
    attempt: int = 1
    hedge: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PriceDrifted(Event):
    """The service billed a send at another price than the price table has, by more than 1 %.

    Args:
        send_id: The row in the ledger.
        cost: What the service says it cost, in US dollars.
        list_cost: What the price table says, in US dollars.
        repeated: Whether this process has told of the model within the last hour already; the log has a line for those that are
            not.
    """

    send_id: str
    cost: Decimal
    list_cost: Decimal
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BudgetThresholdReached(Event):
    """What counts against a budget has passed a part of its limit, for the first time in this window as this process sees it.

    Args:
        budget: The name of the budget, with the values of its scope.
        threshold: The part that was passed, such as 0.8.
        spent: US dollars spent in the window, without what this client has reserved for requests under way.
        limit: US dollars the budget allows.
        until: When the window ends, in seconds since 1970-01-01 UTC; None for a rolling or endless one.
    """

    budget: str
    threshold: float
    spent: Decimal
    limit: Decimal
    until: float | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BudgetRefused(Event):
    """A hard budget has too little left for a request, which is not sent; of a list the next model may fit.

    Args:
        budget: The name of the budget, with the values of its scope; where several are in the way, the one that takes longest.
        spent: US dollars spent or reserved in the window.
        reserved: The part of `spent` that requests of this client, which are under way, have reserved.
        limit: US dollars the budget allows.
        until: When the window ends, in seconds since 1970-01-01 UTC; None for a rolling or endless one.
        retry_after: Seconds until there may be room, as in `BudgetExceeded`; None where waiting does not help.
    """

    budget: str
    spent: Decimal
    reserved: Decimal
    limit: Decimal
    until: float | None
    retry_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RetryScheduled(Event):
    """The call will be tried again after a wait.

    Args:
        attempt: The try that failed, from 1.
        wait: Seconds until the next.
        error: What failed.
        retry_after: Seconds the service, or its open circuit, asked for, or None.
    """

    attempt: int
    wait: float
    error: Exception
    retry_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RetrySuppressed(Event):
    """The call could have been tried again and is not.

    Args:
        reason: What forbids it: the "budget" of extra sends, the "ceiling" of sends per call, the "deadline", a "wait" that is
            too long, or the "circuit" that has opened.
        error: What failed.
    """

    reason: Literal["budget", "ceiling", "deadline", "wait", "circuit"]
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HedgeSent(Event):
    """The first request is slow, and a second one is sent beside it after `after` seconds."""

    after: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HedgeSettled(Event):
    """It is decided which of two requests for one answer is used.

    Args:
        outcome: What became of the second one: it "won", it "lost" to the first, both "failed", or both were "cancelled".
    """

    outcome: Literal["won", "lost", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StreamResumed(Event):
    """A stream broke after content had arrived, and is asked for again.

    Args:
        how: "restart" from the beginning, or "continue" where it broke.
        number: Which repair of this stream it is, from 1.
        error: What broke it.
    """

    how: Literal["restart", "continue"]
    number: int
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LimitChanged(Event):
    """A concurrency limit follows what the service takes: `limit` requests may be under way at once now."""

    limit: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class KeyRefused(Event):
    """The service refused the key: nothing is sent with it for `retry_after` seconds.

    Args:
        status: 401 or 402; or 403, after which it is `model` alone that nothing is sent to.
        retry_after: Seconds until one call may find out whether that still holds.
    """

    status: int
    retry_after: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CircuitOpened(Event):
    """A breaker opened: the model is left alone for `retry_after` seconds."""

    retry_after: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CircuitHalfOpened(Event):
    """A breaker lets one probe through."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CircuitClosed(Event):
    """A breaker closed: the model answers again."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CacheLookedUp(Event):
    """A cache was asked.

    Args:
        outcome: "hit"; "stale" where what was found had outlived its time; "miss" where something was not found; or "error" where
            the store failed and the call went on without it.
        hits: Entries found.
        misses: Entries not found.
        saved: US dollars the hits would have cost, None where not known.
        age: Seconds since what was found was made, of several entries the oldest; None where nothing was.
        filled_by: The `traceparent` of the call that filled the entry, None where that was not traced. Vectors, of which a call
            takes many, do not know theirs.
    """

    outcome: Literal["hit", "stale", "miss", "error"]
    hits: int
    misses: int
    saved: Decimal | None = None
    age: float | None = None
    filled_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CacheRefreshed(Event):
    """An entry was asked for again behind a call that had been answered from it.

    Args:
        error: What failed, None where the entry is new.
    """

    error: Exception | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class CallJoined(Event):
    """A call shares what an identical one, `leader`, has sent, and sends nothing itself.

    Args:
        leader: The id of the other call.
        leader_span: Its span as `Call.span` has it, None where it has none.
    """

    leader: str
    leader_span: object | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PermitGranted(Event):
    """A limit let a request through after a wait.

    Args:
        waited: Seconds.
        limit: What it was that let it wait: the "rate" of requests or tokens, or the "concurrency".
    """

    waited: float
    limit: Literal["rate", "concurrency"] = "concurrency"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ModelSkipped(Event):
    """A model of a list could not serve, and the next one is asked."""

    next_model: str
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BatchDone(Event):
    """Part of a list of texts is embedded: `done` of `total`."""

    done: int
    total: int
