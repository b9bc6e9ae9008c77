"""What budgets count with: amounts that are added to counters, together or not at all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Decimal
from typing import Protocol

from resilient_ai.core.money import EXACT

# A counter is a whole number of millionths of a millionth of a dollar, so that no sum drifts in any database.
PER_DOLLAR = 10**12
# A window that rolls is cut into so many slices, which fall out of it one by one.
SLICES = 60


def units(amount: Decimal) -> int:
    """Return an amount in US dollars as a counter holds it, rounded up.

    >>> units(Decimal("0.0000000000001"))
    1
    """
    return int(EXACT.multiply(amount, Decimal(PER_DOLLAR)).to_integral_value(ROUND_CEILING, EXACT))


def dollars(count: int) -> Decimal:
    """Return what a counter holds in US dollars.

    >>> dollars(2_500_000_000)
    Decimal('0.0025')
    """
    return EXACT.plus(EXACT.divide(Decimal(count), Decimal(PER_DOLLAR)).normalize(EXACT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """An amount that counts against one budget.

    A budget has a counter for each slice of time. One with calendar windows has one slice per window. One whose window rolls
    cuts time into small slices, and all from `first` to `slice` count.

    What was reserved is settled with the difference to its true cost. A counter that was lost meanwhile and begun anew, such as
    in a Redis that was emptied, does not hold what was reserved, so there the whole cost is added. Therefore a counter that is
    begun has a number, its *life*, which the book keeps and tells.

    Args:
        key: Names the window and the values of the scope, such as "day tenant=a"; the limit is no part of it, so that it can be
            changed without beginning anew.
        slice: Where it is added: seconds since 1970-01-01 UTC at which the slice begins.
        first: The oldest slice that counts.
        amount: In millionths of a millionth of a dollar; negative where something is given back.
        limit: What the slices may come to with it; None where it is never refused.
        scope: The tags of sends that count against it, for whoever can look up what was spent before the budget was there. The
            kind "chat" stands for streamed chats as well.
        until: When the slice may be forgotten, in seconds since 1970-01-01 UTC; after the end of its window.
        held: What was added before that this is settled with.
        life: The life of the counter that it was added to; None where that is not known.
    """

    key: str
    slice: int
    first: int
    amount: int
    limit: int | None
    until: int
    scope: Mapping[str, str] = field(default_factory=dict[str, str])
    held: int = 0
    life: int | None = None

    @property
    def whole(self) -> int:
        """What is added to a counter of another life, which does not hold what was added before.

        >>> Charge(key="a", slice=0, first=0, amount=-7, limit=9, until=1, held=10, life=1).whole
        3
        """
        return self.amount + self.held

    def in_life(self, life: int | None) -> int:
        """Return what is added to a counter of this life."""
        return self.amount if self.life is None or self.life == life else self.amount + self.held


def taken_back(charges: Sequence[Charge], lives: Sequence[int] = ()) -> list[Charge]:
    """Return what takes charges back once it is settled.

    Args:
        charges: What was added.
        lives: The lives of the counters it was added to; empty where they are not known.

    >>> [one.amount for one in taken_back([Charge(key="a", slice=0, first=0, amount=7, limit=9, until=1)])]
    [-7]
    """
    if not lives:
        return [replace(one, amount=-one.amount) for one in charges]
    pairs = zip(charges, lives, strict=True)
    return [replace(one, amount=-one.amount, held=one.amount, life=life) for one, life in pairs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of charges.

    Args:
        admitted: Whether all were added; if one did not fit, none was.
        spent: What each counter held before them, in the order of the charges.
        parts: What is in the way of charges that were refused: by the key of each one that has a limit and a window of several
            slices, what these hold, by where they begin, empty ones left out. None where there is no such charge, or where the
            book cannot tell.
        lives: Of charges that were admitted, the life of each one's counter, in their order; empty where the book tells none.
    """

    admitted: bool
    spent: tuple[int, ...]
    parts: Mapping[str, Mapping[int, int]] | None = None
    lives: tuple[int, ...] = field(default=(), compare=False)


def refused(
    spent: Sequence[int], charges: Sequence[Charge], slices_of: Callable[[Charge], Mapping[int, int]]
) -> Admission:
    """Return that charges were refused, and what is in their way.

    Args:
        spent: What each counter held.
        charges: What was refused.
        slices_of: Returns what the slices of a charge hold; others may be among them.
    """
    parts: dict[str, Mapping[int, int]] = {}
    for one in charges:
        if one.limit is not None and one.first < one.slice:
            held = slices_of(one)
            parts[one.key] = {at: held[at] for at in sorted(held) if held[at] > 0 and one.first <= at <= one.slice}
    return Admission(admitted=False, spent=tuple(spent), parts=parts or None)


class BudgetBook(Protocol):
    """Counters of what was spent, shared by whoever shares the book.

    What is reserved counts as spent from the moment it is admitted, and what it turns out not to have cost is given back. So a
    process that dies takes nothing with it: what it had reserved stays spent, which is the worst it can have cost.
    """

    async def charge(self, charges: Sequence[Charge]) -> Admission:
        """Add all charges in one step, or none of them where one does not fit.

        A counter that nobody has used starts at what the sends of its scope and slice have cost so far, where the book knows.

        Raises:
            BookUnavailable: If the book cannot be asked.
        """
        ...

    def settle(self, charges: Sequence[Charge]) -> None:
        """Add charges without looking at limits; never waits, never raises, and may be called from the garbage collector.

        To a counter of another life than a charge names, its `whole` is added.
        """
        ...

    async def spent(self, charges: Sequence[Charge]) -> tuple[int, ...]:
        """Return what the counters of these charges hold, from `first` to `slice`, and add nothing.

        Raises:
            BookUnavailable: If the book cannot be asked.
        """
        ...

    async def aclose(self) -> None:
        """Write what was settled, and let go of files and connections."""
        ...
