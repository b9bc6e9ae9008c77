"""What can be asked of a `PostgresLedger`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resilient_ai.core.ledger import LedgerCall, LedgerRow, LedgerSend, LedgerTotal, SavedTotal
from resilient_ai.stores._ledger_common import Filter, Mark, Piece, known_sum
from resilient_ai.stores._ledger_filters import NAMED, TAG_COLUMNS
from resilient_ai.stores._postgres_text import clean

if TYPE_CHECKING:
    import psycopg

_DAY = "to_char(to_timestamp(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
_SUMS = """
    count(*),
    sum(cost),
    coalesce(sum(cost) FILTER (WHERE used IS FALSE), 0),
    count(*) FILTER (WHERE cost IS NULL AND state <> 'never_sent')
"""
_TOKENS = "coalesce(sum(input_tokens), 0)::bigint, coalesce(sum(output_tokens), 0)::bigint"
_TAGS = ('"user"' if name == "user" else name for name in TAG_COLUMNS)
_TAG_LIST = ", ".join((*_TAGS, "tags"))
_SEND_NAMES = tuple(name for name in LedgerSend.__slots__ if name != "tags")
_PIECE = 1_000


class Queries:
    """The questions about one schema."""

    def __init__(self, schema: str) -> None:
        self._sends, self._spared = f'"{schema}".sends', f'"{schema}".spared'
        self._numbers = f'"{schema}".sends_number_seq'

    def total(self, connection: "psycopg.Connection[Any]", which: Filter) -> LedgerTotal:
        """Add up sends."""
        terms, values = where(which)
        (row,) = _rows(connection, f"SELECT {_SUMS}, {_TOKENS} FROM {self._sends} WHERE {terms}", values)  # noqa: S608
        return LedgerTotal(**_sums(row))

    def by(self, connection: "psycopg.Connection[Any]", columns: Sequence[str], which: Filter) -> list[LedgerRow]:
        """Add up sends in groups, sorted by their keys."""
        terms, values = where(which)
        keys = [expression(column) for column in columns]
        order = ", ".join(f'{key} COLLATE "C" NULLS FIRST' for key in keys)
        sql = (
            f"SELECT {', '.join(keys)}, {_SUMS}, {_TOKENS} FROM {self._sends} WHERE {terms}"  # noqa: S608  # fixed words
            f" GROUP BY {', '.join(keys)} ORDER BY {order}"
        )
        count = len(keys)
        return [LedgerRow(key=row[:count], **_sums(row[count:])) for row in _rows(connection, sql, values)]

    def sends(
        self, connection: "psycopg.Connection[Any]", limit: int | None, call_id: str | None, which: Filter
    ) -> list[LedgerSend]:
        """Return the latest sends, the newest first."""
        terms, values = where(which)
        if call_id is not None:
            terms, values = f"{terms} AND call_id = %s", [*values, clean(call_id)]
        sql = (
            f"SELECT {', '.join(_SEND_NAMES)}, {_TAG_LIST} FROM {self._sends} WHERE {terms}"  # noqa: S608  # fixed words
            " ORDER BY at DESC, number DESC LIMIT %s"
        )
        return [_send(row) for row in _rows(connection, sql, [*values, limit])]

    def start(self, connection: "psycopg.Connection[Any]") -> Mark:
        """Return where a scan begins; what is written from now on is not in it."""
        ((newest,),) = _rows(connection, f"SELECT last_value FROM {self._numbers}", ())  # noqa: S608  # fixed words
        return Mark.before(int(newest))

    def piece(self, connection: "psycopg.Connection[Any]", which: Filter, mark: Mark) -> Piece:
        """Return the oldest sends after a mark, and the next mark; None at the end."""
        terms, values = where(which)
        sql = (
            f"SELECT {', '.join(_SEND_NAMES)}, {_TAG_LIST}, number FROM {self._sends}"  # noqa: S608  # fixed words
            f" WHERE {terms} AND (at, number) > (%s, %s) AND number <= %s ORDER BY at, number LIMIT {_PIECE}"
        )
        rows = _rows(connection, sql, [*values, *mark])
        found = [_send(row[:-1]) for row in rows]
        return found, Mark(found[-1].at, rows[-1][-1], mark.newest) if len(rows) == _PIECE else None

    def calls(self, connection: "psycopg.Connection[Any]", limit: int | None, which: Filter) -> list[LedgerCall]:
        """Return the latest calls, the newest first."""
        terms, values = where(which)
        firsts = ", ".join(f"(array_agg({name} ORDER BY at, number))[1]" for name in ("kind", *_TAG_LIST.split(", ")))
        sql = (
            f'SELECT call_id, min(at), array_agg(DISTINCT model COLLATE "C"), {_SUMS}, {firsts}'  # noqa: S608  # fixed words
            f" FROM {self._sends} WHERE {terms} GROUP BY call_id ORDER BY min(at) DESC, min(number) DESC LIMIT %s"
        )
        return [
            LedgerCall(
                call_id=call_id,
                at=at,
                models=tuple(models),
                sends=sends,
                cost=known_sum(cost, unknown),
                wasted=wasted,
                unknown=unknown,
                kind=kind,
                tags=_tags(rest),
            )
            for call_id, at, models, sends, cost, wasted, unknown, kind, *rest in _rows(
                connection, sql, [*values, limit]
            )
        ]

    def saved(self, connection: "psycopg.Connection[Any]", which: Filter) -> SavedTotal:
        """Add up what was not sent."""
        terms, values = where(which)
        sums = (
            "count(DISTINCT call_id), coalesce(sum(hits), 0)::bigint, coalesce(sum(saved), 0),"
            " count(DISTINCT call_id) FILTER (WHERE saved IS NULL)"
        )
        ((calls, hits, saved, unknown),) = _rows(
            connection,
            f"SELECT {sums} FROM {self._spared} WHERE {terms}",  # noqa: S608  # fixed words
            values,
        )
        return SavedTotal(calls=calls, hits=hits, saved=saved, unknown=unknown)


def where(which: Filter) -> tuple[str, list[Any]]:
    """Return a condition and its values."""
    terms: list[str] = ["true"]
    values: list[Any] = []
    for term, bound in (("at >= %s", which.since), ("at < %s", which.until)):
        if bound is not None:
            terms.append(term)
            values.append(float(bound))
    for name, value in (which.tags or {}).items():
        if name in NAMED:
            terms.append(f"{expression(name)} = %s")
        else:
            terms.append("tags ->> %s = %s")
            values.append(clean(name))
        values.append(clean(value))
    if which.kinds is not None:
        terms.append("kind = ANY(%s)")
        values.append(list(which.kinds))
    return " AND ".join(terms), values


def expression(column: str) -> str:
    """Return how a column is written."""
    return {"day": _DAY, "user": '"user"'}.get(column, column)


def _rows(connection: "psycopg.Connection[Any]", sql: str, values: Sequence[Any]) -> list[Any]:
    return connection.execute(sql.encode(), values).fetchall()


def _sums(row: Sequence[Any]) -> dict[str, Any]:
    sends, cost, wasted, unknown, input_tokens, output_tokens = row
    return {
        "sends": sends,
        "cost": known_sum(cost, unknown),
        "wasted": wasted,
        "unknown": unknown,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }


def _send(row: Sequence[Any]) -> LedgerSend:
    known = dict(zip(_SEND_NAMES, row, strict=False))
    return LedgerSend(**known, tags=_tags(row[len(_SEND_NAMES) :]))


def _tags(row: Sequence[Any]) -> dict[str, str]:
    *columns, rest = row
    tags = {name: value for name, value in zip(TAG_COLUMNS, columns, strict=True) if value is not None}
    return tags | (rest or {})
