"""Cache: what is kept, under which key, and what a hit gives."""

import asyncio
import contextlib
import gc
import math
import struct
import sys
import time
from array import array
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.deltas import Finished, TextDelta, ToolCallDelta
from resilient_ai.core.errors import InvalidResponse, ServerFailed, StreamInterrupted
from resilient_ai.core.events import CacheLookedUp
from resilient_ai.core.messages import Tool, ToolCall, user
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import ChatResult, Choice, Cost, EmbedResult, ImageResult, TokenLogprob, Usage
from resilient_ai.core.results import Image as Picture
from resilient_ai.core.streams import StreamResult
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware import _cache_codec as codec
from resilient_ai.middleware import _cache_vectors as vectors
from resilient_ai.middleware._cache_entry import HEADER, unwrap, wrap
from resilient_ai.middleware._machines.freshness import Freshness
from resilient_ai.middleware.cache import Cache
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.testing import PIXEL, ScriptedProvider, ScriptedSource, answer_to, chat_result, stream_of, vector_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi", temperature=0)
STREAM = Stream(model="m", messages="hi", temperature=0)


ODD_TIMES = [{"created": math.nan}, {"ttl": 0.0}, {"ttl": math.nan}, {"made_in": -1.0}, {"made_in": math.inf}]
ODD_VECTORS = [(b"f", b""), (b"f", b"123"), (b"d", b"1234"), (b"x", b"1234"), (b"c", b"1234")]


def _entry(kind, body, *, created=0.0, ttl=math.inf, made_in=0.0):
    return wrap(kind, body, created=created, ttl=ttl, made_in=made_in, cost=None)


