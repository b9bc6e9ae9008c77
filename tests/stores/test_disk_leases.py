"""Leases of the store on disk: who may send, among processes that share a directory."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

import resilient_ai
from resilient_ai.testing import ManualClock

pytestmark = pytest.mark.anyio

KEY = "0123456789abcdef" * 6
ROOT = Path(resilient_ai.__file__).parent.parent
CHILD = """
import asyncio, sys
from resilient_ai.stores import DiskStore

async def main(directory, key):
    store = DiskStore(directory, timeout=20.0)
    for line in sys.stdin:
        if line.strip() == "release":
            await store.set_many({key: b"from the child"})
            await store.release_lease(key, holder="child")
            print("released", flush=True)
        else:
            print(await store.acquire_lease(key, holder="child", seconds=600), flush=True)
    await store.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def database(tmp_path):
    def connect():
        return closing(sqlite3.connect(tmp_path / "cache" / "v1" / "cache.db", isolation_level=None))

    return connect


@pytest.mark.parametrize("key", [KEY, "Tom", "\ud800"])
async def test_one_holder_at_a_time(open_store, key):
    """Another gets it when it is given back, not before."""
    mine, yours = open_store(), open_store()
    assert await mine.acquire_lease(key, holder="me", seconds=60) is True
    assert await yours.acquire_lease(key, holder="you", seconds=60) is False
    assert await yours.acquire_lease(KEY[::-1], holder="you", seconds=60) is True
    await mine.release_lease(key, holder="me")
    assert await yours.acquire_lease(key, holder="you", seconds=60) is True
    assert (mine.faults, yours.faults, mine.refused, yours.refused) == (0, 0, 0, 0)


async def test_two_in_one_store_exclude_each_other(open_store):
    """It is the holder that counts, not the store."""
    store = open_store()
    both = [store.acquire_lease(KEY, holder=holder, seconds=60) for holder in ("me", "you")]
    assert await asyncio.gather(*both) == [True, False]


async def test_only_the_holder_gives_it_back(open_store):
    """Anybody else's word is nothing, nor is it for a lease that nobody has."""
    store = open_store()
    await store.release_lease(KEY, holder="me")
    await store.acquire_lease(KEY, holder="me", seconds=60)
    await store.release_lease(KEY, holder="you")
    assert await store.acquire_lease(KEY, holder="you", seconds=60) is False
    assert store.faults == 0


async def test_a_lease_that_is_over_can_be_taken(open_store):
    """The dead do not keep it, and what they give back later is no longer theirs."""
    clock = ManualClock()
    mine, yours = open_store(clock=clock), open_store(clock=clock)
    assert await mine.acquire_lease(KEY, holder="me", seconds=10)
    clock.now += 11
    assert await yours.acquire_lease(KEY, holder="you", seconds=10) is True
    await mine.release_lease(KEY, holder="me")
    assert await mine.acquire_lease(KEY, holder="me", seconds=10) is False


async def test_the_holder_prolongs_it(open_store):
    """From the moment that it asks again."""
    clock = ManualClock()
    store = open_store(clock=clock)
    for _ in range(3):
        assert await store.acquire_lease(KEY, holder="me", seconds=10) is True
        clock.now += 8
    assert await store.acquire_lease(KEY, holder="you", seconds=10) is False


async def test_it_is_given_back_after_what_was_set_before(open_store):
    """Whoever has it next finds what the one before has written; reads do not wait for that."""
    mine, yours = open_store(), open_store()
    await mine.acquire_lease(KEY, holder="me", seconds=60)
    goes_on = threading.Event()
    mine._worker.submit(goes_on.wait)
    await mine.set_many({f"{number:096x}": b"v" for number in range(1000)})
    giving_back = asyncio.ensure_future(mine.release_lease(KEY, holder="me"))
    await asyncio.sleep(0)
    assert await yours.acquire_lease(KEY, holder="you", seconds=60) is False
    goes_on.set()
    await giving_back
    assert await yours.acquire_lease(KEY, holder="you", seconds=60) is True
    assert len(await yours.get_many([f"{number:096x}" for number in range(1000)])) == 1000


async def test_giving_back_goes_on_behind_the_caller(open_store):
    """Much to write is no fault."""
    other = open_store()
    await other.acquire_lease(KEY, holder="me", seconds=60)
    store = open_store(timeout=0.01)
    await store.open()
    goes_on = threading.Event()
    store._worker.submit(goes_on.wait)
    await store.set_many({KEY: b"v"})
    await store.release_lease(KEY, holder="me")
    assert await other.acquire_lease(KEY, holder="you", seconds=60) is False
    goes_on.set()
    await store.delete_many([])
    assert await other.acquire_lease(KEY, holder="you", seconds=60) is True
    assert (store.faults, other.faults) == (0, 0)


