"""Turns reports of sends into rows of the ledger."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from resilient_ai.core.protocols import SendClosed, SendOpened
from resilient_ai.core.results import Usage

if TYPE_CHECKING:
    import sqlite3

TAG_COLUMNS = ("tenant", "user", "feature", "environment")

_OPEN = """
INSERT OR IGNORE INTO sends
    (session, send_id, call_id, at, kind, model, attempt, tenant, user, feature, environment, tags)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# A send that was given up as unknown may still turn out to have had an end; any other end is final.
_CLOSE = """
UPDATE sends
SET state = ?, cost = ?, input_tokens = ?, output_tokens = ?, cached_tokens = ?, reasoning_tokens = ?, error = ?, elapsed = ?
WHERE send_id = ? AND state IN ('sent', 'unknown')
"""
_NO_USAGE = Usage()

Report = SendOpened | SendClosed


def write(connection: "sqlite3.Connection", session: int, reports: Sequence[Report]) -> None:
    """Write reports in one transaction, or none of them."""
    opened = [_opened(session, report) for report in reports if isinstance(report, SendOpened)]
    closed = [_closed(report) for report in reports if isinstance(report, SendClosed)]
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(_OPEN, opened)
        connection.executemany(_CLOSE, closed)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


def _opened(session: int, row: SendOpened) -> tuple[object, ...]:
    tags = {_text(name): _text(value) for name, value in row.tags.items()}
    columns = [tags.pop(name, None) for name in TAG_COLUMNS]
    rest = json.dumps(tags, ensure_ascii=False, sort_keys=True) if tags else None
    names = (_text(row.send_id), _text(row.call_id), row.at, _text(row.kind), _text(row.model), row.attempt)
    return (session, *names, *columns, rest)


def _closed(row: SendClosed) -> tuple[object, ...]:
    usage = row.usage or _NO_USAGE
    tokens = (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)
    return (row.state, _amount(row.cost), *tokens, row.error, row.elapsed, _text(row.send_id))


def _amount(cost: Decimal | None) -> str | None:
    return format(cost, "f") if cost is not None and cost.is_finite() else None


def _text(value: str) -> str:
    # SQLite holds UTF-8, which cannot say half of a surrogate pair.
    return value.encode("utf-8", "replace").decode()
