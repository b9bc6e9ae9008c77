"""Permits: at most so many at once, and a queue of those who wait."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)


class Permits(Generic[W]):
    """Hands out permits and decides who of the queue is next; it never waits itself.

    A permit that is given back passes straight to the first of the queue, so nobody who comes later can take it from
    those who wait. Leaving the queue takes constant time.

    Args:
        limit: Permits that may be in use at once, at least 1.
        queue_size: How many may wait, at least 0.

    >>> permits = Permits[str](limit=1, queue_size=1)
    >>> permits.try_acquire(), permits.try_acquire()
    (True, False)
    >>> permits.try_enqueue("a"), permits.try_enqueue("b")
    (True, False)
    >>> permits.release(), permits.in_use
    ('a', 1)
    """

    __slots__ = ("_queue", "in_use", "limit", "queue_size")

    def __init__(self, *, limit: int, queue_size: int) -> None:
        self.limit = limit
        self.queue_size = queue_size
        self.in_use = 0
        self._queue: OrderedDict[W, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def try_acquire(self) -> bool:
        """Take a permit if one is free."""
        if self.in_use >= self.limit:
            return False
        self.in_use += 1
        return True

    def try_enqueue(self, waiter: W) -> bool:
        """Put `waiter` at the end of the queue; False if the queue is full. For use after `try_acquire` failed."""
        if len(self._queue) >= self.queue_size:
            return False
        self._queue[waiter] = None
        return True

    def release(self) -> W | None:
        """Give a permit back; return who of the queue holds it now, None if it is free."""
        if self._queue:
            waiter, _ = self._queue.popitem(last=False)
            return waiter
        self.in_use -= 1
        return None

    def try_leave(self, waiter: W) -> bool:
        """Take `waiter` out of the queue; False if it is not there, because it holds a permit by now."""
        if waiter not in self._queue:
            return False
        del self._queue[waiter]
        return True
