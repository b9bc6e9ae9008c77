"""Finds sessions whose process has died, and brings to an end what they had in flight."""

import os
from typing import TYPE_CHECKING, Any

from resilient_ai.stores._process import identity

if TYPE_CHECKING:
    import psycopg

# While the server was away nobody could be seen, so its start counts as a sign of life of everybody.
_SILENT = "greatest(seen, pg_postmaster_start_time()) < now() - interval '60 s'"
_NEIGHBOURS = "SELECT id, pid, process FROM {schema}.sessions WHERE NOT ended AND machine = %s AND machine <> ''"
_BURY = f"""
UPDATE {{schema}}.sessions SET ended = true WHERE NOT ended AND (id = ANY(%s::uuid[]) OR {_SILENT})
"""  # noqa: S608  # fixed words
# Rows that their writer holds just now are not waited for; there is a next time.
_CALL_UNKNOWN = """
UPDATE {schema}.sends SET state = 'unknown' WHERE send_id IN (
    SELECT send_id FROM {schema}.sends JOIN {schema}.sessions ON sessions.id = sends.session
    WHERE sends.state = 'sent' AND sessions.ended FOR UPDATE OF sends SKIP LOCKED
)
"""
# After a day nobody repeats a transaction any more.
_FORGET = """
DELETE FROM {schema}.sessions WHERE ended AND seen < now() - interval '1 day'
    AND NOT EXISTS (SELECT FROM {schema}.sends WHERE sends.session = sessions.id AND sends.state = 'sent')
"""


class Sessions:
    """The statements about sessions in one schema.

    A session says every 10 s that it lives. It is dead after 60 s of silence, or as soon as a process of the same machine sees
    that its process is gone. A lock of the server's would tell sooner of processes elsewhere, but is lost with every connection,
    also of those who live, and means nothing behind a pooler. Whoever was taken for dead and is not goes on: an end that it
    reports replaces "unknown".
    """

    def __init__(self, schema: str) -> None:
        self._neighbours, self._bury, self._call_unknown, self._forget, self._end = (
            sql.format(schema=f'"{schema}"').encode()
            for sql in (
                _NEIGHBOURS,
                _BURY,
                _CALL_UNKNOWN,
                _FORGET,
                "UPDATE {schema}.sessions SET ended = true WHERE id = %s",
            )
        )

    def bury(self, connection: "psycopg.Connection[Any]") -> None:
        """Call unknown what dead sessions had in flight, in the transaction that is open."""
        machine = (identity(os.getpid()) or "").rpartition("/")[0]
        neighbours = connection.execute(self._neighbours, (machine,)).fetchall()
        gone = [str(session) for session, pid, process in neighbours if identity(pid) != process]
        connection.execute(self._bury, (gone,))
        connection.execute(self._call_unknown)
        connection.execute(self._forget)

    def end(self, connection: "psycopg.Connection[Any]", session: str) -> None:
        """End a session, and call unknown what it had in flight, which nobody else will report."""
        connection.execute(self._end, (session,))
        connection.execute(self._call_unknown)
