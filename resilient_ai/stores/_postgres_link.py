"""One connection of a thread to a PostgreSQL: opened when it is needed, and each of its transactions done exactly once."""

import os
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from resilient_ai.stores._postgres_address import Target
from resilient_ai.stores._postgres_schema import bring_up_to_date
from resilient_ai.stores._process import identity

if TYPE_CHECKING:
    import psycopg

# Says that the session lives, and up to where it has written; returns nothing where this number is written already. A client that
# stands still in the middle must not keep others waiting for what it has locked.
_BEGIN = """
INSERT INTO {schema}.sessions AS known (id, pid, machine, process, written, seen)
VALUES (%(id)s, %(pid)s, %(machine)s, %(process)s, %(number)s, now())
ON CONFLICT (id) DO UPDATE SET written = EXCLUDED.written, seen = now(), ended = false
    WHERE known.written < EXCLUDED.written
RETURNING
    set_config('synchronous_commit', CASE WHEN %(durable)s THEN current_setting('synchronous_commit') ELSE 'off' END, true),
    set_config('idle_in_transaction_session_timeout', '10s', true),
    set_config('lock_timeout', %(patience)s, true)
"""


class Unreachable(Exception):
    """There is no connection, or no tables there; says why, without a password."""


class Link:
    """A connection, and the session it writes for.

    The server may commit a transaction and be gone before it has said so. Therefore each has a number, which it writes down along
    with the rest, and one that is repeated finds its number there.

    Args:
        target: Where to.
        patience: How long it waits for a lock, in milliseconds; 0 for as long as it takes.
    """

    def __init__(self, target: Target, *, patience: int = 0) -> None:
        self.target = target
        self.session = str(uuid.uuid4())
        self._patience = patience
        self._number = 0
        self._connection: psycopg.Connection[Any] | None = None
        self._begin = _BEGIN.format(schema=f'"{target.schema}"').encode()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, though the server may have gone since it was used."""
        return self._connection is not None

    def connection(self) -> "psycopg.Connection[Any]":
        """Return the connection, with all tables there.

        Raises:
            Unreachable: If the server cannot be reached, or refuses, or its tables are of a newer version.
        """
        if self._connection is None:
            try:
                self._connection = self._connect()
            except Exception as error:  # noqa: BLE001  # told by its text, from which the password is taken
                # The driver of SQLAlchemy has the shorter text.
                reason = self.target.without_secrets(getattr(error, "orig", None) or error)
                raise Unreachable(reason) from None
        return self._connection

    def transact(self, work: "Callable[[psycopg.Connection[Any]], None]") -> bool:
        """Do `work` in one transaction; after an error the next one, with the same work, goes on in its place.

        Returns:
            False where the transaction in whose place this one goes was committed after all, so that nothing was done.

        Raises:
            Unreachable: If there is no connection.
            Exception: What the server or `work` raised.
        """
        connection = self.connection()
        values = {
            "id": self.session,
            "number": self._number + 1,
            "durable": self.target.durable,
            "patience": str(self._patience),
            **_self(),
        }
        done = False
        with connection.transaction():
            if connection.execute(self._begin, values).fetchone() is not None:
                work(connection)
                done = True
        self._number += 1
        return done

    def skip(self) -> None:
        """Give up the transaction that failed, so that the next one is not taken for it."""
        self._number += 1

    def drop(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> "psycopg.Connection[Any]":
        import psycopg  # noqa: PLC0415  # only whoever uses this ledger has it

        # Poolers hand a connection on after each transaction, and prepared statements with it.
        connection = psycopg.connect(**self.target.options, autocommit=True, prepare_threshold=None)
        try:
            bring_up_to_date(connection, self.target)
        except BaseException:
            connection.close()
            raise
        return connection


def _self() -> dict[str, object]:
    process = identity(os.getpid()) or ""
    return {"pid": os.getpid(), "process": process, "machine": process.rpartition("/")[0]}
