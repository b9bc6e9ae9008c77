"""Cache: whatever is known, repeated, reordered or fails, vector i is the vector of text i; and no field is forgotten in a key."""

import asyncio
import sys
import types
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_ai.core.errors import ResilientAIError, ServerFailed
from resilient_ai.core.messages import Tool, user
from resilient_ai.core.operations import Chat, Complete, Embed, Image, ResponseFormat, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost, EmbedResult, Usage
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware import Batching, Cache, Coalesce, Retry
from resilient_ai.middleware._cache_entry import dollars, units
from resilient_ai.middleware._cache_key import LEFT_OUT, answer_key, text_keys
from resilient_ai.stores import DiskStore, MemoryStore, TieredStore
from resilient_ai.testing import PIXEL, FakeClock, ScriptedProvider, answer_to, run, vector_of

pytestmark = pytest.mark.anyio

WORDS = st.sampled_from([f"word {number}" for number in range(12)])


class Faulty(ScriptedProvider):
    """Embeds with the oracle's vectors, and fails where the script of its chances says so."""

    def __init__(self, fails, *, pause=0.1):
        super().__init__()
        self.fails = list(fails)
        self.pause = pause
        self.sent = []

    async def __call__(self, call):
        call.send_started()
        await asyncio.sleep(self.pause * (len(self.fails) % 3 + 1))
        if self.fails and self.fails.pop():
            raise ServerFailed("boom", status=500)
        texts = call.operation.texts
        self.sent.extend(texts)
        return EmbedResult(
            model="m",
            served_by="m",
            vectors=Vectors.pack([vector_of(text) for text in texts]),
            usage=Usage(input_tokens=len(texts)),
            cost=Cost(amount=Decimal(len(texts)), source="provider"),
        )


@pytest.mark.parametrize("kind", ["memory", "tiered", "disk"])
def test_every_vector_is_that_of_its_text(kind, tmp_path_factory):
    """Random lists with duplicates, known texts and failing requests, at once and one after another, against an oracle."""

    @settings(max_examples=100 if kind == "memory" else 20, deadline=None)
    @given(
        calls=st.lists(st.lists(WORDS, min_size=1, max_size=14), min_size=1, max_size=6),
        fails=st.lists(st.booleans(), max_size=12),
        size=st.integers(1, 5),
        at_once=st.booleans(),
    )
    def check(calls, fails, size, at_once):
        memory = MemoryStore(max_bytes=2_000 if size % 2 else 2**20)
        disk = None if kind == "memory" else DiskStore(tmp_path_factory.mktemp("cache"), timeout=20.0)
        store = memory if disk is None else disk if kind == "disk" else TieredStore(memory, disk)
        provider = Faulty(fails, pause=0.0 if disk else 0.1)
        stack = [
            Coalesce(),
            Cache(None, store),
            Batching(size=size, in_flight=2),
            Retry(attempts=2, wait_initial=0.001),
        ]
        pipe = Pipeline(provider, stack, clock=None if disk else FakeClock())

        async def embed(texts):
            try:
                return await pipe.send(Embed(model="m", texts=texts))
            except ResilientAIError as error:
                return error

        async def main():
            if at_once:
                results = await asyncio.gather(*map(embed, calls))
            else:
                results = [await embed(texts) for texts in calls]
            await pipe.aclose()
            return results

        results = asyncio.run(main()) if disk else run(main())
        for texts, result in zip(calls, results, strict=True):
            if isinstance(result, EmbedResult):
                assert list(result.vectors) == [vector_of(text) for text in texts]
        if not at_once and kind != "memory" and not isinstance(results[-1], Exception):
            assert len(provider.sent) == len(set(provider.sent))

    check()


async def test_a_thousand_texts_of_which_900_are_known():
    """A hundred are sent."""
    provider = Faulty([])
    pipe = Pipeline(provider, [Cache(MemoryStore()), Batching()], clock=FakeClock())
    texts = [f"text {number}" for number in range(1000)]
    await pipe.send(Embed(model="m", texts=texts[:900]))
    provider.sent.clear()
    result = await pipe.send(Embed(model="m", texts=texts))
    assert (len(provider.sent), result.hits, result.attempts) == (100, 900, 2)
    assert list(result.vectors) == [vector_of(text) for text in texts]


async def test_a_batch_that_fails_leaves_the_results_of_the_others():
    """What the others brought is known when the call is made again, and only the rest is sent."""
    provider = Faulty([True, False, False])
    pipe = Pipeline(provider, [Cache(MemoryStore()), Batching(size=2, in_flight=1)], clock=FakeClock())
    texts = [f"text {number}" for number in range(6)]
    with pytest.raises(ServerFailed):
        await pipe.send(Embed(model="m", texts=texts))
    assert provider.sent == texts[:4]
    result = await pipe.send(Embed(model="m", texts=texts))
    assert (provider.sent, result.hits) == (texts, 4)
    assert list(result.vectors) == [vector_of(text) for text in texts]