class Memory(dict):
    """A store in a dictionary that counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.asked, self.deleted, self.ttls, self.closed = [], [], [], 0

    async def get_many(self, keys):
        self.asked.append(list(keys))
        return {key: self[key] for key in keys if key in self}

    async def set_many(self, entries, *, ttl=None):
        self.ttls.append(ttl)
        self.update(entries)

    async def delete_many(self, keys):
        self.deleted.extend(keys)
        for key in keys:
            self.pop(key, None)

    async def aclose(self):
        self.closed += 1


class Broken:
    """A store that raises, or hangs, at whatever it is asked."""

    def __init__(self, *, hangs=False):
        self.hangs = hangs

    async def _fail(self, *args, **options):
        if self.hangs:
            await asyncio.sleep(3600)
        raise OSError("disk full")

    get_many = set_many = delete_many = clear = aclose = _fail


def pipeline(*script, store=None, clock=None, **options):
    store = Memory() if store is None else store
    return Pipeline(ScriptedProvider(*script), [Cache(store, **options)], clock=clock), store


async def paid(call):
    """Answer like a provider with accounting: the send has cost something."""
    call.record.costs.append((Decimal("0.002"), "provider", True))
    return chat_result("Hello.")


@pytest.mark.parametrize(
    ("stores", "options", "message"),
    [
        ((None,), {}, "a cache needs a store"),
        ((Memory(),), {"ttl": 0}, "ttl must be a positive number of seconds, got 0"),
        ((Memory(),), {"ttl": float("nan")}, "ttl must be"),
        ((Memory(),), {"ttl": "1"}, "ttl must be a positive number of seconds, got '1'"),
        ((Memory(),), {"mode": "maybe"}, "mode must be one of"),
        ((Memory(),), {"max_age": -1}, "max_age must be >= 0, got -1"),
        ((Memory(),), {"stale_while_revalidate": -1}, "stale_while_revalidate must be >= 0"),
        ((Memory(),), {"stale_if_error": None}, "stale_if_error must be >= 0"),
        ((Memory(),), {"jitter": 1.5}, "jitter must be from 0 to 1, got 1.5"),
        ((Memory(),), {"early_refresh": -1}, "early_refresh must be >= 0"),
        ((Memory(),), {"always": 1}, "always must be of type bool"),
        ((Memory(),), {"keep_truncated": "no"}, "keep_truncated must be of type bool"),
        ((Memory(),), {"replay": "slowly"}, "replay must be one of"),
        ((Memory(),), {"leases": Memory()}, "leases must be None or an object with acquire_lease"),
        ((Memory(),), {"lease_time": 0}, "lease_time must be a positive number"),
    ],
)
def test_options_are_checked(stores, options, message):
    """An option out of its range is refused when the cache is made."""
    with pytest.raises(ValueError, match=message):
        Cache(*stores, **options)


def test_defaults():
    """By default entries stay until they are evicted, and only what repeats itself is kept."""
    cache = Cache(None, Memory())
    assert (cache.ttl, cache.mode, cache.always, cache.answers) == (None, "on", False, None)
    assert (cache.max_age, cache.stale_while_revalidate, cache.stale_if_error) == (None, 0.0, 0.0)
    assert (cache.jitter, cache.early_refresh, cache.keep_truncated, cache.replay) == (0.1, 1.0, False, "at_once")
    assert (cache.leases, cache.lease_time) == (None, 10.0)


async def test_second_chat_is_a_hit_that_costs_nothing():
    """The same question is sent once; the second answer is equal, free, and without attempts."""
    pipe, _ = pipeline(paid)
    first, second = await pipe.send(CHAT), await pipe.send(CHAT)
    assert (first.cache, first.attempts, first.cost.amount) == ("miss", 1, Decimal("0.002"))
    assert (second.cache, second.attempts, second.cost) == ("hit", 0, Cost(amount=Decimal(0), source="cache"))
    assert (second.choices, second.usage, second.served_by) == (first.choices, first.usage, "m")
    assert len(pipe.provider.calls) == 1


async def test_lookups_are_reported_with_what_they_saved():
    """A listener hears of the miss, and of the hit with the cost of the answer it replaced."""
    events = []
    pipe, _ = pipeline(paid)
    for _ in range(2):
        await pipe.send(CHAT, listener=events.append)
    looked_up = [(e.outcome, e.hits, e.misses, e.saved) for e in events if isinstance(e, CacheLookedUp)]
    assert looked_up == [("miss", 0, 1, None), ("hit", 1, 0, Decimal("0.002"))]


@pytest.mark.parametrize("operation", [CHAT, Embed(model="m", texts="a")], ids=["chat", "embed"])
@pytest.mark.parametrize(("accounting", "saved"), [([], Decimal("0.5")), ([CostAccounting()], None)])
async def test_what_a_hit_saves_is_what_the_call_cost(operation, accounting, saved):
    """As result, spans and log lines have it: what the answer says, or what accounting made of it, such as nothing."""
    cost = Cost(amount=Decimal("0.5"), source="table")

    async def listed(call):
        return answer_to(call.operation).model_copy(update={"cost": cost})

    pipe = Pipeline(ScriptedProvider(listed), [Cache(Memory()), *accounting])
    first, second = await pipe.send(operation), await pipe.send(operation)
    assert (None if first.cost is None else first.cost.amount, second.saved) == (saved, saved)


@pytest.mark.parametrize(
    ("operation", "kept"),
    [
        (Chat(model="m", messages="hi"), False),
        (Chat(model="m", messages="hi", temperature=0.7), False),
        (Chat(model="m", messages="hi", temperature=0.7, seed=1), True),
        (Chat(model="m", messages="hi", temperature=0), True),
        (Complete(model="m", prompt="hi"), False),
        (Complete(model="m", prompt="hi", temperature=0), True),
        (Image(model="m", prompt="a tide"), False),
        (Image(model="m", prompt="a tide", seed=7), True),
        (Embed(model="m", texts="hi"), True),
    ],
    ids=repr,
)
async def test_only_what_repeats_itself_is_kept(operation, kept):
    """Without being told otherwise, an answer is kept where asking again gives the same."""
    pipe, store = pipeline()
    first, second = await pipe.send(operation), await pipe.send(operation)
    assert (first.cache, second.cache) == (("miss", "hit") if kept else ("off", "off"))
    assert bool(store) == kept


@pytest.mark.parametrize(("always", "cache"), [(True, None), (False, "on")])
async def test_everything_is_kept_on_demand(always, cache):
    """`always=True` and a call's own cache="on" keep answers that would differ."""
    pipe, _ = pipeline(always=always)
    asked = Chat(model="m", messages="hi", n=2, temperature=1)
    assert [(await pipe.send(asked, cache=cache)).cache for _ in range(2)] == ["miss", "hit"]


async def test_off_neither_reads_nor_writes():
    """A call with cache="off", and a cache of mode "off", leave the store alone."""
    pipe, store = pipeline()
    await pipe.send(CHAT, cache="off")
    await pipe.send(Embed(model="m", texts="a"), cache="off")
    quiet, silent = pipeline(mode="off")
    assert (await quiet.send(CHAT)).cache == "off"
    assert (store, store.asked, silent) == ({}, [], {})