async def test_leases_are_no_entries(open_store):
    """They are neither read nor listed nor counted nor forgotten with everything, nor in the way of an entry."""
    store = open_store()
    await store.acquire_lease(KEY, holder="me", seconds=60)
    assert await store.get_many([KEY, f"lease:{KEY}"]) == {}
    await store.set_many({KEY: b"v", f"lease:{KEY}": b"w"})
    assert [page async for page in store.scan()] == [{KEY: b"v", f"lease:{KEY}": b"w"}]
    assert (await store.usage())[0].entries == 2
    assert await store.delete_matching("*") == 2
    assert await store.acquire_lease(KEY, holder="you", seconds=60) is False


@pytest.mark.parametrize(
    "change",
    [
        "value = (SELECT value FROM Cache WHERE key = 'lease:fedcba9876543210')",
        "value = (SELECT value FROM Cache WHERE key = '0123456789abcdef')",
        "value = x'00'",
        "mode = 4",
        "filename = 'x'",
    ],
)
async def test_a_lease_that_another_has_written_is_none(open_store, database, change):
    """Nor is one that was moved from another key, or an entry in its place."""
    store = open_store()
    await store.set_many({"0123456789abcdef": b"me"})
    await store.acquire_lease("fedcba9876543210", holder="me", seconds=60)
    await store.acquire_lease("0123456789abcdef", holder="me", seconds=60)
    await store.delete_many([])
    with database() as connection:
        sql = f"UPDATE Cache SET {change} WHERE key = 'lease:0123456789abcdef'"  # noqa: S608
        assert connection.execute(sql).rowcount == 1
    assert await store.acquire_lease("0123456789abcdef", holder="you", seconds=60) is True
    assert (store.refused, store.faults) == (1, 0)


async def test_a_lease_is_not_evicted_before_it_ends(open_store):
    """However much is written meanwhile; one that is over goes like everything old."""
    store = open_store(max_bytes=2**20)
    await store.acquire_lease(KEY, holder="me", seconds=60)
    for number in range(50):
        await store.set_many({f"{number:096x}": bytes(2**16)})
    assert (await store.usage())[0].entries < 20
    assert await store.acquire_lease(KEY, holder="you", seconds=60) is False


async def test_nobody_can_say_while_the_database_is_locked(open_store, database):
    """The answer is None, the fault is counted, and after five the disk is left alone."""
    clock = ManualClock()
    store = open_store(clock=clock)
    await store.open()
    with database() as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert await store.acquire_lease(KEY, holder="me", seconds=60) is None
        await store.release_lease(KEY, holder="me")
        assert store.faults == 2
        for _ in range(3):
            assert await store.acquire_lease(KEY, holder="me", seconds=60) is None
        assert store.faults == 5
    assert await store.acquire_lease(KEY, holder="me", seconds=60) is None
    await store.release_lease(KEY, holder="me")
    assert store.faults == 5
    clock.now += 60
    assert await store.acquire_lease(KEY, holder="me", seconds=60) is True


async def test_nobody_can_say_while_the_thread_is_busy(open_store):
    """The question is called off, so that it does not take the lease later on."""
    store = open_store(timeout=0.01)
    await store.open()
    before = store.faults
    goes_on = threading.Event()
    store._worker.submit(goes_on.wait)
    assert await store.acquire_lease(KEY, holder="me", seconds=60) is None
    assert store.faults == before + 1
    goes_on.set()
    await store.delete_many([])
    assert await open_store().acquire_lease(KEY, holder="you", seconds=60) is True


async def test_a_store_that_is_closing_loses_nothing(open_store):
    """The lease is given back before the file is closed."""
    store = open_store()
    await store.acquire_lease(KEY, holder="me", seconds=60)
    goes_on = threading.Event()
    store._worker.submit(goes_on.wait)
    giving_back = asyncio.ensure_future(store.release_lease(KEY, holder="me"))
    await asyncio.sleep(0)
    closing_it = asyncio.ensure_future(store.aclose())
    await asyncio.sleep(0)
    goes_on.set()
    await asyncio.gather(giving_back, closing_it)
    assert await open_store().acquire_lease(KEY, holder="you", seconds=60) is True


def test_two_processes_exclude_each_other(open_store, tmp_path):
    """The lease of a child keeps this process out, until the child has written its answer and given the lease back."""
    store = open_store()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "cache"), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as child:

        def ask(question):
            child.stdin.write(f"{question}\n")
            child.stdin.flush()
            return child.stdout.readline().strip()

        async def acquire():
            return await store.acquire_lease(KEY, holder="parent", seconds=600)

        assert asyncio.run(acquire()) is True
        assert ask("acquire") == "False"
        asyncio.run(store.release_lease(KEY, holder="parent"))
        assert ask("acquire") == "True"
        assert asyncio.run(acquire()) is False
        assert ask("release") == "released"
        assert asyncio.run(acquire()) is True
        assert asyncio.run(store.get_many([KEY])) == {KEY: b"from the child"}
        child.stdin.close()
    assert (child.returncode, store.faults) == (0, 0)
