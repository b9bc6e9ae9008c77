"""diskcache with everything taken away that a prepared database could use: pickle, files, foreign settings."""

# diskcache has no types; what leaves this file has.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false, reportIncompatibleMethodOverride=false

import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, cast

import diskcache
from diskcache.core import DBNAME, DEFAULT_SETTINGS, METADATA, MODE_RAW

from resilient_ai.stores._disk_rows import MAX_VALUE, Cache, Rows
from resilient_ai.stores._envelope import Refused
from resilient_ai.stores._private import make_private, private_file

_ROW_KEY = re.compile(r"[0-9a-f]{16,128}")
_WORDS = {"wal", "least-recently-stored"}  # the only settings that are not numbers
_SETTINGS = {
    "eviction_policy": "least-recently-stored",
    "statistics": 0,
    "tag_index": 0,
    "cull_limit": 0,  # DiskFile evicts once per batch; diskcache would look after every row
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 1,
    "disk_min_file_size": 2**31,  # values stay in the database: as files they are written 13 times slower
}
# A vector of 1024 numbers and three like it fill a page; with the 4 KiB that SQLite takes by itself each is spread over two.
_PAGE_SIZE = 2**15
_PAGES_UNTIL_CHECKPOINT = 128  # 4 MiB, as each checkpoint holds up the reads behind it
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Damaged(sqlite3.DatabaseError):
    """The file is a database, but not one that this store could have written."""


class SafeDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Bytes under hexadecimal keys, in the database; any other row is refused and no file is ever touched."""

    def put(self, key: object) -> tuple[str, bool]:
        """Accept a key."""
        if type(key) is not str or not _ROW_KEY.fullmatch(key):
            raise Refused(f"a key is 16 to 128 hexadecimal digits, got {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> str:
        """Accept a key that was read."""
        if not raw or type(key) is not str:
            raise Refused("a key of the database is not a text")
        return key

    def store(self, value: object, read: object, key: object = None) -> tuple[int, int, None, bytes]:  # noqa: ARG002
        """Accept a value."""
        if read or type(value) is not bytes or len(value) > MAX_VALUE:
            raise Refused(f"a value is at most {MAX_VALUE} bytes, got {type(value).__name__}")
        return 0, MODE_RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:
        """Accept a value that was read."""
        if mode != MODE_RAW or filename is not None or read or type(value) is not bytes:
            raise Refused(f"a row of mode {mode!r} that names {'a file' if filename is not None else 'no file'}")
        return value

    def filename(self, key: object = None, value: object = None) -> NoReturn:  # noqa: ARG002
        """Refuse: nothing is stored in a file."""
        raise Refused("values are not stored in files")

    def remove(self, file_path: object) -> None:
        """Leave the file alone: this store made none, so a row that names one is not ours."""


class SafeCache(diskcache.Cache):  # type: ignore[misc]
    """A cache that gives up on a lock; diskcache itself would try for a minute to open its database.

    Args:
        folder: Where its database lies.
        patience: Seconds for all of the opening.
        settings: What diskcache calls settings.
    """

    def __init__(self, folder: Path, *, patience: float, settings: dict[str, Any]) -> None:
        self._until = time.monotonic() + patience
        try:
            super().__init__(str(folder), disk=SafeDisk, timeout=cast("Any", patience), **settings)
        except BaseException:
            # diskcache has its connection open long before it can fail, and nobody else has it.
            self.close()
            raise

    @property
    def _sql(self) -> Callable[..., sqlite3.Cursor]:
        execute: Callable[..., sqlite3.Cursor] = super()._sql

        def run(*statement: object) -> sqlite3.Cursor:
            try:
                return execute(*statement)
            except sqlite3.OperationalError as error:
                if time.monotonic() < self._until:
                    raise
                # In other words than those of SQLite, which are what makes diskcache try again.
                raise sqlite3.OperationalError(f"given up: {error}") from error

        return run


def open_rows(folder: Path, *, size_limit: int, wait: float) -> tuple[Rows, sqlite3.Connection]:
    """Open or create the database in `folder`, and return its rows with its connection.

    Args:
        folder: A directory that belongs to this user alone.
        size_limit: Bytes the database may take, about.
        wait: Seconds to wait for a lock.

    Raises:
        OSError: If the file cannot be created or is not ours alone.
        sqlite3.Error: If it is locked, damaged, or cannot be used.
    """
    path = folder / DBNAME
    # SQLite gives its two side files the rights of the database, so nothing has to be done about the umask.
    private_file(path)
    for side in (folder / f"{DBNAME}-wal", folder / f"{DBNAME}-shm"):
        with suppress(FileNotFoundError):  # whoever closes last deletes them, which may be now
            make_private(side)
    _inspect(path, wait)
    cache: Any = SafeCache(folder, patience=wait, settings={**_SETTINGS, "size_limit": size_limit})
    try:
        connection = cast("sqlite3.Connection", cache._con)  # noqa: SLF001  # DiskFile says what for
        connection.text_factory = _text
        connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_UNTIL_CHECKPOINT}")
        return Rows(cast("Cache", cache), connection), connection
    except BaseException:
        cache.close()
        raise


def damaged(error: BaseException) -> bool:
    """Return whether the file itself is broken, so that only a new one helps."""
    if isinstance(error, Damaged):
        return True
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _inspect(path: Path, wait: float) -> None:
    # There are two reasons to look before diskcache does. It tries for a minute to open a locked database, and it puts the
    # rows of its table Settings into PRAGMA statements as they are.
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None)
    connection.text_factory = _text
    try:
        # These two are for a database that has no table yet, and mean nothing to any other.
        connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
        connection.execute("PRAGMA auto_vacuum = FULL")
        connection.execute("BEGIN IMMEDIATE")
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        }
        settings = connection.execute("SELECT key, value FROM Settings").fetchall() if "Settings" in tables else []
        if not tables:
            connection.execute("CREATE TABLE Settings (key TEXT NOT NULL UNIQUE, value)")
        connection.execute("COMMIT")
    finally:
        connection.close()
    known = DEFAULT_SETTINGS.keys() | METADATA.keys()
    strange = [key for key, value in settings if key not in known or not (type(value) is int or value in _WORDS)]
    if strange or tables - {"Settings", "Cache"}:
        raise Damaged(f"{path} has tables or settings of another hand")


def _text(value: bytes) -> str:
    # A text that is no UTF-8 is to be refused like any other, not to be an error of the database.
    return value.decode("utf-8", "replace")
