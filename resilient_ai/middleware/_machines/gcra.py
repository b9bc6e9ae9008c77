"""A bucket that refills evenly, and the line of those who wait for their turn at it."""

import math
from collections import OrderedDict


class Reservation:
    """A place in the line: it may go at `start` and takes `amount`, which becomes the true amount once that is settled."""

    __slots__ = ("amount", "start")

    def __init__(self, start: float, amount: float) -> None:
        self.start = start
        self.amount = amount


class Gcra:
    """Says from when on an amount may go: a bucket of `burst` that refills by `rate` a second (GCRA).

    The bucket is kept as the time at which it will be full again, so nothing has to be refilled. Who reserves goes after all
    who reserved before; a large amount is not overtaken by small ones. An amount larger than the bucket goes once the
    bucket is full, and the rest is a debt. A true amount above the reserved one is a debt as well. A debt delays those who
    reserve later, never those who have a time already. Who has a time keeps it, also when others give theirs back.

    Without settlements the amounts that go within any t seconds come to at most `burst + rate * t`, the debt of larger
    ones aside. Time that runs backwards, as between two clocks, counts as no time at all.

    Args:
        rate: What comes in per second, above 0.
        burst: What the bucket holds, above 0.

    >>> bucket = Gcra(rate=1.0, burst=2.0)
    >>> [bucket.reserve(0.0, 1.0)[0] for _ in range(4)]
    [0.0, 0.0, 1.0, 2.0]
    """

    __slots__ = ("_full", "_line", "_now", "_stale", "_tail", "burst", "rate")

    def __init__(self, *, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._now = -math.inf
        self._full = -math.inf  # when the bucket is full again, as far as those are concerned who have gone
        self._tail = -math.inf  # the same with those who wait
        self._stale = False
        self._line: OrderedDict[Reservation, None] = OrderedDict()

    def wait(self, now: float, amount: float, *, keep: float = 0.0) -> float:
        """Return the seconds after which `amount` may go while `keep` stays in the bucket; 0 if it may go now."""
        self._advance(now)
        needed = min(self.burst, min(amount, self.burst) + keep)
        return max(0.0, self._last_start() - self._now, self._tail - (self.burst - needed) / self.rate - self._now)

    def take(self, now: float, amount: float, wait: float) -> Reservation:
        """Reserve `amount` for `now + wait`, where `wait` is at least what the method of that name returned."""
        self._advance(now)
        reservation = Reservation(self._now + wait, amount)
        if wait > 0:
            self._line[reservation] = None
            self._tail = self._after(self._tail, reservation)
        else:
            self._full = self._tail = self._after(self._full, reservation)
        return reservation

    def reserve(self, now: float, amount: float) -> tuple[float, Reservation]:
        """Reserve `amount` for as soon as it may go; return the seconds until then and the reservation."""
        wait = self.wait(now, amount)
        return wait, self.take(now, amount, wait)

    def settle(self, now: float, reservation: Reservation, amount: float) -> None:
        """Replace the reserved amount of a call that went by its true `amount`; nothing to do for one that gave back."""
        self._advance(now)
        if reservation not in self._line:
            self._full = max(self._full, self._now) + (amount - reservation.amount) / self.rate
        reservation.amount = amount
        self._stale = True

    def give_back(self, now: float, reservation: Reservation) -> None:
        """Give everything back: nobody has gone, or will go, on this reservation."""
        self.settle(now, reservation, 0.0)
        self._line.pop(reservation, None)

    def available(self, now: float) -> float:
        """Return what may go at once now; below 0 is a debt or what others wait for."""
        self._advance(now)
        return self.burst - max(0.0, self._tail - self._now) * self.rate

    @property
    def waiting(self) -> int:
        """How many had a time that had not come when the machine was asked last."""
        return len(self._line)

    def _advance(self, now: float) -> None:
        self._now = max(self._now, now)
        while self._line and (first := next(iter(self._line))).start <= self._now:
            del self._line[first]
            self._full = self._after(self._full, first)
        if self._stale:
            self._tail = self._full
            for reservation in self._line:
                self._tail = self._after(self._tail, reservation)
            self._stale = False

    def _after(self, full: float, reservation: Reservation) -> float:
        # The bucket holds no more than `burst` when the reservation goes, however long ago it had been full.
        return max(full, reservation.start) + reservation.amount / self.rate

    def _last_start(self) -> float:
        return next(reversed(self._line)).start if self._line else -math.inf