@pytest.mark.parametrize("operation", [CHAT, Embed(model="m", texts="a")])
async def test_refresh_sends_and_replaces(operation):
    """A refresh asks the service although the answer is known, and keeps the new one."""
    pipe, store = pipeline()
    await pipe.send(operation)
    store.update(dict.fromkeys(store, b"old"))
    refreshed = await pipe.send(operation, cache="refresh")
    assert (refreshed.cache, len(pipe.provider.calls), len(store.asked)) == ("off", 2, 1)
    assert (await pipe.send(operation)).cache == "hit"


async def test_ttl_reaches_the_store():
    """Entries are kept as long as the cache says."""
    pipe, store = pipeline(ttl=60.0)
    await pipe.send(CHAT)
    await pipe.send(Embed(model="m", texts="a"))
    assert store.ttls == [60.0, 60.0]


@pytest.mark.parametrize(
    "other",
    [
        {"model": "other"},
        {"messages": "ho"},
        {"seed": 1},
        {"max_tokens": 5},
        {"model": ["m", "n"]},
        {"extra": {"min_tokens": 3}},
        {"user": "ada"},
        {"tools": [Tool(name="tides")]},
        {"messages": [user("hi", PIXEL)]},
        {"n": 2},
    ],
    ids=repr,
)
async def test_every_field_is_part_of_the_key(other):
    """A question that differs in any field is another question."""
    pipe, store = pipeline()
    await pipe.send(CHAT)
    await pipe.send(Chat(**({"model": "m", "messages": "hi", "temperature": 0} | other)))
    assert len(store) == 2


async def test_tenants_and_origins_are_apart():
    """The tag "tenant" and the origin are parts of the key; other tags are not."""
    pipe, store = pipeline()
    for tags in ({}, {"tenant": "a"}, {"tenant": "b"}, {"tenant": "b", "user": "ada"}):
        await pipe.send(CHAT, tags=tags)
        await pipe.send(Embed(model="m", texts="x"), tags=tags)
    assert len(store) == 6
    elsewhere, _ = pipeline(store=store)
    elsewhere.provider.origin = "https://elsewhere.test"
    assert (await elsewhere.send(CHAT)).cache == "miss"


async def test_what_does_not_matter_is_not_part_of_the_key():
    """A written default, a tool's Python function and the provider's cache hint change nothing; bytes count by content."""
    pipe, store = pipeline()
    await pipe.send(Chat(model="m", messages="hi", temperature=0, tools=[Tool(name="t")]))
    again = Chat(model="m", messages="hi", temperature=0.0, tools=[Tool(name="t", function=print)], stop=(), n=1)
    assert (await pipe.send(again)).cache == "hit"
    assert (await pipe.send(again.model_copy(update={"prompt_cache_key": "p"}))).cache == "hit"
    edit = Image(model="m", prompt="p", images=PIXEL, seed=1)
    assert [(await pipe.send(edit)).cache for _ in range(2)] == ["miss", "hit"]
    assert (await pipe.send(edit.model_copy(update={"images": (PIXEL + b"!",)}))).cache == "miss"
    assert all(len(key) == 96 for key in store)


@pytest.mark.parametrize(
    "operation",
    [
        Chat(model="m", messages="hi", temperature=0, extra={"odd": object()}),
        Embed(model="m", texts="a", extra={"odd": {1, 2}}),
        Embed(model="m", texts="\ud800"),
    ],
    ids=["object", "set", "surrogate"],
)
async def test_what_cannot_be_named_is_sent_without_a_cache(operation):
    """An operation without canonical form is an ordinary call."""
    pipe, store = pipeline(
        chat_result() if isinstance(operation, Chat) else EmbedResult(model="m", vectors=Vectors.pack([[1.0]]))
    )
    assert (await pipe.send(operation)).cache == "off"
    assert store == {}


@pytest.mark.parametrize(
    "choice",
    [
        Choice(text="part", finish_reason=None),
        Choice(text="part", finish_reason="length"),
        Choice(finish_reason="content_filter"),
        Choice(finish_reason="tool_calls", tool_calls=(ToolCall(id="1", name="t", arguments="{"),)),
    ],
    ids=["partial", "truncated", "filtered", "broken tool call"],
)
async def test_answers_that_are_not_whole_are_not_kept(choice):
    """A cut, filtered or unreadable answer is handed over and asked for again next time."""
    pipe, store = pipeline(chat_result(choices=(Choice(text="whole", finish_reason="stop"), choice)))
    assert (await pipe.send(CHAT)).cache == "miss"
    assert store == {}


