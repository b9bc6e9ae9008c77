"""The file of a `DiskStore`, used by one thread only."""

import errno
import secrets
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from resilient_ai.stores import _disk_folder as disk_folder
from resilient_ai.stores import _disk_layout as layout
from resilient_ai.stores._envelope import Envelopes, Refused
from resilient_ai.stores._forks import abandoned, using_file
from resilient_ai.stores._private import secret

if TYPE_CHECKING:
    import sqlite3

    from resilient_ai.stores._disk_rows import Rows

T = TypeVar("T")

# Other versions of this package that lay rows out differently use another folder of the same directory.
LAYOUT = "v1"
_LASTING = {None, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP}
_LISTED_AT_ONCE = 256
_NAMES_AT_ONCE = 1024


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
        self._envelopes = Envelopes(secrets.token_bytes(32))  # nothing fits until the secret has been read
        self._rows: Rows | None = None
        # Held by name: after a fork the child would otherwise close it along with what it has of the parent's thread.
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def open(self) -> None:
        """Open the database, unless it is."""
        with self._using():
            pass

    def get(self, keys: Iterable[str], now: float) -> dict[str, bytes]:
        """Return the values that are there, untouched and fresh at `now`; delete what is not ours."""
        keys_of = {layout.row_name(key): key for key in keys}
        found: dict[str, bytes] = {}
        strange: list[str] = []
        with self._using() as rows:
            unseal = self._envelopes.unseal
            for name, envelope in rows.read(list(keys_of)):
                key = keys_of[name]
                try:
                    value = unseal(envelope, name=layout.in_bytes(key), now=now)
                except Refused:
                    strange.append(name)
                else:
                    if value is not None:
                        found[key] = value
            self._refuse(strange, rows.delete)
        return found

    def set(self, entries: Iterable[tuple[str, bytes]], *, ttl: float | None, created: float) -> None:
        """Write values in one transaction, and evict the oldest where there would be too many."""
        with self._using() as rows, rows.transaction():
            some = [layout.entry(self._envelopes, key, value, created=created, ttl=ttl) for key, value in entries]
            rows.make_room(self._max_bytes - sum(len(row.envelope) for row in some), created)
            rows.write(some)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete values."""
        with self._using() as rows:
            rows.delete(map(layout.row_name, keys))

    def delete_some(self, fits: Callable[[str], bool] | None, start: str, behind: str) -> tuple[int, str | None]:
        """Delete what fits among the next 1024 entries from the name `start` to `behind`; None is any entry.

        Returns:
            How many were deleted, and where to go on, None for the end. A key that was hashed fits nothing but None.
        """
        with self._using() as rows:
            there = rows.names(start, behind, _NAMES_AT_ONCE)
            fitting = there if fits is None else list(filter(fits, there))
            deleted = rows.delete(fitting, hashed=fits is None) if fitting else 0
        return deleted, layout.next_name(there[-1]) if len(there) == _NAMES_AT_ONCE else None

    def last(self) -> int:
        """Return the highest number of an entry; those that come later have higher ones."""
        with self._using() as rows:
            return rows.last()

    def list_some(self, behind: int, last: int, now: float) -> tuple[dict[str, bytes], int | None]:
        """Return those of the next 256 entries, by number up to the `last`, that are ours and fresh at `now`.

        Returns:
            Values by key, and the number to go on behind, None for the end.
        """
        found: dict[str, bytes] = {}
        strange: list[int] = []
        with self._using() as rows:
            listed = rows.list_some(behind, last, _LISTED_AT_ONCE)
            for number, name, called, envelope in listed:
                try:
                    key = layout.key_of(name, called)
                    value = self._envelopes.unseal(envelope, name=layout.in_bytes(key), now=now)
                except Refused:
                    strange.append(number)
                else:
                    if value is not None:
                        found[key] = value
            self._refuse(strange, rows.delete_numbers)
        return found, listed[-1].number if listed else None

    def usage(self) -> tuple[int, int]:
        """Return the number of entries and the bytes that the database takes."""
        with self._using() as rows:
            return rows.count(), rows.volume()

    def acquire_lease(self, key: str, *, holder: str, seconds: float, now: float) -> bool:
        """Give the lease of `key` to `holder` unless another has it; return whether `holder` has it now."""
        with self._using() as rows, rows.transaction():
            free = self._lease_holder(rows, key, now) in {None, layout.in_bytes(holder)}
            if free:
                rows.write([layout.lease(self._envelopes, key, holder, created=now, ttl=seconds)])
        return free

    def release_lease(self, key: str, *, holder: str, now: float) -> None:
        """Delete the lease of `key` if `holder` has it."""
        with self._using() as rows, rows.transaction():
            if self._lease_holder(rows, key, now) == layout.in_bytes(holder):
                rows.delete([layout.lease_name(key)])

    def clear(self) -> None:
        """Delete all entries."""
        with self._using() as rows:
            rows.clear()

    def close(self) -> None:
        """Close the database; it is opened again when it is needed."""
        rows, self._rows, self._connection, self.is_open = self._rows, None, None, False
        if rows is not None:
            rows.close()

    @contextmanager
    def _using(self) -> Generator["Rows", None, None]:
        from resilient_ai.stores._safe_disk import damaged  # noqa: PLC0415  # only users of the store pay for it

        if self._rows is not None and disk_folder.inode(self.folder) != self._inode:
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
                disk_folder.set_aside(self.folder)
            raise

    def _open(self) -> "Rows":
        from resilient_ai.stores._safe_disk import open_rows  # noqa: PLC0415

        try:
            disk_folder.prepare(self.folder)
            self._envelopes = Envelopes(secret(self._directory.with_name(f"{self._directory.name}.key")))
            self._rows, self._connection = open_rows(self.folder, size_limit=self._max_bytes, wait=self._wait)
            self._inode = disk_folder.inode(self.folder)
        except OSError as error:
            if error.errno in _LASTING:
                raise Unavailable(str(error)) from error
            raise
        self.is_open = True
        return self._rows

    def _refuse(self, strange: list[T], delete: Callable[[list[T]], object]) -> None:
        if strange:
            self.refused += len(strange)
            with suppress(Exception):  # they may stay where what was found would be lost with them
                delete(strange)

    def _lease_holder(self, rows: "Rows", key: str, now: float) -> bytes | None:
        for _, envelope in rows.read([layout.lease_name(key)]):
            try:
                return self._envelopes.unseal(envelope, name=layout.lease_seal(key), now=now)
            except Refused:
                self.refused += 1
        return None
