"""How long a model took lately."""

import math
from collections import deque


class Latencies:
    """Remembers the last `size` latencies and tells how long all but a few of them were.

    Args:
        size: How many are remembered, at least 1.

    >>> latencies = Latencies(size=100)
    >>> for seconds in range(1, 101): latencies.record(seconds)
    >>> latencies.quantile(0.95)
    95
    """

    __slots__ = ("_known",)

    def __init__(self, size: int = 200) -> None:
        self._known: deque[float] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._known)

    def record(self, seconds: float) -> None:
        """Remember one."""
        self._known.append(seconds)

    def quantile(self, share: float) -> float:
        """Return the smallest latency that at least `share` of them do not exceed; infinite where none is known."""
        if not self._known:
            return math.inf
        return sorted(self._known)[max(0, math.ceil(share * len(self._known)) - 1)]