async def test_flagged_pictures_and_errors_are_not_kept():
    """A picture that was held back and a failure leave nothing behind."""
    flagged = ImageResult(model="m", images=(Picture(data=PIXEL, media_type="image/png", flagged=True),))
    pipe, store = pipeline(flagged, ServerFailed("boom", status=500))
    await pipe.send(Image(model="m", prompt="p", seed=1))
    with pytest.raises(ServerFailed):
        await pipe.send(CHAT)
    assert store == {}


async def test_an_answer_that_is_no_json_is_not_kept(caplog):
    """An answer that cannot be written down reaches its caller all the same."""
    odd = chat_result(usage=Usage(input_tokens=1, raw={"odd": object()}))
    pipe, store = pipeline(odd)
    assert (await pipe.send(CHAT)).text == "Hello."
    assert store == {}
    assert "was not cached" in caplog.text


async def test_a_rich_answer_comes_back_whole():
    """Reasoning, tool calls, log probabilities, usage and several choices survive the store."""
    answer = chat_result(
        usage=Usage(input_tokens=9, cached_tokens=4, raw={"prompt_tokens": 9}),
        request_id="r1",
        choices=(
            Choice(
                text="Two.",
                reasoning="One and one.",
                finish_reason="tool_calls",
                tool_calls=(ToolCall(id="1", name="t", arguments='{"a": 1}'),),
                logprobs=(TokenLogprob(token="Two", logprob=-0.1, top=(("Two", -0.1),)),),
            ),
            Choice(index=1, text="2", finish_reason="stop"),
        ),
    )
    pipe, _ = pipeline(answer)
    first, second, third = await pipe.send(CHAT), await pipe.send(CHAT), await (await pipe.send(STREAM)).result()
    changed = {"cache", "cache_age", "saved", "attempts", "cost"}
    assert first.model_dump(exclude=changed) == second.model_dump(exclude=changed) == third.model_dump(exclude=changed)
    assert third.cache == "hit"


async def test_a_finished_stream_answers_chat_and_stream():
    """A stream that was read to its end is a hit for both, with the same answer."""
    pipe, store = pipeline()
    stream = await pipe.send(STREAM)
    first = await stream.result()
    chat = await pipe.send(CHAT)  # before the entry has reached the store
    await asyncio.sleep(1)
    again = await pipe.send(STREAM)
    events = [event async for event in again]
    assert [type(event) for event in events] == [TextDelta, Finished]
    assert (first.cache, chat.cache, again.ended, (await again.result()).cache) == ("miss", "hit", "completed", "hit")
    assert first.choices == chat.choices == (await again.result()).choices
    assert (len(pipe.provider.calls), len(store)) == (1, 1)


async def test_a_chat_answers_a_stream():
    """What was asked whole is replayed in pieces."""
    pipe, _ = pipeline()
    await pipe.send(CHAT)
    async with await pipe.send(STREAM) as stream:
        assert (await anext(stream)).text == "Hello."
    assert stream.ended == "completed"


@pytest.mark.parametrize("how", ["closed", "failed", "abandoned", "cancelled"])
async def test_a_stream_that_was_not_read_to_its_end_is_not_kept(how, clock):
    """A stream that was left, broke, was dropped or cancelled leaves no entry."""
    steps = [ServerFailed("boom", status=500)] if how == "failed" else [3600.0, [Finished(("stop",))]]
    source = ScriptedSource(steps)
    pipe, store = pipeline(StreamResult(source, model="m", first=[TextDelta("x")], clock=clock))
    stream = await pipe.send(STREAM)
    if how == "closed":
        await stream.aclose()
    elif how == "failed":
        with pytest.raises(StreamInterrupted):
            await stream.result()
    elif how == "cancelled":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await stream.result()
    del stream
    pipe.provider.script.clear()
    gc.collect()
    await asyncio.sleep(1)
    assert (store, source.aborted) == ({}, 1)


async def test_a_stream_whose_answer_is_not_whole_is_not_kept():
    """A truncated stream and one whose tool call is no JSON leave no entry."""
    cut = StreamResult(ScriptedSource([[Finished(("length",))]]), model="m", first=[TextDelta("x")])
    odd = StreamResult(
        ScriptedSource([[Finished(("tool_calls",))]]), model="m", first=[ToolCallDelta(0, "1", "t", "{")]
    )
    pipe, store = pipeline(cut, odd)
    for _ in range(2):
        await (await pipe.send(STREAM)).result()
    await asyncio.sleep(1)
    assert store == {}


async def test_a_stream_that_is_not_repeatable_passes_through():
    """A stream that nobody asked to keep is neither looked up nor kept."""
    pipe, store = pipeline()
    await (await pipe.send(Stream(model="m", messages="hi"))).result()
    assert (store, store.asked) == ({}, [])


