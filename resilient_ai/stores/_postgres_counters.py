"""The counters of budgets in a PostgreSQL: locked, read and changed for a whole group of charges at once."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from resilient_ai.core.budgets import PER_DOLLAR, SLICES, Charge
from resilient_ai.stores._ledger_common import Filter
from resilient_ai.stores._postgres_queries import where
from resilient_ai.stores._postgres_text import clean

if TYPE_CHECKING:
    import psycopg

_LONGEST = 500  # characters of a key that is written as it is; an index holds no row of any length

# A function in FROM is called in the order of its array, which is sorted, so that nobody waits for one who waits for him.
_LOCK = "SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key"
_READ = """
SELECT asked.place, count(counters.key), coalesce(sum(counters.spent), 0)
FROM json_to_recordset(%s::json) AS asked (place integer, key text, first bigint, slice bigint)
LEFT JOIN {schema}.counters ON counters.key = asked.key AND counters.slice BETWEEN asked.first AND asked.slice
GROUP BY asked.place ORDER BY asked.place
"""
_ADD = """
WITH given AS (
    SELECT * FROM json_to_recordset(%s::json) AS given (key text, slice bigint, spent numeric, until bigint)
), changed AS (
    UPDATE {schema}.counters AS known
    SET spent = greatest(0, known.spent + given.spent), until = greatest(known.until, given.until)
    FROM given WHERE known.key = given.key AND known.slice = given.slice
    RETURNING known.key, known.slice
)
INSERT INTO {schema}.counters (key, slice, spent, until)
SELECT key, slice, greatest(0, spent), until FROM given WHERE (key, slice) NOT IN (SELECT key, slice FROM changed)
"""
_SPENT_BEFORE = """
SELECT least(%s, floor(at / %s)::bigint * %s + %s), ceil(sum(cost) * %s)
FROM {schema}.sends WHERE {where} AND cost IS NOT NULL GROUP BY 1
"""
_FORGET = "DELETE FROM {schema}.counters WHERE until < extract(epoch FROM now() - interval '1 day')"

Span = tuple[str, int, int]  # a key, the first slice that counts, and the last


class Counters:
    """The statements about counters in one schema."""

    def __init__(self, schema: str) -> None:
        self._schema = f'"{schema}"'
        self._read, self._add, self._forget = (
            sql.format(schema=self._schema).encode() for sql in (_READ, _ADD, _FORGET)
        )

    def lock(self, connection: "psycopg.Connection[Any]", keys: Iterable[str]) -> None:
        """Let nobody else use these counters until the end of the transaction."""
        connection.execute(_LOCK, (sorted({_number(self._schema, key) for key in keys}),))

    def read(self, connection: "psycopg.Connection[Any]", spans: Sequence[Span]) -> "dict[Span, int | None]":
        """Return what the counters of these spans hold together; None where there is none."""
        asked = [
            {"place": place, "key": name_of(key), "first": first, "slice": last}
            for place, (key, first, last) in enumerate(spans)
        ]
        rows = connection.execute(self._read, (_json(asked),)).fetchall()
        return {spans[place]: int(spent) if count else None for place, count, spent in rows}

    def add(self, connection: "psycopg.Connection[Any]", amounts: "Mapping[tuple[str, int], tuple[int, int]]") -> None:
        """Add to counters that are locked, by key and slice: an amount, and until when it counts.

        None falls below 0: more is given back than was spent only after a counter was lost, and that must not raise the limit.
        """
        given = [
            {"key": name_of(key), "slice": slice_, "spent": str(amount), "until": until}
            for (key, slice_), (amount, until) in amounts.items()
        ]
        connection.execute(self._add, (_json(given),))

    def spent_before(self, connection: "psycopg.Connection[Any]", charge: Charge) -> dict[int, int]:
        """Return what sends have cost that a new counter starts with, by slice.

        In a window that rolls the parts fall out one by one, none before its time.
        """
        terms, values = where(Filter(charge.first, max(charge.until, charge.slice + 1), charge.scope))
        part = max(1, (charge.slice - charge.first) // SLICES)
        sql = _SPENT_BEFORE.format(schema=self._schema, where=terms)
        rows = connection.execute(sql.encode(), (charge.slice, part, part, part, PER_DOLLAR, *values))
        return {int(slice_): int(spent) for slice_, spent in rows}

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
