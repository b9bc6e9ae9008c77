"""The file behind a `LedgerWriter`: opened, left when it is no longer at its path, and stood in for by memory."""

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.ledger import SendOpened
from resilient_ai.core.log import Log
from resilient_ai.stores._ledger_intents import intents_of, left_behind, remove
from resilient_ai.stores._owed import Owed, bounded
from resilient_ai.stores._sqlite_budgets import Settlement, settle
from resilient_ai.stores._sqlite_rows import Report, recover, write
from resilient_ai.stores._sqlite_schema import MEMORY, check, connect, end

_log = Log("resilient_ai.stores")
_AGAIN = 60.0  # seconds after which a path that could not be written is tried again
_SUFFIXES = ("", "-wal", "-shm")
_Place = tuple[int, int] | None  # of a file on its device
_FAULTS = (OSError, sqlite3.Error, ConfigurationError)
# None is what `Unsafe` has: a link, or somebody else's file.
_LASTING = {
    None,
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,  # for want of descriptors; where rights are missing it is said otherwise
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
}


class LedgerFile:
    """Has the file open for the one thread that uses it.

    A fault that passes, such as a lack of descriptors, is the caller's to wait for. A path that cannot be written stays so until
    somebody does something about it, so sends are kept in memory then, what was settled is owed to its counters, and both are
    written once the path can be, which is tried every minute.

    Args:
        path: The file, or ":memory:".
        full: Whether every commit waits for the disk.

    Attributes:
        in_memory: Whether there is no file now.
        refused: Why not, where there was to be one.
    """

    def __init__(self, path: str, *, full: bool) -> None:
        self.path = path
        self.in_memory = path == MEMORY
        self.refused: str | None = None
        self._full = full
        self._connection: sqlite3.Connection | None = None
        self._session = 0
        self._places: list[_Place] = []
        self._again_at = 0.0
        self._owed = Owed()

    def open(self) -> sqlite3.Connection:
        """Return the connection to what lies at the path now.

        Raises:
            OSError: If it cannot be opened just now.
            sqlite3.Error: If it cannot be opened just now.
        """
        if (
            self._connection is not None
            and not self.in_memory
            and _place(self.path, self._places[0]) != self._places[0]
        ):
            self._leave(self._connection)
        if self._connection is None:
            return self._begin()
        if self.refused is not None and time.monotonic() >= self._again_at:
            self._return(self._connection)
        return self._connection

    def write(self, reports: Sequence[Report]) -> None:
        """Write reports in one transaction, or none of them."""
        connection = self.open()
        if self.refused is None:
            write(connection, self._session, reports)
            return
        # Its counters know nothing of what others spend, so nobody is let through by them, and they are not kept.
        write(connection, self._session, [report for report in reports if not isinstance(report, Settlement)])
        for report in reports:
            if isinstance(report, Settlement):
                self._owed.add(report.charges)

    def close(self) -> None:
        """End the session; what was kept in memory for want of a file is written if that is possible by now."""
        if self._connection is not None and self.refused is not None:
            self._return(self._connection)
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self.refused is not None:
            ((sends,),) = connection.execute("SELECT count(*) FROM sends").fetchall()
            if sends or self._owed:
                _log.warning("ledger %s: %d sends that were kept in memory are lost", self.path, sends)
            self._owed.clear()
        with contextlib.suppress(sqlite3.Error):  # whoever opens the file next does it
            end(connection, self._session)
        with contextlib.suppress(sqlite3.Error):
            connection.close()

    def _begin(self) -> sqlite3.Connection:
        try:
            connection, session = self._connect()
        except _FAULTS as error:
            if _passes(error):
                raise
            _log.warning("ledger %s cannot be written, so it is kept in memory: %s", self.path, error)
            self.refused = f"{self.path} cannot be written: {error}"
            self.in_memory = True
            self._again_at = time.monotonic() + _AGAIN
            self._connection, self._session = connect(MEMORY, full=False)
            return self._connection
        self._use(connection, session)
        return connection

    def _connect(self) -> tuple[sqlite3.Connection, int]:
        check(self.path)  # another file may lie there now than when the ledger was made
        connection, session = connect(self.path, full=self._full)
        if self.path != MEMORY:
            try:
                _bring_in(connection, session, intents_of(self.path))
            except sqlite3.OperationalError:  # it is locked, or full, and the caller tries again
                with contextlib.suppress(sqlite3.Error):
                    end(connection, session)
                connection.close()
                raise
        return connection, session

    def _use(self, connection: sqlite3.Connection, session: int) -> None:
        self._connection, self._session = connection, session
        self._places = [_place(self.path + suffix) for suffix in _SUFFIXES]
        self.refused = None
        self.in_memory = self.path == MEMORY

    def _return(self, memory: sqlite3.Connection) -> None:
        self._again_at = time.monotonic() + _AGAIN
        try:
            connection, session = self._connect()
        except _FAULTS:
            return
        try:
            _carry(memory, connection, session, self._owed)
        except sqlite3.Error:
            connection.close()
            return
        memory.close()
        self._owed.clear()
        self._use(connection, session)
        _log.warning("ledger %s can be written again, and has what was kept in memory", self.path)

    def _leave(self, connection: sqlite3.Connection) -> None:
        _log.warning("ledger %s was deleted, moved or replaced while it was in use, so it is begun anew", self.path)
        self._connection = None
        with contextlib.suppress(sqlite3.Error):
            end(connection, self._session)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        # Else the next file would have the journal of this one for its own.
        for suffix, place in list(zip(_SUFFIXES, self._places, strict=True))[1:]:
            if place is not None and _place(self.path + suffix) == place:
                with contextlib.suppress(OSError):
                    Path(self.path + suffix).unlink()


def _bring_in(connection: sqlite3.Connection, session: int, place: Path) -> None:
    """Write what dead processes were about to send and could not write down."""
    for files in left_behind(place):
        _bring_in_files(connection, session, files)


def _bring_in_files(
    connection: sqlite3.Connection, session: int, files: Sequence[tuple[Path, list[SendOpened]]]
) -> None:
    try:
        recover(connection, session, [row for _, rows in files for row in rows])
    except sqlite3.OperationalError:
        raise
    except Exception as error:  # noqa: BLE001  # nobody else goes without a ledger for what it says
        if len(files) == 1:
            _log.warning("%s has sends of a process that died, which cannot be written: %s", files[0][0], error)
            return
        for file in files:
            _bring_in_files(connection, session, [file])
    else:
        remove(files)


def _carry(memory: sqlite3.Connection, file: sqlite3.Connection, session: int, owed: Owed) -> None:
    memory.execute("UPDATE sends SET session = ?", (session,))
    file.execute("BEGIN IMMEDIATE")  # whoever sees this fail closes the file
    for table in ("sends", "spared"):
        rows = memory.execute(f"SELECT * FROM {table}")  # noqa: S608  # fixed words
        names = [column[0] for column in rows.description]
        values = ", ".join("NULL" if name == "id" else f":{name}" for name in names)
        file.executemany(
            f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({values})",  # noqa: S608  # as above
            (dict(zip(names, row, strict=True)) for row in rows),
        )
    settle(file, [Settlement(bounded(owed))])
    file.execute("COMMIT")


def _place(path: str, unknown: _Place = None) -> _Place:
    """Return what file lies at a path, None where there is none, and `unknown` where that cannot be told."""
    try:
        about = os.stat(path)  # noqa: PTH116  # in microseconds, for every group of reports
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return unknown
    return about.st_dev, about.st_ino


def _passes(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno not in _LASTING
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING
