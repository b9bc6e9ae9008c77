"""A call that the cache answers is linked to the one that filled the entry."""

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags

from resilient_ai.core.cache_control import CacheControl
from resilient_ai.core.errors import ServerFailed
from resilient_ai.core.events import CacheLookedUp
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import _cache_entry, _span_origin
from resilient_ai.middleware._cache_entry import unwrap
from resilient_ai.middleware.cache import Cache
from resilient_ai.middleware.coalesce import Coalesce
from resilient_ai.middleware.tracing import Tracing
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import FakeClock, ScriptedProvider, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi", temperature=0)
STREAM = Stream(model="m", messages="hi", temperature=0)
TOLD = {"call_id": "c", "model": "m", "outcome": "hit", "hits": 1, "misses": 0}


class Traced:
    """A pipeline with tracing and a cache, and the spans of calls that it exported."""

    def __init__(self, *script, store, sampler=None, stack=(), **options):
        self.exporter = InMemorySpanExporter()
        tracers = TracerProvider(sampler=sampler)
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.cache = Cache(store, **options)
        stack = [Tracing(tracers), *stack, self.cache]
        self.pipeline = Pipeline(ScriptedProvider(*script), stack, clock=FakeClock())

    async def send(self, operation, **options):
        result = await self.pipeline.send(operation, **options)
        if isinstance(result, StreamResult):
            result = await result.result()
            await self.cache._state.writes.finish(1.0)
        return result

    @property
    def calls(self):
        return [span for span in self.exporter.get_finished_spans() if not span.name.startswith("resilient_ai.")]


def links(span):
    return [(link.context, dict(link.attributes)) for link in span.links]


def to(span):
    """The links of a span that has one, to what made its answer."""
    context = SpanContext(span.context.trace_id, span.context.span_id, is_remote=True, trace_flags=TraceFlags(1))
    return [(context, {"resilient_ai.link.type": "cache_origin"})]


async def test_a_hit_is_linked_to_the_call_that_made_the_answer():
    """Every hit to the same; the call that missed has no link."""
    traced = Traced(store=MemoryStore())
    for _ in range(3):
        await traced.send(CHAT)
    made, *hits = traced.calls
    assert links(made) == []
    assert [links(hit) for hit in hits] == [to(made)] * 2
    assert len({span.context.trace_id for span in traced.calls}) == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (STREAM, STREAM),
        (STREAM, CHAT),
        (CHAT, STREAM),
        (Complete(model="m", prompt="hi", seed=1),) * 2,
        (Image(model="m", prompt="a cat", seed=1),) * 2,
    ],
    ids=lambda operation: operation.kind,
)
async def test_whatever_is_kept_as_a_whole(first, second):
    """Streams, completions and pictures as chats."""
    traced = Traced(store=MemoryStore())
    await traced.send(first)
    assert (await traced.send(second)).cache == "hit"
    made, hit = traced.calls
    assert (links(made), links(hit)) == ([], to(made))


async def test_another_process_is_linked_as_well():
    """Of two clients that share a store, each with spans of its own."""
    store = MemoryStore()
    one, other = Traced(store=store), Traced(store=store)
    await one.send(CHAT)
    await other.send(CHAT)
    assert links(other.calls[0]) == to(one.calls[0])


async def test_vectors_have_no_link():
    """A call takes many of them, from many others."""
    traced = Traced(store=MemoryStore())
    heard = []
    for _ in range(2):
        await traced.send(Embed(model="m", texts=["a", "b"]), listener=heard.append)
    assert [links(span) for span in traced.calls] == [[], []]
    assert [(event.outcome, event.filled_by) for event in heard if isinstance(event, CacheLookedUp)] == [
        ("miss", None),
        ("hit", None),
    ]


