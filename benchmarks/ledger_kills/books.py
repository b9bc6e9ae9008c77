"""The ledgers that are tried: how each is opened, and what its database says of itself in the end."""

import importlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.ledger_kills.private_postgres import PrivatePostgres
from resilient_ai.stores import PostgresLedger, SQLiteLedger

AnyLedger: TypeAlias = SQLiteLedger | PostgresLedger

# Imported before anybody forks, as a process that begins with importing would hardly ever be killed at work.
_WORKED_WITH = ("_postgres_charges", "_postgres_reader", "_postgres_writer")
_ALEMBIC = ("alembic.command", "alembic.config", "alembic.runtime.migration", "sqlalchemy.dialects.postgresql.psycopg")
# What an index knows of, and what the table has: `bt_index_check` finds where they are not the same.
_INTEGRITY = """
SELECT count(bt_index_check(indexrelid, true)) FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
WHERE relnamespace = 'resilient_ai'::regnamespace
"""


@dataclass(frozen=True)
class Book:
    """A ledger that processes share.

    Args:
        open: Opens it once more.
        quiet: Waits until nobody who is dead has anything done there any more.
        integrity: Returns "ok", or what is damaged.
    """

    open: Callable[[], AnyLedger]
    quiet: Callable[[], None]
    integrity: Callable[[], str]


def in_a_file(path: Path) -> Book:
    """Return the ledger in a file."""

    def integrity() -> str:
        with closing(sqlite3.connect(path)) as connection:
            ((found,),) = connection.execute("PRAGMA integrity_check").fetchall()
        return str(found)

    return Book(lambda: SQLiteLedger(path), lambda: None, integrity)


def in_postgres(server: PrivatePostgres, folder: Path) -> Book:
    """Return the ledger in a PostgreSQL; `folder` is on the machine of those who share it."""
    for module in (*(f"resilient_ai.stores.{name}" for name in _WORKED_WITH), *_ALEMBIC):
        importlib.import_module(module)
    url = server.url

    def integrity() -> str:
        import psycopg  # noqa: PLC0415

        try:
            server.ask("CREATE EXTENSION IF NOT EXISTS amcheck")
            server.ask(_INTEGRITY)
        except psycopg.Error as error:
            return " ".join(str(error).split())
        return "ok"

    return Book(lambda: PostgresLedger(url, folder=folder), server.wait_for_quiet, integrity)
