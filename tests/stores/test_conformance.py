"""What every cache store does, whatever it is made of."""

import asyncio
import random
import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilient_ai.stores import DiskStore, EncryptedStore, MemoryStore, RedisStore, TieredStore
from resilient_ai.testing import ManualClock

from .redis_server import start_redis

pytestmark = pytest.mark.anyio
KEY = EncryptedStore.new_key()
KINDS = ["memory", "disk", "redis", "tiered memory disk", "encrypted memory", "encrypted disk"]
# One process needs no leases against itself, so memory has none.
LEASING = pytest.mark.parametrize("kind", ["disk", "redis", "tiered memory disk", "encrypted disk"])
PATIENCE = 20.0
TENANTS, MODELS = ("0" * 16, "1" * 16), ("a" * 16, "b" * 16)
CAUTIOUS = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True
)


class Place:
    """Where stores of one kind keep their entries, and a clock that all of them follow."""

    def __init__(self, kind, folder, redis_server):
        self.kind, self._folder = kind, folder
        self._redis = redis_server() if kind == "redis" else None
        if self._redis:
            self._redis.command("FLUSHALL")
        self.clock = ManualClock()
        self.stores = []

    @property
    def shared(self):
        """Whether another object finds there what one has set."""
        return "memory" not in self.kind or "disk" in self.kind

    def open(self):
        """Return a new store there."""
        memory = MemoryStore(clock=self.clock)
        disk = DiskStore(self._folder, timeout=PATIENCE, clock=self.clock)
        made = {
            "memory": lambda: memory,
            "disk": lambda: disk,
            "redis": lambda: RedisStore(self._redis.url, timeout=PATIENCE, clock=self.clock),
            "tiered memory disk": lambda: TieredStore(memory, disk, fill_ttl=0.5),
            "encrypted memory": lambda: EncryptedStore(memory, KEY),
            "encrypted disk": lambda: EncryptedStore(disk, KEY),
        }
        self.stores.append(made[self.kind]())
        return self.stores[-1]

    async def aclose(self):
        for store in self.stores:
            await store.aclose()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    """Started when it is first asked for, so that the other stores are tested without the program too."""
    started = []

    def server():
        if not started:
            started.append(start_redis(tmp_path_factory.mktemp("redis")))
        return started[0]

    yield server
    for server in started:
        server.stop()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.replace(" ", "-"))
def kind(request):
    return request.param


@pytest.fixture
async def place(kind, tmp_path, redis_server):
    place = Place(kind, tmp_path / "cache", redis_server)
    yield place
    await place.aclose()


@pytest.fixture
def store(place):
    return place.open()


async def written(store, entries, **options):
    """Set, and wait until it is there to be read, as some write behind the caller's back."""
    await store.set_many(entries, **options)
    await settled(store)


async def settled(store):
    if hasattr(store, "release_lease"):
        await store.release_lease("nothing", holder="nobody")


async def everything(store):
    await settled(store)
    found = {}
    async for page in store.scan():
        found |= page
    return found


async def test_what_was_set_is_there(store):
    """Only what was asked for, and what is there; asking twice for the same is asking once."""
    await store.set_many({"a": b"1", "b": b"2"})
    assert await store.get_many(["a", "c", "a"]) == {"a": b"1"}
    await store.set_many({"a": b"3"}, ttl=60.0)
    assert await store.get_many(["a", "b"]) == {"a": b"3", "b": b"2"}


async def test_what_is_forgotten_is_gone(store):
    """One by one, what is not there included, or all at once."""
    await store.set_many({"a": b"1", "b": b"2", "c": b"3"})
    await store.delete_many(["a", "x"])
    assert await store.get_many(["a", "b", "c"]) == {"b": b"2", "c": b"3"}
    await store.clear()
    assert await store.get_many(["a", "b", "c"]) == {}
    assert await everything(store) == {}


