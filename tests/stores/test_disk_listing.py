"""What is in the store on disk: listed, counted, and forgotten by pattern."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import diskcache
import pytest

import resilient_ai
from resilient_ai.stores._disk_layout import row_name
from resilient_ai.testing import ManualClock

pytestmark = pytest.mark.anyio


def key(tenant, model, number=0):
    """A key as the cache makes them: 16 digits, 16 digits, 64 digits."""
    return f"{tenant:016x}{model:016x}{number:064x}"


async def listed(store):
    found = {}
    async for page in store.scan():
        assert 0 < len(page) <= 256
        found.update(page)
    return found


def tamper(tmp_path, sql, *values):
    with closing(sqlite3.connect(tmp_path / "cache" / "v1" / "cache.db", isolation_level=None)) as connection:
        assert connection.execute(sql, values).rowcount > 0


@pytest.mark.parametrize("speaking", ["0123456789abcdef", "f" * 128, key(1, 2, 3)])
def test_a_key_of_digits_is_the_name_of_its_row(speaking):
    """From 16 to 128 of them."""
    assert row_name(speaking) == speaking


@pytest.mark.parametrize("other", ["", "Tom", "f" * 15, "f" * 129, "F" * 16, "0" * 15 + "g", "a" * 16 + "\n", "\ud800"])
def test_any_other_key_is_hashed(other):
    """Its row has a name of 64 digits."""
    assert row_name(other) == blake2b(other.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


async def test_entries_are_forgotten_by_tenant_and_by_model(open_store):
    """What matches goes, and the rest stays."""
    store = open_store()
    keys = [key(tenant, model, number) for tenant in (1, 2) for model in (3, 4) for number in range(5)]
    await store.set_many(dict.fromkeys(keys, b"v"))
    assert await store.delete_matching(f"{1:016x}*") == 10
    assert await store.delete_matching("?" * 16 + f"{3:016x}*") == 5
    assert sorted(await listed(store)) == [key(2, 4, number) for number in range(5)]
    assert await store.delete_matching(key(2, 4, 1)) == 1
    assert await store.delete_matching(f"{2:016x}*{2:x}") == 1
    assert len(await listed(store)) == 3


@pytest.mark.parametrize("pattern", ["", "[0-9a-f]*", "lease:*", "%", "G*", "?", "z", f"{1:015x}?", "\udcff*"])
async def test_what_does_not_match_stays(open_store, pattern):
    """Only ? and * mean something, and a lease is no entry."""
    store = open_store()
    await store.set_many({key(1, 1): b"v", "Tom": b"v"})
    await store.acquire_lease(key(1, 1), holder="me", seconds=60)
    assert await store.delete_matching(pattern) == 0
    assert sorted(await listed(store)) == [key(1, 1), "Tom"]
    assert store.faults == 0


@pytest.mark.parametrize("pattern", ["*", "**"])
async def test_hashed_keys_match_only_everything(open_store, pattern):
    """No pattern of digits forgets an entry whose key only looks so because it was hashed."""
    store = open_store()
    await store.set_many({"Tom": b"1", key(1, 1): b"2"})
    assert await store.delete_matching("?*") == 1
    assert await store.get_many(["Tom", key(1, 1)]) == {"Tom": b"1"}
    assert await store.delete_matching(pattern) == 1
    assert await listed(store) == {}


async def test_forgetting_reaches_what_waits_and_goes_on_until_nothing_is_left(open_store):
    """Thousands of entries that were not yet written, more than go at a time."""
    store = open_store()
    await store.open()
    goes_on = threading.Event()
    store._worker.submit(goes_on.wait)
    await store.set_many({key(1, 1, number): b"v" for number in range(2500)})
    forgetting = asyncio.ensure_future(store.delete_matching(f"{1:016x}*"))
    await asyncio.sleep(0)
    goes_on.set()
    assert await forgetting == 2500
    assert await listed(store) == {}


async def test_a_listing_has_every_fresh_entry_under_its_key(open_store):
    """Those included whose keys were hashed or are no proper text, in pages, and what was just set."""
    clock = ManualClock()
    store = open_store(clock=clock)
    await store.set_many({key(9, 9): b"old"}, ttl=10)
    await store.set_many({key(1, 1): b"", "Tom": b"2", "\ud800": b"3", "": b"4"})
    await store.set_many({key(2, 2, number): b"5" for number in range(700)}, ttl=60)
    clock.now += 11
    found = await listed(store)
    assert len(found) == 704
    assert [found[one] for one in (key(1, 1), "Tom", "\ud800", "")] == [b"", b"2", b"3", b"4"]
    assert await store.get_many(list(found)) == found
    assert (store.faults, store.refused) == (0, 0)


async def test_a_listing_goes_on_while_entries_come_and_go(open_store):
    """What was there all the time is in it."""
    store = open_store()
    await store.set_many({key(1, 1, number): b"v" for number in range(600)})
    found = set()
    async for page in store.scan():
        found.update(page)
        await store.delete_many([key(1, 1, number) for number in range(500, 550)])
        await store.set_many({key(1, 2, len(found)): b"v"})
    assert {key(1, 1, number) for number in range(500)} <= found


async def test_large_entries_are_listed_a_few_at_a_time(open_store):
    """A page holds 16 MiB or little more."""
    store = open_store()
    await store.set_many({key(1, 1, number): bytes(4 * 2**20) for number in range(6)})
    assert [len(page) async for page in store.scan()] == [4, 2]


@pytest.mark.parametrize(
    "change",
    [
        "mode = 4",
        "filename = '../../victim'",
        "value = NULL",
        "value = 'text'",
        "value = value || x'00'",
        "value = zeroblob(4194304 + 65)",
        "tag = x'ff'",
        "tag = 'Tom'",
        "tag = x'546f6d'",
        "key = 'f' || key",
        "key = CAST(x'61ff' AS TEXT)",
    ],
)
async def test_a_listing_believes_nothing(open_store, tmp_path, change):
    """What another has written is neither in it nor read, and is gone afterwards; a file that it names is not touched."""
    victim = tmp_path / "victim"
    victim.touch()
    first = open_store()
    await first.set_many({key(1, 1): b"1", key(1, 2): b"2"})
    await first.aclose()
    tamper(tmp_path, f"UPDATE Cache SET {change} WHERE key = ?", key(1, 1))  # noqa: S608
    store = open_store()
    assert await listed(store) == {key(1, 2): b"2"}
    assert (store.refused, store.faults, victim.exists()) == (1, 0, True)
    assert await listed(store) == {key(1, 2): b"2"}
    assert store.refused == 1


async def test_a_hashed_entry_that_says_another_key_is_refused(open_store, tmp_path):
    """Its name is the digest of its key, or it is not ours."""
    first = open_store()
    await first.set_many({"Tom": b"1", "Tim": b"2"})
    await first.aclose()
    tamper(tmp_path, "UPDATE Cache SET tag = x'54696d' WHERE key = ?", row_name("Tom"))
    store = open_store()
    assert await listed(store) == {"Tim": b"2"}
    assert store.refused == 1


async def test_forgetting_by_pattern_passes_over_foreign_names(open_store, tmp_path):
    """A name that is no proper text neither stops it nor makes it go on for ever."""
    first = open_store()
    await first.set_many({key(1, number): b"v" for number in range(3)})
    await first.aclose()
    tamper(tmp_path, "UPDATE Cache SET key = CAST(x'3031ff' AS TEXT) WHERE key = ?", key(1, 1))
    store = open_store()
    assert await store.delete_matching("*") == 2
    assert (await listed(store), store.refused) == ({}, 1)


async def test_a_foreign_row_that_cannot_be_deleted_costs_nothing_else(open_store, tmp_path):
    """The other entries are found."""
    first = open_store()
    await first.set_many({key(1, 1): b"1", key(1, 2): b"2"})
    await first.aclose()
    tamper(tmp_path, "UPDATE Cache SET mode = 4 WHERE key = ?", key(1, 1))
    store = open_store()
    await store.open()
    store._worker.submit(store._worker.file._connection.execute, "PRAGMA query_only = 1").result()
    assert await store.get_many([key(1, 1), key(1, 2)]) == {key(1, 2): b"2"}
    assert await listed(store) == {key(1, 2): b"2"}
    assert (store.refused, store.faults) == (2, 0)


async def test_usage_counts_entries_and_bytes(open_store, tmp_path):
    """Those included that were just set; leases are not counted."""
    store = open_store(max_bytes=2**20)
    await store.set_many({key(1, number): bytes(1000) for number in range(50)})
    await store.set_many({"large": bytes(2**20)})
    await store.acquire_lease(key(1, 1), holder="me", seconds=60)
    (line,) = await store.usage()
    assert (line.name, line.entries, line.limit) == (f"disk {tmp_path / 'cache'}", 50, 2**20)
    assert 50_000 < line.size < 2**20
    assert (line.faults, line.refused, line.dropped, line.trouble) == (0, 0, 1, None)


async def test_usage_says_what_the_trouble_is(open_store, tmp_path):
    """An unsafe place, or a pause after five faults; nobody can say then how many entries there are."""
    clock = ManualClock()
    store = open_store(clock=clock)
    for _ in range(5):
        store._note(OSError("no"), clock.monotonic())
    (line,) = await store.usage()
    assert (line.entries, line.size, line.faults) == (None, None, 5)
    assert line.trouble == "left alone for a minute after five faults within a minute"
    (tmp_path / "file").write_bytes(b"")
    store = open_store(tmp_path / "file")
    (line,) = await store.usage()
    assert (line.entries, "is not a directory" in line.trouble) == (None, True)


async def test_opening_prepares_the_file(open_store, tmp_path):
    """After it, reading waits no longer than the timeout."""
    store = open_store()
    await store.open()
    assert store._worker.file.is_open
    assert (tmp_path / "cache" / "v1" / "cache.db").exists()
    await store.open()
    assert store.faults == 0


async def test_opening_never_fails(open_store, tmp_path):
    """What is wrong is known afterwards."""
    (tmp_path / "file").write_bytes(b"")
    store = open_store(tmp_path / "file")
    await store.open()
    await store.open()
    assert (await store.get_many(["a"]), bool(store.unavailable)) == ({}, True)


async def test_clearing_keeps_leases(open_store):
    """They are no entries."""
    store, other = open_store(), open_store()
    await store.set_many({key(1, 1): b"v", "Tom": b"v"})
    assert await store.acquire_lease("Tom", holder="me", seconds=60)
    await store.clear()
    assert await listed(store) == {}
    assert await other.acquire_lease("Tom", holder="you", seconds=60) is False


async def test_diskcache_itself_can_read_the_database(open_store, tmp_path):
    """The layout is that of diskcache, its counts included; each entry is there once, however often it was set."""
    store = open_store()
    for _ in range(3):
        await store.set_many({key(1, number): b"v" for number in range(300)}, ttl=60)
    await store.delete_many([key(1, 0)])
    await store.aclose()
    with closing(diskcache.Cache(tmp_path / "cache" / "v1")) as cache:
        assert (len(cache), cache.check()) == (299, [])
        assert cache[key(1, 1)].endswith(b"v")


def test_neither_listing_nor_a_pattern_costs_an_import():
    """What only the disk needs is imported with its first use."""
    code = (
        "import sys; from resilient_ai.stores import *; DiskStore('/x'); TieredStore(MemoryStore(), DiskStore('/x'));"
        "sys.exit(bool({'diskcache', 'sqlite3'} & set(sys.modules)))"
    )
    root = Path(resilient_ai.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root, env={**os.environ}).returncode == 0


async def test_many_keys_are_read_in_several_goes(open_store):
    """Each has its own time, and what was found is returned where a later one goes wrong."""
    store = open_store()
    keys = [key(1, 1, number) for number in range(2500)]
    await store.set_many(dict.fromkeys(keys, b"v"))
    await store.delete_many([])
    assert await store.get_many(keys) == dict.fromkeys(keys, b"v")
    assert await store.get_many([*keys[:1024], 7]) == dict.fromkeys(keys[:1024], b"v")
    assert store.faults == 1
