"""Two stores, one behind the other."""

import pytest

from resilient_ai.stores import MemoryStore, TieredStore
from resilient_ai.testing import ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def tiers(clock):
    return MemoryStore(clock=clock), MemoryStore(clock=clock)


def test_the_time_of_copies_is_checked(tiers):
    """It is more than nothing."""
    with pytest.raises(ValueError, match="fill_ttl must be a positive number of seconds, got 0"):
        TieredStore(*tiers, fill_ttl=0)


async def test_writing_goes_to_both(tiers):
    """Each has the entries."""
    await TieredStore(*tiers).set_many({"a": b"1"}, ttl=5)
    assert [await tier.get_many(["a"]) for tier in tiers] == [{"a": b"1"}] * 2


async def test_the_second_fills_the_first(tiers, clock):
    """What only the second has is copied, for a while."""
    first, second = tiers
    store = TieredStore(first, second)
    await second.set_many({"a": b"1"})
    await first.set_many({"b": b"2"})
    assert await store.get_many(["a", "b", "c"]) == {"a": b"1", "b": b"2"}
    assert await first.get_many(["a"]) == {"a": b"1"}
    clock.now += 60
    assert await first.get_many(["a"]) == {}


async def test_what_the_first_has_is_not_asked_of_the_second(tiers):
    """The first one's answer is enough."""
    first, second = tiers
    await first.set_many({"a": b"first"})
    await second.set_many({"a": b"second"})
    assert await TieredStore(first, second).get_many(["a"]) == {"a": b"first"}


async def test_a_miss_in_both_is_a_miss(tiers):
    """Nothing is copied."""
    assert await TieredStore(*tiers).get_many(["a"]) == {}
    assert len(tiers[0]) == 0


@pytest.mark.parametrize("forget", [lambda store: store.delete_many(["a"]), lambda store: store.clear()])
async def test_forgetting_happens_in_both(tiers, forget):
    """Nothing comes back from the second."""
    store = TieredStore(*tiers)
    await store.set_many({"a": b"1"})
    await forget(store)
    assert await store.get_many(["a"]) == {}


async def test_both_are_closed_even_if_the_first_fails(tiers):
    """The second lets go too."""

    class Broken(MemoryStore):
        async def aclose(self):
            raise OSError("no")

    await tiers[1].set_many({"a": b"1"})
    with pytest.raises(OSError, match="no"):
        await TieredStore(Broken(), tiers[1]).aclose()
    assert len(tiers[1]) == 0


class Plain:
    """A store with the five methods and nothing else."""

    def __init__(self):
        store = MemoryStore()
        self.get_many, self.set_many = store.get_many, store.set_many
        self.delete_many, self.clear, self.aclose = store.delete_many, store.clear, store.aclose


async def listed(store):
    return {key: value async for page in store.scan() for key, value in page.items()}


async def test_forgetting_by_pattern_happens_in_both(tiers):
    """What both had is counted once."""
    first, second = tiers
    store = TieredStore(first, second)
    await store.set_many({"a1": b"1", "a2": b"2", "b": b"3"})
    assert await store.delete_matching("a*") == 2
    assert [await listed(tier) for tier in tiers] == [{"b": b"3"}] * 2
    await first.set_many({"a1": b"1"})
    assert await store.delete_matching("a*") == 1


async def test_a_listing_has_the_entries_of_both(tiers):
    """Those of the second, and then those that only the first has."""
    first, second = tiers
    store = TieredStore(first, second)
    await second.set_many({"a": b"second", "b": b"2"})
    await first.set_many({"a": b"first", "c": b"3"})
    assert [page async for page in store.scan()] == [{"a": b"second", "b": b"2"}, {"c": b"3"}]
    await first.delete_many(["c"])
    assert [page async for page in store.scan()] == [{"a": b"second", "b": b"2"}]


