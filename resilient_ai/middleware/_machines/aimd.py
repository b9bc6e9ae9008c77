"""Additive increase, multiplicative decrease: how many requests at once a service takes, found by asking for a little more."""

_DECREASE = 0.8
_SHORTEST_WINDOW = 1.0
_MOST_PATIENCE = 16


class Aimd:
    """A limit that grows while requests are taken and shrinks when they are refused; it never waits and reads no clock.

    The service does not tell how much it takes, and that changes. So the limit `L` follows what is seen, from 1 to `maximum`:

    - *Start.* `L = min(initial, maximum)`, and `L = 2 L` at most once a second, until the first refusal.
    - *Growth.* A round is `L` successes that came while at least half of `L` was in use. A limit that lasted a round is
      proven, and the next round has 1 permit more, then 2, 4, 8 and so on.
    - *A step too far.* Refused above the proven limit, a request takes its own permit with it: `L = max(proven, in_use)`,
      counted without it.
    - *Decrease.* Refused at the proven limit, the service takes less than it did: `L = 0.8 L`, at most once in
      `max(1 s, latency)`. Until then every further refusal takes its own permit with it: `L = min(L, in_use)`. So capacity that
      falls from 200 to 20 costs about one refusal for each permit that is too many, however many callers wait.
    - *Memory.* The count that was refused is remembered. Below it each round goes half of the way up to one less. From there
      the next step, of 1, is a probe. Each probe that is refused doubles the rounds until the next one: 1, 2, 4, 8, 16. A
      probe that lasts a round shows that capacity is back; then the count is forgotten and growth goes on as above.
    - *Busy.* Refused while less than half of `L` is in use, the reason is not the limit: `L = 0.8 L` once in the same time, and
      no more.

    Args:
        initial: Where the limit starts, at least 1.
        maximum: What it never exceeds, at least 1.

    >>> aimd = Aimd(initial=8, maximum=10)
    >>> aimd.record_success(0.0, in_use=8); aimd.limit
    10
    >>> aimd.record_overload(0.1, in_use=9, latency=0.5); aimd.limit
    9
    """

    __slots__ = (
        "_next_decrease",
        "_next_doubling",
        "_patience",
        "_proven",
        "_refused",
        "_step",
        "_successes",
        "limit",
        "maximum",
    )

    def __init__(self, *, initial: int, maximum: int) -> None:
        self.limit = min(initial, maximum)
        self.maximum = maximum
        self._proven = 0
        self._refused: int | None = None
        self._successes = 0
        self._patience = 1
        self._step = 1
        self._next_decrease = float("-inf")
        self._next_doubling: float | None = float("-inf")

    @property
    def is_starting(self) -> bool:
        """Whether the limit still doubles."""
        return self._next_doubling is not None and self.limit < self.maximum

    def record_success(self, now: float, in_use: int) -> None:
        """Take note of a request that was taken, and of how many were under way with it."""
        limit = self.limit
        if 2 * in_use < limit:
            return
        self._successes += 1
        if self._next_doubling is not None and limit < self.maximum:
            if now >= self._next_doubling:
                self._next_doubling = now + _SHORTEST_WINDOW
                self._move_to(2 * limit)
        elif self._successes >= limit * (self._patience if self._is_below_refused() else 1):
            self._end_round()

    def record_overload(self, now: float, in_use: int, latency: float) -> None:
        """Take note of a request that was refused, of how many are under way without it, and of how long one usually takes."""
        limit = self.limit
        is_used = 2 * (in_use + 1) >= limit
        self._next_doubling = None
        self._step = 1
        if is_used and limit > self._proven:
            is_probe = self._refused is not None and not self._is_below_refused()
            self._patience = min(2 * self._patience, _MOST_PATIENCE) if is_probe else 1
            self._move_to(max(self._proven, min(limit, in_use)))
        elif now >= self._next_decrease:
            self._next_decrease = now + max(_SHORTEST_WINDOW, latency)
            self._patience = 1
            self._move_to(int(limit * _DECREASE))
        elif is_used:
            self._move_to(min(limit, in_use))
        if is_used:
            self._refused = max(self.limit + 1, min(limit, in_use + 1))

    def _end_round(self) -> None:
        """Take the limit as proven and go a step up."""
        limit = self._proven = self.limit
        if self._refused is not None and limit < self._refused:
            # Half of the way to the last count that may hold; from there one more, which is the probe.
            self._move_to(limit + max(1, (self._refused - limit) // 2))
        else:
            self._refused = None
            self._patience = 1
            self._move_to(limit + self._step)
            self._step = min(2 * self._step, self.maximum)

    def _is_below_refused(self) -> bool:
        return self._refused is not None and self.limit < self._refused

    def _move_to(self, limit: int) -> None:
        self.limit = min(max(1, limit), self.maximum)
        self._proven = min(self._proven, self.limit)
        self._successes = 0