async def test_a_call_that_is_cancelled_leaves_what_it_had():
    """Vectors that were paid for are known afterwards."""
    provider = Faulty([])
    pipe = Pipeline(provider, [Cache(MemoryStore()), Batching(size=1, in_flight=1)], clock=FakeClock())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.25):
            await pipe.send(Embed(model="m", texts=["a", "b", "c"]))
    assert provider.sent == ["a", "b"]
    assert (await pipe.send(Embed(model="m", texts=["a", "b", "c"]))).hits == 2


async def test_hits_tell_what_they_would_have_cost():
    """By the length of each text; unknown costs stay unknown."""
    provider = Faulty([])
    pipe = Pipeline(provider, [Cache(MemoryStore()), Batching(size=2)], clock=FakeClock())
    await pipe.send(Embed(model="m", texts=["a", "abc", "xy"]))
    assert (await pipe.send(Embed(model="m", texts="abc"))).saved == Decimal("1.5")
    assert (await pipe.send(Embed(model="m", texts=["a", "abc", "xy", "new"]))).saved == 3
    unpriced = Pipeline(ScriptedProvider(), [Cache(MemoryStore())], clock=FakeClock())
    await unpriced.send(Embed(model="m", texts=["a", "b"]))
    assert (await unpriced.send(Embed(model="m", texts=["a"]))).saved is None


async def test_costs_of_batches_add_up():
    """What a list of several batches cost is what its hits save, to the last digit, also where only the ledger knows it."""

    async def priced(call):
        await asyncio.sleep(1)
        call.record.costs.append((Decimal(len(call.operation.texts)) * Decimal("0.00000007"), "table", True))
        return answer_to(call.operation)

    provider = ScriptedProvider(*[priced] * 9)
    pipe = Pipeline(provider, [Cache(MemoryStore()), Batching(size=7, in_flight=3)], clock=FakeClock())
    texts = [f"a text of some length {number**3}" for number in range(50)]
    first = await pipe.send(Embed(model="m", texts=texts))
    assert (await pipe.send(Embed(model="m", texts=texts))).saved == first.cost.amount == Decimal("0.0000035")


@pytest.mark.parametrize("operation", [Chat(model="m", messages="hi", temperature=0), Embed(model="m", texts="a")])
async def test_what_was_wasted_is_not_saved(operation):
    """A hit saves what the answer cost, not what failed tries did."""

    async def retried(call):
        call.record.costs += [(Decimal("0.5"), "table", False), (Decimal("0.002"), "table", True)]
        return answer_to(call.operation)

    pipe = Pipeline(ScriptedProvider(retried), [Cache(MemoryStore())], clock=FakeClock())
    assert (await pipe.send(operation)).cost.amount == Decimal("0.502")
    assert (await pipe.send(operation)).saved == Decimal("0.002")


@pytest.mark.parametrize("batched", [True, False])
async def test_who_changes_a_result_changes_nothing_that_is_kept(batched):
    """Also where the store could not be read, so that the entry is written behind the call."""

    class Flaky(MemoryStore):
        async def get_many(self, keys):
            self.get_many = super().get_many
            raise OSError

    stack = [Cache(Flaky()), *([Batching(size=1)] if batched else [])]
    pipe = Pipeline(ScriptedProvider(), stack, clock=FakeClock())
    operation = Embed(model="m", texts=["a", "b"])
    result = await pipe.send(operation)
    for index in range(len(result.vectors.buffer)):
        result.vectors.buffer[index] = 9.0
    await asyncio.sleep(1)
    again = await pipe.send(operation)
    assert (again.cache, list(again.vectors)) == ("hit", [vector_of("a"), vector_of("b")])


@pytest.mark.parametrize(
    "lie",
    [
        lambda _keys, _entries: [1, 2],
        lambda _keys, _entries: "text",
        lambda _keys, _entries: 3,
        lambda _keys, _entries: None,
        lambda keys, entries: dict.fromkeys(["of another", *keys], next(iter(entries.values()), b"")),
        lambda _keys, entries: {f"of another {number}": entry for number, entry in enumerate(entries.values())},
    ],
)
@pytest.mark.parametrize("kind", [Chat, Embed])
async def test_a_store_that_lies_fails_no_call(kind, lie):
    """What it says beside what it was asked is not listened to."""

    class Liar(MemoryStore):
        async def get_many(self, keys):
            return lie(keys, await super().get_many(keys))

    pipe = Pipeline(ScriptedProvider(), [Cache(Liar(), stale_if_error=9.0)], clock=FakeClock())
    operation = Chat(model="m", messages="hi", temperature=0) if kind is Chat else Embed(model="m", texts="a")
    for _ in range(3):
        result = await pipe.send(operation)
        assert kind is Chat or list(result.vectors) == [vector_of("a")]


async def test_a_store_that_cancels_itself_cancels_no_call():
    """Only a caller cancels its call."""

    class Odd(MemoryStore):
        async def get_many(self, keys):
            raise asyncio.CancelledError

    pipe = Pipeline(ScriptedProvider(), [Cache(Odd())], clock=FakeClock())
    assert (await pipe.send(Embed(model="m", texts="a"))).cache == "miss"


