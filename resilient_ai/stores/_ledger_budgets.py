"""The counters of budgets in the ledger's own file: charged by one process at a time, together or not at all."""

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from resilient_ai.core.budgets import SLICES, Admission, Charge, units
from resilient_ai.stores._ledger_common import Filter
from resilient_ai.stores._ledger_filters import where

if TYPE_CHECKING:
    import sqlite3

_BUSY = 5  # SQLITE_BUSY, written out as only whoever opens a file imports `sqlite3`

_HELD = """
SELECT coalesce(sum(spent), 0), count(*), coalesce(max(slice = :slice), 0)
FROM budget_counters WHERE key = :key AND slice BETWEEN :first AND :slice
"""
_ADD = """
INSERT INTO budget_counters (key, slice, spent, until) VALUES (?, ?, max(0, ?), ?)
ON CONFLICT (key, slice) DO UPDATE SET spent = max(0, spent + ?)
"""
# Over for whoever asks and, for ten minutes, by the clock of the machine: the clock of one who asks may be ahead of all others.
_FORGET = "DELETE FROM budget_counters WHERE until <= min(?, CAST(strftime('%s', 'now') AS INTEGER) - 600)"


class Settlement(NamedTuple):
    """What is added to counters without looking at limits."""

    charges: tuple[Charge, ...]


Span = tuple[str, int, int]  # a key, the first slice that counts, and the last
Seed = list[tuple[int, int]]  # slices, and what was spent in each


class SeedsMissing(Exception):
    """Counters are new, and nobody has looked up yet what they begin with.

    Attributes:
        charges: Those with new counters.
    """

    def __init__(self, charges: Sequence[Charge]) -> None:
        super().__init__()
        self.charges = charges


class _Held(NamedTuple):
    spent: int
    counters: int
    there: int  # whether the slice itself has a counter


def span(charge: Charge) -> Span:
    """Return which counters count for a charge."""
    return charge.key, charge.first, charge.slice


def charge(
    connection: "sqlite3.Connection",
    charges: Sequence[Charge],
    give_up_at: float,
    seeds: Mapping[Span, Seed] | None = None,
) -> Admission:
    """Add all charges in one transaction, or none of them where one does not fit.

    Args:
        connection: To the ledger.
        charges: What is to be added.
        give_up_at: Until when it may wait for other processes, as `time.monotonic` tells it.
        seeds: What new counters begin with, as far as that was looked up; None looks up all that is missing.

    Raises:
        SeedsMissing: If something is missing in `seeds`.
        sqlite3.Error: If the file is locked for that long, or cannot be written.
        OverflowError: If a counter would become too large, which is beyond nine million dollars.
    """
    # Looked up before the file is locked, as there may be many sends.
    seeds = _seeds(connection, charges, seeds)
    _begin(connection, give_up_at)
    try:
        spent = tuple(_open(connection, one, seeds) for one in charges)
        admitted = all(
            one.limit is None or held + one.amount <= one.limit for one, held in zip(charges, spent, strict=True)
        )
        if admitted:
            _add(connection, charges)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return Admission(admitted=admitted, spent=spent)


def spent(
    connection: "sqlite3.Connection", charges: Sequence[Charge], seeds: Mapping[Span, Seed] | None = None
) -> tuple[int, ...]:
    """Return what the counters of these charges hold, and add nothing; `seeds` is that of `charge`."""
    seeds = _seeds(connection, charges, seeds)
    found: list[int] = []
    for one in charges:
        held = _held(connection, one)
        found.append(held.spent if held.counters else sum(amount for _, amount in seeds[span(one)]))
    return tuple(found)


def settle(connection: "sqlite3.Connection", settlements: Sequence[Settlement]) -> None:
    """Add charges, within a transaction that is under way."""
    for settlement in settlements:
        _add(connection, settlement.charges)


def _seeds(
    connection: "sqlite3.Connection", charges: Sequence[Charge], seeds: Mapping[Span, Seed] | None
) -> Mapping[Span, Seed]:
    # Where one has a counter in its window, whatever was sent since was charged: it is not counted twice.
    new = [one for one in charges if not _held(connection, one).counters]
    if seeds is None:
        return {span(one): seed(connection, one) for one in new}
    missing = [one for one in new if span(one) not in seeds]
    if missing:
        raise SeedsMissing(missing)
    return seeds


def _open(connection: "sqlite3.Connection", one: Charge, seeds: Mapping[Span, Seed]) -> int:
    """Return what the counters of a charge hold; where there are none it begins with what was spent before."""
    held = _held(connection, one)
    if not held.there:
        connection.execute(_FORGET, (one.slice,))
    if held.counters:
        return held.spent
    begin = seeds.get(span(one)) or seed(connection, one)
    connection.executemany(_ADD, [(one.key, slot, amount, one.until, amount) for slot, amount in begin])
    return _held(connection, one).spent


def _held(connection: "sqlite3.Connection", one: Charge) -> _Held:
    (row,) = connection.execute(_HELD, {"key": one.key, "slice": one.slice, "first": one.first}).fetchall()
    return _Held(*row)


def _add(connection: "sqlite3.Connection", charges: Sequence[Charge]) -> None:
    # More is given back than was spent only after a counter was lost, and that must not raise the limit.
    connection.executemany(_ADD, [(one.key, one.slice, one.amount, one.until, one.amount) for one in charges])


def seed(connection: "sqlite3.Connection", one: Charge) -> Seed:
    """Return slices, the charge's own one always among them, and what sends of its scope have cost in them so far."""
    terms, values = where(Filter(one.slice, one.until, one.scope))
    sql = f"SELECT coalesce(decimal_sum(cost), '0') FROM sends WHERE cost IS NOT NULL AND {terms}"  # noqa: S608  # fixed words
    ((cost,),) = connection.execute(sql, values).fetchall()
    seeds = [(one.slice, units(Decimal(cost)))]
    if one.first < one.slice:
        seeds += _older(connection, one)
    return seeds


def _older(connection: "sqlite3.Connection", one: Charge) -> Seed:
    """Return the slices of a window that rolls, before the charge's own one.

    How wide slices are nobody says here, so what was spent counts from the last second of a sixtieth of the window, never too
    short.
    """
    width = max(1, (one.slice - one.first) // SLICES)
    terms, values = where(Filter(one.first, one.slice, one.scope))
    sql = f"""
        SELECT min(? + (CAST(at - ? AS INTEGER) / ? + 1) * ?, ?) - 1 AS slot, decimal_sum(cost)
        FROM sends WHERE cost IS NOT NULL AND {terms} GROUP BY slot
    """  # noqa: S608  # fixed words
    rows = connection.execute(sql, (one.first, one.first, width, width, one.slice, *values))
    return [(slot, units(Decimal(cost))) for slot, cost in rows]


def _begin(connection: "sqlite3.Connection", give_up_at: float) -> None:
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except connection.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != _BUSY or time.monotonic() >= give_up_at:
                raise
        else:
            return
