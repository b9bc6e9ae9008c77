"""Turns: short pieces of work on shared state, one at a time, also when the garbage collector asks for one."""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType

Work = Callable[[], "Callable[[], None] | None"]


_known: "weakref.WeakSet[Turns]" = weakref.WeakSet()


class Turns:
    """Lets short pieces of work take turns, from any thread; `forked` is called in a forked child.

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

    __slots__ = ("__weakref__", "_later", "_lock", "forked")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._later: deque[Work] = deque()
        self.forked: Callable[[], None] | None = None
        _known.add(self)

    def begin_afresh(self) -> None:
        """In a forked child: nobody holds a turn, and what the parent's calls hold is the parent's."""
        self._lock = threading.Lock()
        self._later.clear()
        if self.forked is not None:
            self.forked()

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


def _in_child() -> None:
    for turns in list(_known):
        turns.begin_afresh()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
    os.register_at_fork(after_in_child=_in_child)