async def test_a_store_that_cannot_be_closed_is_left():
    """After some seconds, whatever it does."""

    class Stubborn(MemoryStore):
        async def aclose(self):
            await asyncio.sleep(3600)

    pipe = Pipeline(ScriptedProvider(), [Cache(Stubborn())], clock=FakeClock())
    started = asyncio.get_running_loop().time()
    await pipe.aclose()
    assert asyncio.get_running_loop().time() - started < 10


def test_numpy_may_be_imported_meanwhile(monkeypatch):
    """A module that another thread has not finished importing is not used."""
    half = types.ModuleType("numpy")
    half.__spec__ = types.SimpleNamespace(_initializing=True)
    monkeypatch.setitem(sys.modules, "numpy", half)
    pipe = Pipeline(ScriptedProvider(), [Cache(MemoryStore())], clock=FakeClock())

    async def exact(_call):
        return EmbedResult(model="m", served_by="m", vectors=Vectors.pack([[0.5, 0.25]]))

    pipe.provider.script = [exact]
    for _ in range(2):
        assert list(run(pipe.send(Embed(model="m", texts="a"))).vectors) == [[0.5, 0.25]]


def test_costs_are_exact_whatever_the_application_rounds_to():
    """Its decimal context does not reach ours."""
    with localcontext(prec=4):
        assert dollars(units(Decimal("0.0012345678"))) == Decimal("0.0012345678")


# Keys

FULL = {
    Chat: {"model": "m", "messages": "hi", "tools": [Tool(name="t")]},
    Stream: {"model": "m", "messages": "hi", "tools": [Tool(name="t")]},
    Complete: {"model": "m", "prompt": "hi"},
    Embed: {"model": "m", "texts": "hi"},
    Image: {"model": "m", "prompt": "hi", "images": PIXEL},
}
OTHER = {
    "model": "m:1",
    "fallbacks": ("n",),
    "extra": {"min_tokens": 3},
    "messages": [user("hi", PIXEL)],
    "prompt": "ho",
    "tools": [Tool(name="t", description="d")],
    "tool_choice": "t",
    "temperature": 0.5,
    "top_p": 0.5,
    "min_p": 0.5,
    "top_k": 5,
    "max_tokens": 5,
    "stop": ("x",),
    "n": 2,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.5,
    "seed": 5,
    "user": "ada",
    "service_tier": "priority",
    "response_format": ResponseFormat(type="json_object"),
    "top_logprobs": 5,
    "reasoning_effort": "low",
    "chat_template_kwargs": {"thinking": True},
    "echo": True,
    "dimensions": 64,
    "normalize": True,
    "encoding": "base64",
    "size": "64x64",
    "aspect_ratio": "16:9",
    "steps": 5,
    "guidance_scale": 5.0,
    "negative_prompt": "rain",
    "images": (PIXEL, PIXEL),
    "mask": PIXEL,
    "route": "openai",
}
LOGPROBS = {Chat: True, Stream: True, Complete: 3}
FIELDS = [(kind, name) for kind in FULL for name in kind.model_fields if name not in LEFT_OUT]


def keys_of(operation, **options):
    pipe = Pipeline(ScriptedProvider(), clock=FakeClock())

    async def main():
        call = pipe.call(operation, **options)
        return text_keys(call, operation.texts)[0] if isinstance(operation, Embed) else answer_key(call)

    return run(main())


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_every_field_of_every_operation_makes_a_difference(kind, name):
    """Walks all fields there are: one that is new and has no other value here fails, until somebody thinks of its key."""
    other = LOGPROBS[kind] if name == "logprobs" else OTHER[name]
    plain = kind(**FULL[kind])
    assert keys_of(plain) != keys_of(kind(**(FULL[kind] | {name: other})))
    assert keys_of(plain) == keys_of(kind(**FULL[kind]))


def test_what_is_left_out_of_a_key_has_a_reason():
    """The list is short, and every name on it is a field that exists."""
    fields = {name for kind in FULL for name in kind.model_fields}
    assert set(LEFT_OUT) == {"texts", "on_interrupt", "prompt_cache_key"} <= fields
    assert all(len(reason) > 20 for reason in LEFT_OUT.values())


@pytest.mark.parametrize("operation", [kind(**fields) for kind, fields in FULL.items()], ids=lambda o: o.kind)
def test_kinds_tenants_and_origins_are_apart(operation):
    """The parts for tenant and model stand in front, and only they are the same for another text."""
    mine, theirs = keys_of(operation), keys_of(operation, tags={"tenant": "a"})
    assert mine[:16] != theirs[:16]
    assert mine[16:32] == theirs[16:32]
    assert len(mine) == len(theirs) == 96
    others = {keys_of(kind(**fields)) for kind, fields in FULL.items() if kind is not type(operation)}
    assert len(others) == (4 if operation.kind in {"chat", "stream"} else 3)
