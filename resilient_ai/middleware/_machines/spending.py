"""What one process knows of one counter of a budget."""

import math
from collections.abc import Sequence

from resilient_ai.middleware._machines.budget_window import Slot


class Spending:
    """The amount that counted when it was looked at last, what of it is only reserved, and which marks it has passed.

    Marks are about what is settled: the amount that counted, without what this process has reserved and not settled yet. Each
    mark is told once in a window: when something is settled and as much has been spent. One whose window rolls tells it again
    after the length of its window.

    Where the book has lost the counter and begun another, which has another life, nothing is reserved in that.

    Args:
        marks: Amounts, in any order.

    Attributes:
        spent: What counted, in the unit of the counter.
        slot: What counted as now; None before the first look.
        life: That of the counter; None where the book told none.

    >>> from resilient_ai.middleware._machines.budget_window import BudgetWindow
    >>> today, spending = BudgetWindow("day").at(5.0), Spending([50, 100])
    >>> spending.reserve(today, 70)
    >>> spending.saw(today, 70)  # nothing was lost
    False
    >>> spending.settle(today, 60 - 70, 70), spending.settle(today, 30, 0), spending.settle(today, 10, 0)
    ([0], [], [1])
    """

    __slots__ = ("_changes", "_marks", "_reserved", "life", "slot", "spent", "told_until")

    def __init__(self, marks: Sequence[int]) -> None:
        self._marks = marks
        # When each mark may be told again; none before one was. There may be a hundred thousand of these, most of them at rest.
        self.told_until: tuple[float, ...] = ()
        self._reserved: dict[int, int] | None = None
        self._changes = 0
        self.life: int | None = None
        self.spent = 0
        self.slot: Slot | None = None

    def asks(self, slot: Slot) -> int | None:
        """Return what to hand to `saw` with the answer to a question that is asked now."""
        return self._changes if slot == self.slot else None

    def saw(self, slot: Slot, spent: int, asked: int | None = None, life: int | None = None) -> bool:
        """Take note of what counts now. What was settled since it was asked for, the answer does not know of yet.

        Returns:
            Whether the book has lost a counter that would still count.
        """
        known = self.slot
        if known is not None and slot.slice < known.slice:
            return False  # the answer to a question of an older window
        lost = (
            self.life is not None and life not in {None, self.life} and known is not None and slot.first <= known.slice
        )
        if lost:
            self._reserved = None
        elif asked is not None and slot == known:
            spent = max(0, spent + self._changes - asked)
        self.spent, self.slot = spent, slot
        self.life = self.life if life is None else life
        return lost

    def reserve(self, slot: Slot, amount: int) -> None:
        """Take note of what was added in a slot until it is known what it comes to."""
        if amount:
            if self._reserved is None:
                self._reserved = {}
            self._reserved[slot.slice] = self._reserved.get(slot.slice, 0) + amount

    def reserved(self, slot: Slot) -> int:
        """Return what of that which counts now is reserved and not settled yet."""
        return sum(self.reserved_in(slot).values()) if self._reserved else 0

    def reserved_in(self, slot: Slot) -> dict[int, int]:
        """Return the same for each slice, by where it begins."""
        reserved = self._reserved or {}
        return {start: amount for start, amount in reserved.items() if slot.first <= start <= slot.slice}

    def settle(self, slot: Slot, amount: int, held: int, life: int | None = None) -> list[int]:
        """Add an amount to a slot, or take it back, and let go of what was reserved in it.

        Args:
            slot: Where it was reserved.
            amount: What it cost without what was reserved.
            held: What was reserved.
            life: That of the counter in which it was; in another one nothing was reserved, so the whole cost is added.

        Returns:
            The places of the marks that have been passed for the first time. A slot that is over passes none.
        """
        known = self.slot
        if known is None or not known.first <= slot.slice <= known.slice:
            self._let_go(slot, held)
            return []
        if life not in {None, self.life}:
            amount, held = amount + held, 0
        self._let_go(slot, held)
        self._changes += amount
        self.spent = max(0, self.spent + amount)
        settled = self.settled
        until = self.told_until or (-math.inf,) * len(self._marks)
        passed = [place for place, mark in enumerate(self._marks) if settled >= mark and known.slice >= until[place]]
        if passed:
            self.told_until = tuple(known.anew if place in passed else until[place] for place in range(len(until)))
        return passed

    def forget_reserved(self) -> None:
        """Take what is reserved for spent: others see to it."""
        self._reserved = None

    @property
    def awaits(self) -> bool:
        """Whether something is reserved that is still to be settled."""
        return bool(self._reserved)

    def _let_go(self, slot: Slot, held: int) -> None:
        reserved = self._reserved
        if not reserved:
            return
        left = reserved.get(slot.slice, 0) - held
        if left > 0:
            reserved[slot.slice] = left
        else:
            reserved.pop(slot.slice, None)
            if not reserved:
                self._reserved = None

    @property
    def settled(self) -> int:
        """What counted without what is reserved."""
        return self.spent if self.slot is None else max(0, self.spent - self.reserved(self.slot))

    def known(self, slot: Slot) -> int | None:
        """Return what counts in this slot, None where it has not been looked at in it."""
        return self.spent if slot == self.slot else None