async def test_an_entry_ends_when_its_time_is_over(place, store):
    """Not before; one without an end stays, and one that is set again has its time from then."""
    await store.set_many({"a": b"1", "again": b"1"}, ttl=60.0)
    await store.set_many({"b": b"2"}, ttl=120.0)
    await store.set_many({"c": b"3"})
    assert await store.get_many(["a", "b", "c"]) == {"a": b"1", "b": b"2", "c": b"3"}
    place.clock.now += 59.0
    assert await store.get_many(["a"]) == {"a": b"1"}
    await store.set_many({"again": b"2"}, ttl=60.0)
    place.clock.now += 2.0
    assert await store.get_many(["a", "again", "b", "c"]) == {"again": b"2", "b": b"2", "c": b"3"}
    assert await everything(store) == {"again": b"2", "b": b"2", "c": b"3"}
    place.clock.now += 100.0
    assert await store.get_many(["a", "again", "b", "c"]) == {"c": b"3"}


async def test_nothing_is_a_batch_too(store):
    """Nothing is asked, set or forgotten, and nothing is wrong with it."""
    await store.set_many({"a": b"1"})
    await store.set_many({})
    await store.delete_many([])
    assert await store.get_many([]) == {}
    assert await store.delete_matching("nothing*") == 0
    assert await store.get_many(["a"]) == {"a": b"1"}


async def test_two_thousand_at_once(store):
    """In one batch, whatever the store makes of it."""
    entries = {f"{n:096x}": random.Random(n).randbytes(n) for n in range(2_000)}
    await written(store, entries, ttl=600.0)
    assert await store.get_many(list(entries)) == entries
    assert await everything(store) == entries
    await store.delete_many(list(entries)[:1_999])
    assert await store.get_many(list(entries)) == dict([entries.popitem()])


@pytest.mark.parametrize(
    "value",
    [b"", b"\x00", bytes(range(256)), random.Random(1).randbytes(2**20), b"\r\n$5\r\n*3", bytearray(b"changes")],
    ids=["empty", "one", "all", "mebibyte", "protocol", "mutable"],
)
async def test_every_value_comes_back_bit_for_bit(store, value):
    """However long, and whatever is in it; what the caller does to its own afterwards changes nothing."""
    expected = bytes(value)
    await store.set_many({"a": value, "b": b"other"})
    if isinstance(value, bytearray):
        value[:] = b"CHANGED"
    assert await store.get_many(["a", "b"]) == {"a": expected, "b": b"other"}
    assert await everything(store) == {"a": expected, "b": b"other"}


@pytest.mark.parametrize(
    "key", ["", "ключ 鍵 🔑", "k" * 10_000, "a\x00b\r\n", "*?[a-z]\\^", "\ud800", "../../etc", "x'; --", "e\u0301"]
)
async def test_every_key_is_a_key(store, key):
    """Whatever is in it, it is that and no other."""
    await store.set_many({key: b"1", "é": b"2", "abc": b"3"})
    assert await store.get_many([key, f"{key}x", "é"]) == {key: b"1", "é": b"2"}
    assert await everything(store) == {key: b"1", "é": b"2", "abc": b"3"}
    await store.delete_many([key])
    assert await everything(store) == {"é": b"2", "abc": b"3"}


async def test_what_was_returned_is_the_callers(store):
    """It stays as it is, whatever becomes of the store, and changing it changes nothing there."""
    await store.set_many({"a": b"1", "b": b"2"})
    found = await store.get_many(["a", "b"])
    pages = [page async for page in store.scan()]
    await store.set_many({"a": b"3"})
    await store.clear()
    assert found == {"a": b"1", "b": b"2"}
    assert {key: value for page in pages for key, value in page.items()} == found
    assert type(found["a"]) is bytes


