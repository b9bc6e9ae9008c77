"""The book of all sends, and the counters of budgets, in a PostgreSQL that processes on several machines share."""

import asyncio
import atexit
import contextlib
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from resilient_ai.core.budgets import Admission, BookUnavailable, Charge
from resilient_ai.core.clock import SystemClock
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
from resilient_ai.stores import _forks
from resilient_ai.stores._postgres_queries import BEGIN, Filter, Place, Queries, check_columns
from resilient_ai.stores._thread_answer import answer_of

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
Durability = Literal["queued", "durable"]

_WITHIN_AT_EXIT = 2.0
_WAIT_CHARGE = 2.0
_WAIT_QUESTION = 2.0
_ledgers: "weakref.WeakSet[PostgresLedger]" = weakref.WeakSet()


class PostgresLedger:
    """Keep one row per send in a PostgreSQL, and budgets that hold over all processes and hosts.

    It takes the place of `SQLiteLedger` where several machines share a book. Reporting takes microseconds and never waits: a
    thread of its own gathers reports for about 5 ms and writes them in one transaction. While the server is away reports wait
    in memory, up to 100,000 of them, with one warning in the log; those beyond are counted in `lost`. Each report is written
    once, also where the connection broke while it was being committed. Amounts are exact.

    A send that was in flight when its process died becomes "unknown": at once where another process of the same machine looks,
    else when nothing was heard of the process for 60 s. If it lives after all, the end that it reports counts.

    Charges of budgets have a thread and a connection of their own, so that they do not wait behind sends, and questions
    another, which is closed when it is not used. Counters of one budget are charged by one transaction at a time. What is asked
    while the server is away fails with `BookUnavailable`; a charge at once, or within 2 s. A budget that is new begins with what
    the sends of its scope have cost.

    The tables lie in a schema of their own. Whoever comes first makes them, with Alembic. Poolers that hand connections on after
    each transaction are fine. PostgreSQL 12 or later.

    The ledger may be used from several threads and event loops and after a fork. At the end of the program what waits is
    written, within 2 s.

    Args:
        url: Such as "postgresql://user:password@host:5432/database?sslmode=require". Never shown with its secrets.
        durability: With "durable" a commit waits for the disk as the server's `synchronous_commit` says. With "queued" it does
            not wait, and a crash of the server loses its last moments of sends. Charges of budgets always wait.
        schema: Where the tables are; made if missing. Small letters, digits and underscores.

    Raises:
        ConfigurationError: If the package `psycopg` is missing, or `url` is no address of a PostgreSQL.
        ValueError: If `durability` or `schema` is out of its range.
    """

    def __init__(self, url: str, *, durability: Durability = "durable", schema: str = "resilient_ai") -> None:
        if durability not in {"queued", "durable"}:
            raise ValueError(f"durability must be 'queued' or 'durable', got {durability!r}")
        # Only whoever keeps a ledger there pays for the driver.
        from resilient_ai.stores._postgres_address import target_of  # noqa: PLC0415

        self.durability = durability
        self.schema = schema
        self._target = target_of(url, schema=schema, durable=durability == "durable")
        self.place = self._target.place
        self._queries = Queries(schema)
        self._clock = SystemClock()
        self._begin()
        _forks.watch(self)
        _ledgers.add(self)

    def __repr__(self) -> str:
        return f"PostgresLedger({self.place!r}, durability={self.durability!r}, schema={self.schema!r})"

    @property
    def lost(self) -> int:
        """Reports, and settled charges, that could not be kept."""
        return self._writer.lost + self._charges.lost

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
        """Wait until everything that was reported and settled is written, however long that takes."""
        marks = [self._writer.written()]
        if self._charges.running:
            marks.append(self._charges.written())
        for mark in marks:
            await asyncio.wrap_future(mark)

    async def aclose(self) -> None:
        """Write everything, call sends that are still in flight "unknown", and close the connections.

        What cannot be written within 5 s is given up and counted in `lost`. A ledger that is used again connects again.
        """
        for done in self.finish(5.0):
            await asyncio.shield(asyncio.wrap_future(done))

    def close(self, within: float = 5.0) -> None:
        """Do what `aclose` does where there is no event loop, and wait for `within` seconds at most."""
        _await_all(self.finish(within), within)

    def finish(self, within: float) -> "list[Future[None]]":
        """Begin to do what `aclose` does, and return what is done once that is; it is given up after so many seconds."""
        # A charge may still wait for sends to be written, so it ends before them.
        return [part.finish(within) for part in (self._charges, self._reader, self._writer) if part.running]

    async def total(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> LedgerTotal:
        """Add up sends.

        Args:
            since: Seconds since 1970-01-01 UTC; sends from that moment on.
            until: Seconds since 1970-01-01 UTC; sends before that moment.
            tags: Only sends with all of these tags; "model" and "kind" may be named as if they were tags.

        Raises:
            BookUnavailable: If the server cannot be asked; so does every other question.
        """
        return await self._ask(lambda connection: self._queries.total(connection, Filter(since, until, tags)))

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
            ValueError: If there is no column, or one is not known.
        """
        check_columns(columns)
        return await self._ask(lambda connection: self._queries.by(connection, columns, Filter(since, until, tags)))

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
            ValueError: If `limit` is less than 1.
        """
        _check_limit(limit)
        return await self._ask(
            lambda connection: self._queries.sends(connection, limit, call_id, Filter(since, until, tags))
        )

    async def calls(
        self,
        *,
        limit: int | None = 100,
        since: float | None = None,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> list[LedgerCall]:
        """Return what the latest calls came to, the newest first; arguments and errors are those of `sends`."""
        _check_limit(limit)
        return await self._ask(lambda connection: self._queries.calls(connection, limit, Filter(since, until, tags)))

    async def saved(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> SavedTotal:
        """Add up what was not sent; arguments are those of `total`."""
        return await self._ask(lambda connection: self._queries.saved(connection, Filter(since, until, tags)))

    async def scan(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> AsyncIterator[Sequence[LedgerSend]]:
        """Return all sends that are there now, the oldest first, up to 1,000 at a time; arguments are those of `total`."""
        last = await self._ask(self._queries.last)
        place: Place | None = BEGIN
        while place is not None:
            page = partial(self._queries.page, after=place, last=last, which=Filter(since, until, tags))
            sends, place = await asyncio.wrap_future(self._reader.ask(page))
            if sends:
                yield sends

    async def charge(self, charges: Sequence[Charge]) -> Admission:
        """Add all charges in one step, or none of them where one does not fit.

        A caller that is cancelled, or that has lost patience, leaves nothing reserved.

        Raises:
            BookUnavailable: If the server cannot be asked, or not within 2 s.
        """
        return await self._charge(tuple(charges), adds=True)

    def settle(self, charges: Sequence[Charge]) -> None:
        """Add charges without looking at limits; takes microseconds."""
        if charges:
            self._charges.settle(tuple(charges))

    async def spent(self, charges: Sequence[Charge]) -> tuple[int, ...]:
        """Return what the counters of these charges hold, from `first` to `slice`, and add nothing.

        Raises:
            BookUnavailable: If the server cannot be asked, or not within 2 s.
        """
        return (await self._charge(tuple(charges), adds=False)).spent

    def after_fork(self) -> None:
        """Leave the parent's threads, connections and unwritten reports to the parent."""
        _forks.abandoned.append((self._writer, self._charges, self._reader))
        self._begin()

    def _begin(self) -> None:
        from resilient_ai.stores._postgres_charges import PostgresCharges  # noqa: PLC0415
        from resilient_ai.stores._postgres_reader import PostgresReader  # noqa: PLC0415
        from resilient_ai.stores._postgres_writer import PostgresWriter  # noqa: PLC0415

        self._writer = PostgresWriter(self._target)
        self._charges = PostgresCharges(self._target, self._writer.written_if_any)
        self._reader = PostgresReader(self._target)

    async def _ask(self, question: "Callable[[psycopg.Connection[Any]], T]") -> T:
        written = self._writer.written()
        while not written.done():
            # Whoever cancels waits no longer, and disturbs nobody else who waits for the same.
            await asyncio.wait([asyncio.wrap_future(written)], timeout=_WAIT_QUESTION)
            if self._writer.away is not None and not written.done():
                raise BookUnavailable(f"{self.place} cannot be asked: {self._writer.away}")
        return await asyncio.wrap_future(self._reader.ask(question))

    async def _charge(self, charges: Sequence[Charge], *, adds: bool) -> Admission:
        if not charges:
            return Admission(admitted=True, spent=())
        asked = self._charges.ask(charges, adds=adds).answer
        try:
            return await answer_of(asked, within=_WAIT_CHARGE, clock=self._clock)
        except BaseException as error:
            if adds and not asked.cancelled():
                asked.add_done_callback(partial(_give_back, self, charges))
            if isinstance(error, TimeoutError):
                raise BookUnavailable(f"{self.place} gave no answer within {_WAIT_CHARGE:g} s") from None
            raise


def _give_back(ledger: PostgresLedger, charges: Sequence[Charge], asked: "Future[Admission]") -> None:
    if not asked.cancelled() and asked.exception() is None and asked.result().admitted:
        ledger.settle([replace(charge, amount=-charge.amount) for charge in charges])


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be >= 1, got {limit}")


def _await_all(futures: "Iterable[Future[None]]", within: float) -> None:
    end = time.monotonic() + within
    for future in futures:
        with contextlib.suppress(TimeoutError):
            future.result(max(0.0, end - time.monotonic()))


@atexit.register
def _finish_all() -> None:
    end = time.monotonic() + _WITHIN_AT_EXIT
    finishing = [done for ledger in list(_ledgers) for done in ledger.finish(_WITHIN_AT_EXIT)]
    _await_all(finishing, end - time.monotonic())
