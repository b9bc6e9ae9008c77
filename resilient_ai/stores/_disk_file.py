"""The file of a `DiskStore`, used by one thread only."""

import errno
import os
import shutil
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from resilient_ai.stores._envelope import Refused, seal, unseal
from resilient_ai.stores._forks import abandoned, using_file
from resilient_ai.stores._private import private_directory, secret

if TYPE_CHECKING:
    import sqlite3

    from resilient_ai.stores._safe_disk import Rows

# Other versions of this package that lay rows out differently use another folder of the same directory.
LAYOUT = "v1"
_LASTING = {None, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP}


class Unavailable(Exception):
    """The directory cannot be used, and trying again will not help."""


class DiskFile:
    """Reads and writes envelopes; opens the database when it is first needed and again after it broke.

    Every method is called from one and the same thread, and raises what went wrong.

    Args:
        directory: Where the store lives; the secret lies beside it, in a file of the same name that ends in `.key`.
        max_bytes: Bytes the database may take, about.
        wait: Seconds to wait for a lock of another process.
    """

    def __init__(self, directory: Path, *, max_bytes: int, wait: float) -> None:
        self.folder = directory / LAYOUT
        self.refused = 0
        self.is_open = False
        self._directory = directory
        self._max_bytes = max_bytes
        self._wait = wait
        self._secret = b""
        self._rows: Rows | None = None
        # Held by name: after a fork the child would otherwise close it along with what it has of the parent's thread.
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def get(self, keys: Sequence[str], now: float) -> dict[str, bytes]:
        """Return the values that are there, untouched and fresh at `now`; delete what is not ours."""
        found: dict[str, bytes] = {}
        with self._using() as rows:
            for key in keys:
                row = _row_key(key)
                try:
                    envelope = rows.get(row)
                    value = None if envelope is None else unseal(envelope, secret=self._secret, key=key, now=now)
                except Refused:
                    self.refused += 1
                    rows.delete(row)
                else:
                    if value is not None:
                        found[key] = value
        return found

    def set(self, entries: Iterable[tuple[str, bytes]], *, ttl: float | None, created: float) -> None:
        """Write values, all in one transaction, and evict the oldest once there are too many."""
        with self._using() as rows:
            with rows.transact():
                for key, value in entries:
                    envelope = seal(value, secret=self._secret, key=key, created=created, ttl=ttl)
                    rows.set(_row_key(key), envelope, expire=ttl)
            if rows.volume() > self._max_bytes:
                rows.cull()

    def delete(self, keys: Sequence[str]) -> None:
        """Delete values."""
        with self._using() as rows:
            for key in keys:
                rows.delete(_row_key(key))

    def clear(self) -> None:
        """Delete all values."""
        with self._using():
            if self._connection is not None:  # pragma: no branch  # it is there while rows are in use
                # All rows at once; diskcache itself would take a transaction per hundred.
                self._connection.execute("DELETE FROM Cache")

    def close(self) -> None:
        """Close the database; it is opened again when it is needed."""
        rows, self._rows, self._connection, self.is_open = self._rows, None, None, False
        if rows is not None:
            rows.close()

    @contextmanager
    def _using(self) -> Generator["Rows", None, None]:
        from resilient_ai.stores._safe_disk import damaged  # noqa: PLC0415  # only users of the store pay for it

        if self._rows is not None and _inode(self.folder) != self._inode:
            # Not closed: that would delete the side files of whoever has made a new database in its place.
            abandoned.append((self._rows, self._connection))
            self._rows = None
        try:
            with using_file():
                yield self._open() if self._rows is None else self._rows
        except Exception as error:
            if damaged(error):
                with suppress(Exception):  # it is broken already
                    self.close()
                _set_aside(self.folder)
            raise

    def _open(self) -> "Rows":
        from resilient_ai.stores._safe_disk import open_rows  # noqa: PLC0415

        try:
            private_directory(self._directory)
            private_directory(self.folder)
            self.folder.chmod(0o700)
            self._secret = secret(self._directory.with_name(f"{self._directory.name}.key"))
            _sweep(self.folder)
            self._rows, self._connection = open_rows(self.folder, size_limit=self._max_bytes, wait=self._wait)
            self._inode = _inode(self.folder)
        except OSError as error:
            if error.errno in _LASTING:
                raise Unavailable(str(error)) from error
            raise
        self.is_open = True
        return self._rows


def _row_key(key: str) -> str:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def _inode(folder: Path) -> int:
    try:
        return (folder / "cache.db").stat().st_ino
    except OSError:
        return 0


def _set_aside(folder: Path) -> None:
    for older in folder.parent.glob(f"{folder.name}.corrupt-*"):
        shutil.rmtree(older, ignore_errors=True)
    with suppress(OSError):
        folder.rename(folder.with_name(f"{folder.name}.corrupt-{time.time_ns()}"))


def _sweep(folder: Path) -> None:
    # This store puts nothing into files, so a value file is the remains of something else. Links are not followed.
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".val"):
                Path(place, name).unlink(missing_ok=True)
