"""The tables of a `PostgresLedger`: brought up to date by Alembic, by one process at a time."""

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.stores._postgres_address import Target

if TYPE_CHECKING:
    import psycopg

REVISIONS = ("0001", "0002")  # all that this package knows, the newest last
VERSION_TABLE = "ledger_version"
_FOLDER = Path(__file__).with_name("migrations")
# Alembic keeps what it works on in variables of its modules.
_one_at_a_time = threading.Lock()


def bring_up_to_date(connection: "psycopg.Connection[Any]", target: Target) -> None:
    """Make the tables, or change them, where they are not as this package needs them.

    Raises:
        ConfigurationError: If they are of a newer version, or Alembic is missing and would be needed.
        psycopg.Error: If the server refuses.
    """
    found = _version(connection, target.schema)
    if found == REVISIONS[-1]:
        return
    if found is not None and found not in REVISIONS:
        raise ConfigurationError(
            f"the schema {target.schema} is a ledger of version {found}; this package knows up to {REVISIONS[-1]}"
        )
    _migrate(target)


def _version(connection: "psycopg.Connection[Any]", schema: str) -> str | None:
    there = connection.execute("SELECT to_regclass(%s)", (f'"{schema}".{VERSION_TABLE}',)).fetchone()
    if there is None or there[0] is None:
        return None
    row = connection.execute(f'SELECT version_num FROM "{schema}".{VERSION_TABLE}'.encode()).fetchone()  # noqa: S608  # a plain name
    return None if row is None else str(row[0])


def _migrate(target: Target) -> None:
    try:
        from alembic import command  # noqa: PLC0415  # half a second, and hardly ever needed
        from alembic.config import Config  # noqa: PLC0415
        from sqlalchemy import create_engine  # noqa: PLC0415
        from sqlalchemy.pool import NullPool  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "the package alembic is missing, and the tables must be made; install it with:"
            " pip install 'resilient-ai[postgres]'"
        ) from None
    import psycopg  # noqa: PLC0415

    # SQLAlchemy never sees the address, so that no error of it can show the password.
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(**target.options), poolclass=NullPool
    )
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    # One transaction holds the lock, makes the schema and all tables, and writes down the version.
    with _one_at_a_time, engine.begin() as connection:
        config.attributes.update(connection=connection, schema=target.schema, version_table=VERSION_TABLE)
        command.upgrade(config, "head")


def _in_child() -> None:
    global _one_at_a_time  # noqa: PLW0603 - the parent's may be held by a thread that does not exist here
    _one_at_a_time = threading.Lock()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
    os.register_at_fork(after_in_child=_in_child)
