"""EncryptedStore: nothing in plain, nothing under another key, and keys that change."""

import asyncio
import base64
import os
import sys
import traceback

import pytest

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.protocols import StoreUsage
from resilient_ai.stores import EncryptedStore, MemoryStore, TieredStore

pytestmark = pytest.mark.anyio
OLD, NEW = EncryptedStore.new_key(), EncryptedStore.new_key()


class Bare:
    """A store with its five methods and no more."""

    def __init__(self):
        self.rows = {}
        self.ttl = None

    async def get_many(self, keys):
        return {key: self.rows[key] for key in keys if key in self.rows}

    async def set_many(self, entries, *, ttl=None):
        self.rows |= entries
        self.ttl = ttl

    async def delete_many(self, keys):
        for key in keys:
            self.rows.pop(key, None)

    async def clear(self):
        self.rows.clear()

    async def aclose(self):
        self.rows = None


class Rich(Bare):
    """A store that has everything else as well."""

    timeout = 0.25
    faults = 3

    def __init__(self):
        super().__init__()
        self.asked = []

    async def open(self):
        self.asked.append("open")

    async def usage(self):
        return [StoreUsage(name="first", entries=len(self.rows), refused=1), StoreUsage(name="second", refused=2)]

    async def delete_matching(self, pattern):
        self.asked.append(pattern)
        return 7

    async def scan(self):
        for key, value in self.rows.items():
            yield {key: value}

    async def acquire_lease(self, key, *, holder, seconds):
        self.asked.append((key, holder, seconds))
        return True

    async def release_lease(self, key, *, holder):
        self.asked.append((key, holder))


async def test_what_is_kept_is_not_to_be_read():
    """Neither the value nor a part of it; it takes some 100 bytes more, and the time it holds is passed on."""
    inner = Bare()
    await EncryptedStore(inner, OLD).set_many({"k": b"a secret answer" * 100}, ttl=5.0)
    (row,) = inner.rows.values()
    assert b"secret" not in row
    assert b"secret" not in base64.urlsafe_b64encode(row)
    assert len(row) < 1_500 + 128
    assert inner.ttl == 5.0


async def test_a_value_under_another_key_is_a_miss_and_stays():
    """Each is bound to its key; what was exchanged is refused, but not deleted."""
    inner = Bare()
    store = EncryptedStore(inner, OLD)
    await store.set_many({"a": b"1", "b": b"2", "c": b"3"})
    inner.rows["a"], inner.rows["b"] = inner.rows["b"], inner.rows["a"]
    assert await store.get_many(["a", "b", "c"]) == {"c": b"3"}
    assert store.refused == 2
    assert set(inner.rows) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "damage", [lambda row: b"", lambda row: row[:-1], lambda row: row + b"x", lambda row: b"hello"]
)
async def test_damage_is_a_miss(damage):
    """Whatever became of it."""
    inner = Bare()
    store = EncryptedStore(inner, OLD)
    await store.set_many({"a": b"1"})
    inner.rows["a"] = damage(inner.rows["a"])
    assert await store.get_many(["a"]) == {}
    assert store.refused == 1


async def test_keys_are_changed_one_by_one():
    """The first encrypts, all decrypt; who has not got a key refuses what it encrypted."""
    inner = Bare()
    before, both, after = (
        EncryptedStore(inner, OLD),
        EncryptedStore(inner, [NEW, OLD.encode()]),
        EncryptedStore(inner, NEW),
    )
    await before.set_many({"old": b"1"})
    await both.set_many({"new": b"2"})
    assert await before.get_many(["old", "new"]) == {"old": b"1"}
    assert await both.get_many(["old", "new"]) == {"old": b"1", "new": b"2"}
    assert await after.get_many(["old", "new"]) == {"new": b"2"}
    assert [store.refused for store in (before, both, after)] == [1, 0, 1]


@pytest.mark.parametrize(
    "keys", ["hunter2", b"hunter2", ["hunter2"], [OLD, "hunter2"], "hunter2ü", [], "", [""], [7], [None]]
)
def test_what_is_no_key_is_refused_without_being_shown(keys):
    """A key that is wrong is perhaps one that is right somewhere else."""
    with pytest.raises(ConfigurationError, match="keys:") as caught:
        EncryptedStore(Bare(), keys)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("keys", "number"), [("", 1), ([OLD, ""], 2), ([OLD, NEW, "hunter2"], 3)])
