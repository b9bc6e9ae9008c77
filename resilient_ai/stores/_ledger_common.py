"""What all ledgers have in common: how they are asked, what they refuse, and how they end with the program."""

import asyncio
import atexit
import contextlib
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from decimal import Decimal
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, cast

from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.kinds import check_filter
from resilient_ai.core.ledger import (
    COLUMNS,
    Column,
    LedgerCall,
    LedgerRow,
    LedgerSend,
    LedgerTotal,
    SavedTotal,
    check_period,
)

T = TypeVar("T")
Connection = TypeVar("Connection")
Asked = TypeVar("Asked", contravariant=True)
Durability = Literal["queued", "durable"]

_WITHIN_AT_EXIT = 2.0
_MOST_TOKENS = 2**40
_DIGITS = 30  # in front of the point, or behind it up to the first that is not zero
_ledgers: "weakref.WeakSet[AskableLedger[Any]]" = weakref.WeakSet()


class Filter(NamedTuple):
    """Which rows a question is about; bounds and tags are those of `CostBook`.

    Args:
        kinds: Only rows of one of these kinds; None for all.
    """

    since: float | None = None
    until: float | None = None
    tags: Mapping[str, str] | None = None
    kinds: tuple[str, ...] | None = None


class Mark(NamedTuple):
    """How far a scan has come, and the newest row that it will tell of; rows are numbered as they are written."""

    at: float
    row: int
    newest: int

    @classmethod
    def before(cls, newest: int) -> "Mark":
        """Return the mark that every row comes after."""
        return cls(float("-inf"), 0, newest)


Piece = tuple[list[LedgerSend], Mark | None]


class Queries(Protocol[Asked]):
    """The SQL of the questions, over a connection of the database's own kind."""

    def total(self, connection: Asked, which: Filter) -> LedgerTotal:
        """Add up sends."""
        ...

    def by(self, connection: Asked, columns: Sequence[str], which: Filter) -> list[LedgerRow]:
        """Add up sends in groups, sorted by their keys."""
        ...

    def sends(self, connection: Asked, limit: int | None, call_id: str | None, which: Filter) -> list[LedgerSend]:
        """Return the latest sends, the newest first."""
        ...

    def calls(self, connection: Asked, limit: int | None, which: Filter) -> list[LedgerCall]:
        """Return the latest calls, the newest first."""
        ...

    def saved(self, connection: Asked, which: Filter) -> SavedTotal:
        """Add up what was not sent."""
        ...

    def start(self, connection: Asked) -> Mark:
        """Return where a scan begins; what is written from now on is not in it."""
        ...

    def piece(self, connection: Asked, which: Filter, mark: Mark) -> Piece:
        """Return the next sends after a mark, the oldest first, and the next mark; None at the end."""
        ...