async def test_tenants_and_models_are_forgotten_apart(store):
    """By the first sixteen digits of a key, or by the next sixteen; nothing else goes, and what went is counted."""
    keys = [f"{tenant}{model}{n:064x}" for tenant in TENANTS for model in MODELS for n in range(50)]
    await written(store, dict.fromkeys(keys, b"v"), ttl=60.0)
    assert await store.delete_matching(f"{TENANTS[0]}*") == 100
    assert set(await store.get_many(keys)) == {key for key in keys if key.startswith(TENANTS[1])}
    assert await store.delete_matching("?" * 16 + MODELS[0] + "*") == 50
    assert set(await store.get_many(keys)) == {key for key in keys if key.startswith(TENANTS[1] + MODELS[1])}
    assert await store.delete_matching("?" * 95) == 0
    assert await store.delete_matching("?" * 96) == 50
    assert await everything(store) == {}


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("*", ["a[b]c", "a*c", "abc", "ac", "äbc", "a\nc", ""]),
        ("a?c", ["a*c", "abc", "a\nc"]),
        ("a*c", ["a[b]c", "a*c", "abc", "ac", "a\nc"]),
        ("a[b]c", ["a[b]c"]),
        ("?bc", ["abc", "äbc"]),
        ("äb*", ["äbc"]),
        ("a", []),
        ("", [""]),
        ("?*", ["a[b]c", "a*c", "abc", "ac", "äbc", "a\nc"]),
    ],
)
@pytest.mark.parametrize("kind", ["memory", "redis", "encrypted memory"])
async def test_a_pattern_has_two_signs_and_no_more(store, pattern, matching):
    """`?` is one character, `*` any number of them, and everything else is itself; on disk only keys of the cache have names."""
    keys = ["a[b]c", "a*c", "abc", "ac", "äbc", "a\nc", ""]
    await store.set_many(dict.fromkeys(keys, b"v"))
    assert await store.delete_matching(pattern) == len(matching)
    assert set(await store.get_many(keys)) == set(keys) - set(matching)


async def test_usage_counts(store):
    """As many as there are, with a name, and nothing that went wrong."""
    empty = await store.usage()
    await written(store, {f"{n}": b"x" * 1_000 for n in range(20)})
    full = await store.usage()
    assert [line.entries for line in empty] == [0] * len(empty)
    assert full[-1].entries == 20
    assert all(line.size is None or line.size > 0 for line in full)
    assert full[-1].size is None or full[-1].size >= 20 * 1_000
    assert all(line.name and not (line.faults or line.refused or line.dropped or line.trouble) for line in full)
    await store.delete_many([f"{n}" for n in range(5)])
    assert (await store.usage())[-1].entries == 15


def test_what_has_no_leases_says_so(kind, tmp_path, redis_server):
    """By not having the methods."""
    has = hasattr(Place(kind, tmp_path / "cache", redis_server).open(), "acquire_lease")
    assert has is (kind in LEASING.args[1])


@LEASING
async def test_a_lease_has_one_holder(place, store):
    """Only the holder prolongs it and gives it back; another store at the same place knows it too."""
    other = place.open()
    assert await store.acquire_lease("k", holder="a", seconds=60.0) is True
    assert await other.acquire_lease("k", holder="b", seconds=60.0) is False
    assert await other.acquire_lease("l", holder="b", seconds=60.0) is True
    assert await store.acquire_lease("k", holder="a", seconds=60.0) is True
    await other.release_lease("k", holder="b")
    assert await other.acquire_lease("k", holder="b", seconds=60.0) is False
    await store.release_lease("k", holder="a")
    assert await other.acquire_lease("k", holder="b", seconds=60.0) is True
    assert await store.acquire_lease("k", holder="a", seconds=60.0) is False
    await store.release_lease("never taken", holder="a")


@LEASING
async def test_a_lease_that_has_ended_is_taken_over(place, store):
    """Whoever had it cannot give back what is somebody else's by then."""
    assert await store.acquire_lease("k", holder="a", seconds=0.05) is True
    give_up = time.monotonic() + 10
    while not await store.acquire_lease("k", holder="b", seconds=60.0):
        assert time.monotonic() < give_up
        place.clock.now += 0.01
        await asyncio.sleep(0.005)
    assert await store.acquire_lease("k", holder="a", seconds=60.0) is False
    await store.release_lease("k", holder="a")
    assert await store.acquire_lease("k", holder="c", seconds=60.0) is False


