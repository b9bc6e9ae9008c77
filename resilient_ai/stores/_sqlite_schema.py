"""The tables of the ledger: how they are made, checked, and put right after a crash."""

import contextlib
import decimal
import json
import os
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.stores._private import private_file
from resilient_ai.stores._process import identity

MEMORY = ":memory:"
_BUSY = 0.2  # seconds SQLite itself waits for a lock before the batch is tried again
# Wide enough that no sum of prices is ever rounded.
_EXACT = decimal.Context(prec=200)
_NOTHING = Decimal(0)

# What each version added to the one before. Files of every version are about, so none of these is ever changed.
_MIGRATIONS = (
    """
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pid INTEGER NOT NULL,
    process TEXT NOT NULL
);
CREATE TABLE sends (
    send_id TEXT PRIMARY KEY,
    session INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    tenant TEXT,
    user TEXT,
    feature TEXT,
    environment TEXT,
    tags TEXT,
    state TEXT NOT NULL DEFAULT 'sent',
    cost TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cached_tokens INTEGER,
    reasoning_tokens INTEGER,
    error TEXT,
    elapsed REAL
);
CREATE INDEX sends_at ON sends (at);
CREATE INDEX sends_call ON sends (call_id);
CREATE INDEX sends_in_flight ON sends (session) WHERE state = 'sent';
""",
    """
ALTER TABLE sends ADD COLUMN list_cost TEXT;
ALTER TABLE sends ADD COLUMN used INTEGER;
ALTER TABLE sends ADD COLUMN cache_write_tokens INTEGER;
ALTER TABLE sends ADD COLUMN service_tier TEXT;
CREATE TABLE spared (
    id INTEGER PRIMARY KEY,
    call_id TEXT NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    hits INTEGER NOT NULL,
    saved TEXT,
    tenant TEXT,
    user TEXT,
    feature TEXT,
    environment TEXT,
    tags TEXT
);
CREATE INDEX spared_at ON spared (at);
CREATE TABLE budget_counters (
    key TEXT NOT NULL,
    slice INTEGER NOT NULL,
    spent INTEGER NOT NULL CHECK (typeof(spent) = 'integer'),
    until INTEGER NOT NULL,
    PRIMARY KEY (key, slice)
) WITHOUT ROWID;
CREATE INDEX budget_counters_until ON budget_counters (until);
""",
    """
ALTER TABLE budget_counters ADD COLUMN life INTEGER NOT NULL DEFAULT 1;
""",
)
VERSION = len(_MIGRATIONS)


class DecimalSum:
    """The aggregate `decimal_sum`: adds amounts that are written as text, exactly."""

    def __init__(self) -> None:
        self._sum: Decimal | None = None

    def step(self, amount: str | None) -> None:
        """Add one amount; NULL adds nothing."""
        if amount is not None:
            self._sum = _EXACT.add(self._sum or _NOTHING, Decimal(amount))

    def finalize(self) -> str | None:
        """Return the sum, NULL where there was nothing to add."""
        return None if self._sum is None else format(self._sum, "f")


def check(path: str) -> None:
    """Refuse a file that is not a ledger, or one of a newer version; a missing file is fine.

    Raises:
        ConfigurationError: If it must not be used.
    """
    if path == MEMORY or not Path(path).is_file():
        return
    try:
        address = f"{Path(path).absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0, isolation_level=None)) as connection:
            # Both answers are of one moment: else another process may make the tables in between.
            connection.execute("BEGIN")
            ((version,),) = connection.execute("PRAGMA user_version").fetchall()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError:
        return  # it cannot be read just now; the thread that writes finds out why
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(f"{path} is not a ledger: {error}") from error
    if version > VERSION:
        raise ConfigurationError(f"{path} is a ledger of version {version}; this package knows version {VERSION}")
    if tables and (version < 1 or "sends" not in tables):
        raise ConfigurationError(f"{path} is a database of something else: it has the tables {sorted(tables)}")


def connect(path: str, *, full: bool) -> tuple[sqlite3.Connection, int]:
    """Open the ledger, bring its tables up to date and begin a session.

    Args:
        path: The file, or ":memory:".
        full: Whether every commit waits for the disk.

    Returns:
        The connection, and the number of the session.

    Raises:
        OSError: If the file cannot be created.
        sqlite3.Error: If it is locked or cannot be written.
    """
    if path != MEMORY:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear(path)
        private_file(Path(path))
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
        equip(connection)
        return connection, _begin(connection)
    except BaseException:
        connection.close()
        raise


def _clear(path: str) -> None:
    # The journal of a file that was deleted or moved away would be shared with whoever still has that open.
    left = [file for file in (Path(f"{path}-wal"), Path(f"{path}-shm")) if file.exists()]
    if left and not os.path.lexists(path):
        for file in left:
            file.unlink(missing_ok=True)


def equip(connection: sqlite3.Connection) -> None:
    """Teach a connection the functions that questions need."""
    connection.create_aggregate("decimal_sum", 1, cast("Any", DecimalSum))  # typeshed knows only numbers
    connection.create_function("tag_of", 2, tag_of, deterministic=True)


def tag_of(tags: str | None, name: str) -> str | None:
    """Return one tag of those that have no column of their own."""
    value = json.loads(tags).get(name) if tags else None
    return None if value is None else str(value)


def end(connection: sqlite3.Connection, session: int) -> None:
    """End a session, and bring to an end what it had in flight, which nobody else will do."""
    connection.execute("DELETE FROM sessions WHERE id = ?", (session,))
    connection.execute(
        "UPDATE sends SET state = 'unknown' WHERE state = 'sent' AND session NOT IN (SELECT id FROM sessions)"
    )


def _begin(connection: sqlite3.Connection) -> int:
    connection.execute("BEGIN IMMEDIATE")
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    for statements in _MIGRATIONS[version:]:
        for statement in statements.split(";\n")[:-1]:
            connection.execute(statement)
    if version < VERSION:
        connection.execute(f"PRAGMA user_version = {VERSION}")
    for session, pid, process in connection.execute("SELECT id, pid, process FROM sessions").fetchall():
        if identity(pid) != process:
            end(connection, session)
    pid = os.getpid()
    begun = connection.execute("INSERT INTO sessions (pid, process) VALUES (?, ?)", (pid, identity(pid) or ""))
    connection.execute("COMMIT")
    return begun.lastrowid or 0
