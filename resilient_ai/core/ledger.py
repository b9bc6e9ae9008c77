"""The book of all sends: what is written into it, and what can be asked of it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol

from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.results import Usage

SendOutcome = Literal["settled", "estimated", "unknown", "never_sent"]
SendState = Literal["sent"] | SendOutcome
Column = Literal["model", "kind", "day", "tenant", "user", "feature", "environment", "state"]
COLUMNS: tuple[Column, ...] = ("model", "kind", "day", "tenant", "user", "feature", "environment", "state")


# Two of these are made for every send. Making them frozen takes three times as long, and naming each value twice as long; nobody
# changes them all the same.
@dataclass(slots=True)
class SendOpened:
    """A row of the ledger as it is written before bytes leave.

    Args:
        send_id: Unique name of this send.
        call_id: The call it belongs to; a call of several tries or batches has several sends.
        at: Seconds since 1970-01-01 UTC.
        kind: The operation: "chat", "stream", "complete", "embed" or "image".
        model: The model that is asked, of several the one whose turn it is.
        attempt: Which try of this model it is, from 1.
        tags: Tenant, user, feature and whatever else the caller named.
    """

    send_id: str
    call_id: str
    at: float
    kind: str
    model: str
    attempt: int
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


class WhichSend(NamedTuple):
    """One request among all that are sent.

    Args:
        call_id: The call it belongs to.
        kind: The operation: "chat", "stream", "complete", "embed" or "image".
        model: The model that was asked.
        part: Which body of the call it sent: a batch, another model, the rest of a broken stream; "" for the first.
        attempt: Which try of that body it was, from 1.
        hedge: Whether it was the second of two requests for one answer.
    """

    call_id: str
    kind: str
    model: str
    part: str = ""
    attempt: int = 1
    hedge: bool = False


@dataclass(slots=True)
class SendClosed:
    """The end of a row: exactly one per send.

    Args:
        send_id: The name that the row was opened with.
        state: "settled" with the service's own figure, "estimated" by us, "unknown", or "never_sent".
        cost: US dollars, None where not known.
        list_cost: What the price table says it costs, None where it cannot say; beside `cost` it shows prices that have moved.
        used: Whether its answer was given to the caller; what was not is wasted.
        usage: The tokens that were counted, None where nobody told.
        service_tier: The tier that served it, where the service says so.
        error: Name of the error's class, None where it succeeded.
        elapsed: Seconds from the opening of the row to its end.
        which: Which request it was, for those who watch sends; None where nobody does, as a ledger has it from `SendOpened`.
    """

    send_id: str
    state: SendOutcome
    cost: Decimal | None = None
    list_cost: Decimal | None = None
    used: bool = True
    usage: Usage | None = None
    service_tier: str | None = None
    error: str | None = None
    elapsed: float = 0.0
    which: WhichSend | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSpared:
    """A call, or a part of one, that was not sent because its answer was there or on its way.

    Args:
        at: Seconds since 1970-01-01 UTC.
        outcome: "hit", "stale", or "joined".
        hits: Answers, or vectors.
        saved: US dollars it would have cost, None where not known.
    """

    call_id: str
    at: float
    kind: str
    model: str
    outcome: Literal["hit", "stale", "joined"]
    hits: int
    saved: Decimal | None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


class Ledger(Protocol):
    """Where sends are written down.

    `opened` and `closed` are called on the path of every request, also while a task is being cancelled and from the garbage
    collector, so they are synchronous and never wait; writing happens behind them.
    """

    def opened(self, row: SendOpened) -> None:
        """Write down that a request is about to leave."""
        ...

    def closed(self, row: SendClosed) -> None:
        """Write down how it ended."""
        ...

    async def flush(self) -> None:
        """Wait until everything that was reported is on disk."""
        ...

    async def aclose(self) -> None:
        """Flush, and let go of files and connections."""
        ...


class Savings(Protocol):
    """Where it is written down what was not sent; a ledger is one."""

    def spared(self, row: CallSpared) -> None:
        """Write down what was not sent; as the methods of a `Ledger` it never waits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTotal:
    """Sums over sends.

    Args:
        sends: Rows of the book, those included that were never sent.
        cost: US dollars, over the sends whose cost is known; None where it is known of none, and of some unknown.
        wasted: The part of `cost` that was spent on sends whose answer nobody got.
        unknown: Sends whose cost is not known: in flight, of unknown end, or of a model without a price.
        input_tokens: Tokens of the prompts, as far as they are known.
        output_tokens: Tokens of the answers, as far as they are known.
    """

    sends: int
    cost: Decimal | None
    wasted: Decimal = Decimal(0)
    unknown: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow(LedgerTotal):
    """Sums over the sends of one group.

    Args:
        key: What the sends of the group have in common, in the order of the columns that were asked for.
    """

    key: tuple[str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSend:
    """One send as the book has it; `state` is "sent" while it is in flight, and `used` then None."""

    send_id: str
    call_id: str
    at: float
    kind: str
    model: str
    attempt: int
    state: SendState
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    cost: Decimal | None = None
    list_cost: Decimal | None = None
    used: bool | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    service_tier: str | None = None
    error: str | None = None
    elapsed: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCall:
    """What one call came to.

    Args:
        at: When its first send was opened, in seconds since 1970-01-01 UTC.
        models: The models that were asked, in the order of the alphabet.
        sends: Requests, those included that never left.
        cost: US dollars, over the sends whose cost is known; None where it is known of none, and of some unknown.
        wasted: The part of `cost` that was spent on sends whose answer nobody got.
        unknown: Sends whose cost is not known.
        tags: Those of the call.
    """

    call_id: str
    at: float
    kind: str
    models: tuple[str, ...]
    sends: int
    cost: Decimal | None
    wasted: Decimal
    unknown: int
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedTotal:
    """What the cache and shared sends have spared.

    Args:
        calls: Calls that were answered, at least in part, without a send.
        hits: Answers and vectors that were not asked for.
        saved: US dollars they would have cost, as far as that is known.
        unknown: Calls of which it is not known.
    """

    calls: int
    hits: int
    saved: Decimal
    unknown: int


class CostBook(Protocol):
    """What can be asked of a ledger. Every question sees what was reported before it.

    `since` and `until` are seconds since 1970-01-01 UTC: sends from that moment on, and sends before that moment. `tags` counts
    only sends with all of these tags; "model" and "kind" may be named there as if they were tags.

    Where it cannot be asked it raises `BookUnavailable`, and `InvalidInput` where "kind" is one that there is not, `since` comes
    after `until`, a column is not known or named twice, or `limit` is less than 1.
    """

    async def total(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> LedgerTotal:
        """Add up sends."""
        ...

    async def by(
        self,
        *columns: Column,
        since: float | None = None,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[LedgerRow]:
        """Add up sends in groups, sorted by their keys; a send without a tag has None in its place, which comes first."""
        ...

    async def sends(
        self,
        *,
        limit: int | None = 100,
        call_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[LedgerSend]:
        """Return the latest sends, the newest first; all of them where `limit` is None."""
        ...

    async def calls(
        self,
        *,
        limit: int | None = 100,
        since: float | None = None,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[LedgerCall]:
        """Return the latest calls, the newest first; a call counts where its sends do."""
        ...

    async def saved(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> SavedTotal:
        """Add up what was not sent."""
        ...

    def scan(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> AsyncIterator[Sequence[LedgerSend]]:
        """Return all sends, the oldest first, some at a time, in bounded memory."""
        ...


class CostLedger(Ledger, CostBook, Protocol):
    """A ledger that is its own book: what is written down in it can be asked of it."""


def check_period(since: float | None, until: float | None, *, given: tuple[object, object] | None = None) -> None:
    """Check that a period does not end before it begins; one that is empty has nothing in it.

    Args:
        since: When it begins, None for ever.
        until: When it ends, None for ever.
        given: The two as the caller has written them.

    Raises:
        InvalidInput: If it ends before it begins.
    """
    if since is not None and until is not None and since > until:
        begin, end = given or (since, until)
        raise InvalidInput(f"since: must not come after until, got {begin!r} and {end!r}", field="since", value=begin)