def test_the_key_that_is_wrong_is_named_by_its_place(keys, number):
    """From 1 on, as people count."""
    with pytest.raises(ConfigurationError, match=rf"32 bytes in base64; number {number} is not$"):
        EncryptedStore(Bare(), keys)


async def test_a_wrong_key_is_said_once(caplog):
    """Else it would be a cache that finds nothing and never says why; neither keys nor values are shown."""
    inner = Bare()
    await EncryptedStore(inner, OLD).set_many({"a": b"value", "b": b"value"})
    inner.rows["c"] = inner.rows["a"]
    moved = EncryptedStore(inner, OLD)
    assert await moved.get_many(["b", "c"]) == {"b": b"value"}
    wrong = EncryptedStore(inner, NEW)
    for key in ("a", "b"):
        assert await wrong.get_many([key]) == {}
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert {record.name for record in caplog.records} == {"resilient_ai.stores"}
    assert "over a Bare: an entry cannot be decrypted" in caplog.text
    assert "need the same keys" in caplog.text
    assert not any(shown in caplog.text for shown in (OLD, NEW, "value"))


def test_keys_are_never_shown():
    """Their number is."""
    store = EncryptedStore(MemoryStore(max_bytes=10), OLD)
    assert repr(store) == "EncryptedStore(MemoryStore(max_bytes=10), 1 key)"
    assert repr(EncryptedStore(MemoryStore(max_bytes=10), [NEW, OLD])).endswith(", 2 keys)")
    assert OLD not in f"{vars(store)}"


def test_a_missing_package_is_named(monkeypatch):
    """The sentence says what to install."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for make in (lambda: EncryptedStore(Bare(), OLD), EncryptedStore.new_key):
        with pytest.raises(ConfigurationError, match=r"pip install 'resilient-ai\[encryption\]'"):
            make()


def test_it_has_no_more_than_the_store_within():
    """Whoever asks for a method that the other one lacks finds none."""
    store = EncryptedStore(Bare(), OLD)
    extras = ["open", "timeout", "faults", "usage", "scan", "delete_matching", "acquire_lease", "release_lease"]
    assert not any(hasattr(store, name) for name in extras)
    assert all(hasattr(EncryptedStore(Rich(), OLD), name) for name in extras)
    with pytest.raises(AttributeError, match="'EncryptedStore' object has no attribute 'asked'"):
        _ = EncryptedStore(Rich(), OLD).asked


async def test_everything_else_is_passed_on():
    """As it is; the account says that it is encrypted and adds what could not be decrypted, and a list is of values in plain."""
    inner = Rich()
    store = EncryptedStore(inner, OLD)
    await store.open()
    assert await store.delete_matching("a*") == 7
    assert await store.acquire_lease("k", holder="me", seconds=3.0) is True
    await store.release_lease("k", holder="me")
    assert (store.timeout, store.faults) == (0.25, 3)
    assert TieredStore(MemoryStore(), store).faults == 3
    assert inner.asked == ["open", "a*", ("k", "me", 3.0), ("k", "me")]
    await store.set_many({"a": b"1", "b": b"2", "c": b"3"})
    inner.rows["b"] = b"foreign"
    assert [page async for page in store.scan()] == [{"a": b"1"}, {"c": b"3"}]
    lines = [(line.name, line.entries, line.refused) for line in await store.usage()]
    assert lines == [("first, encrypted", 3, 2), ("second, encrypted", None, 2)]
    await store.delete_many(["a"])
    assert set(inner.rows) == {"b", "c"}
    await store.clear()
    assert inner.rows == {}
    await store.aclose()
    assert inner.rows is None


async def test_others_have_their_turn_meanwhile():
    """Encrypting and decrypting a megabyte does not hold the loop up from its begin to its end."""
    store = EncryptedStore(Bare(), OLD)
    entries = {str(n): os.urandom(4096) for n in range(256)}
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await store.set_many(entries)
    written, turns = turns, 0
    assert await store.get_many(list(entries)) == entries
    counting.cancel()
    assert min(written, turns) >= 7


async def test_what_is_held_is_told_as_it_is():
    """What the other store holds is told at once; one that does not know has no such method."""
    inner = MemoryStore()
    store = EncryptedStore(inner, OLD)
    await store.set_many({"a": b"1"})
    assert [line.entries for line in store.held()] == [1]
    assert not hasattr(EncryptedStore(Bare(), OLD), "held")
