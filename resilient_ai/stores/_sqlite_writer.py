"""What the one thread does that touches the file of a `SQLiteLedger`: it writes reports in groups, and answers questions."""

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from resilient_ai.core.budgets import Admission, Charge
from resilient_ai.core.ledger import SendOpened
from resilient_ai.core.log import Log
from resilient_ai.stores._budget_seeds import Seed, Span
from resilient_ai.stores._forks import using_file
from resilient_ai.stores._ledger_intents import Intents, intents_of
from resilient_ai.stores._sqlite_budgets import Ask, charge, fail
from resilient_ai.stores._sqlite_file import LedgerFile
from resilient_ai.stores._sqlite_rows import Report
from resilient_ai.stores._sqlite_schema import MEMORY
from resilient_ai.stores._worker import Worker

T = TypeVar("T")

_log = Log("resilient_ai.stores")
_GATHER = 0.005
_APART = 0.025  # so that a commit, which waits for the disk, is shared by many calls where there are many
_MOST = 1_000
_TOGETHER = 200  # charges in one transaction, so that other processes, and a fork, need not wait long for its end
_LOUD_EVERY = 10_000
_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0)


class _Question:
    """Something to do with the connection once everything reported before is written."""

    def __init__(self, ask: Callable[[sqlite3.Connection], Any], *, in_file: bool) -> None:
        self.future: Future[Any] = Future()
        self._ask = ask
        self._in_file = in_file

    def answer(self, connection: sqlite3.Connection | None, refused: str | None) -> None:
        """Ask, and hand the answer over."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            if connection is None or (refused is not None and self._in_file):
                raise _unopened(refused)  # noqa: TRY301
            self.future.set_result(self._ask(connection))
        except Exception as error:  # noqa: BLE001  # it belongs to whoever asked
            self.future.set_exception(error)


class LedgerWriter:
    """Takes reports from any thread at once, and writes them in groups.

    Reports that cannot be written wait, up to `max_waiting` of them; those beyond are counted in `lost` and complained about.

    Args:
        path: The file, or ":memory:".
        full: Whether every commit waits for the disk.
        max_waiting: Reports that may wait.
    """

    def __init__(self, path: str, *, full: bool, max_waiting: int = 100_000) -> None:
        self.path = path
        self.lost = 0
        self.trouble: str | None = None  # why nothing can be written just now
        self._troubled_at = 0.0
        self._told = 0
        self._max_waiting = max_waiting
        self._losing = threading.RLock()
        self._worker: Worker[Report | Ask | _Question] = Worker(
            "resilient-ai-ledger", self._work, self._end, gather=_GATHER, apart=_APART, most=_MOST
        )
        self._waiting = self._worker.count_waiting
        self._enqueue = self._worker.enqueue
        # Held here, so that a fork does not close it along with what the child has of the thread.
        self._file = LedgerFile(path, full=full)
        self._intents = None if path == MEMORY else Intents(intents_of(path))

    @property
    def stuck_for(self) -> float:
        """For how many seconds nothing could be written; 0 where it can."""
        return 0.0 if self.trouble is None else time.monotonic() - self._troubled_at

    @property
    def in_memory(self) -> bool:
        """Whether there is no file now."""
        return self._file.in_memory

    @property
    def running(self) -> bool:
        """Whether there is a thread, so that something may be unwritten or open."""
        return self._worker.running

    def begin(self, row: SendOpened) -> None:
        """Take the report of a send that is about to leave, so that a kill in the next moment does not take it; never waits."""
        if self._waiting() >= self._max_waiting:
            self._lose(1, "too many reports wait to be written")
            return
        if self._intents is not None:
            self._intents.put(row)
        self._enqueue(row)
        if self._worker.thread is None:
            self._worker.start()

    def put(self, report: Report) -> None:
        """Take a report; never waits."""
        if self._waiting() >= self._max_waiting:
            self._lose(1, "too many reports wait to be written")
            return
        self._enqueue(report)
        if self._worker.thread is None:
            self._worker.start()

    def ask(self, question: Callable[[sqlite3.Connection], T], *, in_file: bool = False) -> "Future[T]":
        """Ask something once everything reported so far is written; who wants no answer any more cancels it.

        Args:
            question: Is handed the connection.
            in_file: Whether it fails where the book is kept in memory as its path cannot be written.
        """
        asked = _Question(question, in_file=in_file)
        self._worker.put(asked, awaited=True)
        return asked.future

    def charge(
        self, charges: Sequence[Charge], give_up_at: float, seeds: Mapping[Span, Seed] | None
    ) -> "Future[Admission]":
        """Ask for charges to be added once everything reported before is written, as `Ask` has it.

        Those that come while others are written share the next transaction, as a commit may wait for the disk.
        """
        ask = Ask(charges, give_up_at, seeds)
        self._worker.put(ask, awaited=True)
        return ask.answer

    def finish(self, within: float) -> "Future[None]":
        """Write everything and close the file; what cannot be written within so many seconds is lost."""
        return self._worker.finish(within)

    def _work(self, items: Sequence[Report | Ask | _Question]) -> None:
        reports: list[Report] = []
        asks: list[Ask] = []
        later: list[Report] = []
        for item in items:
            if isinstance(item, _Question):
                # It sees what was reported before it, and nothing that came after it.
                self._write_all(reports, asks, later)
                reports, asks, later = [], [], []
                self._answer(item)
            elif isinstance(item, Ask):
                asks.append(item)
                reports += later
                later = []
            else:
                later.append(item)
        self._write_all(reports, asks, later)

    def _write_all(self, reports: Sequence[Report], asks: Sequence[Ask], later: Sequence[Report]) -> None:
        # What came after the last charge must not keep it waiting.
        self._write(reports)
        for first in range(0, len(asks), _TOGETHER):
            self._charge(asks[first : first + _TOGETHER])
        self._write(later)

    def _charge(self, asks: Sequence[Ask]) -> None:
        connection = self._until_open(lambda: all(ask.answer.cancelled() for ask in asks))
        with using_file():
            if connection is not None and self._file.refused is None:
                charge(connection, asks)
                return
            error = _unopened(self._file.refused)
            fail([ask for ask in asks if ask.answer.set_running_or_notify_cancel()], error)

    def _answer(self, question: _Question) -> None:
        connection = self._until_open(question.future.cancelled)
        with using_file():
            question.answer(connection, self._file.refused)

    def _write(self, reports: Sequence[Report]) -> None:
        if not reports:
            return
        for pause in _pauses():
            try:
                with using_file():
                    self._file.write(reports)
            except Exception as error:  # noqa: BLE001  # there are two kinds: of the file, which may pass, and of a report
                if not _passes(error):
                    self._without_the_bad(reports, error)
                elif self._wait(pause, error):
                    continue
                else:
                    self._lose(len(reports), error)
                return
            self.trouble = None
            self._kept(reports)
            return

    def _without_the_bad(self, reports: Sequence[Report], error: Exception) -> None:
        if len(reports) == 1:
            self._lose(1, error)
            self._kept(reports)
            return
        for report in reports:
            self._write([report])

    def _kept(self, reports: Sequence[Report]) -> None:
        if self._intents is None:
            return
        if self._file.refused is not None:  # what is only in memory a kill would take
            self._intents.hold(reports)
            return
        self._intents.drop(reports)
        self._intents.complain(self.path)

    def _until_open(self, cancelled: Callable[[], bool]) -> "sqlite3.Connection | None":
        for pause in _pauses():
            if cancelled():
                break
            try:
                with using_file():
                    connection = self._file.open()
            except (OSError, sqlite3.Error) as error:
                if not self._wait(pause, error):
                    break
            else:
                self.trouble = None
                return connection
        return None

    def _end(self) -> None:
        self.trouble = None
        with using_file():
            self._file.close()
        if self._intents is not None:
            if self._file.refused is None:
                self._intents.drop(())
            self._intents.close()
        if self.lost != self._told:
            self._say_lost("that was the last of them")

    def _wait(self, pause: float, error: Exception) -> bool:
        if self.trouble is None:
            _log.warning("ledger %s cannot be written just now, so reports wait: %s", self.path, error)
            self._troubled_at = time.monotonic()
        self.trouble = str(error)
        return self._worker.pause(pause)

    def _lose(self, count: int, reason: object) -> None:
        with self._losing:
            loud = self.lost // _LOUD_EVERY != (self.lost + count) // _LOUD_EVERY or not self.lost
            self.lost += count
        if loud:
            self._say_lost(reason)

    def _say_lost(self, reason: object) -> None:
        self._told = self.lost
        _log.error("ledger %s has lost %d reports so far: %s", self.path, self.lost, reason)


def _pauses() -> Iterator[float]:
    return itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]))


def _unopened(refused: str | None) -> sqlite3.OperationalError:
    # As if SQLite had said so.
    return sqlite3.OperationalError(refused or "the file cannot be opened")


def _passes(error: Exception) -> bool:
    return isinstance(error, (OSError, sqlite3.OperationalError)) or type(error) is sqlite3.DatabaseError
