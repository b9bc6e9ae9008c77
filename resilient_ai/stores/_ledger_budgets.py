"""The counters of budgets in the ledger's own file: charged by one process at a time, together or not at all."""

import time
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from resilient_ai.core.budgets import SLICES, Admission, Charge, refused, units
from resilient_ai.stores._budget_seeds import Seed, SeedGroup, Span, groups_of, new_life, span
from resilient_ai.stores._ledger_common import Filter
from resilient_ai.stores._ledger_filters import NAMED, where

if TYPE_CHECKING:
    import sqlite3

_BUSY = 5  # SQLITE_BUSY, written out as only whoever opens a file imports `sqlite3`
_LARGEST = 2**62  # a counter has 64 bits
# An SQLite before 3.32 takes 999 values in a statement. Where more are asked for, all are added up, which is less work.
_MOST_VALUES = 500

_HELD = """
SELECT coalesce(sum(spent), 0), count(*), coalesce(max(slice = :slice), 0),
    coalesce(max(CASE WHEN slice = :slice THEN life END), max(life))
FROM budget_counters WHERE key = :key AND slice BETWEEN :first AND :slice
"""
_SLICES = "SELECT slice, spent FROM budget_counters WHERE key = :key AND slice BETWEEN :first AND :slice"
_ADD = """
INSERT INTO budget_counters (key, slice, spent, until, life) VALUES (?, ?, max(0, ?), ?, ?)
ON CONFLICT (key, slice) DO UPDATE SET spent = max(0, spent + ?)
"""
# The counters of a window have one life, so a slice that is new has that of the others.
_SETTLE = """
INSERT INTO budget_counters (key, slice, spent, until, life) VALUES (:key, :slice, max(0, :whole), :until, coalesce(
    (SELECT life FROM budget_counters WHERE key = :key AND slice BETWEEN :first AND :slice LIMIT 1), :new
))
ON CONFLICT (key, slice) DO UPDATE SET
    spent = min(:largest, max(0, spent + CASE WHEN :life IS NULL OR :life = life THEN :amount ELSE :whole END))
"""
# Over for whoever asks and, for ten minutes, by the clock of the machine: the clock of one who asks may be ahead of all others.
_FORGET = "DELETE FROM budget_counters WHERE until <= min(?, CAST(strftime('%s', 'now') AS INTEGER) - 600)"


class Settlement(NamedTuple):
    """What is added to counters without looking at limits."""

    charges: tuple[Charge, ...]


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
    life: int | None  # of that counter, or else of the others


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
        life = new_life()
        held = [_open(connection, one, seeds, life) for one in charges]
        spent = tuple(each.spent for each in held)
        admitted = all(
            one.limit is None or before + one.amount <= one.limit for one, before in zip(charges, spent, strict=True)
        )
        if admitted:
            lives = tuple(life if each.life is None else each.life for each in held)
            _add(connection, charges, lives)
            admission = Admission(admitted=True, spent=spent, lives=lives)
        else:
            admission = refused(spent, charges, partial(_slices, connection))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return admission


def spent(connection: "sqlite3.Connection", charges: Sequence[Charge]) -> tuple[int, ...]:
    """Return what the counters of these charges hold, and add nothing."""
    held = [_held(connection, one) for one in charges]
    seeds = seeds_of(connection, [one for one, each in zip(charges, held, strict=True) if not each.counters])
    return tuple(
        each.spent if each.counters else sum(amount for _, amount in seeds[span(one)])
        for one, each in zip(charges, held, strict=True)
    )


def settle(connection: "sqlite3.Connection", settlements: Sequence[Settlement]) -> None:
    """Add charges, within a transaction that is under way.

    More is given back than a counter holds only by mistake, and that must not raise the limit.
    """
    if settlements:
        life = new_life()
        connection.executemany(_SETTLE, [_values(one, life) for each in settlements for one in each.charges])


def _values(one: Charge, life: int) -> dict[str, object]:
    return {
        "key": one.key,
        "slice": one.slice,
        "first": one.first,
        "until": one.until,
        "amount": one.amount,
        "whole": one.amount if one.life is None else one.whole,
        "life": one.life,
        "new": life,
        "largest": _LARGEST,
    }


