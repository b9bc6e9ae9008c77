"""The book of all sends, in an SQLite file."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override

from resilient_ai.core.budgets import Admission, Charge
from resilient_ai.core.clock import SystemClock
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.ledger import CallSpared, SendClosed, SendOpened
from resilient_ai.stores import _forks, _owed, _sqlite_budgets, _sqlite_queries
from resilient_ai.stores._budget_seeds import Seed, Span, span
from resilient_ai.stores._ledger_common import AskableLedger, Durability, finish_at_exit
from resilient_ai.stores._sqlite_budgets import SeedsMissing, Settlement
from resilient_ai.stores._thread_answer import answer_of

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")

_WAIT = 2.0
_WAIT_QUESTION = 30.0  # what is spent of thousands of budgets may have to be added up from all sends
_WITHIN_STUCK, _LOOK_EVERY = 3.0, 0.5  # seconds a question waits while nothing can be written, and how often it looks
_WITHIN_LOCKED = 1.7  # seconds a charge waits for a file that is locked, so that whoever waits for 2 s hears why


class SQLiteLedger(AskableLedger["sqlite3.Connection"]):
    """Keep one row per send, from before its bytes leave until its end is known.

    Reporting takes microseconds and never waits: a thread of its own gathers reports, for 5 ms or where many come for 25, and
    writes them in one transaction; `flush` waits for that. Until then the begin of a send is kept in a file beside the ledger,
    which outlives the process. Sends that were in flight when a process died are found by the next one that opens the ledger,
    and become "unknown".

    Reports that cannot be written wait in memory, up to 100,000 of them, while the file is locked or the disk is full, and
    questions fail after 3 s; reports beyond are counted in `lost` and complained about in the log. Where the path cannot be
    written at all the book is kept in memory, with one warning in the log and `in_memory` true, until it can be, which is tried
    every minute. A file that is deleted, moved or replaced meanwhile is begun anew, also with a warning.

    Amounts are kept as decimal text and added up exactly. Questions see everything that was reported before them. The
    ledger may be used from several threads and event loops and after a fork, and several processes may share a file on
    a local disk. At the end of the program what waits is written, within 2 s.

    It is a book of budgets as well: counters lie in the same file and are charged by one process at a time, so that a limit
    holds over all processes that share it; with ":memory:" it holds within the process. A budget that is new counts what the
    sends of its scope have cost so far. Charges that come while others are written share the next transaction. Where the file is
    locked, or its thread has much to do, a charge waits for 2 s. None is admitted where the path cannot be written.

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
        super().__init__(_sqlite_queries, durability)
        # Only whoever keeps a ledger pays for SQLite.
        from resilient_ai.stores._sqlite_schema import MEMORY, check  # noqa: PLC0415
        from resilient_ai.stores._sqlite_seeds import LedgerSeeds  # noqa: PLC0415
        from resilient_ai.stores._sqlite_writer import LedgerWriter  # noqa: PLC0415

        self.path = MEMORY if str(path) == MEMORY else str(Path(path).expanduser())
        check(self.path)
        self._new_writer = partial(LedgerWriter, self.path, full=durability == "durable")
        self._new_seeds = partial(LedgerSeeds, self.path)
        self._writer, self._seeds = self._new_writer(), self._new_seeds()
        self._clock = SystemClock()
        _forks.watch(self)
        finish_at_exit(self)

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
        self._writer.begin(row)

    def closed(self, row: SendClosed) -> None:
        """Write down how it ended; takes microseconds. The first end counts, unless it was "unknown"."""
        self._writer.put(row)

    def spared(self, row: CallSpared) -> None:
        """Write down what was not sent; takes microseconds."""
        self._writer.put(row)

    async def flush(self) -> None:
        """Wait until everything that was reported is written, however long that takes."""
        import sqlite3  # noqa: PLC0415 - as above

        try:
            await asyncio.wrap_future(self._writer.ask(lambda _: None))
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    @override
    def finish(self, within: float) -> list[Future[None]]:
        return [part.finish(within) for part in (self._seeds, self._writer) if part.running]

    async def charge(self, charges: Sequence[Charge]) -> Admission:
        """Add all charges in one step, or none of them where one does not fit.

        Whoever is cancelled, or has lost patience, keeps nothing: what was admitted nevertheless is given back.

        Raises:
            BookUnavailable: If the path or file cannot be written, or there was no answer for 2 s.
        """
        give_up_at = time.monotonic() + _WITHIN_LOCKED

        async def add(seeds: Mapping[Span, Seed] | None, within: float) -> Admission:
            asked = self._writer.charge(charges, give_up_at, seeds)
            try:
                return await self._answer_of(asked, within)
            except BaseException:
                _owed.forget(asked, charges, self.settle)
                raise

        return await self._with_seeds(add)

    def settle(self, charges: Sequence[Charge]) -> None:
        """Add charges without looking at limits; takes microseconds."""
        self._writer.put(Settlement(_owed.bounded(charges)))

    async def spent(self, charges: Sequence[Charge]) -> tuple[int, ...]:
        """Return what the counters of these charges hold, from `first` to `slice`, and add nothing.

        Raises:
            BookUnavailable: If the file cannot be read, or there was no answer for 30 s.
        """
        try:
            async with self._clock.timeout(_WAIT_QUESTION):
                await self._answer_of(self._writer.ask(lambda _: None, in_file=True), _WAIT)
                return await self._read(partial(_sqlite_budgets.spent, charges=charges))
        except TimeoutError as error:
            raise _unavailable(f"no answer within {_WAIT_QUESTION:g} s") from error

    def after_fork(self) -> None:
        """Leave the parent's thread, connection and unwritten reports to the parent."""
        _forks.abandoned.append((self._writer, self._seeds))
        self._writer, self._seeds = self._new_writer(), self._new_seeds()

    @override
    async def _catch_up(self) -> None:
        await self._in_writer(lambda _: None)

    @override
    async def _read(self, question: "Callable[[sqlite3.Connection], T]") -> T:
        import sqlite3  # noqa: PLC0415 - as above

        from resilient_ai.stores._sqlite_reader import read  # noqa: PLC0415 - as above

        if not self.in_memory:
            # The file may have been moved away, or replaced by another, while its writer has it open.
            with suppress(sqlite3.Error):
                return await read(self.path, question)
        return await self._in_writer(question)

    async def _in_writer(self, question: "Callable[[sqlite3.Connection], T]") -> T:
        import sqlite3  # noqa: PLC0415 - as above

        asked = self._writer.ask(question)
        answer = asyncio.wrap_future(asked)
        try:
            while not answer.done():
                await asyncio.wait([answer], timeout=_LOOK_EVERY)
                if self._writer.stuck_for >= _WITHIN_STUCK and not answer.done():
                    raise _unavailable(self._writer.trouble)
            return answer.result()
        except sqlite3.Error as error:
            raise _unavailable(error) from error
        finally:
            asked.cancel()
            answer.cancel()

    async def _with_seeds(
        self, add: "Callable[[Mapping[Span, Seed] | None, float], Awaitable[Admission]]"
    ) -> Admission:
        if self.in_memory:
            return await add(None, _WAIT)
        ends = self._clock.monotonic() + _WAIT
        try:
            return await add({}, _WAIT)
        except SeedsMissing as error:
            new = error.charges
        seeds: dict[Span, Seed] = {}
        # Asked for all before any is waited for, so that they are looked up together.
        for one, asked in [(one, self._seeds.look_up(one)) for one in new]:
            seeds[span(one)] = await self._answer_of(asked, ends - self._clock.monotonic(), keep=True)
        try:
            return await add(seeds, ends - self._clock.monotonic())
        except SeedsMissing as error:  # there were others, which somebody has deleted since
            raise _unavailable("counters were deleted meanwhile") from error
        finally:
            for one in new:
                self._seeds.used(one)

    async def _answer_of(self, asked: "Future[T]", within: float, *, keep: bool = False) -> T:
        import sqlite3  # noqa: PLC0415 - as above

        try:
            return await answer_of(asked, within=within, clock=self._clock, keep=keep)
        except TimeoutError as error:
            # The thread that has no time for it may know why.
            raise _unavailable(self._writer.trouble or f"no answer within {_WAIT:g} s") from error
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise _unavailable(error) from error


def _unavailable(why: object) -> BookUnavailable:
    return BookUnavailable(f"the ledger cannot be asked: {why}")
