"""The one thread that touches the file of a `SQLiteLedger`: it gathers reports, writes them, and answers questions."""

import contextlib
import itertools
import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from resilient_ai.stores._forks import using_file
from resilient_ai.stores._ledger_rows import Report, write
from resilient_ai.stores._ledger_schema import MEMORY, connect, end

T = TypeVar("T")

_log = logging.getLogger("resilient_ai.stores")
_GATHER = 0.005
_MOST = 1_000
_LOUD_EVERY = 10_000
_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0)
_STEP = 0.05  # seconds between two looks at those who do not wait for ever


class _Question:
    """Something to do with the connection once everything reported before is written.

    Args:
        ask: What to do.
        give_up_at: When nobody waits for the answer any more, as `time.monotonic` tells it.
        last: Whether the thread ends with it; only then it is asked also where there is no connection.
    """

    def __init__(self, ask: Callable[[Any], Any], *, give_up_at: float = float("inf"), last: bool = False) -> None:
        self.future: Future[Any] = Future()
        self.give_up_at = give_up_at
        self.last = last
        self._ask = ask

    def answer(self, connection: sqlite3.Connection | None) -> None:
        """Ask, and hand the answer over."""
        if self.future.done() or not self.future.set_running_or_notify_cancel():
            return
        try:
            if connection is None and not self.last:
                raise sqlite3.OperationalError("the file cannot be opened")  # noqa: TRY301  # as if SQLite had said so
            self.future.set_result(self._ask(connection))
        except Exception as error:  # noqa: BLE001  # it belongs to whoever asked
            self.future.set_exception(error)

    def refuse(self) -> None:
        """Tell whoever asked that it took too long."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(TimeoutError("the ledger is locked or cannot be written"))


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
        self.in_memory = path == MEMORY
        self._full = full
        self._max_waiting = max_waiting
        self._queue: SimpleQueue[Report | _Question] = SimpleQueue()
        self._impatient: set[_Question] = set()
        self._hurry = threading.Event()  # set when a question is there, which need not wait for reports to gather
        self._give_up_at = float("inf")
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._losing = threading.RLock()
        # Held here, so that a fork does not close it along with what the child has of the thread.
        self._connection: sqlite3.Connection | None = None
        self._session = 0

    @property
    def running(self) -> bool:
        """Whether there is a thread, so that something may be unwritten or open."""
        return self._thread is not None

    def put(self, report: Report) -> None:
        """Take a report; never waits."""
        if self._queue.qsize() >= self._max_waiting:
            self._lose(1, "too many reports wait to be written")
            return
        self._queue.put(report)
        if self._thread is None:
            self._start()

    def ask(self, question: Callable[[sqlite3.Connection], T], *, give_up_at: float = float("inf")) -> "Future[T]":
        """Ask something once everything reported so far is written.

        Args:
            question: What to do with the connection.
            give_up_at: When the answer is to be `TimeoutError` where the file has been locked since.
        """
        return self._enqueue(_Question(question, give_up_at=give_up_at))

    def finish(self, within: float) -> "Future[None]":
        """Write everything and close the file; what cannot be written within so many seconds is lost."""
        self._give_up_at = time.monotonic() + within
        return self._enqueue(_Question(self._close, last=True))

    def _enqueue(self, question: _Question) -> "Future[Any]":
        if question.give_up_at < float("inf"):
            self._impatient.add(question)
        self._queue.put(question)
        self._hurry.set()
        if self._thread is None:
            self._start()
        return question.future

    def _start(self) -> None:
        if sys.is_finalizing():
            return  # a thread that is started now would never run, and starting it would never return
        # Not waited for: the garbage collector may have interrupted whoever holds it, in this very thread. Whoever holds it sees
        # what was put in: a thread that starts as well as one that ends.
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="resilient-ai-ledger", daemon=True)
                thread.start()
                self._thread = thread
        finally:
            self._starting.release()

    def _run(self) -> None:
        last = False
        while not last:
            reports, question = self._gather()
            self._write(reports)
            if question is not None:
                connection = self._until_open()
                with using_file():
                    question.answer(connection)
                self._impatient.discard(question)
                last = question.last
        with self._starting:
            self._thread = None
        # Whoever put something in before the line above saw a thread and started none.
        if not self._queue.empty():
            self._start()

    def _gather(self) -> tuple[list[Report], _Question | None]:
        reports: list[Report] = []
        item = self._queue.get()
        # Cleared before the queue is looked through, so that a question that is not found there has set it anew.
        self._hurry.clear()
        patient = True
        while not isinstance(item, _Question):
            reports.append(item)
            if len(reports) >= _MOST:
                return reports, None
            try:
                item = self._queue.get_nowait()
            except Empty:
                if patient:
                    patient = False
                    self._hurry.wait(_GATHER)
                if self._queue.empty():
                    return reports, None
                item = self._queue.get()
        # A question sees what was reported before it; what comes after it is for the next round.
        return reports, item

    def _write(self, reports: list[Report]) -> None:
        for pause in _pauses():
            try:
                if reports:
                    with using_file():
                        write(self._open(), self._session, reports)
            except Exception as error:  # noqa: BLE001  # there are two kinds: of the file, which may pass, and of a report
                if not _passes(error):
                    self._without_the_bad(reports, error)
                elif self._wait(pause, error):
                    continue
                else:
                    self._lose(len(reports), error)
            return

    def _without_the_bad(self, reports: list[Report], error: Exception) -> None:
        if len(reports) == 1:
            self._lose(1, error)
            return
        for report in reports:
            self._write([report])

    def _until_open(self) -> "sqlite3.Connection | None":
        for pause in _pauses():
            try:
                with using_file():
                    return self._open()
            except sqlite3.OperationalError as error:
                if not self._wait(pause, error):
                    break
        return None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._connection, self._session = connect(self.path, full=self._full)
            except (OSError, sqlite3.Error) as error:
                if _busy(error):
                    raise
                self.in_memory = True
                _log.warning("ledger %s cannot be written, so it is kept in memory: %s", self.path, error)
                self._connection, self._session = connect(MEMORY, full=False)
        return self._connection

    def _close(self, connection: sqlite3.Connection | None) -> None:
        self._connection = None
        self._give_up_at = float("inf")
        if connection is None:
            return
        with contextlib.suppress(sqlite3.Error):  # whoever opens the file next does it
            end(connection, self._session)
        connection.close()

    def _wait(self, pause: float, error: Exception) -> bool:
        if pause == _PAUSES[0]:
            _log.warning("ledger %s cannot be written just now, so reports wait: %s", self.path, error)
        ends = time.monotonic() + pause
        if ends > self._give_up_at:
            return False
        while (now := time.monotonic()) < ends:
            for question in [each for each in list(self._impatient) if each.give_up_at <= now]:
                question.refuse()
                self._impatient.discard(question)
            time.sleep(min(_STEP, ends - now))
        return True

    def _lose(self, count: int, reason: object) -> None:
        with self._losing:
            loud = self.lost // _LOUD_EVERY != (self.lost + count) // _LOUD_EVERY or not self.lost
            self.lost += count
        if loud:
            _log.error("ledger %s has lost %d reports so far: %s", self.path, self.lost, reason)


def _pauses() -> Iterator[float]:
    return itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]))


def _passes(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
