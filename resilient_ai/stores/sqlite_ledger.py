"""The book of all sends, in an SQLite file."""

import asyncio
import atexit
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from resilient_ai.core.budgets import Admission, BookUnavailable, Charge
from resilient_ai.core.ledger import (
    CallSpared,
    Column,
    LedgerCall,
    LedgerRow,
    LedgerSend,
    LedgerTotal,
    SavedTotal,
    SendClosed,
    SendOpened,
)
from resilient_ai.stores import _forks, _ledger_budgets, _ledger_queries
from resilient_ai.stores._ledger_budgets import Settlement
from resilient_ai.stores._ledger_queries import Filter, Mark, Piece

if TYPE_CHECKING:
    import sqlite3
    from concurrent.futures import Future

T = TypeVar("T")
Durability = Literal["queued", "durable"]

_WITHIN_AT_EXIT = 2.0
_WITHIN_LOCKED = 2.0  # seconds a charge waits for a file that is locked
_ledgers: "weakref.WeakSet[SQLiteLedger]" = weakref.WeakSet()


class SQLiteLedger:
    """Keep one row per send, from before its bytes leave until its end is known.

    Reporting takes microseconds and never waits: a thread of its own gathers reports for about 5 ms and writes them in one
    transaction. A report is safe against the death of the process once it is written, and `flush` waits for that. Sends
    that were in flight when a process died are found by the next one that opens the file and become "unknown".

    Reports that cannot be written wait in memory, up to 100,000 of them, while the file is locked or the disk is full;
    those beyond are counted in `lost` and complained about in the log. A path that cannot be written at all makes the ledger
    work in memory, with one warning in the log and `in_memory` true.

    Amounts are kept as decimal text and added up exactly. Questions see everything that was reported before them. The
    ledger may be used from several threads and event loops and after a fork, and several processes may share a file on
    a local disk. At the end of the program what waits is written, within 2 s.

    It is a book of budgets as well: counters lie in the same file and are charged by one process at a time, so that a limit
    holds over all processes that share it; in memory it holds within the process. A budget that is new counts what the sends of
    its scope have cost so far. Where the file is locked, a charge waits for 2 s.

    Args:
        path: The file, created with mode 0600 if missing; ":memory:" keeps the book in memory until `aclose`.
        durability: With "queued" a written report survives the death of the process, with "durable" also a loss of
            power, at the price of one wait for the disk per group.

    Raises:
        ConfigurationError: If the file is no ledger, or one of a newer version.
        ValueError: If `durability` is not known.

    >>> import asyncio
    >>> async def main():
    ...     ledger = SQLiteLedger(":memory:")
    ...     ledger.opened(SendOpened(send_id="s", call_id="c", at=0.0, kind="chat", model="m", attempt=1))
    ...     ledger.closed(SendClosed(send_id="s", state="settled", cost=Decimal("0.0000097")))
    ...     total = await ledger.total()
    ...     await ledger.aclose()
    ...     return total
    >>> from decimal import Decimal
    >>> asyncio.run(main())
    LedgerTotal(sends=1, cost=Decimal('0.0000097'), wasted=Decimal('0'), unknown=0, input_tokens=0, output_tokens=0)
    """

    def __init__(self, path: str | Path, *, durability: Durability = "durable") -> None:
        if durability not in {"queued", "durable"}:
            raise ValueError(f"durability must be 'queued' or 'durable', got {durability!r}")
        # Only whoever keeps a ledger pays for SQLite.
        from resilient_ai.stores._ledger_schema import MEMORY, check  # noqa: PLC0415
        from resilient_ai.stores._ledger_writer import LedgerWriter  # noqa: PLC0415

        self.path = MEMORY if str(path) == MEMORY else str(Path(path).expanduser())
        self.durability = durability
        check(self.path)
        self._new_writer = partial(LedgerWriter, self.path, full=durability == "durable")
        self._writer = self._new_writer()
        _forks.watch(self)
        _ledgers.add(self)

    def __repr__(self) -> str:
        return f"SQLiteLedger({self.path!r}, durability={self.durability!r})"

    @property
    def lost(self) -> int:
        """Reports that could not be kept."""
        return self._writer.lost

    @property
    def in_memory(self) -> bool:
        """Whether the book is lost at the end, because that was asked for or the path cannot be written."""
        return self._writer.in_memory

    def opened(self, row: SendOpened) -> None:
        """Write down that a request is about to leave; takes microseconds."""
        self._writer.put(row)

    def closed(self, row: SendClosed) -> None:
        """Write down how it ended; takes microseconds. The first end counts, unless it was "unknown"."""
        self._writer.put(row)

    def spared(self, row: CallSpared) -> None:
        """Write down what was not sent; takes microseconds."""
        self._writer.put(row)

    async def flush(self) -> None:
        """Wait until everything that was reported is written, however long that takes."""
        await self._ask(lambda _: None)

    async def aclose(self) -> None:
        """Write everything, call sends that are still in flight "unknown", and close the file.

        What cannot be written within 5 s is given up and counted in `lost`. A ledger that is used again opens again.
        """
        if self._writer.running:
            await asyncio.shield(asyncio.wrap_future(self._writer.finish(5.0)))

    def close(self, within: float = 5.0) -> None:
        """Do what `aclose` does where there is no event loop, and wait for `within` seconds at most."""
        if self._writer.running:
            with suppress(TimeoutError):
                self._writer.finish(within).result(timeout=within)

    async def total(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        **named: str,
    ) -> LedgerTotal:
        """Add up sends.

        Args:
            since: Seconds since 1970-01-01 UTC; sends from that moment on.
            until: Seconds since 1970-01-01 UTC; sends before that moment.
            tags: Only sends with all of these tags; "model" and "kind" may be named as if they were tags.
            named: More tags, such as `tenant="a"`.
        """
        which = Filter(since, until, {**(tags or {}), **named})
        return await self._read(lambda connection: _ledger_queries.total(connection, which))

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
            tags: Only sends with all of these tags; "model" and "kind" may be named as if they were tags.

        Returns:
            One row per group, sorted by their keys; a send without a tag has None in its place.

        Raises:
            ValueError: If there is no column, or one is not known.
        """
        keys = _ledger_queries.expressions(columns)
        which = Filter(since, until, tags)
        return await self._read(lambda connection: _ledger_queries.by(connection, keys, which))

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
            tags: Only sends with all of these tags; "model" and "kind" may be named as if they were tags.

        Raises:
            ValueError: If `limit` is less than 1.
        """
        which = Filter(since, until, tags)
        _check_limit(limit)
        return await self._read(lambda connection: _ledger_queries.sends(connection, limit, call_id, which))

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
        which = Filter(since, until, tags)
        _check_limit(limit)
        return await self._read(lambda connection: _ledger_queries.calls(connection, limit, which))

    async def saved(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> SavedTotal:
        """Add up what was not sent; arguments are those of `total`."""
        which = Filter(since, until, tags)
        return await self._read(lambda connection: _ledger_queries.saved(connection, which))

    async def scan(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> AsyncIterator[Sequence[LedgerSend]]:
        """Return all sends that are there, the oldest first, up to a thousand at a time; arguments are those of `total`.

        Reports are written between two pieces, so however long the book is, a scan holds nobody up.
        """
        which = Filter(since, until, tags)
        mark: Mark | None = await self._read(_ledger_queries.start)
        while mark is not None:
            ask: Callable[[sqlite3.Connection], Piece] = partial(_ledger_queries.piece, which=which, mark=mark)
            found, mark = await self._read(ask)
            if found:
                yield found

    async def charge(self, charges: Sequence[Charge]) -> Admission:
        """Add all charges in one step, or none of them where one does not fit.

        Whoever is cancelled while waiting keeps nothing: what was admitted nevertheless is given back.

        Raises:
            BookUnavailable: If the file has been locked for 2 s, or cannot be written.
        """
        give_up_at = time.monotonic() + _WITHIN_LOCKED
        asked = self._writer.ask(
            lambda connection: _ledger_budgets.charge(connection, charges, give_up_at), give_up_at=give_up_at
        )
        try:
            return await _answer_of(asked)
        except BaseException:
            if not asked.cancel():
                asked.add_done_callback(partial(_give_back, self, charges))
            raise

    def settle(self, charges: Sequence[Charge]) -> None:
        """Add charges without looking at limits; takes microseconds."""
        self._writer.put(Settlement(tuple(charges)))

    async def spent(self, charges: Sequence[Charge]) -> tuple[int, ...]:
        """Return what the counters of these charges hold, from `first` to `slice`, and add nothing.

        Raises:
            BookUnavailable: If the file has been locked for 2 s, or cannot be read.
        """
        give_up_at = time.monotonic() + _WITHIN_LOCKED
        return await _answer_of(
            self._writer.ask(lambda connection: _ledger_budgets.spent(connection, charges), give_up_at=give_up_at)
        )

    def after_fork(self) -> None:
        """Leave the parent's thread, connection and unwritten reports to the parent."""
        _forks.abandoned.append(self._writer)
        self._writer = self._new_writer()

    async def _read(self, question: "Callable[[sqlite3.Connection], T]") -> T:
        """Ask something that may take long, in another thread than the one that writes."""
        import sqlite3  # noqa: PLC0415 - as above

        from resilient_ai.stores._ledger_reader import read  # noqa: PLC0415 - as above

        await self.flush()
        if not self.in_memory:
            # The file may have been moved away, or replaced by another, while its writer has it open.
            with suppress(sqlite3.Error):
                return await read(self.path, question)
        return await self._ask(question)

    async def _ask(self, question: "Callable[[sqlite3.Connection], T]") -> T:
        return await asyncio.wrap_future(self._writer.ask(question))


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be >= 1, got {limit}")


async def _answer_of(asked: "Future[T]") -> T:
    import sqlite3  # noqa: PLC0415 - as above

    try:
        return await asyncio.wrap_future(asked)
    except (sqlite3.Error, OverflowError, TimeoutError) as error:
        raise BookUnavailable(f"the ledger cannot be asked: {error}") from error


def _give_back(ledger: SQLiteLedger, charges: Sequence[Charge], asked: "Future[Admission]") -> None:
    if not asked.cancelled() and asked.exception() is None and asked.result().admitted:
        ledger.settle([replace(one, amount=-one.amount) for one in charges])


@atexit.register
def _finish_all() -> None:
    end = time.monotonic() + _WITHIN_AT_EXIT
    for ledger in list(_ledgers):
        ledger.close(max(0.0, end - time.monotonic()))
