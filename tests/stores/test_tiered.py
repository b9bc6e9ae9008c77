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
