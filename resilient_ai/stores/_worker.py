"""A queue that anything may be put into at any moment, and the one thread that takes it out in groups."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from resilient_ai.core.log import Log

Item = TypeVar("Item")

_log = Log("resilient_ai.stores")


class Worker(Generic[Item]):
    """Calls `work` in a thread of its own with whatever was put in, in that order.

    Putting in never waits, never raises, and may be done by the garbage collector in the middle of putting in. The thread is
    started with the first item and ends with the last.

    Args:
        name: Of the thread.
        work: Takes what was gathered. It must not raise.
        end: Called at the end of the thread, for connections to be closed. It must not raise.
        gather: Seconds to wait for more once something is there, except where somebody waits for it.
        apart: Seconds from the end of a group to the next one, at least, for which more is gathered likewise.
        most: Items handed over at once.
        every: Seconds after which `work` is called though nothing came, and handed nothing; None for never.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Sequence[Item]], None],
        end: Callable[[], None],
        *,
        gather: float = 0.0,
        apart: float = 0.0,
        most: int = 100,
        every: float | None = None,
    ) -> None:
        self.every = every
        self.give_up_at = float("inf")
        self._name, self._work, self._end = name, work, end
        self._gather, self._apart, self._most = gather, apart, most
        self._worked_at = float("-inf")
        self._queue: SimpleQueue[Item | _Last] = SimpleQueue()
        # What `waiting` says, and what `put` does first, for whoever does it at every call.
        self.count_waiting = self._queue.qsize
        self.enqueue = self._queue.put
        self.thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._hurry = threading.Event()  # set when the end is near
        self._awaited = threading.Event()

    @property
    def running(self) -> bool:
        """Whether there is a thread, so that something may be undone or open."""
        return self.thread is not None

    @property
    def waiting(self) -> int:
        """How many items the thread has not taken."""
        return self._queue.qsize()

    @property
    def too_late(self) -> bool:
        """Whether the time to finish in is over."""
        return time.monotonic() >= self.give_up_at

    def put(self, item: Item, *, awaited: bool = False) -> None:
        """Hand an item over; never waits.

        Args:
            item: What is to be done.
            awaited: Whether somebody waits for it, so that no more is gathered; not to be said by the garbage collector.
        """
        self._queue.put(item)
        if awaited:
            self._awaited.set()
        if self.thread is None:
            self.start()

    def finish(self, within: float) -> "Future[None]":
        """Do what was put in, and end the thread; `work` gives up what it cannot do within so many seconds."""
        self.give_up_at = time.monotonic() + within
        last = _Last()
        self._queue.put(last)
        self._hurry.set()
        self._awaited.set()
        if self.thread is None:
            self.start()
        return last.done

    def pause(self, seconds: float) -> bool:
        """Let the thread wait before it tries again; whether there is time to."""
        if time.monotonic() + seconds <= self.give_up_at and not self._hurry.wait(seconds):
            return True
        # Somebody wants to finish, so it is tried in short steps until the time is over.
        step = min(seconds, 0.1)
        if time.monotonic() + step > self.give_up_at:
            return False
        time.sleep(step)
        return True

    def start(self) -> None:
        """Start the thread, where there is none and something to do."""
        while self.thread is None and not self._queue.empty() and not sys.is_finalizing():
            # Not to be waited for: the garbage collector may have interrupted whoever holds it, in this very thread. Whoever
            # holds it looks again once it is free, and so sees what was put in meanwhile.
            if not self._starting.acquire(blocking=False):
                return
            try:
                if self.thread is None:
                    self.thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self.thread.start()
            except RuntimeError:  # no thread can be had now; the next item tries again
                self.thread = None
                return
            finally:
                self._starting.release()

    def _run(self) -> None:
        last: _Last | None = None
        while last is None:
            items, last = self._take()
            try:
                self._work(items)
            except Exception:  # noqa: BLE001  # what comes after it must not wait for ever
                _log.exception("thread %s: something went wrong that must not", self._name)
            self._worked_at = time.monotonic()
        self._end()
        self.give_up_at = float("inf")
        self._hurry.clear()
        self.thread = None
        last.done.set_result(None)
        # Whoever put something in before the lines above saw a thread and started none.
        if not self._queue.empty():
            self.start()

    def _take(self) -> "tuple[list[Item], _Last | None]":
        items: list[Item] = []
        try:
            item = self._queue.get(timeout=self.every)
            if self._gather and self._queue.qsize() < self._most:
                self._awaited.wait(max(self._gather, self._worked_at + self._apart - time.monotonic()))
            # Cleared before the queue is looked through, so that what is awaited and not found there has set it anew.
            self._awaited.clear()
            while not isinstance(item, _Last):
                items.append(item)
                if len(items) >= self._most:
                    self._awaited.set()  # what is awaited may be among the rest
                    return items, None
                item = self._queue.get_nowait()
        except Empty:
            return items, None
        return items, item


class _Last:
    """The end of the thread, once everything before it is done."""

    def __init__(self) -> None:
        self.done: Future[None] = Future()
