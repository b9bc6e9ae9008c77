"""Turns: short pieces of work on shared state, one at a time, also when the garbage collector asks for one."""

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

Work = Callable[[], "Callable[[], None] | None"]


class Turns:
    """Lets short pieces of work take turns, from any thread.

    Who comes to take something enters `with turns:` and may block for a few lines. Who comes to give something back calls
    `post`, which never blocks: the end of an abandoned stream is told by the garbage collector, which may have interrupted
    this very thread in the middle of its turn, where a lock would wait for itself for ever.

    >>> turns, log = Turns(), []
    >>> with turns:
    ...     turns.post(lambda: log.append("posted"))
    ...     log.append("entered")
    >>> log
    ['entered', 'posted']
    """

    __slots__ = ("_later", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._later: deque[Work] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
        self._catch_up()

    def post(self, work: Work) -> None:
        """Have `work` done in a turn of its own: now, or by whoever holds the turn as soon as it is over.

        Work must not raise. What it returns is called after the turn, so that listeners never run inside of one.
        """
        self._later.append(work)
        self._catch_up()

    def _catch_up(self) -> None:
        # Who posts while another holds the turn leaves its work there before it finds the lock taken; so the
        # holder, who looks again after letting go, always sees it.
        while self._later and self._lock.acquire(blocking=False):
            afterwards: list[Callable[[], None] | None] = []
            try:
                while self._later:
                    afterwards.append(self._later.popleft()())
            finally:
                self._lock.release()
            for step in afterwards:
                if step is not None:
                    step()