async def test_vectors_are_kept_text_by_text():
    """Only texts that are not known are sent, each once, and the vectors come back in input order."""
    pipe, store = pipeline()
    await pipe.send(Embed(model="m", texts=["a", "b"]))
    result = await pipe.send(Embed(model="m", texts=["c", "b", "c", "a", "d"]))
    assert pipe.provider.calls[1].operation.texts == ("c", "d")
    assert list(result.vectors) == [vector_of(text) for text in "cbcad"]
    assert (result.hits, result.cache, result.usage.input_tokens, result.attempts) == (2, "miss", 2, 1)
    assert len(store) == 4


async def test_a_list_that_is_known_sends_nothing():
    """When every text is known nothing is sent and nothing is owed."""
    pipe, _ = pipeline()
    await pipe.send(Embed(model="m", texts=["a", "b"]))
    result = await pipe.send(Embed(model="m", texts=["b", "a", "b"]))
    assert list(result.vectors) == [vector_of(text) for text in "bab"]
    assert (result.hits, result.cache, result.attempts, result.model) == (3, "hit", 0, "m")
    assert (result.usage, result.cost.amount) == (Usage(input_tokens=0, output_tokens=0), 0)


@pytest.mark.parametrize("code", ["d", "f"])
async def test_vectors_come_back_bit_for_bit(code):
    """The stored numbers are the ones that came, in the width in which they came."""
    numbers = array(code, [0.1, -0.0, 1e-30, 2 / 3])
    pipe, store = pipeline(EmbedResult(model="m", vectors=Vectors(numbers, 4)))
    await pipe.send(Embed(model="m", texts="a"))
    again = await pipe.send(Embed(model="m", texts="a"))
    assert (again.vectors.buffer.typecode, again.vectors.buffer.tobytes()) == (code, numbers.tobytes())
    assert [entry[1:2] for entry in store.values()] == [code.encode()]


async def test_embedding_lookups_are_reported():
    """A partly known list is a miss with its hits counted by entry."""
    events = []
    pipe, _ = pipeline()
    for texts in (["a", "a"], ["a", "b"], ["b"]):
        await pipe.send(Embed(model="m", texts=texts), listener=events.append)
    counts = [(e.outcome, e.hits, e.misses) for e in events if isinstance(e, CacheLookedUp)]
    assert counts == [("miss", 0, 1), ("miss", 1, 1), ("hit", 1, 0)]


async def test_known_vectors_of_another_length_are_asked_again():
    """When the model's vectors have changed length, all texts are sent anew, and usage is that of both sends."""
    new = Vectors.pack([[1.0, 2.0]])
    both = Vectors.pack([[3.0, 4.0], [5.0, 6.0]])
    pipe, store = pipeline(
        EmbedResult(model="m", vectors=Vectors.pack([[0.5, 0.5, 0.5]])),
        EmbedResult(model="m", vectors=new, usage=Usage(input_tokens=1)),
        EmbedResult(model="m", vectors=both, usage=Usage(input_tokens=2)),
    )
    await pipe.send(Embed(model="m", texts="a"))
    result = await pipe.send(Embed(model="m", texts=["b", "a"]))
    assert (list(result.vectors), result.hits, result.usage) == ([[3.0, 4.0], [5.0, 6.0]], 0, Usage(input_tokens=3))
    assert pipe.provider.calls[2].operation.texts == ("b", "a")
    assert (await pipe.send(Embed(model="m", texts="a"))).vectors[0] == [5.0, 6.0]
    assert len(store) == 2


async def test_usage_of_two_sends_is_unknown_when_one_is():
    """Unknown usage stays unknown."""
    parts = [Vectors.pack([[0.5]]), Vectors.pack([[1.0, 2.0]]), Vectors.pack([[3.0, 4.0], [5.0, 6.0]])]
    pipe, _ = pipeline(*[EmbedResult(model="m", vectors=part) for part in parts])
    await pipe.send(Embed(model="m", texts="a"))
    assert (await pipe.send(Embed(model="m", texts=["b", "a"]))).usage is None


async def test_stored_vectors_that_disagree_are_not_believed():
    """Entries of different lengths are deleted and asked again."""
    pipe, store = pipeline()
    asked = Embed(model="m", texts=["a", "b"])
    await pipe.send(asked)
    first, second = store
    store[first] = vectors.encode_vectors(Vectors.pack([[0.1]]), created=time.time(), ttl=9.0, made_in=0.0)[0]
    result = await pipe.send(asked)
    assert list(result.vectors) == [vector_of("a"), vector_of("b")]
    assert sorted(store.deleted) == sorted([first, second])


