"""The table of a `DiskStore`: laid out by diskcache, read and written many rows at a time."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from itertools import accumulate
from typing import NamedTuple, Protocol

from resilient_ai.stores._disk_layout import BEHIND_LEASES, BEHIND_NAMES, FIRST_NAME, LEASES, Row

MAX_VALUE = 4 * 2**20 + 64  # a payload of 4 MiB in its envelope
_AT_ONCE = 500  # keys of one statement; SQLite takes 999 or more
_EVICTED_AT_ONCE = 256
_MOST_BYTES = 16 * 2**20

# What `SafeDisk` demands of a row, asked before its value is loaded: NULL stands for a row that this store has not written.
_OURS = f"CASE WHEN mode = 1 AND filename IS NULL AND typeof(value) = 'blob' AND length(value) <= {MAX_VALUE} THEN value END"
# An upsert, as a replaced row would be counted twice by the triggers of diskcache.
_WRITE = """
INSERT INTO Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value)
VALUES (?1, 1, ?2, ?3, ?2, 0, ?4, 0, 1, NULL, ?5)
ON CONFLICT (key, raw) DO UPDATE SET store_time = ?2, expire_time = ?3, access_time = ?2, access_count = 0,
tag = ?4, size = 0, mode = 1, filename = NULL, value = ?5"""
# A name that holds anything else is not ours, and one that is no proper text would not come back from Python as it was.
_NAMED = "key >= ? AND key < ? AND key NOT GLOB '*[^0-9a-f]*' AND length(CAST(key AS BLOB)) = length(key)"
_DELETE = "DELETE FROM Cache WHERE key = ? AND raw = 1"
_OVER = "SELECT rowid, length(value) FROM Cache WHERE expire_time < :now ORDER BY expire_time LIMIT :most"
_OLDEST = "SELECT rowid, length(value) FROM Cache ORDER BY store_time LIMIT :most"


class Listed(NamedTuple):
    """A row as a listing finds it; without an envelope where this store has not written it."""

    number: int
    name: str
    key: object
    envelope: bytes | None


class Cache(Protocol):
    """The part of `diskcache.Cache` that is safe and quick."""

    def transact(self) -> AbstractContextManager[None]: ...
    def close(self) -> None: ...


class Rows:
    """Reads and writes rows over the connection of diskcache, in its thread.

    Nothing of diskcache that looks at rows is used: it would follow what they say about files and pickles, one at a time.
    """

    def __init__(self, cache: Cache, connection: sqlite3.Connection) -> None:
        self.transaction = cache.transact
        self.close = cache.close
        self._connection = connection
        self._page_size = self._number("PRAGMA page_size")

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield the names that are there with their envelopes, None for what this store has not written."""
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            sql = f"SELECT key, {_OURS} FROM Cache WHERE raw = 1 AND key IN ({marks})"  # noqa: S608  # only marks
            yield from self._connection.execute(sql, some)

    def list_some(self, behind: int, last: int, most: int) -> list[Listed]:
        """Return the next `most` entries by number, up to the `last`, or fewer where they hold more than 16 MiB."""
        sql = (
            f"SELECT rowid, key, tag, {_OURS} FROM Cache WHERE rowid > ? AND rowid <= ? AND raw = 1 AND key >= ? AND key < ?"  # noqa: S608
            " ORDER BY rowid LIMIT ?"
        )
        found: list[Listed] = []
        size = 0
        with closing(self._connection.execute(sql, (behind, last, FIRST_NAME, BEHIND_NAMES, most))) as rows:
            for row in map(Listed._make, rows):
                found.append(row)
                size += len(row.envelope or b"")
                if size >= _MOST_BYTES:
                    break
        return found

    def names(self, start: str, behind: str, most: int) -> list[str]:
        """Return up to `most` names of entries, in order, from `start` on and before `behind`."""
        sql = f"SELECT key FROM Cache WHERE raw = 1 AND {_NAMED} ORDER BY key LIMIT ?"  # noqa: S608
        return [name for (name,) in self._connection.execute(sql, (start, behind, most))]

    def write(self, rows: Iterable[Row]) -> None:
        """Write rows, each in place of the one of its name."""
        self._connection.executemany(_WRITE, rows)

    def delete(self, names: Iterable[str], *, hashed: bool = True) -> int:
        """Delete rows in one transaction and return how many there were; without `hashed`, only those named by their keys."""
        with self.transaction():
            sql = _DELETE if hashed else f"{_DELETE} AND tag IS NULL"
            return self._connection.executemany(sql, [(name,) for name in names]).rowcount

    def delete_numbers(self, numbers: Iterable[int]) -> None:
        """Delete rows by their numbers."""
        with self.transaction():
            self._connection.executemany("DELETE FROM Cache WHERE rowid = ?", [(number,) for number in numbers])

    def clear(self) -> None:
        """Delete every row but those of leases, which are no entries."""
        sql = "DELETE FROM Cache WHERE rowid NOT IN (SELECT rowid FROM Cache WHERE key >= ? AND key < ?)"
        self._connection.execute(sql, (LEASES, BEHIND_LEASES))

    def make_room(self, limit: int, now: float) -> None:
        """Delete what is over, then what was stored first, until no more than `limit` bytes are in use.

        In one transaction with the write that needs the room, so that its pages are used again and the file need not shrink.
        """
        how = {"now": now, "most": _EVICTED_AT_ONCE}
        for sql in (_OVER, _OLDEST):
            while (excess := self._used() - limit) > 0:
                some = self._connection.execute(sql, how).fetchall()
                if not some:
                    break
                before = accumulate((size or 0 for _, size in some), initial=0)
                self.delete_numbers([number for (number, _), size in zip(some, before, strict=False) if size < excess])

    def count(self) -> int:
        """Return the number of entries."""
        sql = "SELECT count(*) FROM Cache WHERE key >= ? AND key < ? AND raw = 1"
        return self._number(sql, FIRST_NAME, BEHIND_NAMES)

    def last(self) -> int:
        """Return the highest number of a row, 0 where there is none."""
        return self._number("SELECT coalesce(max(rowid), 0) FROM Cache")

    def volume(self) -> int:
        """Return the bytes that the database takes."""
        return self._number("PRAGMA page_count") * self._page_size

    def _used(self) -> int:
        return self.volume() - self._number("PRAGMA freelist_count") * self._page_size

    def _number(self, sql: str, *values: str) -> int:
        return int(self._connection.execute(sql, values).fetchone()[0])
