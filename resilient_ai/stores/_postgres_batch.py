"""One transaction over the counters of budgets: what was settled, and all charges that came meanwhile, one after another."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from resilient_ai.core.budgets import Admission, Charge, refused, taken_back
from resilient_ai.stores._budget_seeds import Span, new_life, span
from resilient_ai.stores._owed import Owed
from resilient_ai.stores._postgres_counters import Counters, Held

if TYPE_CHECKING:
    import psycopg


@dataclass(slots=True, eq=False)
class Ask:
    """Charges to be admitted."""

    charges: Sequence[Charge]
    answer: "Future[Admission]" = field(default_factory=Future[Admission])


class SeedsMissing(Exception):
    """Counters begin with what sends have cost, and it is not known whether all of those are written."""


class Batch:
    """Writes what was settled, reads counters once, decides in memory, and writes once.

    Args:
        asks: Who asks, in order.
        settled: Charges that are added before any of them.

    Attributes:
        settled: What is added before.
        may_seed: Whether all sends are written that new counters begin with.
        found: What became of whom, once it was run.
        complete: Whether everything was written, and only the commit was left to do.
    """

    def __init__(self, counters: Counters, asks: Sequence[Ask], settled: Sequence[Charge]) -> None:
        self.may_seed = False
        self.found: list[tuple[Ask, Admission]] = []
        self.complete = False
        self.settled = settled
        self._counters = counters
        self._asks = asks
        self._held: dict[Span, Held] = {}
        self._seeds: dict[Span, dict[int, int]] = {}
        self._added: dict[str, dict[int, int]] = {}
        self._charges: dict[tuple[str, int], Charge] = {}
        self._slices: dict[Span, dict[int, int]] = {}
        self._life = 0

    @property
    def writes(self) -> bool:
        """Whether it adds anything."""
        return bool(self.settled) or any(ask.charges for ask in self._asks)

    def taken_back(self) -> list[Charge]:
        """Return what takes the charges back that were admitted."""
        admitted = [(ask, found) for ask, found in self.found if found.admitted]
        return [charge for ask, found in admitted for charge in taken_back(ask.charges, found.lives)]

    def run(self, connection: "psycopg.Connection[Any]") -> None:
        """Do it, in the transaction that is open.

        Raises:
            SeedsMissing: If there are new counters, and `may_seed` is False.
        """
        self.found, self._added, self._charges, self._slices, self.complete = [], {}, {}, {}, False
        self._life = new_life()
        charges = [charge for ask in self._asks for charge in ask.charges]
        if self.writes:
            self._counters.lock(connection, {charge.key for charge in [*charges, *self.settled]})
        # Before they are read, as no counter falls below 0.
        if self.settled:
            self._counters.add(connection, Owed(self.settled), 0)
        by_span = {span(charge): charge for charge in charges}
        self._held = self._counters.read(connection, list(by_span)) if by_span else {}
        new = [charge for name, charge in by_span.items() if not self._held[name].life]
        if new and not self.may_seed:
            raise SeedsMissing
        self._seeds = self._counters.spent_before(connection, new)
        self._begin(
            connection, [one for name, one in by_span.items() if name in self._seeds and self._held[name].counters]
        )
        for ask in self._asks:
            held = [self._spent(charge) for charge in ask.charges]
            fits = all(_fits(charge, spent, ask.charges) for charge, spent in zip(ask.charges, held, strict=True))
            if fits:
                lives = tuple(map(self._life_of, ask.charges))
                self.found.append((ask, Admission(admitted=True, spent=tuple(held), lives=lives)))
                self._add(ask.charges)
            else:
                self.found.append((ask, refused(held, ask.charges, partial(self._slices_of, connection))))
        if self._charges:
            added = [replace(one, amount=self._added[key][at]) for (key, at), one in self._charges.items()]
            self._counters.add(connection, added, self._life)
        self.complete = True

    def _begin(self, connection: "psycopg.Connection[Any]", begun: Sequence[Charge]) -> None:
        """Begin counters anew that settlements have begun, unless they hold more than was spent before, or something else."""
        for one in begun:
            name = span(one)
            apart = self._counters.is_apart(connection, one)
            keeps = apart or self._held[name].spent > sum(self._seeds[name].values())
            self._counters.begin(connection, name, life=self._life if keeps else None)
            if apart:
                for at, amount in self._seeds[name].items():
                    self._merge(replace(one, slice=at), amount)
        if begun:
            self._held |= self._counters.read(connection, list(map(span, begun)))

    def _spent(self, charge: Charge) -> int:
        name = span(charge)
        held, added = self._held[name], self._added.get(charge.key, {})
        if not held.life and not any(charge.first <= at <= charge.slice for at in added):
            # Somebody who comes later in this transaction finds the counter begun.
            for at, amount in ({charge.slice: 0} | self._seeds[name]).items():
                self._merge(replace(charge, slice=at), amount)
            added = self._added[charge.key]
        counted = sum(amount for at, amount in added.items() if charge.first <= at <= charge.slice)
        return held.spent + counted

    def _life_of(self, charge: Charge) -> int:
        return self._held[span(charge)].life or self._life

    def _slices_of(self, connection: "psycopg.Connection[Any]", charge: Charge) -> dict[int, int]:
        name, added = span(charge), self._added.get(charge.key, {})
        known = self._slices.get(name)
        if known is None:
            known = self._slices[name] = self._counters.slices(connection, name)
        return {at: known.get(at, 0) + added.get(at, 0) for at in known.keys() | added.keys()}

    def _add(self, charges: Iterable[Charge]) -> None:
        for charge in charges:
            self._merge(charge, charge.amount)

    def _merge(self, charge: Charge, amount: int) -> None:
        added = self._added.setdefault(charge.key, {})
        added[charge.slice] = added.get(charge.slice, 0) + amount
        known = self._charges.get((charge.key, charge.slice), charge)
        until = max(charge.until, known.until)
        self._charges[charge.key, charge.slice] = replace(known, first=min(charge.first, known.first), until=until)


def _fits(charge: Charge, spent: int, charges: Sequence[Charge]) -> bool:
    # Whoever names a counter twice is counted twice.
    own = sum(one.amount for one in charges if one.key == charge.key and charge.first <= one.slice <= charge.slice)
    return charge.limit is None or spent + own <= charge.limit
