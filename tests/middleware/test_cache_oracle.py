"""Cache: whatever is known, repeated, reordered or fails, vector i is the vector of text i; and no field is forgotten in a key."""

import asyncio
from decimal import Decimal

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
from resilient_ai.middleware._cache_key import LEFT_OUT, answer_key, text_keys
from resilient_ai.stores import DiskStore, MemoryStore, TieredStore
from resilient_ai.testing import PIXEL, FakeClock, ScriptedProvider, run, vector_of

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
