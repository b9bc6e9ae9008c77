"""The store on disk: what it keeps, and that nothing that goes wrong reaches a call."""

import asyncio
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from resilient_ai.stores import DiskStore
from resilient_ai.testing import ManualClock

pytestmark = pytest.mark.anyio


def database(tmp_path):
    return closing(sqlite3.connect(tmp_path / "cache" / "v1" / "cache.db", isolation_level=None))


def lock(connection):
    """Keep everybody else out, readers included."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")


def test_importing_the_stores_costs_nothing():
    """Neither diskcache nor SQLite is imported before a store is used."""
    code = "import sys, resilient_ai.stores; sys.exit(bool({'diskcache', 'sqlite3'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=_root()).returncode == 0


def _root():
    import resilient_ai

    return os.path.dirname(os.path.dirname(resilient_ai.__file__))  # noqa: PTH120


def test_defaults():
    """1 GiB, and 50 ms for a read."""
    assert repr(DiskStore("/x")) == "DiskStore('/x', max_bytes=1073741824, timeout=0.05)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bytes": 2**20 - 1}, "max_bytes must be a whole number >= 1048576, got 1048575"),
        ({"max_bytes": float("nan")}, "max_bytes must be a whole number >= 1048576, got nan"),
        ({"timeout": 0}, "timeout must be a positive number of seconds, got 0"),
        ({"timeout": "1"}, "timeout must be a positive number of seconds, got '1'"),
        ({"lock_timeout": 0}, "lock_timeout must be a positive number of seconds, got 0"),
    ],
)
def test_options_are_checked(tmp_path, options, message):
    """A number out of its range is refused at construction."""
    with pytest.raises(ValueError, match=message):
        DiskStore(tmp_path, **options)


async def test_entries_are_kept_and_forgotten(open_store):
    """Written, read, deleted, cleared."""
    store = open_store()
    await store.set_many({"a": b"1", "b": b"", "\ud800": b"3"})
    assert await store.get_many(["a", "b", "\ud800", "z"]) == {"a": b"1", "b": b"", "\ud800": b"3"}
    await store.delete_many(["a", "z"])
    assert await store.get_many(["a", "b"]) == {"b": b""}
    await store.clear()
    assert await store.get_many(["b"]) == {}
    assert (store.faults, store.refused, store.dropped) == (0, 0, 0)


async def test_nothing_to_do_is_not_done(open_store, tmp_path):
    """Empty requests open nothing."""
    store = open_store()
    assert await store.get_many([]) == {}
    await store.set_many({})
    await store.aclose()
    assert not (tmp_path / "cache").exists()


async def test_entries_survive_the_store(open_store):
    """What was written is there for the next store, and the file is tidy."""
    first = open_store()
    await first.set_many({f"k{i}": b"v" * 100 for i in range(1000)}, ttl=3600)
    await first.aclose()
    keys = [f"k{i}" for i in range(1000)]
    assert len(await open_store().get_many(keys)) == 1000
    await first.set_many({"more": b"1"})
    assert await first.get_many(["more"]) == {"more": b"1"}, "a closed store opens again"


async def test_an_entry_ends_with_its_time(open_store):
    """By the clock that was given."""
    clock = ManualClock()
    store = open_store(clock=clock)
    await store.set_many({"a": b"1"}, ttl=60)
    assert await store.get_many(["a"]) == {"a": b"1"}
    clock.now += 61
    assert await store.get_many(["a"]) == {}
    assert store.refused == 0


async def test_an_entry_from_the_future_is_a_miss(open_store):
    """A wall clock that was wrong when it was written does not make an entry live for years."""
    clock = ManualClock()
    store = open_store(clock=clock)
    await store.set_many({"a": b"1"})
    clock.offset -= 86_400
    assert await store.get_many(["a"]) == {}
    clock.offset += 86_400 - 299
    assert await store.get_many(["a"]) == {"a": b"1"}


async def test_nobody_else_can_read_it(open_store, tmp_path):
    """Directories are 0700, files 0600, and the secret lies outside."""
    store = open_store()
    await store.set_many({"a": b"1"})
    await store.get_many(["a"])
    rights = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert rights == {
        "cache": 0o700,
        "v1": 0o700,
        "cache.key": 0o600,
        "cache.db": 0o600,
        "cache.db-wal": 0o600,
        "cache.db-shm": 0o600,
    }


async def test_an_open_directory_is_closed(open_store, tmp_path):
    """What others could read before, they cannot read after; what they could write is refused."""
    (tmp_path / "cache" / "v1").mkdir(parents=True, mode=0o755)
    store = open_store()
    await store.set_many({"a": b"1"})
    assert await store.get_many(["a"]) == {"a": b"1"}
    assert stat.S_IMODE((tmp_path / "cache" / "v1").stat().st_mode) == 0o700


@pytest.mark.parametrize("unsafe", ["writable", "link", "file", "linked database", "linked side file", "key"])
async def test_an_unsafe_place_is_not_used(open_store, tmp_path, unsafe, caplog):
    """Every call is a miss, and the log says so once."""
    cache = tmp_path / "cache"
    if unsafe == "writable":
        cache.mkdir()
        cache.chmod(0o777)
    elif unsafe == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        cache.symlink_to(tmp_path / "real")
    elif unsafe == "file":
        cache.write_bytes(b"")
    elif unsafe == "key":
        (tmp_path / "cache.key").write_bytes(b"guessed")
    else:
        (cache / "v1").mkdir(parents=True, mode=0o700)
        cache.chmod(0o700)
        side = "" if unsafe == "linked database" else "-wal"
        (cache / "v1" / f"cache.db{side}").symlink_to(tmp_path / "target")
    store = open_store()
    with caplog.at_level(logging.WARNING):
        await asyncio.gather(*(store.get_many(["a"]) for _ in range(3)))
        await store.set_many({"a": b"1"})
        await store.delete_many(["a"])
        assert await store.get_many(["a"]) == {}
    assert store.unavailable
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert (store.dropped, store.faults) == (1, 0)
    assert not (tmp_path / "target").exists()


async def test_a_directory_that_cannot_be_written_is_not_used(open_store, unprivileged):
    """A read-only place is a store without memory."""
    folder, as_nobody = unprivileged
    folder.chmod(0o500)
    store = open_store(folder / "cache")
    with as_nobody():
        await store.set_many({"a": b"1"})
        assert await store.get_many(["a"]) == {}
    assert "Permission denied" in store.unavailable
    assert store.faults == 0


async def test_a_file_that_becomes_read_only_costs_writes_only(open_store, tmp_path):
    """Reads go on; the write that failed is counted."""
    store = open_store()
    await store.set_many({"a": b"1"})
    await store.get_many(["a"])
    store._worker.submit(store._worker.file._connection.execute, "PRAGMA query_only = 1").result()
    await store.set_many({"b": b"2"})
    assert await store.get_many(["a", "b"]) == {"a": b"1"}
    assert store.faults == 1


@pytest.mark.parametrize("damage", ["no database", "half a page", "foreign table", "foreign setting", "foreign pragma"])
async def test_a_damaged_file_is_moved_aside(open_store, tmp_path, damage):
    """The read that finds it is a miss, the next one works, and one damaged file is kept."""
    first = open_store()
    await first.set_many({"a": b"1"})
    await first.aclose()
    (tmp_path / "cache" / "v1.corrupt-1").mkdir()
    file = tmp_path / "cache" / "v1" / "cache.db"
    if damage == "no database":
        file.write_bytes(b"this is not a database at all" * 100)
    elif damage == "half a page":
        file.write_bytes(file.read_bytes()[:2000])
    else:
        with database(tmp_path) as connection:
            connection.execute(
                {
                    "foreign table": "CREATE TABLE other (x)",
                    "foreign setting": "INSERT INTO Settings VALUES ('strange', 1)",
                    "foreign pragma": "UPDATE Settings SET value = '1; DROP TABLE Cache' WHERE key = 'sqlite_cache_size'",
                }[damage]
            )
    store = open_store()
    assert await store.get_many(["a"]) == {}
    assert store.faults == 1
    await store.set_many({"a": b"2"})
    assert await store.get_many(["a"]) == {"a": b"2"}
    assert store.faults == 1
    aside = [path.name for path in (tmp_path / "cache").glob("*.corrupt-*")]
    assert len(aside) == 1
    assert aside != ["v1.corrupt-1"]


async def test_damage_while_open_is_survived(open_store, tmp_path):
    """The file is replaced by a new one."""
    store = open_store()
    await store.set_many({f"k{i}": os.urandom(1000) for i in range(500)})
    await store.delete_many([])
    store._worker.submit(store._worker.file._connection.execute, "PRAGMA wal_checkpoint(TRUNCATE)").result()
    with (tmp_path / "cache" / "v1" / "cache.db").open("r+b") as file:
        file.write(b"\xff" * 300_000)
    with database(tmp_path) as connection, pytest.raises(sqlite3.DatabaseError):
        connection.execute("SELECT count(*) FROM Cache")
    # What SQLite still has in memory would hide the damage.
    store._worker.submit(store._worker.file._connection.execute, "PRAGMA shrink_memory").result()
    for turn in range(4):
        await store.set_many({"k": f"{turn}".encode()})
        await store.get_many(["k"])
    assert await store.get_many(["k"]) == {"k": b"3"}
    assert 1 <= store.faults <= 3


async def test_a_directory_that_vanishes_comes_back(open_store, tmp_path):
    """The store begins a new one, without a fault."""
    store = open_store()
    await store.set_many({"a": b"1"})
    await store.get_many(["a"])
    (tmp_path / "cache").rename(tmp_path / "gone")
    await store.set_many({"b": b"2"})
    assert await store.get_many(["a", "b"]) == {"b": b"2"}
    assert store.faults == 0
    assert (tmp_path / "cache" / "v1" / "cache.db").exists()


async def test_a_lock_of_another_is_a_miss(open_store, tmp_path):
    """A locked file that is not open yet does not hold up a call, and works when it is free."""
    first = open_store()
    await first.set_many({"a": b"1"})
    await first.aclose()
    store = open_store()
    with database(tmp_path) as connection:
        lock(connection)
        assert await store.get_many(["a"]) == {}
        assert store.faults == 1
    assert await store.get_many(["a"]) == {"a": b"1"}


async def test_a_write_lock_of_another_drops_writes_only(open_store, tmp_path):
    """Reads go on beside a writer."""
    store = open_store()
    await store.set_many({"a": b"1"})
    await store.get_many(["a"])
    with database(tmp_path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        await store.set_many({"b": b"2"})
        await store.delete_many(["a"])
        assert await store.get_many(["a", "b"]) == {"a": b"1"}
    assert store.faults == 2


async def test_a_slow_disk_is_a_miss(open_store):
    """A read that is not back in time is given up."""
    store = open_store(timeout=0.01)
    while not await store.get_many(["a"]) and not store._worker.file.is_open:
        pass
    before = store.faults
    goes_on = threading.Event()
    store._worker.submit(goes_on.wait)
    assert await store.get_many(["a"]) == {}
    assert store.faults == before + 1
    goes_on.set()


async def test_after_five_faults_the_disk_is_left_alone(open_store, tmp_path):
    """For a minute it is not asked at all; then it is."""
    clock = ManualClock()
    store = open_store(clock=clock)
    await store.set_many({"a": b"1"})
    await store.aclose()
    with database(tmp_path) as connection:
        lock(connection)
        for _ in range(7):
            await store.get_many(["a"])
    assert store.faults == 5
    clock.now += 59
    await store.set_many({"b": b"2"})
    await store.delete_many(["a"])
    assert (await store.get_many(["a"]), store.dropped) == ({}, 1)
    clock.now += 1
    assert await store.get_many(["a"]) == {"a": b"1"}


async def test_large_values_are_dropped(open_store):
    """4 MiB go in, one byte more does not, nor does a quarter of the store."""
    store = open_store()
    await store.set_many({"a": bytes(4 * 2**20), "b": bytes(4 * 2**20 + 1)})
    assert list(await store.get_many(["a", "b"])) == ["a"]
    small = open_store(max_bytes=2**20)
    await small.set_many({"c": bytes(2**18 + 1)})
    assert (store.dropped, small.dropped, store.faults) == (1, 1, 0)


async def test_the_max_bytes_holds(open_store, tmp_path):
    """The oldest entries go, the newest are there, and the file stays near the limit."""
    store = open_store(max_bytes=2**20)
    for number in range(200):
        await store.set_many({f"k{number}": os.urandom(2**15)})
        await store.get_many(["k0"])
    assert await store.get_many(["k0"]) == {}
    assert len(await store.get_many([f"k{number}" for number in range(190, 200)])) > 0
    await store.aclose()
    assert (tmp_path / "cache" / "v1" / "cache.db").stat().st_size <= 2**20 + 2**17


async def test_only_so_many_batches_wait(open_store):
    """The 257th is dropped, the others are written when the disk is back."""
    store = open_store()
    await store.get_many(["a"])
    goes_on = threading.Event()
    store._worker.submit(goes_on.wait)
    for number in range(257):
        await store.set_many({f"k{number}": b"v"})
    goes_on.set()
    assert store.dropped == 1
    await store.aclose()
    assert len(await store.get_many([f"k{number}" for number in range(257)])) == 256


async def test_clearing_forgets_what_waits(open_store):
    """What had not been written yet does not appear afterwards."""
    store = open_store()
    await store.get_many(["a"])
    goes_on = threading.Event()
    store._worker.submit(goes_on.wait)
    await store.set_many({f"k{number}": b"v" for number in range(100)})
    clearing = asyncio.ensure_future(store.clear())
    await asyncio.sleep(0)
    goes_on.set()
    await clearing
    assert await store.get_many([f"k{number}" for number in range(100)]) == {}


def test_one_loop_after_another(open_store):
    """A store belongs to no event loop."""
    store = open_store()
    asyncio.run(store.set_many({"a": b"1"}))
    assert asyncio.run(store.get_many(["a"])) == {"a": b"1"}


def test_threads_may_share_it(open_store):
    """Eight threads with loops of their own write and read, and nothing is lost."""
    store = open_store()
    results = []

    async def work(name):
        for number in range(10):
            await store.set_many({f"{name}-{number}": b"1"})
            results.append(await store.get_many([f"{name}-{number}"]))

    threads = [threading.Thread(target=lambda name=name: asyncio.run(work(name))) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ([len(found) for found in results], store.faults) == ([1] * 80, 0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_opens_the_file_for_itself(open_store, in_child):
    """It reads what the parent wrote and writes what the parent reads, and the parent goes on."""
    store = open_store()

    async def write_and_read(key, other):
        await store.set_many({key: b"1"})
        return len(await store.get_many([key, other]))

    async def in_the_child():
        found = await write_and_read("child", "parent")
        await store.aclose()
        return found

    assert asyncio.run(write_and_read("parent", "child")) == 1
    assert in_child(lambda: asyncio.run(in_the_child()) == 2) == 0
    assert asyncio.run(write_and_read("parent", "child")) == 2
    assert store.faults == 0


async def test_value_files_of_others_are_swept_away(open_store, tmp_path):
    """Remains of files go when the store opens; links are not followed."""
    inside = tmp_path / "cache" / "v1" / "ab" / "cd"
    inside.mkdir(parents=True)
    (tmp_path / "cache").chmod(0o700)
    (inside / "x.val").touch()
    (inside / "notes.txt").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "y.val").touch()
    (inside / "link").symlink_to(outside)
    await open_store().get_many(["a"])
    assert sorted(path.name for path in inside.iterdir()) == ["link", "notes.txt"]
    assert (outside / "y.val").exists()


async def test_what_is_held_is_what_was_told_last(open_store):
    """Nothing is known before the first look, and after it what was seen then."""
    store = open_store()
    assert list(store.held()) == []
    await store.set_many({"a": b"1"})
    seen = await store.usage()
    await store.set_many({"b": b"2"})
    assert list(store.held()) == list(seen)
    assert [line.entries for line in seen] == [1]
