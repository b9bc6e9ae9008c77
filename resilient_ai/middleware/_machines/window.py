"""A sliding window that counts outcomes."""


class Window:
    """Counts outcomes and failures of the last `duration` seconds.

    The time is cut into buckets, and a whole bucket leaves at once: the window reaches back between nine and ten tenths of
    `duration`. Recording and asking take constant time and memory. Time that runs backwards, as between two clocks, counts
    as no time at all.

    Args:
        duration: Seconds the window reaches back.
        buckets: Into how many parts it is cut.

    >>> window = Window(30.0)
    >>> window.record(0.0, failed=True); window.record(4.0, failed=False)
    >>> window.totals(29.0), window.totals(30.0), window.totals(60.0)
    ((2, 1), (1, 0), (0, 0))
    """

    __slots__ = ("_failures", "_newest", "_outcomes", "_total_failures", "_total_outcomes", "_width")

    def __init__(self, duration: float, buckets: int = 10) -> None:
        self._width = duration / buckets
        self._outcomes = [0] * buckets
        self._failures = [0] * buckets
        self._newest: int | None = None
        self._total_outcomes = 0
        self._total_failures = 0

    def record(self, now: float, *, failed: bool) -> None:
        """Count one outcome at `now`."""
        bucket = self._advance(now)
        self._outcomes[bucket] += 1
        self._total_outcomes += 1
        if failed:
            self._failures[bucket] += 1
            self._total_failures += 1

    def totals(self, now: float) -> tuple[int, int]:
        """Return how many outcomes the window holds at `now`, and how many of them are failures."""
        self._advance(now)
        return self._total_outcomes, self._total_failures

    def clear(self) -> None:
        """Forget everything."""
        count = len(self._outcomes)
        self._outcomes = [0] * count
        self._failures = [0] * count
        self._total_outcomes = self._total_failures = 0

    def _advance(self, now: float) -> int:
        """Drop the buckets that have left the window; return the one that `now` falls into."""
        count = len(self._outcomes)
        step = int(now // self._width)
        newest = self._newest
        if newest is None:
            self._newest = newest = step
        elif step - newest >= count:
            self.clear()
            self._newest = newest = step
        while newest < step:
            newest += 1
            bucket = newest % count
            self._total_outcomes -= self._outcomes[bucket]
            self._total_failures -= self._failures[bucket]
            self._outcomes[bucket] = self._failures[bucket] = 0
            self._newest = newest
        return newest % count
