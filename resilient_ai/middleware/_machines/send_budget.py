"""A budget of extra sends: retries and hedges that a model's answers must first have earned."""


class SendBudget:
    """Holds so many extra sends, spends them and earns them back.

    In an outage every caller tries again, and a server that is about to recover meets several times its usual load. The budget
    bounds that: each answer earns `per_answer` of an extra send and each second `per_second`, up to `capacity`. Over any time in
    which N calls are made, the sends are at most `N + capacity + N * per_answer + seconds * per_second`.

    Args:
        capacity: Extra sends it holds at most, at least 0.
        per_answer: What an answer earns.
        per_second: What time earns, so that a budget without answers comes back all the same.
        left: What it holds at the beginning; None for `capacity`.

    >>> budget = SendBudget(capacity=2.0, per_answer=0.5, per_second=0.0)
    >>> [budget.try_spend(0.0, 1.0) for _ in range(3)]
    [True, True, False]
    >>> budget.record_success(0.0); budget.record_success(0.0); budget.try_spend(0.0, 1.0)
    True
    """

    __slots__ = ("_at", "_left", "_per_answer", "_per_second", "capacity")

    def __init__(self, *, capacity: float, per_answer: float, per_second: float, left: float | None = None) -> None:
        self.capacity = capacity
        self._per_answer = per_answer
        self._per_second = per_second
        self._left = capacity if left is None else left
        self._at: float | None = None

    def try_spend(self, now: float, amount: float) -> bool:
        """Spend `amount`, if it is there."""
        if self.left(now) < amount:
            return False
        self._left -= amount
        return True

    def record_success(self, now: float) -> None:
        """Earn what an answer earns."""
        self._left = min(self.capacity, self.left(now) + self._per_answer)

    def left(self, now: float) -> float:
        """Return what may be spent at `now`. Time that runs backwards, as between two clocks, earns nothing."""
        if self._at is not None and now > self._at:
            self._left = min(self.capacity, self._left + (now - self._at) * self._per_second)
        self._at = now
        return self._left