async def test_vectors_of_a_fallback_are_neither_kept_nor_mixed():
    """When another model answers, all vectors are its own, and none of them is kept under the name of the first."""

    async def fallback(call):
        return EmbedResult(
            model="other", served_by="other", vectors=Vectors.pack([[9.0] * 4] * len(call.operation.texts))
        )

    pipe, store = pipeline()
    await pipe.send(Embed(model="m", texts="a", fallbacks=("other",)))
    pipe.provider.script = [fallback, fallback]
    result = await pipe.send(Embed(model="m", texts=["a", "b"], fallbacks=("other",)))
    assert (list(result.vectors), result.hits, len(store)) == ([[9.0] * 4] * 2, 0, 1)


async def test_a_wrong_number_of_vectors_is_refused():
    """An answer with too few vectors is an error, never a shifted list."""
    pipe, store = pipeline(EmbedResult(model="m", vectors=Vectors.pack([[1.0]])))
    with pytest.raises(InvalidResponse, match="1 vectors came back for 2 texts"):
        await pipe.send(Embed(model="m", texts=["a", "b"]))
    assert store == {}


async def test_embeddings_have_their_own_store():
    """Answers and vectors go to the stores that were given for them; without one for answers none are kept."""
    answers, vectors = Memory(), Memory()
    pipe = Pipeline(ScriptedProvider(), [Cache(answers, vectors)])
    await pipe.send(CHAT)
    await pipe.send(Embed(model="m", texts=["a", "b"]))
    assert (len(answers), len(vectors)) == (1, 2)
    alone = Pipeline(ScriptedProvider(), [Cache(None, vectors)])
    assert ((await alone.send(CHAT)).cache, (await alone.send(Embed(model="m", texts="a"))).cache) == ("off", "hit")


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"garbage",
        *(
            _entry(kind, body)
            for kind in (b"c", b"i", b"d")
            for body in (b"", b"[]\n{}", b"{}\n{", b"[[1]]\n{}", b"\xff")
        ),
        *(_entry(kind, b'[]\n{"model": "m"}', **odd) for kind in (b"c", b"i") for odd in ODD_TIMES),
    ],
)
@pytest.mark.parametrize("operation", [CHAT, Image(model="m", prompt="p", seed=1)], ids=["chat", "image"])
async def test_a_damaged_answer_is_a_miss_and_deleted(operation, damaged):
    """An entry that cannot be read is forgotten, asked again and replaced."""
    pipe, store = pipeline()
    await pipe.send(operation)
    (key,) = store
    store[key] = damaged
    assert [(await pipe.send(operation)).cache for _ in range(2)] == ["miss", "hit"]
    assert store.deleted == [key]


@pytest.mark.parametrize("damaged", [b'{"images": [{}]}\n', b'{"images": 3}\n', b"[]\n"])
async def test_a_damaged_list_of_pictures_is_refused(damaged):
    """A list of pictures that does not say their sizes cannot be read."""
    with pytest.raises(ValueError, match="damaged"):
        codec.decode_image(damaged)


async def test_pictures_come_back_whole():
    """Files, their facts and their order survive the store; a file that is cut is noticed."""
    pictures = (
        Picture(data=PIXEL, media_type="image/png", revised_prompt="p"),
        Picture(data=b"\n\x00\xff", media_type="image/png"),
    )
    pipe, store = pipeline(ImageResult(model="m", images=pictures, seed=5))
    asked = Image(model="m", prompt="p", seed=5, n=2)
    await pipe.send(asked)
    again = await pipe.send(asked)
    assert (again.images, again.seed, again.cache) == (pictures, 5, "hit")
    with pytest.raises(ValueError, match="bytes, the entry holds"):
        codec.decode_image(next(iter(store.values()))[HEADER.size : -1])


@pytest.mark.parametrize("damaged", [b"", b"d", *(_entry(kind, body) for kind, body in ODD_VECTORS)])
async def test_a_damaged_vector_is_a_miss_and_deleted(damaged):
    """A vector that cannot be read is forgotten and asked again."""
    pipe, store = pipeline()
    asked = Embed(model="m", texts="a")
    await pipe.send(asked)
    (key,) = store
    store[key] = damaged
    assert (await pipe.send(asked)).vectors[0] == vector_of("a")
    assert store.deleted == [key]


def read(entries, **limits):
    return vectors.decode_vectors(entries, now=0.0, limits=Freshness(**limits), chance=lambda: 0.0)


