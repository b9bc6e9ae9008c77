"""What one process knows of one counter of a budget."""

import math
from collections.abc import Sequence

from resilient_ai.middleware._machines.budget_window import Slot


class Spending:
    """The amount that counted when it was looked at last, and which marks it has passed.

    Each mark is told once in a window: the first time that as much has been spent. One whose window rolls tells it again after
    the length of its window.

    Args:
        marks: Amounts, in any order.

    Attributes:
        spent: What counted, in the unit of the counter.
        slot: What counted as now; None before the first look.

    >>> from resilient_ai.middleware._machines.budget_window import BudgetWindow
    >>> today, spending = BudgetWindow("day").at(5.0), Spending([50, 100])
    >>> spending.saw(today, 70), spending.saw(today, 60), spending.saw(today, 120)
    ([0], [], [1])
    """

    __slots__ = ("_marks", "_told_until", "slot", "spent")

    def __init__(self, marks: Sequence[int]) -> None:
        self._marks = tuple(marks)
        self._told_until: list[float] = [-math.inf] * len(self._marks)
        self.spent = 0
        self.slot: Slot | None = None

    def saw(self, slot: Slot, spent: int) -> list[int]:
        """Take note of what counts now; return the places of the marks that it has passed for the first time."""
        self.spent, self.slot = spent, slot
        passed: list[int] = []
        for place, mark in enumerate(self._marks):
            if spent >= mark and slot.slice >= self._told_until[place]:
                self._told_until[place] = slot.anew
                passed.append(place)
        return passed

    def changed(self, slot: Slot, amount: int) -> list[int]:
        """Take note of what was added in a slot, or given back; return as `saw` does. A slot that is over changes nothing."""
        known = self.slot
        if known is None or not known.first <= slot.slice <= known.slice:
            return []
        return self.saw(known, self.spent + amount)

    def known(self, slot: Slot) -> int | None:
        """Return what counts in this slot, None where it has not been looked at in it."""
        return self.spent if slot == self.slot else None
