"""The store in memory."""

import asyncio
import re
import threading

import pytest

from resilient_ai.core.protocols import StoreUsage
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import ManualClock

pytestmark = pytest.mark.anyio
ENTRY = 200 + 1 + 1  # overhead, key, value


def test_defaults():
    """64 MiB."""
    assert repr(MemoryStore()) == "MemoryStore(max_bytes=67108864)"


@pytest.mark.parametrize("room", [0, 1e9, float("nan")])
def test_room_is_checked(room):
    """Less than one byte is no room, and there are no parts of bytes."""
    with pytest.raises(ValueError, match=f"max_bytes must be a whole number >= 1, got {re.escape(repr(room))}"):
        MemoryStore(max_bytes=room)


async def test_only_what_is_there_is_returned():
    """A missing key is missing in the answer."""
    store = MemoryStore()
    await store.set_many({"a": b"1", "b": b"2"})
    assert await store.get_many(["b", "c"]) == {"b": b"2"}


async def test_an_entry_ends_with_its_time():
    """It is there before its ttl is over and gone after, and then takes no room."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    await store.set_many({"a": b"1"}, ttl=10)
    clock.now += 9.9
    assert await store.get_many(["a"]) == {"a": b"1"}
    clock.now += 0.1
    assert await store.get_many(["a"]) == {}
    assert (len(store), store.size) == (0, 0)


async def test_the_least_recently_used_goes_first():
    """Reading counts as use."""
    store = MemoryStore(max_bytes=2 * ENTRY)
    await store.set_many({"a": b"1", "b": b"2"})
    await store.get_many(["a"])
    await store.set_many({"c": b"3"})
    assert await store.get_many(["a", "b", "c"]) == {"a": b"1", "c": b"3"}
    assert store.size == 2 * ENTRY


async def test_what_is_larger_than_everything_is_not_kept():
    """It pushes nothing else out, but replaces its own older value."""
    store = MemoryStore(max_bytes=2 * ENTRY)
    await store.set_many({"a": b"1", "b": b"2"})
    await store.set_many({"a": b"x" * 1000})
    assert await store.get_many(["a", "b"]) == {"b": b"2"}


async def test_a_new_value_replaces_the_old_one():
    """The room of the old one is free again."""
    store = MemoryStore()
    await store.set_many({"a": b"1234"})
    await store.set_many({"a": b"1"})
    assert (await store.get_many(["a"]), store.size) == ({"a": b"1"}, ENTRY)


async def test_entries_can_be_forgotten():
    """One by one, or all."""
    store = MemoryStore()
    await store.set_many({"a": b"1", "b": b"2", "c": b"3"})
    await store.delete_many(["a", "z"])
    assert sorted(await store.get_many(["a", "b", "c"])) == ["b", "c"]
    await store.aclose()
    assert (len(store), store.size) == (0, 0)


async def test_a_child_starts_with_a_free_lock():
    """What another thread was changing during the fork is forgotten, anything else is kept."""
    store = MemoryStore()
    await store.set_many({"a": b"1"})
    store.after_fork()
    assert await store.get_many(["a"]) == {"a": b"1"}
    store._lock.acquire()
    store.after_fork()
    assert await store.get_many(["a"]) == {}


def test_threads_may_share_it():
    """The count of bytes is right after eight threads have written and deleted."""
    store = MemoryStore(max_bytes=50 * ENTRY)

    async def work(name):
        for turn in range(200):
            await store.set_many({f"{(name * 7 + turn) % 90:02d}"[:1]: b"1", chr(65 + turn % 26): b"2"})
            await store.delete_many([chr(65 + (turn + name) % 26)])

    threads = [threading.Thread(target=lambda name=name: asyncio.run(work(name))) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.size == len(store) * ENTRY


async def test_entries_are_forgotten_by_pattern():
    """Of any key, by its characters; how many is returned, and their room is free."""
    store = MemoryStore()
    await store.set_many({"ab1": b"1", "ab2": b"2", "b": b"3", "[ab]": b"4"})
    assert [await store.delete_matching(pattern) for pattern in ("ab?", "ab?", "[ab]", "z*")] == [2, 0, 1, 0]
    assert (await store.get_many(["ab1", "b"]), store.size) == ({"b": b"3"}, ENTRY)


async def test_a_listing_has_what_is_fresh():
    """Up to 256 entries at a time, and being listed is not being used."""
    clock = ManualClock()
    store = MemoryStore(max_bytes=130_000, clock=clock)
    await store.set_many({"old": b"0"}, ttl=1)
    await store.set_many({f"{number}": b"1" for number in range(600)})
    clock.now += 2
    pages = [page async for page in store.scan()]
    assert [len(page) for page in pages] == [255, 256, 89]
    assert {key: value for page in pages for key, value in page.items()} == {f"{n}": b"1" for n in range(600)}
    await store.set_many({"new": bytes(30_000)})
    assert await store.get_many(["0", "599"]) == {"599": b"1"}


async def test_a_listing_leaves_out_what_goes_meanwhile():
    """A page of which everything has gone is none."""
    store = MemoryStore()
    await store.set_many({f"{number}": b"1" for number in range(300)})
    pages = []
    async for page in store.scan():
        pages.append(len(page))
        await store.clear()
    assert pages == [256]


async def test_usage_says_what_is_there():
    """What was too large is counted as dropped."""
    store = MemoryStore(max_bytes=2 * ENTRY)
    await store.set_many({"a": b"1", "b": b"x" * 1000})
    assert list(await store.usage()) == [StoreUsage(name="memory", entries=1, size=ENTRY, limit=2 * ENTRY, dropped=1)]
