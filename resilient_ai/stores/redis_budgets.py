"""A book of budgets in Redis: for all processes and hosts that name it."""

import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from resilient_ai.core.budgets import Admission, Charge
from resilient_ai.core.checks import check_seconds
from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.stores import _forks, _owed
from resilient_ai.stores._redis_address import without_secrets
from resilient_ai.stores._redis_budget_worker import BudgetWorker, Job
from resilient_ai.stores._redis_client import client_of
from resilient_ai.stores._thread_answer import answer_of

_WAIT_CLOSE = 2.0
# A call waits for a silent Redis as long as the thread does, and for the connection as well.
_PATIENCE = 2
_MOST_ASKED = 500


class RedisBudgets:
    """Let all processes that name the same Redis share budgets.

    One script adds the charges of a call to all its counters, or to none; jobs of many calls at once travel together. Counters
    are whole numbers of 64 bits, so that no sum drifts, up to 9.2 million dollars in a window. They are forgotten when their
    window is over. By what clock a window begins is up to the processes, so their clocks should agree.

    While Redis cannot be asked, every charge raises `BookUnavailable`, at once for a second after a fault, and else after twice
    `timeout` at most. What is settled meanwhile is kept and handed in once Redis is back, exactly once, also where only the
    answer was lost. A process that dies leaves as spent what it had reserved, which is the worst that can have cost.

    Redis must keep what it holds: one that is restarted empty, or that evicts keys where its memory is full, forgets what was
    spent, and budgets begin anew. So use a Redis with `appendonly yes` and `maxmemory-policy noeviction`; one that evicts is
    warned of in the log. What was reserved in a counter that was lost takes nothing from the one that is begun: there its whole
    cost counts. It needs one server of Redis 5 or later, no cluster. The book may be used from several threads and event loops
    and after a fork. After `aclose` it opens again when it is used.

    Args:
        url: Such as "redis://:password@host:6379/0", "rediss://" for TLS, or "unix:///path". Never shown with its secrets.
        prefix: What the names of its keys begin with; those with the same prefix share.
        timeout: Seconds for which Redis may be silent; a call waits twice as long at most. More than 0.

    Raises:
        ConfigurationError: If the package `redis` is missing, or `url` is none.
        ValueError: If a number is out of its range.

    >>> RedisBudgets("redis://:secret@10.0.0.5:6379/0")
    RedisBudgets('redis://10.0.0.5:6379/0', prefix='resilient_ai', timeout=1.0)
    """

    def __init__(self, url: str, *, prefix: str = "resilient_ai", timeout: float = 1.0) -> None:
        check_seconds("timeout", timeout)
        self.prefix = prefix
        self.timeout = timeout
        self.place = without_secrets(url)
        self._connect, self._no_script = client_of(url, timeout)
        self._worker: BudgetWorker | None = None
        self._lock = threading.Lock()
        self._late: deque[Sequence[Charge]] = deque()  # what was settled while there was no thread
        self._clock: Clock = SystemClock()
        _forks.watch(self)

    def __repr__(self) -> str:
        return f"RedisBudgets({self.place!r}, prefix={self.prefix!r}, timeout={self.timeout})"

    async def charge(self, charges: Sequence[Charge]) -> Admission:
        """Add all charges in one step, or none of them where one does not fit.

        A caller that is cancelled has charged nothing, also where Redis had admitted it by then: that is taken back.

        Raises:
            BookUnavailable: If Redis cannot be asked, or not in time.
        """
        return await self._ask(Job("charge", tuple(charges)))

    def settle(self, charges: Sequence[Charge]) -> None:
        """Add charges without looking at limits; never waits and never raises."""
        worker = self._worker
        if worker is not None:
            worker.settle(charges)
            return
        # The garbage collector may have interrupted whoever holds the lock in this very thread, so it is never waited for.
        self._late.append(tuple(charges))
        if self._lock.acquire(blocking=False):
            try:
                self._start()
            finally:
                self._lock.release()

    async def spent(self, charges: Sequence[Charge]) -> tuple[int, ...]:
        """Return what the counters of these charges hold, from `first` to `slice`.

        Raises:
            BookUnavailable: If Redis cannot be asked, or not in time.
        """
        spent: list[int] = []
        # Some at a time, as a step of thousands would hold up everybody else.
        for first in range(0, len(charges), _MOST_ASKED):
            spent += (await self._ask(Job("ask", tuple(charges[first : first + _MOST_ASKED])))).spent
        return tuple(spent)

    @property
    def may_forget(self) -> str | None:
        """Why counters may be lost in that Redis, as it said when it was connected to; None where nothing is known of that."""
        return None if self._worker is None else self._worker.may_forget

    async def aclose(self) -> None:
        """Hand in what was settled and close the connection; waits up to 2 s for it."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()
            with suppress(TimeoutError):
                await answer_of(worker.ended, within=_WAIT_CLOSE, clock=self._clock, keep=True)

    def after_fork(self) -> None:
        """Leave the parent's thread and connection alone, and open afresh when needed."""
        _forks.abandoned.append(self._worker)
        self._worker = None
        self._late.clear()
        self._lock = threading.Lock()

    async def _ask(self, job: Job) -> Admission:
        worker = self._open()
        if not worker.usable:
            raise BookUnavailable(f"Redis at {self.place} could not be reached a moment ago")
        answer = worker.put(job)
        try:
            return await answer_of(answer, within=_PATIENCE * self.timeout, clock=self._clock)
        except TimeoutError:
            _forget(worker, job)
            raise BookUnavailable(f"Redis at {self.place} has not answered in time") from None
        except BookUnavailable:
            raise
        except BaseException:
            _forget(worker, job)
            raise

    def _open(self) -> BudgetWorker:
        with self._lock:
            return self._start()

    def _start(self) -> BudgetWorker:
        worker = self._worker
        if worker is None:
            worker = BudgetWorker(self._connect, no_script=self._no_script, prefix=self.prefix, place=self.place)
            # A book that nobody has any more hands in what is owed and ends its thread.
            weakref.finalize(self, worker.end).atexit = False
            self._worker = worker
        while self._late:
            worker.settle(self._late.popleft())
        return worker


def _forget(worker: BudgetWorker, job: Job) -> None:
    if job.kind == "charge":
        _owed.forget(job.answer, job.charges, worker.settle)
