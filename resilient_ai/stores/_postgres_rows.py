"""Turns reports of sends into rows of a `PostgresLedger`, a whole group with one statement."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from resilient_ai.core.ledger import CallSpared, SendClosed, SendOpened
from resilient_ai.core.results import Usage
from resilient_ai.stores._ledger_common import believable, written_amount
from resilient_ai.stores._ledger_filters import TAG_COLUMNS
from resilient_ai.stores._postgres_text import clean

if TYPE_CHECKING:
    import psycopg

Report = SendOpened | SendClosed | CallSpared

TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")

_TAGS = {"tenant": "text", '"user"': "text", "feature": "text", "environment": "text", "tags": "jsonb"}
_BEGIN = {"call_id": "text", "at": "double precision", "kind": "text", "model": "text", "attempt": "integer"} | _TAGS
_END = (
    {"state": "text", "cost": "numeric", "list_cost": "numeric", "used": "boolean"}
    | dict.fromkeys(TOKENS, "bigint")
    | {"service_tier": "text", "error": "text", "elapsed": "double precision"}
)
_SPARED = {
    "call_id": "text",
    "at": "double precision",
    "kind": "text",
    "model": "text",
    "outcome": "text",
    "hits": "bigint",
    "saved": "numeric",
} | _TAGS
_NO_USAGE = Usage()


def _typed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


# One value of JSON costs the calling side a sixth of what arrays of columns do, and the server no more.
_OPEN_SQL = f"""
INSERT INTO {{schema}}.sends AS known (session, send_id, {", ".join(_BEGIN | _END)})
SELECT %s, send_id, {", ".join(_BEGIN)}, coalesce(state, 'sent'), {", ".join(list(_END)[1:])}
FROM json_to_recordset(%s::json) AS given (send_id text, {_typed(_BEGIN | _END)})
ON CONFLICT (send_id) DO UPDATE SET {", ".join(f"{name} = EXCLUDED.{name}" for name in _END)}
WHERE known.state IN ('sent', 'unknown') AND EXCLUDED.state <> 'sent'
"""  # noqa: S608  # fixed words
# A send that was given up as unknown may still turn out to have had an end; any other end is final.
# Nobody will bring these to an end.
_RECOVER_SQL = f"""
INSERT INTO {{schema}}.sends (session, send_id, {", ".join(_BEGIN)}, state)
SELECT %s, send_id, {", ".join(_BEGIN)}, 'unknown' FROM json_to_recordset(%s::json) AS given (send_id text, {_typed(_BEGIN)})
ON CONFLICT (send_id) DO NOTHING
"""  # noqa: S608  # fixed words
_CLOSE_SQL = f"""
UPDATE {{schema}}.sends AS known SET {", ".join(f"{name} = given.{name}" for name in _END)}
FROM json_to_recordset(%s::json) AS given (send_id text, {_typed(_END)})
WHERE known.send_id = given.send_id AND known.state IN ('sent', 'unknown')
"""  # noqa: S608  # fixed words
_SPARED_SQL = f"""
INSERT INTO {{schema}}.spared ({", ".join(_SPARED)})
SELECT {", ".join(_SPARED)} FROM json_to_recordset(%s::json) AS given ({_typed(_SPARED)})
"""  # noqa: S608  # fixed words


class Rows:
    """The statements that write into one schema."""

    def __init__(self, schema: str) -> None:
        self._open, self._close, self._spared, self._recover = (
            sql.format(schema=f'"{schema}"').encode() for sql in (_OPEN_SQL, _CLOSE_SQL, _SPARED_SQL, _RECOVER_SQL)
        )

    def recover(self, connection: "psycopg.Connection[Any]", session: str, rows: Iterable[SendOpened]) -> None:
        """Write rows of dead processes that are not there, as "unknown", in the transaction that is open."""
        connection.execute(self._recover, (session, _json([_opened(row) for row in rows])))

    def write(self, connection: "psycopg.Connection[Any]", session: str, reports: Iterable[Report]) -> None:
        """Write reports, in the transaction that is open."""
        opened: dict[str, dict[str, Any]] = {}
        closed: dict[str, dict[str, Any]] = {}
        spared: list[dict[str, Any]] = []
        for report in reports:
            if isinstance(report, SendOpened):
                if report.send_id not in opened:
                    opened[report.send_id] = _opened(report)
            elif isinstance(report, CallSpared):
                spared.append(_of_call(report))
            elif (begun := opened.get(report.send_id)) is not None:
                # Whatever begins and ends in the same group is written at once, which is half of the work.
                if begun.get("state", "unknown") == "unknown":
                    begun |= _closed(report)
            elif closed.get(report.send_id, _NOTHING)["state"] == "unknown":
                closed[report.send_id] = _closed(report)
        # Those whose begin is not in this group; an end that came before its begin is nobody's.
        if closed:
            connection.execute(self._close, (_json(list(closed.values())),))
        if opened:
            connection.execute(self._open, (session, _json(list(opened.values()))))
        if spared:
            connection.execute(self._spared, (_json(spared),))


_NOTHING: Mapping[str, Any] = {"state": "unknown"}


def _opened(row: SendOpened) -> dict[str, Any]:
    return {
        "send_id": row.send_id,
        "call_id": row.call_id,
        "at": row.at,
        "kind": row.kind,
        "model": row.model,
        "attempt": row.attempt,
        **_tags(row.tags),
    }


def _closed(row: SendClosed) -> dict[str, Any]:
    usage = row.usage or _NO_USAGE
    return {
        "send_id": row.send_id,
        "state": row.state,
        "cost": written_amount(row.cost),
        "list_cost": written_amount(row.list_cost),
        "used": row.used,
        "input_tokens": believable(usage.input_tokens),
        "output_tokens": believable(usage.output_tokens),
        "cached_tokens": believable(usage.cached_tokens),
        "cache_write_tokens": believable(usage.cache_write_tokens),
        "reasoning_tokens": believable(usage.reasoning_tokens),
        "service_tier": row.service_tier,
        "error": row.error,
        "elapsed": row.elapsed,
    }


def _of_call(row: CallSpared) -> dict[str, Any]:
    known = asdict(row)
    return known | {"saved": written_amount(row.saved)} | _tags(known.pop("tags"))


def _tags(tags: Mapping[str, str]) -> dict[str, Any]:
    rest = {name: value for name, value in tags.items() if name not in TAG_COLUMNS}
    found: dict[str, Any] = {name: tags[name] for name in TAG_COLUMNS if name in tags}
    return found | {"tags": rest} if rest else found


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    try:
        text = orjson.dumps(rows)
    except (
        TypeError
    ):  # half of a surrogate pair, which UTF-8 cannot say; or a number beyond all bounds, which is raised again
        text = orjson.dumps([_clean(row) for row in rows])
    if b"\\u0000" in text:  # which PostgreSQL cannot hold
        text = orjson.dumps([_clean(row) for row in rows])
    return text.decode()


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    texts: dict[str, Any] = {name: clean(value) if isinstance(value, str) else value for name, value in row.items()}
    if "tags" in texts:
        texts["tags"] = {clean(name): clean(value) for name, value in texts["tags"].items()}
    return texts
