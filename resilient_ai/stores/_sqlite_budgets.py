"""The counters of budgets in the ledger's own file: charged by one process at a time, together or not at all."""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from copy import copy
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from resilient_ai.core.budgets import SLICES, Admission, Charge, refused, units
from resilient_ai.stores._budget_seeds import Seed, SeedGroup, Span, groups_of, new_life, span, unpriced
from resilient_ai.stores._ledger_common import Filter
from resilient_ai.stores._ledger_filters import NAMED, where

if TYPE_CHECKING:
    import sqlite3

_BUSY = 5  # SQLITE_BUSY, written out as only whoever opens a file imports `sqlite3`
_LARGEST = 2**62  # a counter has 64 bits
# An SQLite before 3.32 takes 999 values in a statement. Where more are asked for, all are added up, which is less work.
_MOST_VALUES = 500
_AT_ONCE = 100  # with every statement Python's lock is let go, and must be had back from a loop that is busy

# Life 0 is that of counters which a settlement has begun, so that they hold nothing of what was spent before.
_HELD = """
SELECT coalesce(sum(spent), 0), count(nullif(life, 0)), coalesce(max(slice = :slice), 0),
    coalesce(max(CASE WHEN slice = :slice THEN life END), max(life))
FROM budget_counters WHERE key = :key AND slice BETWEEN :first AND :slice
"""
_THERE = "EXISTS (SELECT 1 FROM budget_counters WHERE key = ? AND slice BETWEEN ? AND ? AND life <> 0)"
_DROP = "DELETE FROM budget_counters WHERE key = ? AND slice BETWEEN ? AND ? AND life = 0"
_ADOPT = "UPDATE budget_counters SET life = ? WHERE key = ? AND slice BETWEEN ? AND ? AND life = 0"
_SLICES = "SELECT slice, spent FROM budget_counters WHERE key = :key AND slice BETWEEN :first AND :slice"
_ADD = """
INSERT INTO budget_counters (key, slice, spent, until, life) VALUES (?, ?, max(0, ?), ?, ?)
ON CONFLICT (key, slice) DO UPDATE SET spent = max(0, spent + ?)
"""
# The counters of a window have one life, so a slice that is new has that of the others, a newer one's as well.
_SETTLE = """
INSERT INTO budget_counters (key, slice, spent, until, life) VALUES (:key, :slice, max(0, :whole), :until, coalesce(
    (SELECT life FROM budget_counters WHERE key = :key AND slice >= :first ORDER BY slice DESC LIMIT 1), 0
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


class Ask:
    """Charges to be added together or not at all, and what whoever asks for that hears of it.

    Args:
        charges: What is to be added.
        give_up_at: Until when it may wait for other processes, as `time.monotonic` tells it.
        seeds: What new counters begin with, as far as that was looked up; None looks up all that is missing.
    """

    def __init__(self, charges: Sequence[Charge], give_up_at: float, seeds: Mapping[Span, Seed] | None = None) -> None:
        self.charges = charges
        self.give_up_at = give_up_at
        self.seeds = seeds
        self.answer: Future[Admission] = Future()

    def tell(self, found: "Admission | Exception") -> None:
        """Hand the answer over."""
        if isinstance(found, Exception):
            self.answer.set_exception(found)
        else:
            self.answer.set_result(found)


class _Held(NamedTuple):
    spent: int
    counters: int  # those that began with what was spent before
    there: int  # whether the slice itself has a counter
    life: int | None  # of that counter, or else of the others


def charge(connection: "sqlite3.Connection", asks: Sequence[Ask]) -> None:
    """Add what everyone asks for in one transaction, in order, each as if it came alone; then tell them.

    Whoever asks for what cannot be added fails alone, and all do where the transaction fails. They hear

    - `SeedsMissing`, if new counters begin with what is not in the seeds,
    - `sqlite3.Error`, if the file is locked for that long, or cannot be written,
    - `OverflowError`, if a counter would become too large, which is beyond nine million dollars.
    """
    wanted = [ask for ask in asks if ask.answer.set_running_or_notify_cancel()]
    waiting = _begin(connection, _seeded(connection, wanted))
    if not waiting:
        return
    try:
        found = _add_all(connection, waiting)
    except Exception as error:  # noqa: BLE001  # it belongs to those who ask
        fail(waiting, error)
    else:
        # Not before the commit: until then nothing is reserved for anybody.
        for ask, each in zip(waiting, found, strict=True):
            ask.tell(each)


def fail(asks: Iterable[Ask], error: Exception) -> None:
    """Tell everyone of an error; each has one of its own, as raising it writes into it."""
    for ask in asks:
        ask.tell(copy(error))


def _seeded(connection: "sqlite3.Connection", asks: Sequence[Ask]) -> list[Ask]:
    """Return who has all seeds that are needed, and tell the others what is missing.

    This is outside of the transaction, so that nobody waits for a lock to hear it.
    """
    unknown = [(ask, one) for ask in asks if ask.seeds is not None for one in ask.charges if span(one) not in ask.seeds]
    try:
        there = _there(connection, [one for _, one in unknown])
    except Exception as error:  # noqa: BLE001  # as above
        if len(asks) > 1:
            return [seeded for ask in asks for seeded in _seeded(connection, [ask])]
        fail(asks, error)
        return []
    missing: dict[Ask, list[Charge]] = {}
    for (ask, one), known in zip(unknown, there, strict=True):
        if not known:
            missing.setdefault(ask, []).append(one)
    for ask, charges in missing.items():
        ask.tell(SeedsMissing(charges))
    return [ask for ask in asks if ask not in missing]


def _there(connection: "sqlite3.Connection", charges: Sequence[Charge]) -> list[int]:
    found: list[int] = []
    for first in range(0, len(charges), _AT_ONCE):
        some = charges[first : first + _AT_ONCE]
        values = [value for one in some for value in (one.key, one.first, one.slice)]
        asked = f"SELECT {', '.join([_THERE] * len(some))}"
        found += connection.execute(asked, values).fetchone()
    return found


def _begin(connection: "sqlite3.Connection", waiting: Sequence[Ask]) -> list[Ask]:
    """Begin the transaction, and return who has waited for that; nobody waits longer than it may, and then hears why."""
    left = list(waiting)
    while left:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except Exception as error:  # noqa: BLE001  # as above
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == _BUSY
            now = time.monotonic()
            fail([ask for ask in left if not busy or ask.give_up_at <= now], error)
            left = [ask for ask in left if busy and ask.give_up_at > now]
        else:
            break
    return left


def _add_all(connection: "sqlite3.Connection", asks: Sequence[Ask]) -> "list[Admission | Exception]":
    try:
        found = [_alone(connection, ask) for ask in asks]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return found


def _alone(connection: "sqlite3.Connection", ask: Ask) -> "Admission | Exception":
    connection.execute("SAVEPOINT alone")
    found: Admission | Exception
    try:
        found = _add_together(connection, ask.charges, ask.seeds)
    except Exception as error:
        if not connection.in_transaction:  # all was taken back, as it is where the disk is full
            raise
        connection.execute("ROLLBACK TO alone")
        found = error
    connection.execute("RELEASE alone")
    return found


def _add_together(
    connection: "sqlite3.Connection", charges: Sequence[Charge], seeds: Mapping[Span, Seed] | None
) -> Admission:
    if seeds is None:
        seeds = seeds_of(connection, [one for one in charges if not _held(connection, one).counters])
    life = new_life()
    held = [_open(connection, one, seeds, life) for one in charges]
    spent = tuple(each.spent for each in held)
    if any(
        one.limit is not None and before + one.amount > one.limit for one, before in zip(charges, spent, strict=True)
    ):
        return refused(spent, charges, partial(_slices, connection))
    lives = tuple(life if each.life is None else each.life for each in held)
    _add(connection, charges, lives)
    return Admission(admitted=True, spent=spent, lives=lives)


def spent(connection: "sqlite3.Connection", charges: Sequence[Charge]) -> tuple[int, ...]:
    """Return what the counters of these charges hold, and add nothing."""
    held = [_held(connection, one) for one in charges]
    seeds = seeds_of(connection, [one for one, each in zip(charges, held, strict=True) if not each.counters])
    found: list[int] = []
    for one, each in zip(charges, held, strict=True):
        before = 0 if each.counters else sum(amount for _, amount in seeds[span(one)])
        apart = each.counters or (each.life is not None and _is_apart(connection, one))
        found.append(each.spent + before if apart else max(each.spent, before))
    return tuple(found)


def settle(connection: "sqlite3.Connection", settlements: Sequence[Settlement]) -> None:
    """Add charges, within a transaction that is under way.

    More is given back than a counter holds only by mistake, and that must not raise the limit.
    """
    if settlements:
        connection.executemany(_SETTLE, [_values(one) for each in settlements for one in each.charges])


def _values(one: Charge) -> dict[str, object]:
    return {
        "key": one.key,
        "slice": one.slice,
        "first": one.first,
        "until": one.until,
        "amount": one.amount,
        "whole": one.amount if one.life is None else one.whole,
        "life": one.life,
        "largest": _LARGEST,
    }


def _open(connection: "sqlite3.Connection", one: Charge, seeds: Mapping[Span, Seed], life: int) -> _Held:
    """Return what the counters of a charge hold; where there are none they begin with what was spent before.

    What was settled before them is a part of that, as far as those sends are in this ledger, and have a cost there.
    """
    held = _held(connection, one)
    if not held.there:
        connection.execute(_FORGET, (one.slice,))
    if held.counters:
        return held
    begin = seeds.get(span(one)) or seeds_of(connection, [one])[span(one)]
    if held.life is not None:
        apart = _is_apart(connection, one)
        keeps = apart or held.spent > sum(amount for _, amount in begin)
        connection.execute(*((_ADOPT, (life, *span(one))) if keeps else (_DROP, span(one))))
        if keeps and not apart:
            return _held(connection, one)
    connection.executemany(_ADD, [(one.key, slot, amount, one.until, life, amount) for slot, amount in begin])
    return _held(connection, one)


def _is_apart(connection: "sqlite3.Connection", one: Charge) -> bool:
    """Tell whether what was settled may be no part of what the ledger has, as a send without a cost was settled at its worst."""
    terms, values = where(unpriced(one))
    sql = f"SELECT EXISTS (SELECT 1 FROM sends WHERE cost IS NULL AND state <> 'never_sent' AND {terms})"  # noqa: S608  # fixed words
    return bool(connection.execute(sql, values).fetchone()[0])


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