class AskableLedger(ABC, Generic[Connection]):
    """The questions of a `CostBook`, and an end that nothing is lost at."""

    def __init__(self, queries: Queries[Connection], durability: Durability) -> None:
        if durability not in {"queued", "durable"}:
            raise ValueError(f"durability must be 'queued' or 'durable', got {durability!r}")
        self.durability = durability
        self._queries = queries

    async def aclose(self) -> None:
        """Write everything, call sends that are still in flight "unknown", and let go of the database.

        What cannot be written within 5 s is given up and counted in `lost`. A ledger that is used again opens again.
        """
        for done in self.finish(5.0):
            await asyncio.shield(asyncio.wrap_future(done))

    def close(self, within: float = 5.0) -> None:
        """Do what `aclose` does where there is no event loop, and wait for `within` seconds at most."""
        _await_all(self.finish(within), within)

    @abstractmethod
    def finish(self, within: float) -> list[Future[None]]:
        """Begin to do what `aclose` does, and return what is done once that is; it is given up after so many seconds."""

    async def total(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> LedgerTotal:
        """Add up sends.

        Args:
            since: Seconds since 1970-01-01 UTC; sends from that moment on.
            until: Seconds since 1970-01-01 UTC; sends before that moment.
            tags: Only sends with all of these tags; "model" and "kind" may be named as if they were tags.

        Raises:
            BookUnavailable: If the book cannot be asked; so does every other question.
            InvalidInput: If `tags` name a kind that there is not, or `since` comes after `until`; so does every other question.
        """
        which = _filter(since, until, tags)
        return await self._ask(lambda connection: self._queries.total(connection, which))

    async def by(
        self,
        *columns: Column,
        since: float | None = None,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[LedgerRow]:
        """Add up sends in groups.

        Args:
            columns: What makes a group: "model", "kind", "day" (in UTC), "tenant", "user", "feature", "environment", "state".
            since: Seconds since 1970-01-01 UTC; sends from that moment on.
            until: Seconds since 1970-01-01 UTC; sends before that moment.
            tags: Only sends with all of these tags.

        Returns:
            One row per group, sorted by their keys; a send without a tag has None in its place, which comes first.

        Raises:
            InvalidInput: If there is no column, or one is not known or named twice.
        """
        which = _filter(since, until, tags)
        _check_columns(columns)
        return await self._ask(lambda connection: self._queries.by(connection, columns, which))

    async def sends(
        self,
        *,
        limit: int | None = 100,
        call_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[LedgerSend]:
        """Return the latest sends, the newest first.

        Args:
            limit: How many at most. At least 1; None for all of them.
            call_id: Only sends of this call.
            since: Seconds since 1970-01-01 UTC; sends from that moment on.
            until: Seconds since 1970-01-01 UTC; sends before that moment.
            tags: Only sends with all of these tags.

        Raises:
            InvalidInput: If `limit` is less than 1, or no whole number.
        """
        which = _filter(since, until, tags)
        _check_limit(limit)
        return await self._ask(lambda connection: self._queries.sends(connection, limit, call_id, which))

    async def calls(
        self,
        *,
        limit: int | None = 100,
        since: float | None = None,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[LedgerCall]:
        """Return what the latest calls came to, the newest first; arguments and errors are those of `sends`.

        A call counts where its sends do, so of one that began before `since` only what came later is there.
        """
        which = _filter(since, until, tags)
        _check_limit(limit)
        return await self._ask(lambda connection: self._queries.calls(connection, limit, which))

    async def saved(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> SavedTotal:
        """Add up what was not sent; arguments are those of `total`."""
        which = _filter(since, until, tags)
        return await self._ask(lambda connection: self._queries.saved(connection, which))

    async def scan(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> AsyncIterator[Sequence[LedgerSend]]:
        """Return all sends that are there now, the oldest first, up to 1,000 at a time; arguments are those of `total`.

        However long the book is, a scan holds up nobody who reports.
        """
        which = _filter(since, until, tags)
        mark: Mark | None = await self._ask(self._queries.start)
        while mark is not None:
            found, mark = await self._read(partial(self._queries.piece, which=which, mark=mark))
            if found:
                yield found

    async def _ask(self, question: Callable[[Connection], T]) -> T:
        await self._catch_up()
        return await self._read(question)

    @abstractmethod
    async def _catch_up(self) -> None:
        """Wait until everything that was reported can be seen by whoever asks."""

    @abstractmethod
    async def _read(self, question: Callable[[Connection], T]) -> T:
        """Ask what may take long, so that it holds up nobody else."""


def known_sum(amount: Decimal | str | None, unknown: int) -> Decimal | None:
    """Return a sum of costs: None where no cost is known of sends that may have cost something.

    >>> known_sum("0.5", 1), known_sum(None, 1), known_sum(None, 0)
    (Decimal('0.5'), None, Decimal('0'))
    """
    if amount is None:
        return None if unknown else Decimal(0)
    return Decimal(amount)


def believable(count: int | None) -> int | None:
    """Return how many tokens a send had; None where nobody can mean that, and no column could add it up.

    >>> believable(7), believable(2**64), believable(None)
    (7, None, None)
    """
    return count if count is None or -_MOST_TOKENS <= count <= _MOST_TOKENS else None


def written_amount(amount: Decimal | None) -> str | None:
    """Return dollars as the text of a number; None where it is none, or has more digits than anybody can mean.

    >>> written_amount(Decimal("1E-7")), written_amount(Decimal("1E+40")), written_amount(Decimal("NaN"))
    ('0.0000001', None, None)
    """
    if amount is None or not amount.is_finite() or (amount and not -_DIGITS <= amount.adjusted() <= _DIGITS):
        return None
    return format(amount, "f") if amount else "0"


def finish_at_exit(ledger: AskableLedger[Any]) -> None:
    """Have what waits in a ledger written at the end of the program, within 2 s for all ledgers together."""
    _ledgers.add(ledger)


def _filter(since: float | None, until: float | None, tags: Mapping[str, str] | None) -> Filter:
    check_filter(tags)
    check_period(since, until)
    return Filter(since, until, tags)


def _check_columns(columns: Sequence[str]) -> None:
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or not columns:
        raise InvalidInput(
            f"columns must be some of {', '.join(COLUMNS)}, got {unknown or 'none'}", field="columns", value=columns
        )
    if len(set(columns)) < len(columns):
        raise InvalidInput(f"columns must be named once each, got {list(columns)}", field="columns", value=columns)


def _check_limit(limit: int | None) -> None:
    given = cast("object", limit)
    if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < 1):
        raise InvalidInput(f"limit must be >= 1, got {given!r}", field="limit", value=given)


def _await_all(futures: Iterable[Future[None]], within: float) -> None:
    end = time.monotonic() + within
    for future in futures:
        with contextlib.suppress(TimeoutError):
            future.result(max(0.0, end - time.monotonic()))


@atexit.register
def _finish_all() -> None:
    end = time.monotonic() + _WITHIN_AT_EXIT
    finishing = [done for ledger in list(_ledgers) for done in ledger.finish(_WITHIN_AT_EXIT)]
    _await_all(finishing, end - time.monotonic())
