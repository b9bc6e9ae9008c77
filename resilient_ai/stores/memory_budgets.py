"""A book of budgets in memory: for one process."""

import threading
import time
from collections import deque
from collections.abc import Sequence

from resilient_ai.core.budgets import Admission, Charge, refused
from resilient_ai.stores._forks import watch

# So many counters are kept before those whose time is over are looked for.
_MANY = 1024
# No counter is lost before its window is over, so all have the same life.
_LIFE = 1


class MemoryBudgets:
    """Count what is spent in this process, and forget it when the process ends.

    It may be shared between threads and event loops. Processes that shall share budgets need a ledger in a database, or
    `RedisBudgets`. A forked child goes on with a copy: what the parent has spent by then counts for it too, and from there on
    each counts for itself.

    Counters whose window is over are forgotten. What time it is, the book learns from the charges,
    and from the clock of the machine where theirs is ahead.

    >>> import asyncio
    >>> from resilient_ai.core.budgets import Charge
    >>> charge = Charge(key="a", slice=0, first=0, amount=60, limit=100, until=1)
    >>> book = MemoryBudgets()
    >>> [asyncio.run(book.charge([charge])).admitted for _ in range(2)]
    [True, False]
    """

    def __init__(self) -> None:
        # The slices of each key: what was spent in it, and when it may be forgotten.
        self._counters: dict[str, dict[int, list[int]]] = {}
        self._settled: deque[Sequence[Charge]] = deque()
        self._lock = threading.Lock()
        self._now = 0
        self._many = _MANY
        watch(self)

    def __repr__(self) -> str:
        return "MemoryBudgets()"

    async def charge(self, charges: Sequence[Charge]) -> Admission:
        """Add all charges in one step, or none of them where one does not fit."""
        with self._lock:
            self._catch_up()
            spent = tuple(map(self._held, charges))
            done: list[Charge] = []
            for charge in charges:
                if charge.limit is not None and self._held(charge) + charge.amount > charge.limit:
                    for added in done:
                        self._counters[added.key][added.slice][0] -= added.amount
                    return refused(spent, charges, self._slices)
                self._add(charge)
                done.append(charge)
            return Admission(admitted=True, spent=spent, lives=(_LIFE,) * len(charges))

    def settle(self, charges: Sequence[Charge]) -> None:
        """Add charges without looking at limits."""
        # The garbage collector may have interrupted whoever holds the lock in this very thread, so it is never waited for.
        self._settled.append(charges)
        if self._lock.acquire(blocking=False):
            try:
                self._catch_up()
            finally:
                self._lock.release()

    async def spent(self, charges: Sequence[Charge]) -> tuple[int, ...]:
        """Return what the counters of these charges hold."""
        with self._lock:
            self._catch_up()
            return tuple(map(self._held, charges))

    async def aclose(self) -> None:
        """Do nothing: there is nothing to let go of, and what was spent still counts."""

    def after_fork(self) -> None:
        """Go on with the copy; nobody holds its lock."""
        self._lock = threading.Lock()

    def _catch_up(self) -> None:
        while self._settled:
            for charge in self._settled.popleft():
                self._add(charge)

    def _held(self, charge: Charge) -> int:
        slices = self._counters.get(charge.key)
        if slices is None:
            return 0
        if charge.first == charge.slice:
            counter = slices.get(charge.slice)
            return 0 if counter is None else counter[0]
        return sum(counter[0] for start, counter in slices.items() if charge.first <= start <= charge.slice)

    def _slices(self, charge: Charge) -> dict[int, int]:
        return {start: counter[0] for start, counter in self._counters.get(charge.key, {}).items()}

    def _add(self, charge: Charge) -> None:
        amount, slices = charge.in_life(_LIFE), self._counters.get(charge.key)
        if slices is None:
            self._make_room()
            slices = self._counters[charge.key] = {}
        counter = slices.get(charge.slice)
        if counter is None:
            # Never what counts by the clock of the machine, should it be told of a slice that is far in the future.
            now = min(charge.slice, int(time.time()))
            _forget(slices, now)
            self._now = max(self._now, now)
            slices[charge.slice] = [max(0, amount), charge.until]
        else:
            # More is given back than it holds only by mistake, and that must not raise the limit.
            counter[0] = max(0, counter[0] + amount)

    def _make_room(self) -> None:
        if len(self._counters) < self._many:
            return
        for key, slices in list(self._counters.items()):
            _forget(slices, self._now)
            if not slices:
                del self._counters[key]
        self._many = max(_MANY, 2 * len(self._counters))


def _forget(slices: dict[int, list[int]], now: int) -> None:
    for start in [start for start, (_, until) in slices.items() if until <= now]:
        del slices[start]