def kept(packed, **options):
    return vectors.encode_vectors(packed, **({"created": 0.0, "ttl": math.inf, "made_in": 0.0} | options))


@pytest.mark.parametrize("code", ["f", "d"])
def test_vectors_are_little_endian_on_every_machine(monkeypatch, code):
    """On a machine of the other byte order the numbers are swapped on the way out and in, and the original stays."""
    numbers = array(code, [1.1, -2.3])
    monkeypatch.setattr(vectors, "_BIG_ENDIAN", True)
    (entry,) = kept(Vectors(numbers, 2))
    size = numbers.itemsize
    assert entry[HEADER.size :] == b"".join(numbers.tobytes()[at : at + size][::-1] for at in (0, size))
    assert vectors.in_order(read({"k": entry}).answers, ["k"]).buffer == numbers


@pytest.mark.parametrize("numpy", [True, False])
@pytest.mark.parametrize(
    ("numbers", "width"),
    [([0.5, -0.0, 3.25], 4), ([0.1, 0.5], 8), ([0.5] * 8 + [0.1], 8), ([1e300, 0.0], 8), ([0.5, math.inf], 4)],
)
def test_eight_bytes_that_are_exact_in_four_take_four(monkeypatch, numpy, numbers, width):
    """Nothing is lost by it, and eight bytes come back, whether numpy does it or not."""
    if not numpy:
        monkeypatch.delitem(sys.modules, "numpy", raising=False)
    else:
        pytest.importorskip("numpy")
    packed = array("d", numbers)
    (entry,) = kept(Vectors(packed, len(numbers)))
    assert len(entry) - HEADER.size == width * len(numbers)
    back = vectors.in_order(read({"k": entry}).answers, ["k"]).buffer
    assert (back.typecode, back.tobytes()) == ("d", packed.tobytes())


def test_vectors_of_several_widths_fit_together():
    """What was kept in different widths comes back as eight bytes a number, none of them changed."""
    parts = {"f": array("f", [1.1, 0.5]), "d": array("d", [0.1, 0.2]), "w": array("d", [0.5, 4.0])}
    entries = {name: kept(Vectors(numbers, 2))[0] for name, numbers in parts.items()}
    assert [entry[1:2] for entry in entries.values()] == [b"f", b"d", b"w"]
    joined = vectors.in_order(read(entries).answers, ["w", "f", "d", "f"])
    assert list(joined) == [parts[name].tolist() for name in "wfdf"]


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("operation", [CHAT, Embed(model="m", texts="a"), Image(model="m", prompt="p", seed=1)])
async def test_a_store_that_fails_or_hangs_costs_a_miss_at_most(hangs, operation, clock, caplog):
    """The call goes on without the store, within 50 ms for the look, waits for no write after that, and says so."""
    events = []
    pipe, _ = pipeline(store=Broken(hangs=hangs), clock=clock)
    started = clock.monotonic()
    result = await pipe.send(operation, listener=events.append)
    assert (result.cache, clock.monotonic() - started) == ("miss", pytest.approx(0.05 if hangs else 0.0))
    assert [e.outcome for e in events if isinstance(e, CacheLookedUp)] == ["error"]
    await asyncio.sleep(0.1)
    assert "did not write: " + ("TimeoutError" if hangs else "OSError") in caplog.text
    await pipe.aclose()


async def test_a_store_that_hangs_leaves_half_the_deadline(clock):
    """A store gets half of what is left of the deadline, so that the call still has time."""

    async def bounded(call, proceed):
        return await proceed(call.replace(deadline=call.clock.monotonic() + 0.04))

    pipe = Pipeline(ScriptedProvider(), [bounded, Cache(Broken(hangs=True))], clock=clock)
    started = clock.monotonic()
    await pipe.send(CHAT)
    assert clock.monotonic() - started == pytest.approx(0.02)


async def test_a_store_that_cannot_delete_is_survived(caplog):
    """A damaged entry that stays is asked for again each time."""

    class Stubborn(Memory):
        async def delete_many(self, keys):
            raise OSError

    store = Stubborn()
    pipe, _ = pipeline(store=store)
    await pipe.send(CHAT)
    store.update(dict.fromkeys(store, b"damaged"))
    assert (await pipe.send(CHAT)).cache == "miss"
    assert "did not delete: OSError" in caplog.text


async def test_a_cancelled_lookup_is_a_cancelled_call(clock):
    """A caller who gives up while the store is asked gets the cancellation, and nothing is sent."""
    pipe, _ = pipeline(store=Broken(hangs=True), clock=clock)
    task = asyncio.create_task(pipe.send(CHAT))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pipe.provider.calls == []


