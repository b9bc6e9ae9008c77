"""The book of all sends, in an SQLite file."""

import asyncio
import atexit
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from resilient_ai.core.protocols import SendClosed, SendOpened
from resilient_ai.stores import _forks, _ledger_queries
from resilient_ai.stores._ledger_queries import Column, LedgerRow, LedgerSend, LedgerTotal

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")
Durability = Literal["queued", "durable"]

_WITHIN_AT_EXIT = 2.0
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
    LedgerTotal(sends=1, cost=Decimal('0.0000097'), unknown=0, input_tokens=0, output_tokens=0)
    """

    def __init__(self, path: str | Path, *, durability: Durability = "queued") -> None:
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

    async def total(self, since: float | None = None, until: float | None = None, **tags: str) -> LedgerTotal:
        """Add up sends.

        Args:
            since: Seconds since 1970-01-01 UTC; sends from that moment on.
            until: Seconds since 1970-01-01 UTC; sends before that moment.
            tags: Only sends with these tags, such as `tenant="a"`.
        """
        return await self._ask(lambda connection: _ledger_queries.total(connection, since, until, tags))

    async def by(self, *columns: Column, since: float | None = None, until: float | None = None) -> list[LedgerRow]:
        """Add up sends in groups.

        Args:
            columns: What makes a group: "model", "kind", "day" (in UTC), "tenant", "user", "feature", "environment", "state".
            since: Seconds since 1970-01-01 UTC; sends from that moment on.
            until: Seconds since 1970-01-01 UTC; sends before that moment.

        Returns:
            One row per group, sorted by their keys; a send without a tag has None in its place.

        Raises:
            ValueError: If there is no column, or one is not known.
        """
        keys = _ledger_queries.expressions(columns)
        return await self._ask(lambda connection: _ledger_queries.by(connection, keys, since, until))

    async def sends(self, *, limit: int = 100, call_id: str | None = None) -> list[LedgerSend]:
        """Return the latest sends, the newest first.

        Args:
            limit: How many at most. At least 1.
            call_id: Only sends of this call.

        Raises:
            ValueError: If `limit` is less than 1.
        """
        if limit < 1:
            raise ValueError(f"limit must be >= 1, got {limit}")
        return await self._ask(lambda connection: _ledger_queries.sends(connection, limit, call_id))

    def after_fork(self) -> None:
        """Leave the parent's thread, connection and unwritten reports to the parent."""
        _forks.abandoned.append(self._writer)
        self._writer = self._new_writer()

    async def _ask(self, question: "Callable[[sqlite3.Connection], T]") -> T:
        return await asyncio.wrap_future(self._writer.ask(question))


@atexit.register
def _finish_all() -> None:
    end = time.monotonic() + _WITHIN_AT_EXIT
    for ledger in list(_ledgers):
        ledger.close(max(0.0, end - time.monotonic()))