async def test_usage_has_the_lines_of_both(tiers):
    """One that cannot say anything has a line with its name."""
    first, second = tiers
    await second.set_many({"a": b"1"})
    assert [line.entries for line in await TieredStore(first, second).usage()] == [0, 1]
    assert [(line.name, line.entries) for line in await TieredStore(Plain(), second).usage()] == [
        ("Plain", None),
        ("memory", 1),
    ]


async def test_a_first_store_that_cannot_tell_keys_apart_is_emptied(tiers):
    """It holds copies; and what it has is not listed."""
    plain = Plain()
    store = TieredStore(plain, tiers[1])
    await store.set_many({"a": b"1", "b": b"2"})
    assert await store.delete_matching("a") == 1
    assert await plain.get_many(["a", "b"]) == {}
    await plain.set_many({"c": b"3"})
    assert await listed(store) == {"b": b"2"}


async def test_a_second_store_that_cannot_tell_keys_apart_is_said(tiers):
    """Nothing is forgotten or listed halfway."""
    store = TieredStore(tiers[0], Plain())
    await store.set_many({"a": b"1"})
    message = "a store of type Plain can neither list entries nor forget them by pattern"
    with pytest.raises(TypeError, match=message):
        await store.delete_matching("a")
    with pytest.raises(TypeError, match=message):
        await listed(store)
    assert await store.get_many(["a"]) == {"a": b"1"}


async def test_the_timeout_is_that_of_both(tiers, open_store, tmp_path):
    """The sum of those that there are."""
    slow, slower = open_store(timeout=0.5), open_store(tmp_path / "other", timeout=2)
    assert TieredStore(*tiers).timeout is None
    assert TieredStore(tiers[0], slow).timeout == 0.5
    assert TieredStore(slow, slower).timeout == 2.5
    assert TieredStore(tiers[0], TieredStore(slow, slower)).timeout == 2.5


async def test_opening_opens_what_can_be_opened(tiers, open_store, tmp_path):
    """Either or both."""
    for number, make in enumerate(
        (lambda disk: (disk, tiers[1]), lambda disk: (tiers[0], disk), lambda disk: (Plain(), disk))
    ):
        await TieredStore(*make(open_store(tmp_path / f"{number}"))).open()
        assert (tmp_path / f"{number}" / "v1" / "cache.db").exists()
    await TieredStore(*tiers).open()


@pytest.mark.parametrize("place", [0, 1])
async def test_leases_are_those_of_the_store_that_has_them(tiers, open_store, place):
    """The second, or else the first."""
    disk = open_store()
    store = TieredStore(disk, tiers[1]) if place == 0 else TieredStore(tiers[0], disk)
    assert await store.acquire_lease("a", holder="me", seconds=60) is True
    assert await disk.acquire_lease("a", holder="you", seconds=60) is False
    await store.release_lease("a", holder="me")
    assert await disk.acquire_lease("a", holder="you", seconds=60) is True


async def test_leases_of_the_second_come_first(open_store, tmp_path):
    """As it is the one that others share."""
    first, second = open_store(tmp_path / "1"), open_store(tmp_path / "2")
    await TieredStore(first, second).acquire_lease("a", holder="me", seconds=60)
    assert await first.acquire_lease("a", holder="you", seconds=60) is True
    assert await second.acquire_lease("a", holder="you", seconds=60) is False


async def test_without_leases_nobody_can_say(tiers):
    """And there is nothing to give back."""
    store = TieredStore(*tiers)
    assert await store.acquire_lease("a", holder="me", seconds=60) is None
    await store.release_lease("a", holder="me")


async def test_what_is_held_is_told_by_those_that_know(tiers):
    """Without looking, a store tells what it holds; one that cannot is left out."""
    first, second = tiers
    await second.set_many({"a": b"1"})
    assert [line.entries for line in TieredStore(first, second).held()] == [0, 1]
    assert [line.name for line in TieredStore(Plain(), second).held()] == ["memory"]