async def test_an_old_answer_is_linked_whichever_way_it_is_used():
    """Stale while a new one is fetched, and in place of an error; afterwards to the call behind which it was fetched."""
    traced = Traced(store=MemoryStore(), ttl=60.0, jitter=0.0, stale_while_revalidate=60.0)
    await traced.send(CHAT)
    await asyncio.sleep(90.0)
    assert (await traced.send(CHAT)).cache == "stale"
    await traced.cache._state.renewals.finish(1.0)
    assert (await traced.send(CHAT)).cache == "hit"
    made, stale, hit = traced.calls
    assert (links(stale), links(hit)) == (to(made), to(stale))

    spare = Traced(
        chat_result(), ServerFailed("boom", status=503), store=MemoryStore(), ttl=60.0, jitter=0.0, stale_if_error=600.0
    )
    await spare.send(CHAT)
    await asyncio.sleep(90.0)
    assert (await spare.send(CHAT)).cache == "stale"
    made, hit = spare.calls
    assert links(hit) == to(made)


async def test_entries_without_ids_are_read_as_before():
    """Those of a client that nobody traced, or whose trace nobody keeps, have the older form and no link."""
    store = MemoryStore()
    for quiet in (Pipeline(ScriptedProvider(), [Cache(store)]), Traced(store=store, sampler=ALWAYS_OFF)):
        await quiet.send(CHAT, cache=CacheControl(mode="refresh"))
        (entry,) = (await store.get_many(Cache(store).keys(_call(quiet)))).values()
        assert (entry[:1], unwrap(b"c", entry).origin) == (_cache_entry.VERSION, b"")
        traced = Traced(store=store)
        assert (await traced.send(CHAT)).cache == "hit"
        assert links(traced.calls[0]) == []


async def test_the_event_names_the_call():
    """By its `traceparent`, for listeners that write no spans."""
    traced, heard = Traced(store=MemoryStore()), []
    for _ in range(2):
        await traced.send(CHAT, listener=heard.append)
    made = traced.calls[0].context
    assert [event.filled_by for event in heard if isinstance(event, CacheLookedUp)] == [
        None,
        f"00-{made.trace_id:032x}-{made.span_id:016x}-01",
    ]


async def test_those_who_join_are_linked_to_the_call_that_looked():
    """And it alone to what had filled the entry."""
    traced = Traced(store=MemoryStore(), stack=[Coalesce()])
    await traced.send(CHAT)
    await asyncio.gather(traced.send(CHAT), traced.send(CHAT))
    made, *two = traced.calls
    kinds = [[link.attributes["resilient_ai.link.type"] for link in span.links] for span in two]
    assert sorted(kinds) == [["cache_origin"], ["coalesced_leader"]]
    assert to(made) in [links(span) for span in two]


@pytest.mark.parametrize("text", ["", "00-0-0-01", "01-" + "a" * 32 + "-" + "b" * 16 + "-01", "A" * 55])
async def test_what_is_no_traceparent_is_no_link(text):
    """A listener's fact may hold anything."""

    async def tell(call, proceed):
        call.emit(CacheLookedUp(**TOLD, filled_by=text))
        return await proceed(call)

    traced = Traced(store=MemoryStore(), stack=[tell])
    await traced.send(CHAT)
    assert links(traced.calls[0]) == []


class _Odd:
    def get_span_context(self):
        raise KeyError("no span")


@pytest.mark.parametrize(
    "span",
    [
        None,
        "text",
        INVALID_SPAN,
        _Odd(),
        NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(2))),
    ],
    ids=["none", "text", "invalid", "odd", "not sampled"],
)
def test_spans_that_nobody_keeps_have_no_ids(span):
    """A link to them would lead nowhere."""
    assert _span_origin.origin_of(span) == b""


@pytest.mark.parametrize("origin", [b"", b"short", bytes(24)])
def test_ids_that_are_none(origin):
    """Damaged or empty ones are left out."""
    assert _span_origin.traceparent(origin) is None


def _call(quiet):
    return getattr(quiet, "pipeline", quiet).provider.calls[0]
