"""What a book of budgets owes to its counters: charges that add up, and those that were admitted for nobody."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

from resilient_ai.core.budgets import Admission, Charge, taken_back


class Owed:
    """Charges that are still to be added to their counters, one for each counter.

    >>> charge = Charge(key="a", slice=0, first=0, amount=7, limit=9, until=1)
    >>> owed = Owed([charge, charge])
    >>> [one.amount for one in owed]
    [14]
    """

    def __init__(self, charges: Iterable[Charge] = ()) -> None:
        self._sums: dict[tuple[str, int], Charge] = {}
        self.add(charges)

    def __len__(self) -> int:
        return len(self._sums)

    def __iter__(self) -> Iterator[Charge]:
        return iter(self._sums.values())

    def add(self, charges: Iterable[Charge]) -> None:
        """Owe these as well."""
        for one in charges:
            known = self._sums.get((one.key, one.slice))
            amount = one.amount if known is None else known.amount + one.amount
            self._sums[one.key, one.slice] = replace(one, amount=amount)

    def clear(self) -> None:
        """Owe nothing."""
        self._sums.clear()


def forget(asked: Future[Admission], charges: Sequence[Charge], settle: Callable[[Sequence[Charge]], None]) -> None:
    """Want no answer to a charge any more; where it was admitted all the same, or still is, give it back.

    Args:
        asked: What whoever charges was to hear.
        charges: What was asked for.
        settle: Adds charges without looking at limits; called in the thread that answers, and never waits.
    """

    def give_back(answer: Future[Admission]) -> None:
        if not answer.cancelled() and answer.exception() is None and answer.result().admitted:
            settle(taken_back(charges))

    if not asked.cancel():
        asked.add_done_callback(give_back)
