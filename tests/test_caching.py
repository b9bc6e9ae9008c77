"""`ai.cache`: keys, reasons, figures and forgetting, through both clients."""

import asyncio
from decimal import Decimal

import pytest

from resilient_ai import AsyncClient, CacheControl, Chat, Client, Embed, Image, Stream
from resilient_ai.core.errors import ConfigurationError, InvalidInput
from resilient_ai.core.results import Choice
from resilient_ai.middleware import Cache, Coalesce
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import FakeClock, ScriptedProvider, answer_to, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi", temperature=0)


class Bare(dict):
    """A store with nothing but what is required."""

    async def get_many(self, keys):
        return {key: self[key] for key in keys if key in self}

    async def set_many(self, entries, *, ttl=None):
        self.update(entries)

    async def aclose(self):
        """Nothing is open."""


class Broken(Bare):
    """A store that cannot be read."""

    async def get_many(self, keys):
        raise OSError


async def paid(call):
    call.record.costs.append((Decimal("0.002"), "provider", True))
    return answer_to(call.operation)


def client(*script, store=None, clock=None, **options):
    clock = clock or FakeClock()
    cache = Cache(MemoryStore(clock=clock) if store is None else store, **({"jitter": 0.0} | options))
    return AsyncClient(provider=ScriptedProvider(*script), stack=[Coalesce(), cache], clock=clock)


async def test_a_key_is_told_without_sending():
    """It is that of the entry that is kept, with the tags of the view."""
    store = Bare()
    ai = client(store=store)
    acme = ai.with_options(tags={"tenant": "acme"})
    await ai.send(CHAT)
    await acme.send(CHAT)
    assert list(store) == [ai.cache.key(CHAT), acme.cache.key(CHAT)]
    assert ai.cache.key(Stream(model="m", messages="hi", temperature=0)) == ai.cache.key(CHAT)
    await ai.embed("m", ["a", "b"])
    texts = Embed(model="m", texts=["a", "b"])
    assert list(store)[2:] == ai.cache.keys(texts)
    assert [ai.cache.key(Embed(model="m", texts=text)) for text in "ab"] == ai.cache.keys(texts)
    with pytest.raises(InvalidInput, match="2 texts have 2 keys"):
        ai.cache.key(texts)
    odd = Chat(model="m", messages="hi", extra={"odd": object()})
    assert (ai.cache.key(odd), ai.cache.keys(odd)) == (None, None)
    assert repr(ai.cache).startswith("ClientCache(Cache(answers=")


async def why(ai, operation=CHAT, **options):
    return await ai.with_options(**options).cache.why_miss(operation)


async def test_why_it_is_not_answered_from_the_cache():
    """Each reason in words; None where it is; and nothing is sent."""
    clock = FakeClock()
    ai = client(clock=clock, ttl=60)
    assert await why(ai) == "nothing was kept under its key"
    await ai.send(CHAT)
    assert await why(ai) is None
    assert await why(ai, Stream(model="m", messages="hi", temperature=0)) is None
    assert await why(ai, cache="off") == "the call turns the cache off"
    assert await why(ai, cache="refresh") == "its mode does not read what is kept"
    assert await why(ai, Chat(model="m", messages="hi")) == (
        "asked again it may answer otherwise: temperature is not 0 and there is no seed; a call that names a mode is kept all the same"
    )
    assert "there is no seed" in await why(ai, Image(model="m", prompt="p"))
    odd = Chat(model="m", messages="hi", temperature=0, extra={"odd": object()})
    assert await why(ai, odd) == "it holds something that JSON cannot say"
    other = Chat(model="m", messages="ho", temperature=0, max_tokens=5)
    nearest = "nothing was kept under its key; the nearest that was kept lately differs in "
    assert await why(ai, other) == nearest + "max_tokens, messages"
    assert await why(ai, tags={"tenant": "a"}) == nearest + "tenant"
    await asyncio.sleep(50)
    assert (
        await why(ai, cache=CacheControl(max_age=40, stale_if_error=20))
        == "it was made 50 s ago, which is too long for this call"
    )
    await asyncio.sleep(20)
    assert await why(ai) == "it was kept and is gone: evicted, forgotten, or its time is over"
    assert len(ai._pipeline.provider.calls) == 1


async def test_why_an_answer_was_not_kept():
    """The reason is remembered."""
    ai = client(chat_result(choices=(Choice(text="cut", finish_reason="length"),)))
    await ai.send(CHAT)
    assert await why(ai) == "an answer came and was not kept: it is not whole: its finish reason is 'length'"
    await ai.send(CHAT)
    assert await why(ai) is None


async def test_why_vectors_are_missing():
    """How many, and the first of them."""
    clock = FakeClock()
    ai = client(clock=clock, ttl=60, stale_if_error=60)
    await ai.embed("m", ["a", "b"])
    assert await why(ai, Embed(model="m", texts=["b", "a"])) is None
    told = await why(ai, Embed(model="m", texts=["a", "c", "d", "c"]))
    assert told == "2 of 3 texts are missing, the first of them text 1"
    await asyncio.sleep(61)
    told = await why(ai, Embed(model="m", texts=["a", "c"]))
    assert told == "2 of 2 texts are missing, the first of them text 0; the time of 1 is over"


