"""The counters of budgets in a PostgreSQL: locked, read and changed for a whole group of charges at once."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from resilient_ai.core.budgets import PER_DOLLAR, SLICES, Charge
from resilient_ai.stores._budget_seeds import SeedGroup, Span, groups_of, span, unpriced
from resilient_ai.stores._ledger_common import Filter
from resilient_ai.stores._ledger_filters import NAMED
from resilient_ai.stores._postgres_queries import expression, where
from resilient_ai.stores._postgres_text import clean

if TYPE_CHECKING:
    import psycopg

_LONGEST = 500  # characters of a key that is written as it is; an index holds no row of any length

# A function in FROM is called in the order of its array, which is sorted, so that nobody waits for one who waits for him.
_LOCK = "SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key"
_READ = """
SELECT asked.place, count(counters.key), coalesce(sum(counters.spent), 0),
    coalesce(max(counters.life) FILTER (WHERE counters.slice = asked.slice), max(counters.life), 0)
FROM json_to_recordset(%s::json) AS asked (place integer, key text, first bigint, slice bigint)
LEFT JOIN {schema}.counters ON counters.key = asked.key AND counters.slice BETWEEN asked.first AND asked.slice
GROUP BY asked.place ORDER BY asked.place
"""
_DROP = "DELETE FROM {schema}.counters WHERE key = %s AND slice BETWEEN %s AND %s AND life = 0"
_ADOPT = "UPDATE {schema}.counters SET life = %s WHERE key = %s AND slice BETWEEN %s AND %s AND life = 0"
_SLICES = "SELECT slice, spent FROM {schema}.counters WHERE key = %s AND slice BETWEEN %s AND %s"
_ADD = """
WITH told AS (
    SELECT * FROM json_to_recordset(%s::json)
    AS told (key text, first bigint, slice bigint, amount numeric, whole numeric, life bigint, until bigint)
), given AS (
    SELECT told.key, told.slice, min(told.first) AS first, max(told.until) AS until,
        sum(CASE WHEN told.life IS NULL OR told.life = known.life THEN told.amount ELSE told.whole END) AS amount
    FROM told LEFT JOIN {schema}.counters AS known ON known.key = told.key AND known.slice = told.slice
    GROUP BY told.key, told.slice
), changed AS (
    UPDATE {schema}.counters AS known
    SET spent = greatest(0, known.spent + given.amount), until = greatest(known.until, given.until)
    FROM given WHERE known.key = given.key AND known.slice = given.slice
    RETURNING known.key, known.slice
)
INSERT INTO {schema}.counters (key, slice, spent, until, life)
SELECT key, slice, greatest(0, amount), until, coalesce((
    SELECT known.life FROM {schema}.counters AS known
    WHERE known.key = given.key AND known.slice >= given.first ORDER BY known.slice DESC LIMIT 1
), %s) FROM given WHERE (key, slice) NOT IN (SELECT key, slice FROM changed)
"""
_SPENT_BEFORE = """
SELECT least(%s, floor(at / %s)::bigint * %s + %s), ceil(sum(cost) * %s){columns}
FROM {schema}.sends WHERE {where} AND cost IS NOT NULL GROUP BY 1{places}
"""
_FORGET = "DELETE FROM {schema}.counters WHERE until < extract(epoch FROM now() - interval '1 day')"


class Held(NamedTuple):
    """What counters hold together, and their life.

    Args:
        counters: How many there are.
        life: 0 where there is none, and where a settlement has begun them, so that they hold nothing of what was spent before.
    """

    counters: int
    spent: int
    life: int


class Counters:
    """The statements about counters in one schema."""

    def __init__(self, schema: str) -> None:
        self._schema = f'"{schema}"'
        self._read, self._slices, self._add, self._forget, self._drop, self._adopt = (
            sql.format(schema=self._schema).encode() for sql in (_READ, _SLICES, _ADD, _FORGET, _DROP, _ADOPT)
        )

    def lock(self, connection: "psycopg.Connection[Any]", keys: Iterable[str]) -> None:
        """Let nobody else use these counters until the end of the transaction."""
        connection.execute(_LOCK, (sorted({_number(self._schema, key) for key in keys}),))

    def read(self, connection: "psycopg.Connection[Any]", spans: Sequence[Span]) -> dict[Span, Held]:
        """Return what the counters of these spans hold together."""
        asked = [
            {"place": place, "key": name_of(key), "first": first, "slice": last}
            for place, (key, first, last) in enumerate(spans)
        ]
        rows = connection.execute(self._read, (_json(asked),)).fetchall()
        return {spans[place]: Held(count, int(spent), life) for place, count, spent, life in rows}

    def spent(self, connection: "psycopg.Connection[Any]", charges: Sequence[Charge]) -> tuple[int, ...]:
        """Return what the counters of charges hold, or would begin with."""
        held = self.read(connection, list({span(one): None for one in charges})) if charges else {}
        seeds = self.spent_before(connection, [one for one in charges if not held[span(one)].life])
        found: list[int] = []
        for one in charges:
            known, before = held[span(one)], sum(seeds.get(span(one), {}).values())
            apart = known.counters and not known.life and self.is_apart(connection, one)
            found.append(known.spent + before if apart else max(known.spent, before))
        return tuple(found)

    def slices(self, connection: "psycopg.Connection[Any]", of: Span) -> dict[int, int]:
        """Return what each counter of a span holds, by where its slice begins."""
        key, first, last = of
        rows = connection.execute(self._slices, (name_of(key), first, last)).fetchall()
        return {slice_: int(spent) for slice_, spent in rows}

    def is_apart(self, connection: "psycopg.Connection[Any]", one: Charge) -> bool:
        """Tell whether what was settled may be no part of what the ledger has, as a send without a cost was settled at its worst.

        All else that settlements began counters with is a part of what was spent before, as far as its sends are in this ledger.
        """
        terms, values = where(unpriced(one))
        sql = f"SELECT EXISTS (SELECT 1 FROM {self._schema}.sends WHERE cost IS NULL AND state <> 'never_sent' AND {terms})"  # noqa: S608
        row = connection.execute(sql.encode(), values).fetchone()
        return row is not None and bool(row[0])

    def begin(self, connection: "psycopg.Connection[Any]", of: Span, *, life: int | None) -> None:
        """Give counters that settlements have begun a life, or drop them for others that hold more; None drops them."""
        key, first, last = of
        if life is not None:
            connection.execute(self._adopt, (life, name_of(key), first, last))
        else:
            connection.execute(self._drop, (name_of(key), first, last))

    def add(self, connection: "psycopg.Connection[Any]", charges: Iterable[Charge], life: int) -> None:
        """Add charges to counters that are locked; those that are begun have this life.

        None falls below 0: more is given back than it holds only by mistake, and that must not raise the limit.
        """
        given = [
            {
                "key": name_of(one.key),
                "first": one.first,
                "slice": one.slice,
                "amount": str(one.amount),
                "whole": str(one.whole),
                "life": one.life,
                "until": one.until,
            }
            for one in charges
        ]
        connection.execute(self._add, (_json(given), life))

    def spent_before(
        self, connection: "psycopg.Connection[Any]", charges: Sequence[Charge]
    ) -> dict[Span, dict[int, int]]:
        """Return what sends have cost that new counters start with, by slice.

        In a window that rolls the parts fall out one by one, none before its time. One statement adds up for all that have the
        same window and name the same tags, however many there are.
        """
        found: dict[Span, dict[int, int]] = {}
        for group in groups_of(charges):
            costs = self._costs(connection, group)
            for one in group.charges:
                found[span(one)] = costs.get(tuple(map(clean, group.values(one))), {})
        return found

    def _costs(self, connection: "psycopg.Connection[Any]", group: SeedGroup) -> dict[tuple[str, ...], dict[int, int]]:
        terms, values = where(Filter(group.first, max(group.until, group.slice + 1), None, group.kinds))
        columns: list[str] = []
        column_values: list[object] = []
        for place, name in enumerate(group.names):
            column, parameters = (expression(name), []) if name in NAMED else ("tags ->> %s", [clean(name)])
            columns.append(column)
            column_values += parameters
            terms += f" AND {column} = ANY(%s)"
            values += [*parameters, list({clean(group.values(one)[place]) for one in group.charges})]
        sql = _SPENT_BEFORE.format(
            schema=self._schema,
            where=terms,
            columns="".join(f", {column}" for column in columns),
            places="".join(f", {place + 3}" for place in range(len(columns))),
        )
        part = max(1, (group.slice - group.first) // SLICES)
        found: dict[tuple[str, ...], dict[int, int]] = {}
        rows = connection.execute(sql.encode(), (group.slice, part, part, part, PER_DOLLAR, *column_values, *values))
        for slice_, spent, *tags in rows:
            found.setdefault(tuple(tags), {})[int(slice_)] = int(spent)
        return found

    def forget(self, connection: "psycopg.Connection[Any]") -> None:
        """Drop the counters that count no more."""
        connection.execute(self._forget)


def name_of(key: str) -> str:
    """Return the key as it is written."""
    text = clean(key)
    if len(text) <= _LONGEST:
        return text
    return text[:_LONGEST] + hashlib.sha256(text.encode()).hexdigest()


def _number(schema: str, key: str) -> int:
    digest = hashlib.blake2b(f"{schema} {name_of(key)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _json(rows: object) -> str:
    return orjson.dumps(rows).decode()