@LEASING
async def test_leases_are_no_entries(store):
    """They are neither read, listed, counted nor forgotten with them, and do not stand in the way of one of the same key."""
    assert await store.acquire_lease("k", holder="a", seconds=60.0) is True
    assert await store.get_many(["k", "lease:k"]) == {}
    assert await everything(store) == {}
    assert [line.entries for line in await store.usage()] == [0] * len(await store.usage())
    await store.set_many({"k": b"1"})
    assert await store.delete_matching("*") == 1
    await store.clear()
    assert await store.acquire_lease("k", holder="b", seconds=60.0) is False


@LEASING
async def test_a_lease_is_given_back_after_what_was_set_can_be_read(place, store):
    """Whoever takes it next, with a store of its own, finds what the holder before it has set."""
    other = place.open()
    for n in range(20):
        key = f"k{n}"
        assert await store.acquire_lease(key, holder="a", seconds=60.0) is True
        await store.set_many({key: b"x" * 50_000, **{f"{key}-{m}": b"y" for m in range(50)}})
        await store.release_lease(key, holder="a")
        assert await other.acquire_lease(key, holder="b", seconds=60.0) is True
        assert await other.get_many([key]) == {key: b"x" * 50_000}


async def test_a_store_that_was_closed_opens_again(place, store):
    """With what it kept, where it keeps anything for longer than itself."""
    await store.set_many({"a": b"1"})
    await store.aclose()
    assert await store.get_many(["a"]) == ({"a": b"1"} if place.shared else {})
    await store.set_many({"b": b"2"})
    assert await store.get_many(["b"]) == {"b": b"2"}
    await store.aclose()
    await store.aclose()


def test_one_loop_after_another(kind, tmp_path, redis_server):
    """Nothing of a store belongs to the loop that used it first."""
    place = Place(kind, tmp_path / "cache", redis_server)
    store = place.open()

    async def use(n):
        await store.set_many({f"{n}": b"v"})
        return await store.get_many([f"{n}"])

    for n in range(3):
        assert asyncio.run(use(n)) == {f"{n}": b"v"}
    asyncio.run(place.aclose())


NAMES = [digit * 96 for digit in "abcde"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=40), max_size=3)),
        st.tuples(st.just("get"), st.lists(st.sampled_from(NAMES), max_size=5)),
        st.tuples(st.just("delete"), st.lists(st.sampled_from(NAMES), max_size=2)),
        st.tuples(st.just("match"), st.sampled_from(["a" * 96, "?" * 96, "*", "b*", "??", "?*c"])),
        st.tuples(st.just("pass"), st.integers(1, 40)),
        st.tuples(st.just("close"), st.none()),
    ),
    max_size=25,
)


@CAUTIOUS
@given(steps=STEPS)
def test_it_is_a_dictionary_that_forgets(kind, tmp_path_factory, redis_server, steps):
    """After any steps it holds what a dictionary would that forgets entries after 60 seconds."""
    place = Place(kind, tmp_path_factory.mktemp("steps") / "cache", redis_server)

    async def follow():
        store = place.open()
        now, model = 0, {}
        for step, what in steps:
            if step == "set":
                await written(store, what, ttl=60.5)
                model |= {key: (now + 60, value) for key, value in what.items()}
            elif step == "get":
                assert await store.get_many(what) == {key: model[key][1] for key in what if key in model}
            elif step == "delete":
                await store.delete_many(what)
                model = {key: entry for key, entry in model.items() if key not in what}
            elif step == "match":
                kept = {key: entry for key, entry in model.items() if not fnmatchcase(key, what)}
                assert await store.delete_matching(what) >= len(model) - len(kept)
                model = kept
            elif step == "pass":
                now += what
                place.clock.now += what
                model = {key: entry for key, entry in model.items() if now <= entry[0]}
            elif place.shared:
                await store.aclose()
        assert await everything(store) == {key: value for key, (_, value) in model.items()}
        await place.aclose()

    asyncio.run(follow())
