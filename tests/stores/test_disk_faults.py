"""What goes wrong with disks: whatever it is, no call fails, and none waits for long."""

import asyncio
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager

import pytest

from resilient_ai.stores._safe_disk import SafeCache
from resilient_ai.testing import ManualClock

pytestmark = pytest.mark.anyio

KEY = "0123456789abcdef" * 6
LOCKS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA locking_mode = {sys.argv[2]}")
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


async def everything(store):
    """Call all that a store has, and return what a read finds."""
    await store.open()
    await store.set_many({KEY: b"new"}, ttl=60)
    await store.acquire_lease(KEY, holder="me", seconds=60)
    await store.release_lease(KEY, holder="me")
    found = await store.get_many([KEY, "Tom"])
    assert len([page async for page in store.scan()]) <= 1
    assert await store.delete_matching("0*") >= 0
    assert len(await store.usage()) == 1
    await store.delete_many(["Tom"])
    await store.clear()
    return found


@contextmanager
def locked_by_another_process(file, mode="EXCLUSIVE"):
    """Keep everybody out of the database, readers included; with the mode NORMAL only those who write."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCKS, str(file), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "locked\n"
        yield
        child.stdin.close()


@pytest.fixture
def file(open_store, tmp_path):
    """A database with one entry, which is closed."""

    async def make():
        store = open_store()
        await store.set_many({"Tom": b"old"})
        await store.aclose()

    asyncio.run(make())
    return tmp_path / "cache" / "v1" / "cache.db"


@pytest.mark.parametrize(
    "fault", ["garbage", "folder gone", "read-only", "database is a folder", "half a page", "key gone"]
)
@pytest.mark.parametrize("opened", [False, True])
async def test_no_call_fails(open_store, file, fault, opened):
    """Before the database is open and after; a store that can be used again is used again."""
    clock = ManualClock()
    store = open_store(clock=clock)
    if opened:
        await store.open()
    if fault == "garbage":
        file.write_bytes(b"this is not a database at all" * 3000)
    elif fault == "half a page":
        file.write_bytes(file.read_bytes()[:9000])
    elif fault == "folder gone":
        shutil.rmtree(file.parent)
    elif fault == "database is a folder":
        file.unlink()
        file.mkdir()
    elif fault == "key gone":
        (file.parent.parent.parent / "cache.key").unlink()
    else:
        await store.open()
        store._worker.submit(store._worker.file._connection.execute, "PRAGMA query_only = 1").result()
    await everything(store)
    await store.aclose()
    if fault == "database is a folder":
        file.rmdir()
    clock.now += 60
    await store.set_many({KEY: b"newer"})
    assert await store.get_many([KEY]) == {KEY: b"newer"}


async def test_a_lock_of_another_process_is_not_waited_for(open_store, file):
    """Each read is a miss long before the lock goes, and the sixth question is not asked any more."""
    clock = ManualClock()
    store = open_store(clock=clock, timeout=0.05)
    started = time.monotonic()
    with locked_by_another_process(file):
        for reads in range(1, 4):
            assert await store.get_many(["Tom"]) == {}
            assert store.faults == reads
        assert await store.acquire_lease(KEY, holder="me", seconds=60) is None
        assert (await store.usage())[0].entries is None
        assert await store.get_many(["Tom"]) == {}
        assert store.faults == 5
    assert time.monotonic() - started < 10
    clock.now += 60
    await store.open()
    assert store.faults == 5


async def test_a_writer_in_another_process_holds_up_writes_only(open_store, file):
    """Reads, listings and counts go on; a lease is nobody's."""
    store = open_store()
    await store.open()
    started = time.monotonic()
    with locked_by_another_process(file, "NORMAL"):
        assert await store.get_many(["Tom"]) == {"Tom": b"old"}
        await store.set_many({"Tim": b"new"})
        assert await store.acquire_lease(KEY, holder="me", seconds=60) is None
        assert await store.delete_matching("*") == 0
        assert [page async for page in store.scan()] == [{"Tom": b"old"}]
        assert (await store.usage())[0].entries == 1
        assert store.faults == 3
    assert time.monotonic() - started < 10
    assert await store.acquire_lease(KEY, holder="me", seconds=60) is True


def test_diskcache_gives_up_on_a_lock(file):
    """It would try for a minute by itself."""
    started = time.monotonic()
    with locked_by_another_process(file), pytest.raises(sqlite3.OperationalError, match="given up"):
        SafeCache(file.parent, patience=0.05, settings={})
    assert time.monotonic() - started < 10


async def test_a_busy_loop_is_no_fault_of_the_disk(open_store, file):
    """The answer is there long before the loop has a turn; it is taken, for values and for leases."""
    store = open_store(timeout=0.05)
    await store.open()

    async def hold_up():
        time.sleep(0.1)  # noqa: ASYNC251  # it is the point

    for _ in range(20):
        found, _ = await asyncio.gather(store.get_many(["Tom"]), hold_up())
        assert found == {"Tom": b"old"}
    taken, _ = await asyncio.gather(store.acquire_lease(KEY, holder="me", seconds=60), hold_up())
    assert (taken, store.faults) == (True, 0)


