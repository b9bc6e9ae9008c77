"""Permits: at most so many at once, and a queue of those who wait."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)

_BATCH_SHARE = 0.8
# Where both classes wait, one permit in so many goes to batch.
_BATCH_TURN = 5
_FEWEST_SAMPLES = 10
_MOST_SAMPLES = 50


class Permits(Generic[W]):
    """Hands out permits and decides who of the queue is next; it never waits itself.

    There are two classes of callers, interactive and batch, each with a queue in the order of arrival. Interactive callers go
    first, but where both wait every fifth permit goes to batch. Batch callers never hold more than
    `max(1, floor(0.8 * limit))` permits, also while nobody else is there, so that an interactive one finds the rest free.

    Whoever gives a permit back, or raises the limit, calls `grant` until it returns None; so nobody who comes later can take a
    permit from those who wait. A limit that is lowered below what is in use takes effect as permits come back. Leaving the
    queue takes constant time.

    Args:
        limit: Permits that may be in use at once, at least 1; may be changed.
        queue_size: How many may wait, at least 0.

    >>> permits = Permits[str](limit=1, queue_size=2)
    >>> permits.try_acquire(), permits.try_acquire()
    (True, False)
    >>> permits.try_enqueue("a", batch=True), permits.try_enqueue("b"), permits.try_enqueue("c")
    (True, True, False)
    >>> permits.release(); permits.grant(), permits.in_use
    ('b', 1)
    """

    __slots__ = (
        "_batch",
        "_interactive",
        "_passed_over",
        "_samples",
        "batch_in_use",
        "in_use",
        "limit",
        "mean_held",
        "queue_size",
    )

    def __init__(self, *, limit: int, queue_size: int) -> None:
        self.limit = limit
        self.queue_size = queue_size
        self.in_use = 0
        self.batch_in_use = 0
        self.mean_held = 0.0
        self._samples = 0
        self._interactive: OrderedDict[W, None] = OrderedDict()
        self._batch: OrderedDict[W, None] = OrderedDict()
        self._passed_over = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._interactive) + len(self._batch)

    def has_room(self, *, batch: bool = False) -> bool:
        """Return whether a permit is free."""
        return self.in_use < self.limit and (not batch or self._batch_may_go())

    def try_acquire(self, *, batch: bool = False) -> bool:
        """Take a permit if one is free."""
        if not self.has_room(batch=batch):
            return False
        self.in_use += 1
        self.batch_in_use += batch
        return True

    def try_enqueue(self, waiter: W, *, batch: bool = False) -> bool:
        """Put `waiter` at the end of its queue; False if too many wait. For use after `try_acquire` failed."""
        if self.waiting >= self.queue_size:
            return False
        (self._batch if batch else self._interactive)[waiter] = None
        return True

    def release(self, *, batch: bool = False) -> None:
        """Give a permit back."""
        self.in_use -= 1
        self.batch_in_use -= batch

    def grant(self) -> W | None:
        """Give a free permit to who is next in the queue; None if none is free or nobody may have it."""
        if self.in_use >= self.limit or not (self._interactive or self._batch):
            return None
        batch_may_go = bool(self._batch) and self._batch_may_go()
        if self._interactive and not (batch_may_go and self._passed_over >= _BATCH_TURN - 1):
            self._passed_over += batch_may_go
            self.in_use += 1
            return self._interactive.popitem(last=False)[0]
        if not batch_may_go:
            return None
        self._passed_over = 0
        self.in_use += 1
        self.batch_in_use += 1
        return self._batch.popitem(last=False)[0]

    def try_leave(self, waiter: W) -> bool:
        """Take `waiter` out of the queue; False if it is not there, because it holds a permit by now."""
        for queue in (self._interactive, self._batch):
            if waiter in queue:
                del queue[waiter]
                return True
        return False

    def record_held(self, seconds: float) -> None:
        """Take note of how long a permit was held: a mean in which the last 50 count most."""
        self._samples = min(self._samples + 1, _MOST_SAMPLES)
        self.mean_held += (seconds - self.mean_held) / self._samples

    def predicted_wait(self, *, batch: bool = False) -> float | None:
        """Return the seconds that who comes now would wait, `ahead * mean_held / limit`; None before ten samples.

        It is rather too short than too long: nobody who comes later and goes first is counted.
        """
        if self._samples < _FEWEST_SAMPLES:
            return None
        interactive, waiting_batch = len(self._interactive), len(self._batch)
        if batch:
            ahead = waiting_batch + min(interactive, (_BATCH_TURN - 1) * (waiting_batch + 1))
        else:
            ahead = interactive + min(waiting_batch, interactive // (_BATCH_TURN - 1))
        return ahead * self.mean_held / self.limit

    def _batch_may_go(self) -> bool:
        return self.batch_in_use < max(1, int(self.limit * _BATCH_SHARE))