def _seeds(
    connection: "sqlite3.Connection", charges: Sequence[Charge], seeds: Mapping[Span, Seed] | None
) -> Mapping[Span, Seed]:
    # Where one has a counter in its window, whatever was sent since was charged: it is not counted twice.
    new = [one for one in charges if not _held(connection, one).counters]
    if seeds is None:
        return seeds_of(connection, new)
    missing = [one for one in new if span(one) not in seeds]
    if missing:
        raise SeedsMissing(missing)
    return seeds


def _open(connection: "sqlite3.Connection", one: Charge, seeds: Mapping[Span, Seed], life: int) -> _Held:
    """Return what the counters of a charge hold; where there are none it begins with what was spent before."""
    held = _held(connection, one)
    if not held.there:
        connection.execute(_FORGET, (one.slice,))
    if held.counters:
        return held
    begin = seeds.get(span(one)) or seeds_of(connection, [one])[span(one)]
    connection.executemany(_ADD, [(one.key, slot, amount, one.until, life, amount) for slot, amount in begin])
    return _held(connection, one)


def _held(connection: "sqlite3.Connection", one: Charge) -> _Held:
    (row,) = connection.execute(_HELD, {"key": one.key, "slice": one.slice, "first": one.first}).fetchall()
    return _Held(*row)


def _slices(connection: "sqlite3.Connection", one: Charge) -> dict[int, int]:
    return dict(connection.execute(_SLICES, {"key": one.key, "slice": one.slice, "first": one.first}).fetchall())


def _add(connection: "sqlite3.Connection", charges: Sequence[Charge], lives: Iterable[int]) -> None:
    pairs = zip(charges, lives, strict=True)
    connection.executemany(_ADD, [(one.key, one.slice, one.amount, one.until, life, one.amount) for one, life in pairs])


def seeds_of(connection: "sqlite3.Connection", charges: Sequence[Charge]) -> dict[Span, Seed]:
    """Return slices with what sends of each charge's scope have cost in them so far, the charge's own slice among them.

    One statement adds up for all that have the same window and name the same tags, however many there are.
    """
    found: dict[Span, Seed] = {span(one): [] for one in charges}
    for group in groups_of(charges):
        own = _costs(connection, group, Filter(group.slice, group.until, None, group.kinds), "?", (group.slice,))
        older: dict[tuple[str, ...], Seed] = {}
        if group.first < group.slice:
            # How wide slices are nobody says here, so what was spent counts from the last second of a sixtieth of the window,
            # never too short.
            width = max(1, (group.slice - group.first) // SLICES)
            slot = "min(? + (CAST(at - ? AS INTEGER) / ? + 1) * ?, ?) - 1"
            values = (group.first, group.first, width, width, group.slice)
            older = _costs(connection, group, Filter(group.first, group.slice, None, group.kinds), slot, values)
        for one in group.charges:
            of = group.values(one)
            found[span(one)] = [*own.get(of, [(one.slice, 0)]), *older.get(of, [])]
    return found


def _costs(
    connection: "sqlite3.Connection", group: SeedGroup, which: Filter, slot: str, slot_values: Sequence[object]
) -> dict[tuple[str, ...], Seed]:
    """Return what sends have cost by the tags of the group, and by slot."""
    terms, values = where(which)
    columns: list[str] = []
    column_values: list[object] = []
    for place, name in enumerate(group.names):
        column, parameters = (name, []) if name in NAMED else ("tag_of(tags, ?)", [name])
        columns.append(column)
        column_values += parameters
        asked = list({group.values(one)[place] for one in group.charges})
        if len(values) + len(asked) <= _MOST_VALUES:
            terms += f" AND {column} IN ({', '.join('?' * len(asked))})"
            values += [*parameters, *asked]
    selected = ", ".join([f"{slot} AS slot", *(f"{column} AS tag{place}" for place, column in enumerate(columns))])
    grouped = ", ".join(["slot", *(f"tag{place}" for place in range(len(columns)))])
    sql = f"""
        SELECT {selected}, decimal_sum(cost) FROM sends WHERE cost IS NOT NULL AND {terms} GROUP BY {grouped}
    """  # noqa: S608  # fixed words
    found: dict[tuple[str, ...], Seed] = {}
    for at, *tags, cost in connection.execute(sql, (*slot_values, *column_values, *values)):
        found.setdefault(tuple(tags), []).append((at, units(Decimal(cost))))
    return found


def _begin(connection: "sqlite3.Connection", give_up_at: float) -> None:
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except connection.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != _BUSY or time.monotonic() >= give_up_at:
                raise
        else:
            return
