"""The counters of budgets in the ledger's own file: charged by one process at a time, together or not at all."""

import time
from collections.abc import Sequence
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
# Over for whoever asks and, for a day, by the clock of the machine: the clock of one who asks may be ahead of all others.
_FORGET = "DELETE FROM budget_counters WHERE until <= min(?, CAST(strftime('%s', 'now') AS INTEGER) - 86400)"


class Settlement(NamedTuple):
    """What is added to counters without looking at limits."""

    charges: tuple[Charge, ...]


class _Held(NamedTuple):
    spent: int
    counters: int
    there: int  # whether the slice itself has a counter


def charge(connection: "sqlite3.Connection", charges: Sequence[Charge], give_up_at: float) -> Admission:
    """Add all charges in one transaction, or none of them where one does not fit.

    Args:
        connection: To the ledger.
        charges: What is to be added.
        give_up_at: Until when it may wait for other processes, as `time.monotonic` tells it.

    Raises:
        sqlite3.Error: If the file is locked for that long, or cannot be written.
        OverflowError: If a counter would become too large, which is beyond nine million dollars.
    """
    # Looked up before the file is locked, as there may be many sends.
    seeds = {
        (one.key, one.slice): _seed(connection, one, held)
        for one in charges
        if not (held := _held(connection, one)).there
    }
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


def spent(connection: "sqlite3.Connection", charges: Sequence[Charge]) -> tuple[int, ...]:
    """Return what the counters of these charges hold, and add nothing."""
    found: list[int] = []
    for one in charges:
        held = _held(connection, one)
        seeds = [] if held.there else _seed(connection, one, held)
        found.append(held.spent + sum(amount for _, amount in seeds))
    return tuple(found)


def settle(connection: "sqlite3.Connection", settlements: Sequence[Settlement]) -> None:
    """Add charges, within a transaction that is under way."""
    for settlement in settlements:
        _add(connection, settlement.charges)


def _open(connection: "sqlite3.Connection", one: Charge, seeds: dict[tuple[str, int], list[tuple[int, int]]]) -> int:
    """Return what the counters of a charge hold; where its own one is missing it begins with what was spent before."""
    held = _held(connection, one)
    if held.there:
        return held.spent
    connection.execute(_FORGET, (one.slice,))
    seed = seeds.get((one.key, one.slice)) or _seed(connection, one, held)
    connection.executemany(_ADD, [(one.key, slot, amount, one.until, amount) for slot, amount in seed])
    return _held(connection, one).spent


def _held(connection: "sqlite3.Connection", one: Charge) -> _Held:
    (row,) = connection.execute(_HELD, {"key": one.key, "slice": one.slice, "first": one.first}).fetchall()
    return _Held(*row)


def _add(connection: "sqlite3.Connection", charges: Sequence[Charge]) -> None:
    # More is given back than was spent only after a counter was lost, and that must not raise the limit.
    connection.executemany(_ADD, [(one.key, one.slice, one.amount, one.until, one.amount) for one in charges])


def _seed(connection: "sqlite3.Connection", one: Charge, held: _Held) -> list[tuple[int, int]]:
    """Return slices, the charge's own one always among them, and what sends of its scope have cost in them so far."""
    terms, values = where(Filter(one.slice, one.until, one.scope))
    sql = f"SELECT coalesce(decimal_sum(cost), '0') FROM sends WHERE cost IS NOT NULL AND {terms}"  # noqa: S608  # fixed words
    ((cost,),) = connection.execute(sql, values).fetchall()
    seeds = [(one.slice, units(Decimal(cost)))]
    if one.first < one.slice and not held.counters:
        seeds += _older(connection, one)
    return seeds


def _older(connection: "sqlite3.Connection", one: Charge) -> list[tuple[int, int]]:
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