async def test_why_without_a_cache_that_could_know():
    """A store that fails, no store for the kind, a mode of the client, and a stack without a cache."""
    broken = client(store=Broken())
    assert await why(broken) == "the store cannot be read now"
    assert await why(broken, Embed(model="m", texts="a")) == "the store cannot be read now"
    alone = AsyncClient(provider=ScriptedProvider(), stack=[Cache(None, Bare())], clock=FakeClock())
    assert await why(alone) == "there is no store for it"
    off = client(mode="off")
    assert await why(off) == await why(off, Chat(model="m", messages="hi")) == "the cache is off"
    with pytest.raises(ConfigurationError, match="no Cache"):
        _ = AsyncClient(provider=ScriptedProvider(), stack=[]).cache


async def test_only_so_much_is_remembered():
    """What was kept long ago is forgotten, and the newest is compared with."""
    ai = client()
    for number in range(300):
        await ai.send(Chat(model="m", messages=f"hi {number}", temperature=0))
    assert len(ai.middleware(Cache)._state.recent._kept) == 256


async def test_forgetting_a_tenant_a_model_or_everything():
    """Only what was named goes, answers and vectors alike."""
    ai = client()
    views = {tenant: ai.with_options(tags={"tenant": tenant}) for tenant in ("a", "b")}
    operations = [Chat(model=model, messages="hi", temperature=0) for model in "mn"] + [
        Embed(model="m", texts=["x", "y"])
    ]

    async def fill():
        for view in views.values():
            for operation in operations:
                await view.send(operation)

    async def left():
        return {name: [await view.cache.why_miss(each) is None for each in operations] for name, view in views.items()}

    await fill()
    assert await ai.cache.forget(tenant="a", model="m") == 3
    assert await left() == {"a": [False, True, False], "b": [True, True, True]}
    assert await ai.cache.forget(tenant="b") == 4
    assert await left() == {"a": [False, True, False], "b": [False, False, False]}
    await fill()
    assert await ai.cache.forget(model="m") == 6
    assert await ai.cache.forget() == 2
    assert await ai.cache.forget(tenant="nobody") == 0
    with pytest.raises(TypeError, match="Bare cannot forget by tenant or model"):
        await client(store=Bare()).cache.forget(tenant="a")


async def test_figures():
    """What was found, missed and saved, and what the stores hold."""
    ai = client(paid)
    assert (await ai.cache.stats()).hit_ratio is None
    for _ in range(3):
        await ai.send(CHAT)
    await ai.embed("m", ["a", "b"])
    await ai.embed("m", ["b", "c"])
    stats = await ai.cache.stats()
    assert (stats.hits, stats.misses, stats.kept, stats.errors, stats.saved) == (3, 4, 4, 0, Decimal("0.004"))
    assert stats.hit_ratio == pytest.approx(3 / 7)
    (memory,) = stats.stores
    assert (memory.entries, memory.limit, memory.faults) == (4, 64 * 2**20, 0)
    broken = client(store=Broken())
    await broken.send(CHAT)
    assert ((await broken.cache.stats()).errors, (await broken.cache.stats()).stores) == (1, ())


def test_the_blocking_client_has_the_same(tmp_path):
    """Every method, without await."""
    with Client("k", base_url="http://127.0.0.1:1/v1", stack=[Cache(MemoryStore())]) as ai:
        assert len(ai.cache.key(CHAT)) == 96
        assert len(ai.cache.keys(Embed(model="m", texts=["a", "b"]))) == 2
        assert ai.cache.why_miss(CHAT) == "nothing was kept under its key"
        assert ai.cache.stats().hits == 0
        assert ai.cache.forget() == 0
        assert repr(ai.cache).startswith("BlockingCache(ClientCache(")
        with pytest.raises(InvalidInput):
            ai.cache.key(Embed(model="m", texts=["a", "b"]))


async def test_a_view_of_a_tenant_forgets_that_tenant_alone():
    """Whoever sees the cache of a tenant cannot empty that of the others by leaving out a word."""
    ai = client()
    acme = ai.with_options(tags={"tenant": "acme"})
    await ai.send(CHAT)
    await acme.send(CHAT)
    assert await acme.cache.forget() == 1
    with pytest.raises(InvalidInput, match="tenant: this view is about 'acme' alone, got 'globex'"):
        await acme.cache.forget(tenant="globex")
    assert await acme.cache.forget(tenant="acme") == 0
    assert (await why(ai), (await ai.send(CHAT)).cache) == (None, "hit")
    for wrong in ({"tenant": 3}, {"model": ["m"]}):
        with pytest.raises(InvalidInput, match="a text or None"):
            await ai.cache.forget(**wrong)


async def test_what_is_no_operation_is_told_so():
    """Before anything is looked up or sent."""
    ai = client()
    for ask in (ai.send, ai.cache.why_miss):
        with pytest.raises(InvalidInput, match="operation: a Chat, Embed or the like, got 'hi'"):
            await ask("hi")