async def test_the_first_entry_that_is_refused_is_said(open_store, file, caplog):
    """As another secret makes it a store that never finds anything; once, and without the secret."""
    secret = file.parent.parent.with_name("cache.key")
    secret.write_bytes(bytes(range(len(secret.read_bytes()))))
    store = open_store()
    for _ in range(2):
        assert await store.get_many(["Tom"]) == {}
    await store.acquire_lease(KEY, holder="me", seconds=60)
    (record,) = caplog.records
    assert (record.name, record.levelname, store.refused) == ("resilient_ai.stores", "WARNING", 1)
    assert f"cache store {file.parent.parent}: an entry does not fit its seal" in record.getMessage()
    assert "need the same secret" in record.getMessage()


async def test_time_to_open_is_given_once(open_store, file):
    """What went wrong at the first use is waited for like any other read after it."""
    limits = []

    class Noting(ManualClock):
        def timeout(self, seconds):
            limits.append(seconds)
            return super().timeout(seconds)

    clock = Noting()
    store = open_store(clock=clock, timeout=0.01)
    with locked_by_another_process(file):
        for _ in range(2):
            assert await store.get_many(["Tom"]) == {}
    assert limits == [2.0, 0.01]


@pytest.mark.parametrize("gone", ["database", "everything"])
async def test_a_file_that_is_deleted_is_begun_anew(open_store, file, gone):
    """Without a fault, and leases work in the new one."""
    store = open_store()
    await store.open()
    if gone == "database":
        file.unlink()
    else:
        shutil.rmtree(file.parent.parent)
    assert await store.get_many(["Tom"]) == {}
    await store.set_many({KEY: b"1"})
    assert await store.acquire_lease(KEY, holder="me", seconds=60) is True
    assert await store.get_many([KEY]) == {KEY: b"1"}
    assert store.faults == 0


async def test_a_database_that_cannot_be_written_is_not_used(open_store, unprivileged):
    """A file that was made read-only is a store without memory, and no call fails."""
    folder, as_nobody = unprivileged
    with as_nobody():
        first = open_store(folder / "cache")
        await first.set_many({"Tom": b"old"})
        await first.aclose()
        (folder / "cache" / "v1" / "cache.db").chmod(0o400)
        store = open_store(folder / "cache")
        assert await everything(store) == {}
    assert "Permission denied" in store.unavailable
    assert (store.faults, store.dropped) == (0, 1)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_full_disk_costs_what_does_not_fit(open_store, file, in_child):
    """Reads go on, the writes that failed are counted, and after five nothing is asked for a minute; then it works again."""
    clock = ManualClock()
    store = open_store(clock=clock)

    async def fill():
        await store.open()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
        for number in range(4):
            await store.set_many({KEY[number:]: bytes(2**21)})
            assert await store.get_many(["Tom", KEY[number:]]) == {"Tom": b"old"}
        assert store.faults == 4
        assert await store.delete_matching("*z") == 0
        await store.set_many({KEY: bytes(2**21)})
        assert await store.get_many(["Tom"]) == {"Tom": b"old"}
        assert (store.faults, await store.get_many(["Tom"])) == (5, {})
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        clock.now += 60
        await store.set_many({KEY: bytes(2**21)})
        assert len(await store.get_many(["Tom", KEY])) == 2
        await store.aclose()
        return True

    assert in_child(lambda: asyncio.run(fill())) == 0


async def test_a_place_that_may_work_later_is_asked_again(open_store, tmp_path):
    """What is not known to last is a fault, not the end of the store."""
    store = open_store(tmp_path / ("x" * 300))
    assert await store.get_many(["Tom"]) == {}
    assert (store.faults, store.unavailable) == (1, None)


async def test_corrupt_pages_found_by_a_listing_are_moved_aside(open_store, file):
    """Like those found by a read."""
    store = open_store()
    await store.set_many({f"{number:096x}": bytes(5000) for number in range(300)})
    await store.aclose()
    with file.open("r+b") as pages:
        pages.seek(2**15)
        pages.write(b"\xff" * (file.stat().st_size - 2**15))
    store = open_store()
    assert [page async for page in store.scan()] == []
    assert store.faults == 1
    assert (await store.usage())[0].entries == 0
    assert [path.name.startswith("v1.corrupt-") for path in file.parent.parent.glob("*.corrupt-*")] == [True]


async def test_a_database_of_larger_pages_is_as_good(open_store, file):
    """What was made by other versions is read as it is."""
    store = open_store()
    shutil.rmtree(file.parent)
    file.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("CREATE TABLE Settings (key TEXT NOT NULL UNIQUE, value)")
    await store.set_many({KEY: b"1"})
    assert await store.get_many([KEY]) == {KEY: b"1"}
    assert store.faults == 0
