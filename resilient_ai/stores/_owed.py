"""What a book of budgets owes to its counters: charges that add up, and those that were admitted for nobody."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

from resilient_ai.core.budgets import Admission, Charge, taken_back

LARGEST = 2**60  # a million dollars and more


class Owed:
    """Charges that are still to be added to their counters, one for each counter and life of it.

    >>> charge = Charge(key="a", slice=0, first=0, amount=7, limit=9, until=1)
    >>> owed = Owed([charge, charge])
    >>> [one.amount for one in owed]
    [14]
    """

    def __init__(self, charges: Iterable[Charge] = ()) -> None:
        self._sums: dict[tuple[str, int, int | None], Charge] = {}
        self.add(charges)

    def __len__(self) -> int:
        return len(self._sums)

    def __iter__(self) -> Iterator[Charge]:
        return iter(self._sums.values())

    def add(self, charges: Iterable[Charge]) -> None:
        """Owe these as well."""
        for one in charges:
            name = one.key, one.slice, one.life
            known = self._sums.get(name)
            self._sums[name] = (
                one if known is None else replace(one, amount=known.amount + one.amount, held=known.held + one.held)
            )

    def clear(self) -> None:
        """Owe nothing."""
        self._sums.clear()


def bounded(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """Return charges of which none is larger than a counter of 64 bits can hold along with others.

    An absurd bill must not be thrown away: it fills a budget up.

    >>> charge = Charge(key="a", slice=0, first=0, amount=10**30, limit=9, until=1)
    >>> [one.amount == LARGEST for one in bounded([charge])]
    [True]
    """
    return tuple(
        one if -LARGEST <= one.amount <= LARGEST else replace(one, amount=LARGEST if one.amount > 0 else -LARGEST)
        for one in charges
    )


def forget(asked: Future[Admission], charges: Sequence[Charge], settle: Callable[[Sequence[Charge]], None]) -> None:
    """Want no answer to a charge any more; where it was admitted all the same, or still is, give it back.

    Args:
        asked: What whoever charges was to hear.
        charges: What was asked for.
        settle: Adds charges without looking at limits; called in the thread that answers, and never waits.
    """

    def give_back(answer: Future[Admission]) -> None:
        if not answer.cancelled() and answer.exception() is None and answer.result().admitted:
            settle(taken_back(charges, answer.result().lives))

    if not asked.cancel():
        asked.add_done_callback(give_back)
