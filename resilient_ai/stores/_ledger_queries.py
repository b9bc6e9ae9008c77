"""What can be asked of the ledger."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, cast

from resilient_ai.core.protocols import SendState
from resilient_ai.stores._ledger_rows import TAG_COLUMNS

if TYPE_CHECKING:
    import sqlite3

Column = Literal["model", "kind", "day", "tenant", "user", "feature", "environment", "state"]

_COLUMNS: Mapping[str, str] = {
    "model": "model",
    "kind": "kind",
    "day": "date(at, 'unixepoch')",
    "tenant": "tenant",
    "user": "user",
    "feature": "feature",
    "environment": "environment",
    "state": "state",
}
_SUMS = """
    count(*),
    coalesce(decimal_sum(cost), '0'),
    count(*) FILTER (WHERE cost IS NULL AND state <> 'never_sent'),
    coalesce(sum(input_tokens), 0),
    coalesce(sum(output_tokens), 0)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTotal:
    """Sums over sends.

    Args:
        sends: Rows of the book, those included that were never sent.
        cost: US dollars, over the sends whose cost is known.
        unknown: Sends whose cost is not known: in flight, of unknown end, or of a model without a price.
        input_tokens: Tokens of the prompts, as far as they are known.
        output_tokens: Tokens of the answers, as far as they are known.
    """

    sends: int
    cost: Decimal
    unknown: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow(LedgerTotal):
    """Sums over the sends of one group.

    Args:
        key: What the sends of the group have in common, in the order of the columns that were asked for.
    """

    key: tuple[str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSend:
    """One send as the book has it; `state` is "sent" while it is in flight."""

    send_id: str
    call_id: str
    at: float
    kind: str
    model: str
    attempt: int
    state: SendState
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    cost: Decimal | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    error: str | None = None
    elapsed: float | None = None


def expressions(columns: Sequence[str]) -> list[str]:
    """Return the SQL of these columns.

    Raises:
        ValueError: If there is none, or one is not known.
    """
    unknown = [column for column in columns if column not in _COLUMNS]
    if unknown or not columns:
        raise ValueError(f"columns must be some of {', '.join(_COLUMNS)}, got {unknown or 'none'}")
    return [_COLUMNS[column] for column in columns]


def total(
    connection: "sqlite3.Connection", since: float | None, until: float | None, tags: Mapping[str, str]
) -> LedgerTotal:
    """Add up sends."""
    where, values = _where(since, until, tags)
    (row,) = connection.execute(f"SELECT {_SUMS} FROM sends WHERE {where}", values).fetchall()  # noqa: S608  # fixed words
    return LedgerTotal(**_sums(row))


def by(
    connection: "sqlite3.Connection", columns: Sequence[str], since: float | None, until: float | None
) -> list[LedgerRow]:
    """Add up sends in groups, sorted by their keys."""
    where, values = _where(since, until, {})
    keys = ", ".join(columns)
    sql = f"SELECT {keys}, {_SUMS} FROM sends WHERE {where} GROUP BY {keys} ORDER BY {keys}"  # noqa: S608  # fixed words
    count = len(columns)
    return [LedgerRow(key=row[:count], **_sums(row[count:])) for row in connection.execute(sql, values)]


def sends(connection: "sqlite3.Connection", limit: int, call_id: str | None) -> list[LedgerSend]:
    """Return the latest sends, the newest first."""
    names = [name for name in LedgerSend.__slots__ if name not in {"tags", "cost"}]
    columns = ", ".join((*names, "cost", "tags", *TAG_COLUMNS))
    sql = f"SELECT {columns} FROM sends WHERE ?1 IS NULL OR call_id = ?1 ORDER BY at DESC, rowid DESC LIMIT ?2"  # noqa: S608
    return [_send(names, row) for row in connection.execute(sql, (call_id, limit))]


def _send(names: Sequence[str], row: Sequence[Any]) -> LedgerSend:
    cost, rest, *columns = row[len(names) :]
    tags = {name: value for name, value in zip(TAG_COLUMNS, columns, strict=True) if value is not None}
    tags |= cast("dict[str, str]", json.loads(rest)) if rest else {}
    known = dict(zip(names, row, strict=False))
    return LedgerSend(**known, cost=None if cost is None else Decimal(cost), tags=tags)


def _where(since: float | None, until: float | None, tags: Mapping[str, str]) -> tuple[str, list[object]]:
    terms: list[str] = ["1"]
    values: list[object] = []
    for term, bound in (("at >= ?", since), ("at < ?", until)):
        if bound is not None:
            terms.append(term)
            values.append(bound)
    for name, value in tags.items():
        if name in TAG_COLUMNS:
            terms.append(f"{name} = ?")
        else:
            terms.append("tag_of(tags, ?) = ?")
            values.append(name)
        values.append(value)
    return " AND ".join(terms), values


def _sums(row: Sequence[Any]) -> dict[str, Any]:
    sends, cost, unknown, input_tokens, output_tokens = row
    return {
        "sends": sends,
        "cost": Decimal(cost),
        "unknown": unknown,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }
