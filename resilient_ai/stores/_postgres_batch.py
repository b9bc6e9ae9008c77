"""One transaction over the counters of budgets: what was settled, and all charges that came meanwhile, one after another."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resilient_ai.core.budgets import Admission, Charge
from resilient_ai.stores._postgres_counters import Counters, Span

if TYPE_CHECKING:
    import psycopg


@dataclass(slots=True, eq=False)
class Ask:
    """Charges to be admitted, or where `adds` is False only looked at."""

    charges: Sequence[Charge]
    adds: bool
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
        self._held: dict[Span, int | None] = {}
        self._added: dict[str, dict[int, int]] = {}
        self._until: dict[str, int] = {}

    @property
    def writes(self) -> bool:
        """Whether it adds anything."""
        return bool(self.settled) or any(ask.adds for ask in self._asks)

    @property
    def admitted(self) -> list[Charge]:
        """The charges that were admitted."""
        return [charge for ask, found in self.found if ask.adds and found.admitted for charge in ask.charges]

    def run(self, connection: "psycopg.Connection[Any]") -> None:
        """Do it, in the transaction that is open.

        Raises:
            SeedsMissing: If there are new counters, and `may_seed` is False.
        """
        self.found, self._added, self.complete = [], {}, False
        charges = [charge for ask in self._asks for charge in ask.charges]
        if self.writes:
            self._counters.lock(connection, {charge.key for charge in [*charges, *self.settled]})
        # Before they are read, as no counter falls below 0.
        self._add(self.settled)
        self._write(connection)
        spans = list({_span(charge): None for charge in charges})
        self._held = self._counters.read(connection, spans) if spans else {}
        for ask in self._asks:
            held = [self._spent(connection, charge, keep=ask.adds) for charge in ask.charges]
            fits = all(_fits(charge, spent, ask.charges) for charge, spent in zip(ask.charges, held, strict=True))
            self.found.append((ask, Admission(admitted=fits, spent=tuple(held))))
            if fits and ask.adds:
                self._add(ask.charges)
        self._write(connection)
        self.complete = True

    def _write(self, connection: "psycopg.Connection[Any]") -> None:
        amounts = {
            (key, slice_): (amount, self._until[key])
            for key, slices in self._added.items()
            for slice_, amount in slices.items()
        }
        if amounts:
            self._counters.add(connection, amounts)
        self._added = {}

    def _spent(self, connection: "psycopg.Connection[Any]", charge: Charge, *, keep: bool) -> int:
        added = self._added.get(charge.key, {})
        counted = [amount for slice_, amount in added.items() if charge.first <= slice_ <= charge.slice]
        held = self._held[_span(charge)]
        if held is not None or counted:
            return (held or 0) + sum(counted)
        if not self.may_seed:
            raise SeedsMissing
        parts = self._counters.spent_before(connection, charge)
        if keep:
            self._merge(charge.key, {charge.slice: 0} | parts, charge.until)
        return sum(parts.values())

    def _add(self, charges: Iterable[Charge]) -> None:
        for charge in charges:
            self._merge(charge.key, {charge.slice: charge.amount}, charge.until)

    def _merge(self, key: str, amounts: dict[int, int], until: int) -> None:
        added = self._added.setdefault(key, {})
        for slice_, amount in amounts.items():
            added[slice_] = added.get(slice_, 0) + amount
        self._until[key] = max(until, self._until.get(key, until))


def _span(charge: Charge) -> Span:
    return charge.key, charge.first, charge.slice


def _fits(charge: Charge, spent: int, charges: Sequence[Charge]) -> bool:
    # Whoever names a counter twice is counted twice.
    own = sum(one.amount for one in charges if one.key == charge.key and charge.first <= one.slice <= charge.slice)
    return charge.limit is None or spent + own <= charge.limit
