"""Turns reports of sends into rows of the ledger."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

from resilient_ai.core.ledger import CallSpared, SendClosed, SendOpened
from resilient_ai.core.results import Usage
from resilient_ai.stores._ledger_common import believable, written_amount
from resilient_ai.stores._ledger_filters import TAG_COLUMNS
from resilient_ai.stores._sqlite_budgets import Settlement, settle

if TYPE_CHECKING:
    import sqlite3


_BEGIN_COLUMNS = ("session", "send_id", "call_id", "at", "kind", "model", "attempt", *TAG_COLUMNS, "tags")
_END_COLUMNS = (
    "state",
    "cost",
    "list_cost",
    "used",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "service_tier",
    "error",
    "elapsed",
)
_SPARED_COLUMNS = ("call_id", "at", "kind", "model", "outcome", "hits", "saved", *TAG_COLUMNS, "tags")

# A send that was given up as unknown may still turn out to have had an end; any other end is final.
_UNLESS_ENDED = f"""
ON CONFLICT (send_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _END_COLUMNS)}
WHERE excluded.state <> 'sent' AND state IN ('sent', 'unknown')
"""
_CLOSE = f"""
UPDATE sends SET {", ".join(f"{name} = ?" for name in _END_COLUMNS)}
WHERE send_id = ? AND state IN ('sent', 'unknown')
"""  # noqa: S608  # fixed words
# With every statement Python's lock is let go, and must be had back from a loop that is busy, so many rows are one statement. An
# SQLite before 3.32 takes 999 values in it.
_AT_ONCE = 32
_NO_USAGE = Usage()
_NOBODY_KNOWS = ("unknown", *(None for _ in _END_COLUMNS[1:]))
_NO_END = ("sent", *(None for _ in _END_COLUMNS[1:]))

Report = SendOpened | SendClosed | CallSpared | Settlement


def write(connection: "sqlite3.Connection", session: int, reports: Sequence[Report]) -> None:
    """Write reports in one transaction, or none of them."""
    rows, ends, spared, settlements = _sorted(session, reports)
    connection.execute("BEGIN IMMEDIATE")
    try:
        # In this order: an end that stands alone came before any begin of the same name.
        connection.executemany(_CLOSE, ends)
        _insert(connection, "sends", (*_BEGIN_COLUMNS, *_END_COLUMNS), rows, _UNLESS_ENDED)
        _insert(connection, "spared", _SPARED_COLUMNS, spared)
        settle(connection, settlements)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


def recover(connection: "sqlite3.Connection", session: int, rows: Sequence[SendOpened]) -> None:
    """Write rows that nobody will bring to an end, as "unknown", where they are not there."""
    values = [(session, *_opened(row), *_NOBODY_KNOWS) for row in rows]
    connection.execute("BEGIN IMMEDIATE")
    try:
        _insert(connection, "sends", (*_BEGIN_COLUMNS, *_END_COLUMNS), values, "ON CONFLICT (send_id) DO NOTHING")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _insert(
    connection: "sqlite3.Connection",
    table: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
    unless: str = "",
) -> None:
    for first in range(0, len(rows), _AT_ONCE):
        some = rows[first : first + _AT_ONCE]
        connection.execute(_insertion(table, columns, len(some), unless), tuple(chain.from_iterable(some)))


@cache
def _insertion(table: str, columns: tuple[str, ...], rows: int, unless: str) -> str:
    row = f"({', '.join('?' for _ in columns)})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)} {unless}"  # noqa: S608  # fixed words


def _sorted(
    session: int, reports: Sequence[Report]
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]], list[tuple[object, ...]], list[Settlement]]:
    """Return rows, ends of rows that are there already, what was spared, and what was settled.

    Most sends begin and end within the time that reports are gathered, and then are written once.
    """
    begun: dict[str, tuple[SendOpened, SendClosed | None]] = {}
    ends: list[tuple[object, ...]] = []
    spared: list[tuple[object, ...]] = []
    settlements: list[Settlement] = []
    for report in reports:
        if isinstance(report, SendOpened):
            begun.setdefault(report.send_id, (report, None))
        elif isinstance(report, SendClosed):
            row = begun.get(report.send_id)
            if row is None:
                ends.append((*_closed(report), _text(report.send_id)))
            elif row[1] is None or row[1].state == "unknown":
                begun[report.send_id] = (row[0], report)
        elif isinstance(report, CallSpared):
            spared.append(_spared(report))
        else:
            settlements.append(report)
    rows = [(session, *_opened(begin), *(_NO_END if end is None else _closed(end))) for begin, end in begun.values()]
    return rows, ends, spared, settlements


def _opened(row: SendOpened) -> tuple[object, ...]:
    names = (_text(row.send_id), _text(row.call_id), row.at, _text(row.kind), _text(row.model), row.attempt)
    return (*names, *_tags(row.tags))


def _closed(row: SendClosed) -> tuple[object, ...]:
    usage = row.usage or _NO_USAGE
    return (
        row.state,
        written_amount(row.cost),
        written_amount(row.list_cost),
        row.used,
        believable(usage.input_tokens),
        believable(usage.output_tokens),
        believable(usage.cached_tokens),
        believable(usage.cache_write_tokens),
        believable(usage.reasoning_tokens),
        None if row.service_tier is None else _text(row.service_tier),
        row.error,
        row.elapsed,
    )


def _spared(row: CallSpared) -> tuple[object, ...]:
    names = (_text(row.call_id), row.at, _text(row.kind), _text(row.model), row.outcome, row.hits)
    return (*names, written_amount(row.saved), *_tags(row.tags))


def _tags(given: Mapping[str, str]) -> tuple[str | None, ...]:
    if not given:
        return (None, None, None, None, None)
    tags = {_text(name): _text(value) for name, value in given.items()}
    columns = [tags.pop(name, None) for name in TAG_COLUMNS]
    return (*columns, json.dumps(tags, ensure_ascii=False, sort_keys=True) if tags else None)


def _text(value: str) -> str:
    # SQLite holds UTF-8, which cannot say half of a surrogate pair.
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
