"""The book of all sends, and the counters of budgets, in a PostgreSQL that processes on several machines share."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import override

from resilient_ai.core.budgets import Admission, Charge
from resilient_ai.core.clock import SystemClock
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.ledger import CallSpared, SendClosed, SendOpened
from resilient_ai.stores import _forks, _owed
from resilient_ai.stores._ledger_common import AskableLedger, Durability, finish_at_exit
from resilient_ai.stores._postgres_queries import Queries
from resilient_ai.stores._thread_answer import answer_of

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

_WAIT_CHARGE = 2.0
_WAIT_QUESTION = 2.0
_WAIT_SPENT = 30.0  # what is spent of thousands of budgets may have to be added up from all sends


class PostgresLedger(AskableLedger["psycopg.Connection[Any]"]):
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
        folder: Where sends of the last milliseconds are kept on this machine until the server has them, made if missing. What a
            process that was killed has left there another one of the same machine brings in, as "unknown". With None a process
            that is killed takes what it reported in its last milliseconds along.

    Raises:
        ConfigurationError: If the package `psycopg` is missing, or `url` is no address of a PostgreSQL.
        ValueError: If `durability` or `schema` is out of its range.
    """

    def __init__(
        self,
        url: str,
        *,
        durability: Durability = "durable",
        schema: str = "resilient_ai",
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(Queries(schema), durability)
        # Only whoever keeps a ledger there pays for the driver.
        from resilient_ai.stores._postgres_address import target_of  # noqa: PLC0415
        from resilient_ai.stores._postgres_counters import Counters  # noqa: PLC0415

        self.schema = schema
        self._target = target_of(url, schema=schema, durable=durability == "durable")
        self.place = self._target.place
        self._counters = Counters(schema)
        self._intents = None if folder is None else _intents_in(Path(folder).expanduser(), f"{self.place} {schema}")
        self._clock = SystemClock()
        self._begin()
        _forks.watch(self)
        finish_at_exit(self)

    def __repr__(self) -> str:
        return f"PostgresLedger({self.place!r}, durability={self.durability!r}, schema={self.schema!r})"

    @property
    def lost(self) -> int:
        """Reports, and settled charges, that could not be kept."""
        return self._writer.lost + self._charges.lost

    def opened(self, row: SendOpened) -> None:
        """Write down that a request is about to leave; takes microseconds."""
        self._writer.begin(row)

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

    @override
    def finish(self, within: float) -> list[Future[None]]:
        """Begin to do what `aclose` does, and return what is done once that is; it is given up after so many seconds."""
        # A charge may still wait for sends to be written, so it ends before them.
        return [part.finish(within) for part in (self._charges, self._reader, self._writer) if part.running]

    async def charge(self, charges: Sequence[Charge]) -> Admission:
        """Add all charges in one step, or none of them where one does not fit.

        A caller that is cancelled, or that has lost patience, leaves nothing reserved.

        Raises:
            BookUnavailable: If the server cannot be asked, or not within 2 s.
        """
        if not charges:
            return Admission(admitted=True, spent=())
        return await self._charge(tuple(charges))

    def settle(self, charges: Sequence[Charge]) -> None:
        """Add charges without looking at limits; takes microseconds."""
        if charges:
            self._charges.settle(tuple(charges))

    async def spent(self, charges: Sequence[Charge]) -> tuple[int, ...]:
        """Return what the counters of these charges hold, from `first` to `slice`, and add nothing.

        Raises:
            BookUnavailable: If the server cannot be asked, or has no answer within 30 s.
        """
        try:
            async with self._clock.timeout(_WAIT_SPENT):
                await self._catch_up()
                await self._charge(())  # so that what was settled is written
                return await self._read(partial(self._counters.spent, charges=tuple(charges)))
        except TimeoutError:
            raise BookUnavailable(f"{self.place} gave no answer within {_WAIT_SPENT:g} s") from None

    def after_fork(self) -> None:
        """Leave the parent's threads, connections and unwritten reports to the parent."""
        _forks.abandoned.append((self._writer, self._charges, self._reader))
        self._begin()

    def _begin(self) -> None:
        from resilient_ai.stores._postgres_charges import PostgresCharges  # noqa: PLC0415
        from resilient_ai.stores._postgres_reader import PostgresReader  # noqa: PLC0415
        from resilient_ai.stores._postgres_writer import PostgresWriter  # noqa: PLC0415

        self._writer = PostgresWriter(self._target, self._intents)
        self._charges = PostgresCharges(self._target, self._writer.written_if_any)
        self._reader = PostgresReader(self._target)

    @override
    async def _catch_up(self) -> None:
        written = self._writer.written()
        while not written.done():
            # Whoever cancels waits no longer, and disturbs nobody else who waits for the same.
            await asyncio.wait([asyncio.wrap_future(written)], timeout=_WAIT_QUESTION)
            if self._writer.away is not None and not written.done():
                raise BookUnavailable(f"{self.place} cannot be asked: {self._writer.away}")

    @override
    async def _read(self, question: "Callable[[psycopg.Connection[Any]], T]") -> T:
        return await asyncio.wrap_future(self._reader.ask(question))

    async def _charge(self, charges: Sequence[Charge]) -> Admission:
        asked = self._charges.ask(charges).answer
        try:
            return await answer_of(asked, within=_WAIT_CHARGE, clock=self._clock)
        except BaseException as error:
            _owed.forget(asked, charges, self.settle)
            if isinstance(error, TimeoutError):
                raise BookUnavailable(f"{self.place} gave no answer within {_WAIT_CHARGE:g} s") from None
            raise


def _intents_in(folder: Path, place: str) -> Path:
    # Several ledgers may have the same folder.
    return folder / f"ledger-{hashlib.sha256(place.encode()).hexdigest()[:12]}-intents"
