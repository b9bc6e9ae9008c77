"""Counts the faults of a store and says when to leave it alone."""

import threading
from collections import deque


class FaultWindow:
    """Five faults within a minute, and the store is left alone for a minute.

    Args:
        faults: Faults that are too many.
        within: Seconds in which they count together.
        pause: Seconds for which the store is then left alone.

    >>> window = FaultWindow(faults=2)
    >>> window.record(0.0); window.record(59.0)
    >>> window.paused(118.9), window.paused(119.0)
    (True, False)
    """

    def __init__(self, *, faults: int = 5, within: float = 60.0, pause: float = 60.0) -> None:
        self.total = 0
        self._within = within
        self._pause = pause
        self._recent: deque[float] = deque(maxlen=faults)
        self._paused_until = float("-inf")
        self._lock = threading.Lock()

    def record(self, now: float) -> None:
        """Count a fault at `now`, in seconds of a monotonic clock."""
        with self._lock:
            self.total += 1
            self._recent.append(now)
            if len(self._recent) == self._recent.maxlen and now - self._recent[0] <= self._within:
                self._paused_until = now + self._pause
                self._recent.clear()

    def paused(self, now: float) -> bool:
        """Return whether the store is to be left alone at `now`."""
        return now < self._paused_until