async def test_a_cancelled_write_is_a_cancelled_call(clock):
    """A caller who gives up while the answer is written gets the cancellation; what was sent stays on record."""

    class Slow(Memory):
        async def set_many(self, entries, *, ttl=None):
            await asyncio.sleep(3600)

    pipe, store = pipeline(paid, store=Slow(), clock=clock)
    task = asyncio.create_task(pipe.send(CHAT))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (store, pipe.provider.calls[0].record.sends) == ({}, 1)


@pytest.mark.parametrize("operation", [CHAT, Embed(model="m", texts="a")], ids=["chat", "embed"])
async def test_a_store_that_returns_text_is_a_miss(operation):
    """Entries that are not bytes cannot be read, and do not fail the call."""
    pipe, store = pipeline()
    await pipe.send(operation)
    store.update(dict.fromkeys(store, "a text that is longer than what stands in front of an entry"))
    assert (await pipe.send(operation)).cache == "miss"


@given(entry=st.binary() | st.binary().map(lambda tail: _entry(b"c", tail)))
def test_any_bytes_are_an_entry_or_a_value_error(entry):
    """Whatever a store returns, reading it raises nothing but ValueError."""
    for kind, decode in ((b"c", codec.decode_chat), (b"i", codec.decode_image)):
        with contextlib.suppress(ValueError):
            decode(entry)
        with contextlib.suppress(ValueError):
            decode(unwrap(kind, entry).body)
    known = read({"k": entry})
    assert [*known.answers, *known.damaged] in ([], ["k"])


@given(st.lists(st.lists(st.floats(allow_nan=False), min_size=3, max_size=3), min_size=1), st.sampled_from("fd"))
def test_any_vector_survives(rows, code):
    """Encoding and decoding give back the same bits, alone and together."""
    flat = [
        struct.unpack(f"<{code}", struct.pack(f"<{code}", min(max(x, -1e30), 1e30)))[0] for row in rows for x in row
    ]
    packed = Vectors(array(code, flat), 3)
    keys = [str(index) for index in range(len(rows))]
    known = read(dict(zip(keys, kept(packed), strict=True)))
    assert known.damaged == []
    for order in (keys, keys[::-1], keys[:1]):
        back = vectors.in_order(known.answers, order).buffer
        assert back.tobytes() == b"".join(packed.packed(int(key)).tobytes() for key in order)


async def test_closing_writes_what_is_pending_and_closes_each_store_once():
    """A stream's entry is written before its store closes; one store for both is closed once."""
    pipe, store = pipeline()
    await (await pipe.send(STREAM)).result()
    await pipe.aclose()
    assert (len(store), store.closed) == (1, 1)
    answers, vectors = Memory(), Memory()
    await Cache(answers, vectors).aclose()
    assert (answers.closed, vectors.closed) == (1, 1)


def test_the_cache_outlives_its_loop():
    """A stream whose loop ended before the entry was written leaves nothing that would be served for ever."""
    cache = Cache(store := Memory())
    pipe = Pipeline(ScriptedProvider(), [cache])

    async def main():
        return await (await pipe.send(STREAM)).result()

    asyncio.run(main())
    assert cache._state.unwritten == {}
    assert len(store) <= 1


async def test_an_answer_of_a_fallback_says_so_again():
    """A hit names the model that answered first time."""

    async def fallback(_call):
        return chat_result("Hello.", model="other-2", served_by="other")

    pipe, _ = pipeline(fallback)
    asked = Chat(model=["m", "other"], messages="hi", seed=1)
    first, second = await pipe.send(asked), await pipe.send(asked)
    assert (first.served_by, second.served_by, second.model, second.cache) == ("other", "other", "other-2", "hit")


def test_decoded_chat_is_plain():
    """What is read back is a chat result without cost or attempts of its own."""
    answer, pace = codec.decode_chat(codec.encode_chat(chat_result(attempts=3), [(0, 2), (30, 6)]))
    assert isinstance(answer, ChatResult)
    assert (answer.attempts, answer.cost, pace) == (0, None, [[0, 2], [30, 6]])


async def test_stream_of_a_chat_that_was_streamed_twice_at_once():
    """Two equal streams under way at once both end well and leave one entry."""
    pipe, store = pipeline(stream_of("a"), stream_of("a"))
    streams = [await pipe.send(STREAM) for _ in range(2)]
    assert [(await stream.result()).text for stream in streams] == ["a", "a"]
    await asyncio.sleep(1)
    assert len(store) == 1
