"""What can be asked of the ledger."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from resilient_ai.core.ledger import LedgerCall, LedgerRow, LedgerSend, LedgerTotal, SavedTotal
from resilient_ai.stores._ledger_common import Filter, Mark, Piece, known_sum
from resilient_ai.stores._ledger_filters import TAG_COLUMNS, where

if TYPE_CHECKING:
    import sqlite3

_SUMS = """
    count(*),
    decimal_sum(cost),
    coalesce(decimal_sum(cost) FILTER (WHERE used = 0), '0'),
    count(*) FILTER (WHERE cost IS NULL AND state <> 'never_sent'),
    coalesce(sum(input_tokens), 0),
    coalesce(sum(output_tokens), 0)
"""
_SAVINGS = """
    count(DISTINCT call_id),
    coalesce(sum(hits), 0),
    coalesce(decimal_sum(saved), '0'),
    count(DISTINCT call_id) FILTER (WHERE saved IS NULL)
"""
_AMOUNTS = ("cost", "list_cost")
_PLAIN = tuple(name for name in LedgerSend.__slots__ if name not in {"tags", "used", *_AMOUNTS})
_SEND = ", ".join((*_PLAIN, *_AMOUNTS, "used", "tags", *TAG_COLUMNS))
_TAGS = ", ".join(f"first.{name}" for name in ("tags", *TAG_COLUMNS))
_PIECE = 1_000  # rows a scan looks at, at a time


def total(connection: "sqlite3.Connection", which: Filter) -> LedgerTotal:
    """Add up sends."""
    terms, values = where(which)
    (row,) = connection.execute(f"SELECT {_SUMS} FROM sends WHERE {terms}", values).fetchall()  # noqa: S608  # fixed words
    return LedgerTotal(**_sums(row))


def by(connection: "sqlite3.Connection", columns: Sequence[str], which: Filter) -> list[LedgerRow]:
    """Add up sends in groups, sorted by their keys."""
    terms, values = where(which)
    keys = ", ".join("date(at, 'unixepoch')" if column == "day" else column for column in columns)
    sql = f"SELECT {keys}, {_SUMS} FROM sends WHERE {terms} GROUP BY {keys} ORDER BY {keys}"  # noqa: S608  # fixed words
    count = len(columns)
    return [LedgerRow(key=row[:count], **_sums(row[count:])) for row in connection.execute(sql, values)]


def sends(connection: "sqlite3.Connection", limit: int | None, call_id: str | None, which: Filter) -> list[LedgerSend]:
    """Return the latest sends, the newest first."""
    terms, values = where(which)
    if call_id is not None:
        terms += " AND call_id = ?"
        values.append(call_id)
    sql = f"SELECT {_SEND} FROM sends WHERE {terms} ORDER BY at DESC, rowid DESC LIMIT ?"  # noqa: S608  # fixed words
    return [_send(row) for row in connection.execute(sql, (*values, _limit(limit)))]


def calls(connection: "sqlite3.Connection", limit: int | None, which: Filter) -> list[LedgerCall]:
    """Return the latest calls, the newest first."""
    # Walks back through the index of times and takes each call at its first send, so that it can stop after `limit`.
    first, of_first = where(which, "first.")
    earlier, of_earlier = where(which, "earlier.")
    every, of_every = where(which, "sends.")
    sql = f"""
        WITH first AS MATERIALIZED (
            SELECT first.rowid AS row, first.* FROM sends AS first
            WHERE {first} AND NOT EXISTS (
                SELECT 1 FROM sends AS earlier
                WHERE earlier.call_id = first.call_id AND (earlier.at, earlier.rowid) < (first.at, first.rowid) AND {earlier}
            )
            ORDER BY first.at DESC, first.rowid DESC LIMIT ?
        )
        SELECT first.call_id, first.at, first.kind, json_group_array(DISTINCT sends.model), count(*),
            decimal_sum(sends.cost),
            coalesce(decimal_sum(sends.cost) FILTER (WHERE sends.used = 0), '0'),
            count(*) FILTER (WHERE sends.cost IS NULL AND sends.state <> 'never_sent'),
            {_TAGS}
        FROM first JOIN sends ON sends.call_id = first.call_id WHERE {every}
        GROUP BY first.row ORDER BY first.at DESC, first.row DESC
    """  # noqa: S608  # fixed words
    return [_call(row) for row in connection.execute(sql, (*of_first, *of_earlier, _limit(limit), *of_every))]


def saved(connection: "sqlite3.Connection", which: Filter) -> SavedTotal:
    """Add up what was not sent."""
    terms, values = where(which)
    sql = f"SELECT {_SAVINGS} FROM spared WHERE {terms}"  # noqa: S608  # fixed words
    ((count, hits, amount, unknown),) = connection.execute(sql, values).fetchall()
    return SavedTotal(calls=count, hits=hits, saved=Decimal(amount), unknown=unknown)


def start(connection: "sqlite3.Connection") -> Mark:
    """Return where a scan begins; what is written from now on is not in it."""
    ((newest,),) = connection.execute("SELECT coalesce(max(rowid), 0) FROM sends").fetchall()
    return Mark.before(newest)


def piece(connection: "sqlite3.Connection", which: Filter, mark: Mark) -> Piece:
    """Return the sends after a mark that are among the next thousand rows, the oldest first, and the next mark."""
    period, bounds = where(Filter(which.since, which.until))
    after = f"{period} AND (at, rowid) > (?, ?)"
    begins = (*bounds, mark.at, mark.row)
    # Counted before tags are looked at: else one piece of a rare tag could be the whole book.
    ends = connection.execute(
        f"SELECT at, rowid FROM sends WHERE {after} ORDER BY at, rowid LIMIT 1 OFFSET ?",  # noqa: S608  # fixed words
        (*begins, _PIECE - 1),
    ).fetchall()
    terms, values = where(Filter(tags=which.tags))
    if ends:
        terms += " AND (at, rowid) <= (?, ?)"
        values += ends[0]
    sql = f"SELECT {_SEND} FROM sends WHERE {after} AND rowid <= ? AND {terms} ORDER BY at, rowid"  # noqa: S608  # fixed words
    found = [_send(row) for row in connection.execute(sql, (*begins, mark.newest, *values))]
    return found, Mark(ends[0][0], ends[0][1], mark.newest) if ends else None


def _limit(limit: int | None) -> int:
    return -1 if limit is None else limit


def _send(row: Sequence[Any]) -> LedgerSend:
    cost, list_cost, used, *tags = row[len(_PLAIN) :]
    return LedgerSend(
        **dict(zip(_PLAIN, row, strict=False)),
        cost=None if cost is None else Decimal(cost),
        list_cost=None if list_cost is None else Decimal(list_cost),
        used=None if used is None else bool(used),
        tags=_tags(tags),
    )


def _call(row: Sequence[Any]) -> LedgerCall:
    call_id, at, kind, models, count, cost, wasted, unknown, *tags = row
    return LedgerCall(
        call_id=call_id,
        at=at,
        kind=kind,
        models=tuple(sorted(json.loads(models))),
        sends=count,
        cost=known_sum(cost, unknown),
        wasted=Decimal(wasted),
        unknown=unknown,
        tags=_tags(tags),
    )


def _tags(row: Sequence[Any]) -> dict[str, str]:
    rest, *columns = row
    tags = {name: value for name, value in zip(TAG_COLUMNS, columns, strict=True) if value is not None}
    return tags | cast("dict[str, str]", json.loads(rest)) if rest else tags


def _sums(row: Sequence[Any]) -> dict[str, Any]:
    count, cost, wasted, unknown, input_tokens, output_tokens = row
    return {
        "sends": count,
        "cost": known_sum(cost, unknown),
        "wasted": Decimal(wasted),
        "unknown": unknown,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }
