"""Sums of money, added up exactly and read on collection, so that they equal those of the ledger to the last digit."""

import threading
from decimal import Decimal

from resilient_ai.core.money import EXACT
from resilient_ai.middleware._metric_attributes import Attributes


class Sum:
    """One sum; adding to it costs a tenth of what a counter of an SDK takes for an amount."""

    __slots__ = ("_lock", "amount", "attributes")

    def __init__(self, attributes: Attributes, lock: threading.RLock) -> None:
        self.attributes = attributes
        self.amount = Decimal(0)
        self._lock = lock

    def add(self, amount: Decimal) -> None:
        """Add US dollars."""
        with self._lock:
            self.amount = EXACT.add(self.amount, amount)


class Sums:
    """The sums of one metric, which outlive the clients that added to them.

    >>> sums = Sums()
    >>> sums.of({"model": "m"}).add(Decimal("0.1")); sums.of({"model": "m"}).add(Decimal("0.2"))
    >>> sums.readings()
    [(0.3, {'model': 'm'})]
    """

    def __init__(self) -> None:
        # The garbage collector may end a stream, and add what it cost, in the middle of another sum.
        self._lock = threading.RLock()
        self._known: dict[frozenset[tuple[str, str | int]], Sum] = {}

    def of(self, attributes: Attributes) -> Sum:
        """Return the sum of what has these attributes."""
        key = frozenset(attributes.items())
        with self._lock:
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = Sum(attributes, self._lock)
            return found

    def readings(self) -> list[tuple[float, Attributes]]:
        """Return all sums."""
        with self._lock:
            return [(float(known.amount), known.attributes) for known in self._known.values()]
