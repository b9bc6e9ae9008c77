"""A database that somebody else has written in: nothing of it is believed, run or deleted."""

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from resilient_ai.stores import _safe_disk
from resilient_ai.stores._disk_layout import row_name
from resilient_ai.stores._disk_rows import MAX_VALUE
from resilient_ai.stores._envelope import Refused
from resilient_ai.stores._safe_disk import SafeDisk, open_rows
from resilient_ai.stores._safe_disk import damaged as is_damaged

pytestmark = pytest.mark.anyio


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def tamper(open_store, tmp_path):
    """Write two entries, change the database by hand, and read them with a new store."""

    async def run(*statements):
        first = open_store()
        await first.set_many({"a": b"1", "b": b"2"})
        await first.aclose()
        path = tmp_path / "cache" / "v1" / "cache.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for sql, *values in statements:
                assert connection.execute(sql, values).rowcount > 0
        store = open_store()
        return store, await store.get_many(["a", "b"])

    return run


A = row_name("a")
B = row_name("b")


async def test_a_pickle_is_not_opened(tamper, tmp_path):
    """A row of the mode that diskcache unpickles is refused and deleted."""
    mark = tmp_path / "mark"
    trap = pickle.dumps(Trap(mark))
    store, found = await tamper(("UPDATE Cache SET mode = 4, value = ? WHERE key = ?", trap, A))
    assert (found, store.refused, mark.exists()) == ({"b": b"2"}, 1, False)
    await store.get_many(["a"])
    assert (store.refused, store.faults) == (1, 0), "it is gone after the first time"


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
async def test_a_file_that_a_row_names_is_not_touched(tamper, tmp_path, mode):
    """Neither read, nor deleted with the row, nor when the row is written again."""
    victim = tmp_path / "victim"
    victim.write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    sql = "UPDATE Cache SET mode = ?, value = NULL, filename = '../../victim'"
    store, found = await tamper((sql, mode))
    assert (found, store.refused) == ({}, 2)
    await store.set_many({"a": b"3"})
    await store.delete_many(["a"])
    await store.aclose()
    assert victim.exists()
    assert not (tmp_path / "mark").exists()


async def test_a_foreign_file_survives_a_new_value(open_store, tamper, tmp_path):
    """Overwriting a row that names a file leaves the file."""
    victim = tmp_path / "victim"
    victim.touch()
    first = open_store()
    store, _ = await tamper(("UPDATE Cache SET filename = '../../victim', expire_time = 1",))
    await store.set_many({"a": b"3", "c": b"4"})
    assert await store.get_many(["a"]) == {"a": b"3"}
    await first.clear()
    assert victim.exists()


async def test_values_that_changed_places_are_refused(tamper):
    """One customer's answer never appears under the key of another."""
    swap = "UPDATE Cache SET key = ? WHERE key = ?"
    store, found = await tamper((swap, "aside", A), (swap, A, B), (swap, B, "aside"))
    assert (found, store.refused) == ({}, 2)


@pytest.mark.parametrize(
    "value", ["substr(value, 1, length(value) - 1)", "x''", "x'00'", "'text'", "7", "NULL", "value || x'00'"]
)
async def test_a_value_that_is_not_whole_is_refused(tamper, value):
    """Truncated, empty, of another type, or longer than it was."""
    store, found = await tamper((f"UPDATE Cache SET value = {value} WHERE key = ?", A))  # noqa: S608
    assert (found, store.refused, store.faults) == ({"b": b"2"}, 1, 0)


@pytest.mark.parametrize("change", ["key = CAST(key AS BLOB)", "raw = 0", "key = 5"])
async def test_a_key_of_another_type_is_never_found(tamper, tmp_path, change):
    """The row is simply not the one that was asked for, and its key is not unpickled."""
    store, found = await tamper((f"UPDATE Cache SET {change} WHERE key = ?", A))  # noqa: S608
    assert (found, store.refused, store.faults) == ({"b": b"2"}, 0, 0)


async def test_a_store_with_another_secret_sees_nothing(tamper, open_store, tmp_path):
    """Without the secret every value is a stranger's."""
    store, found = await tamper()
    assert len(found) == 2
    await store.aclose()
    (tmp_path / "cache.key").unlink()
    other = open_store()
    assert (await other.get_many(["a", "b"]), other.refused) == ({}, 2)
    await other.aclose()
    assert other.refused == 2


@pytest.fixture
def disk(tmp_path):
    return SafeDisk(str(tmp_path), min_file_size=2**31)


@pytest.mark.parametrize("key", ["short", "G" * 64, b"ab" * 32, 7, 1.5, None, ("ab" * 32,), "ab" * 65])
def test_only_hexadecimal_keys_are_taken(disk, key):
    """Any other key would be pickled by diskcache."""
    with pytest.raises(Refused):
        disk.put(key)


@pytest.mark.parametrize(
    "refused",
    [
        lambda disk: disk.store("text", False),
        lambda disk: disk.store(bytes(MAX_VALUE + 1), False),
        lambda disk: disk.store(b"v", True),
        lambda disk: disk.get(A, False),
        lambda disk: disk.get(b"k", True),
        lambda disk: disk.fetch(1, None, b"v", True),
        lambda disk: disk.filename(A, b"v"),
    ],
)
def test_everything_else_is_refused(disk, refused):
    """Values that are not bytes, streams, keys that are not text, files."""
    with pytest.raises(Refused):
        refused(disk)


def test_a_good_row_passes(disk):
    """A key and a value go in and come out."""
    assert disk.get(*disk.put(A)) == A
    _, mode, filename, value = disk.store(b"v", False)
    assert disk.fetch(mode, filename, value, False) == b"v"


def test_other_errors_are_not_damage():
    """A lock passes, and an error of the system says nothing about the file."""
    assert not is_damaged(sqlite3.OperationalError("database is locked"))
    assert not is_damaged(OSError("disk"))


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE Cache (key, raw)",  # diskcache fails at its index
        "CREATE VIEW Cache AS SELECT 1 AS key",  # and here earlier
    ],
)
def test_a_database_that_cannot_be_opened_is_closed(tmp_path, opened, table):
    """Also by diskcache, which has opened its connection by the time it fails."""
    with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as connection:
        connection.execute(table)
    (tmp_path / "cache.db").chmod(0o600)
    with pytest.raises(sqlite3.OperationalError):
        open_rows(tmp_path, size_limit=2**30, wait=1.0)
    assert len(opened) >= 2
    assert all(map(is_closed, opened))


def test_rows_that_cannot_be_read_are_closed(tmp_path, opened, monkeypatch):
    """The database was open by then."""
    monkeypatch.setattr(_safe_disk, "_PAGES_UNTIL_CHECKPOINT", "'")
    with pytest.raises(sqlite3.OperationalError):
        open_rows(tmp_path, size_limit=2**30, wait=1.0)
    assert all(map(is_closed, opened))


@pytest.fixture
def opened(monkeypatch):
    """Every connection that is opened."""
    connections = []

    def connect(*args, _connect=sqlite3.connect, **options):
        connections.append(_connect(*args, **options))
        return connections[-1]

    monkeypatch.setattr(sqlite3, "connect", connect)
    return connections


def is_closed(connection):
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False
