"""What an engineer sees of calls from outside: golden spans, and none that never ends."""

import asyncio
import contextlib
import gc
import json
import random
import re
from decimal import Decimal

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from resilient_ai import AsyncClient, Client
from resilient_ai._version import __version__
from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import RateLimited, ServerFailed, StreamInterrupted
from resilient_ai.core.messages import (
    AssistantMessage,
    ImagePart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from resilient_ai.core.operations import Chat, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Choice, Cost, Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import (
    Cache,
    Coalesce,
    ConcurrencyLimit,
    CostAccounting,
    Deadline,
    Hedge,
    Retry,
    Routing,
    Timeout,
    Tracing,
)
from resilient_ai.simulator import serve
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import PIXEL, FakeClock, ScriptedProvider, ScriptedSource, VirtualLoop, chat_result

from ..e2e.raw_server import RawServer  # noqa: TID252 - the tests have no package above them
from ..faults.servers import http  # noqa: TID252 - as above

pytestmark = pytest.mark.anyio

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
CHAT = Chat(model="meta/llama", messages="hi")
STREAM = Stream(model="meta/llama", messages="hi")
USAGE = Usage(input_tokens=9, output_tokens=5)
COST = Cost(amount=Decimal("0.25"), source="provider")
DONE = [Finished(("stop",), USAGE, cost=COST)]
# Everything is hedged after a second.
EAGER = Hedge(samples=1, extra=1.0, delay_min=1.0)


class Counting(SpanProcessor):
    """Counts spans without a lock, as some of them end inside of the garbage collector."""

    def __init__(self):
        self.started, self.ended = [], []

    def on_start(self, span, parent_context=None):
        self.started.append(span.context.span_id)

    def on_end(self, span):
        self.ended.append(span.context.span_id)


class Traced:
    """A pipeline with tracing around everything, and the spans it exported."""

    def __init__(self, *script, stack=(), provider=None, **options):
        self.exporter = InMemorySpanExporter()
        self.tracers = provider or TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.provider = ScriptedProvider(*script)
        self.pipeline = Pipeline(self.provider, [Tracing(self.tracers, **options), *stack], clock=FakeClock([0.5]))
        self.send = self.pipeline.send

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    @property
    def calls(self):
        return [span for span in self.spans if not span.name.startswith("resilient_ai.")]

    @property
    def attempts(self):
        return [span for span in self.spans if span.name == "resilient_ai.attempt"]


@pytest.fixture
def anyio_backend(request):
    # Sockets do not wait for virtual time.
    over_the_wire = "server" in request.node.name
    return "asyncio" if over_the_wire else ("asyncio", {"loop_factory": VirtualLoop})


def broken_off(*steps, first="x"):
    """A step of a provider: a stream with its first content, and the script of the rest."""

    async def step(call):
        return StreamResult(ScriptedSource(steps), model=call.model, first=[TextDelta(first)], clock=call.clock)

    return step


def links_of(span):
    return [(link.context.span_id, dict(link.attributes)) for link in span.links]


# 1

COMMON = {
    "gen_ai.operation.name": str,
    "gen_ai.provider.name": str,
    "gen_ai.request.model": str,
    "gen_ai.response.model": str,
    "server.address": str,
    "server.port": int,
    "resilient_ai.call.id": str,
    "resilient_ai.attempts": int,
    "resilient_ai.outcome": str,
    "resilient_ai.cost.complete": bool,  # nobody knows what these cost
}
PRICED = {"resilient_ai.cost.amount": float, "resilient_ai.cost.currency": str, "resilient_ai.cost.source": str}
ANSWERED = COMMON | {
    "gen_ai.response.finish_reasons": tuple,
    "gen_ai.usage.input_tokens": int,
    "gen_ai.usage.output_tokens": int,
}
STREAMED = ANSWERED | {
    "gen_ai.request.stream": bool,
    "gen_ai.response.time_to_first_chunk": float,
    "resilient_ai.stream.chunks": int,
    "resilient_ai.stream.outcome": str,
    "resilient_ai.stream.time_to_first_content": float,
}
EMBEDDED = COMMON | {
    "gen_ai.embeddings.dimension.count": int,
    "gen_ai.usage.input_tokens": int,
    "resilient_ai.request.batch_size": int,
}
DRAWN = COMMON | {"gen_ai.output.type": str, "resilient_ai.image.count": int}


@pytest.mark.parametrize(
    ("operation", "name", "golden"),
    [
        (CHAT, "chat meta/llama", ANSWERED),
        (STREAM, "chat meta/llama", STREAMED),
        (Embed(model="m", texts=["a", "b"]), "embeddings m", EMBEDDED),
        (Image(model="m", prompt="p"), "generate_content m", DRAWN),
    ],
    ids=["chat", "stream", "embeddings", "image"],
)
async def test_golden_span(operation, name, golden):
    """The span of each operation has exactly these attributes, of these types, and a name, kind and scope."""
    traced = Traced(stack=[Deadline(), Retry(), CostAccounting(), Timeout()])
    result = await traced.send(operation)
    if operation is STREAM:
        await result.result()
    (call,), (attempt,) = traced.calls, traced.attempts
    assert {key: type(value) for key, value in call.attributes.items()} == golden
    assert (call.name, call.kind, call.status.status_code) == (name, SpanKind.CLIENT, StatusCode.UNSET)
    assert {key: type(value) for key, value in attempt.attributes.items()} == {
        "resilient_ai.attempt.kind": str,
        "resilient_ai.attempt.model": str,
        "resilient_ai.attempt.number": int,
        "resilient_ai.attempt.outcome": str,
        "resilient_ai.attempt.previous_attempts": int,
    }
    assert (attempt.kind, attempt.parent.span_id) == (SpanKind.INTERNAL, call.context.span_id)
    for span in traced.spans:
        scope = span.instrumentation_scope
        assert (scope.name, scope.version, scope.schema_url) == (
            "resilient_ai",
            __version__,
            "https://opentelemetry.io/schemas/1.41.1",
        )


# 2


async def test_a_sampler_decides_by_five_attributes():
    """What a sampler may decide by is there when it is asked."""
    seen = []

    class Recording(Sampler):
        def should_sample(self, parent_context, trace_id, name, *others, **options):
            seen.append((name, dict(others[1])))
            return ALWAYS_ON.should_sample(parent_context, trace_id, name, *others, **options)

        def get_description(self):
            return "Recording"

    await Traced(provider=TracerProvider(sampler=Recording())).send(CHAT)
    assert seen[0] == (
        "chat meta/llama",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "deepinfra",
            "gen_ai.request.model": "meta/llama",
            "server.address": "scripted.test",
            "server.port": 443,
        },
    )


# 3


async def test_a_retry_that_helped_leaves_the_call_without_an_error():
    """429, then an answer: the call is fine, its first attempt is not, and there is one event between them."""
    traced = Traced(RateLimited("slow", status=429), chat_result(), stack=[Retry()])
    await traced.send(CHAT)
    (call,), (first, second) = traced.calls, traced.attempts
    assert (call.status.status_code, call.attributes["resilient_ai.attempts"]) == (StatusCode.UNSET, 2)
    assert not {"error.type", "resilient_ai.retry.stop_reason"} & call.attributes.keys()
    assert (first.status.status_code, first.attributes["error.type"]) == (StatusCode.ERROR, "429")
    assert (second.status.status_code, second.attributes["resilient_ai.attempt.kind"]) == (StatusCode.UNSET, "retry")
    assert [event.name for event in call.events] == ["resilient_ai.retry"]
    assert first.end_time < call.events[0].timestamp + 1 <= second.start_time


# 4


async def test_a_fallback_shows_on_the_call_and_attempts_know_nothing_of_models_and_tokens():
    """The model that answered is another one than was asked, and no other span has a key of gen_ai."""
    traced = Traced(ServerFailed("boom", status=503), chat_result(model="small"), stack=[Routing(), Retry(attempts=1)])
    await traced.send(Chat(model=["large", "small"], messages="hi"))
    (call,) = traced.calls
    asked, answered = call.attributes["gen_ai.request.model"], call.attributes["gen_ai.response.model"]
    assert (asked, answered, call.attributes["resilient_ai.fallback.model"]) == ("large", "small", "small")
    assert [span.attributes["resilient_ai.attempt.kind"] for span in traced.attempts] == ["initial", "fallback"]
    others = [span for span in traced.spans if span is not call]
    assert len(others) == 2
    assert not [key for span in others for key in span.attributes if key.startswith("gen_ai.")]


# 5


async def test_of_two_requests_for_one_answer_the_loser_is_no_error():
    """The loser ends unset and lost, the second knows the first, and what both cost shows on the call."""
    traced = Traced(0.1, chat_result(cost=COST), stack=[Retry(hedge=EAGER), CostAccounting()])
    await traced.send(CHAT)
    traced.exporter.clear()
    # Both have an answer at the same moment, two seconds in.
    traced.provider.script = [_after(2.0), _after(1.0)]
    await traced.send(CHAT)
    (call,), attempts = traced.calls, sorted(traced.attempts, key=lambda span: span.start_time)
    first, second = attempts
    outcomes = {span.attributes["resilient_ai.attempt.outcome"] for span in attempts}
    assert outcomes == {"won", "lost"}
    assert [span.status.status_code for span in attempts] == [StatusCode.UNSET, StatusCode.UNSET]
    assert [span.attributes["resilient_ai.attempt.kind"] for span in attempts] == ["initial", "hedge"]
    assert links_of(second) == [(first.context.span_id, {"resilient_ai.link.type": "hedge_sibling"})]
    (winner,) = [span for span in attempts if span.attributes["resilient_ai.attempt.outcome"] == "won"]
    attributes = call.attributes
    assert (attributes["resilient_ai.hedges"], attributes["resilient_ai.hedge.winner"]) == (
        1,
        winner.attributes["resilient_ai.attempt.number"],
    )
    assert (attributes["resilient_ai.cost.amount"], attributes["resilient_ai.cost.wasted"]) == (0.5, 0.25)
    assert attributes["resilient_ai.usage.discarded_input_tokens"] == 10


def _after(seconds):
    async def step(call):
        await asyncio.sleep(seconds)
        return chat_result(cost=COST)

    return step


# 6


async def test_a_hit_of_the_cache_and_a_follower_count_no_tokens():
    """An answer that nobody sent for has no usage; whoever waited for another's call has one link to its span, a hit has one
    to the call that filled the entry.
    """
    asked = Chat(model="meta/llama", messages="hi", seed=1)
    traced = Traced(1.0, chat_result(cost=COST), stack=[Coalesce(), Cache(MemoryStore())])
    await asyncio.gather(traced.send(asked), traced.send(asked))
    await traced.send(asked)
    calls = {span.attributes["resilient_ai.cache.outcome"]: span for span in traced.calls}
    assert calls.keys() == {"miss", "joined", "hit"}
    leader = calls.pop("miss")
    assert [links_of(calls["joined"]), links_of(calls["hit"])] == [
        [(leader.context.span_id, {"resilient_ai.link.type": "coalesced_leader"})],
        [(leader.context.span_id, {"resilient_ai.link.type": "cache_origin"})],
    ]
    for span in calls.values():
        assert not [key for key in span.attributes if key.startswith("gen_ai.usage.")]
        assert span.attributes["resilient_ai.cost.amount"] == 0
    (attempt,) = traced.attempts
    assert attempt.parent.span_id == leader.context.span_id


# 7


async def drained(stream):
    async for _ in stream:
        pass


async def asked_for_the_whole(stream):
    await stream.result()


async def left_and_closed(stream):
    async for _ in stream:
        break
    await stream.aclose()


async def left_the_block(stream):
    async with stream:
        async for _ in stream:
            break


async def left_to_the_collector(stream):
    async for _ in stream:
        break


async def never_read(stream):
    pass


async def closed_by_another_task(stream):
    await asyncio.create_task(stream.aclose())


async def cancelled_while_reading(stream):
    task = asyncio.create_task(drained(stream))
    await asyncio.sleep(0.1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def failed_in_the_reader(stream):
    with contextlib.suppress(KeyError):
        async with stream:
            raise KeyError("mine")


async def broke(stream):
    with pytest.raises(StreamInterrupted):
        await drained(stream)


EXITS = {
    drained: ("completed", None),
    asked_for_the_whole: ("completed", None),
    left_and_closed: ("abandoned", None),
    left_the_block: ("abandoned", None),
    left_to_the_collector: ("abandoned", None),
    never_read: ("abandoned", None),
    closed_by_another_task: ("abandoned", None),
    cancelled_while_reading: ("cancelled", "cancelled"),
    failed_in_the_reader: ("abandoned", None),
    broke: ("interrupted", "stream_interrupted"),
}


@pytest.mark.parametrize("leave", EXITS, ids=lambda leave: leave.__name__)
async def test_every_exit_of_a_stream_ends_its_spans_once(leave, caplog):
    """Ten ways to leave a stream: each ends what it started, once, and leaves the reader's own context alone."""
    rest = [1.0, ServerFailed("boom", status=500)] if leave is broke else [1.0, [TextDelta("y")], DONE]
    counting, tracers = Counting(), TracerProvider()
    tracers.add_span_processor(counting)
    traced = Traced(broken_off(*rest), provider=tracers)
    before = trace.get_current_span()
    stream = await traced.send(STREAM)
    assert counting.ended == []
    await leave(stream)
    del stream
    gc.collect()
    await asyncio.sleep(0)
    assert sorted(counting.started) == sorted(counting.ended)
    assert len(counting.ended) == 2
    (call,) = traced.calls
    outcome, error = EXITS[leave]
    assert (call.attributes["resilient_ai.stream.outcome"], call.attributes.get("error.type")) == (outcome, error)
    assert call.status.status_code is (StatusCode.ERROR if error else StatusCode.UNSET)
    assert trace.get_current_span() is before
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


@pytest.fixture(scope="module")
def simulator():
    with serve() as sim:
        yield sim


@pytest.mark.parametrize("how", ["drained", "whole", "closed", "block", "collector", "never read", "own error"])
def test_every_exit_of_a_blocking_stream_ends_its_spans_once(how, simulator, caplog):
    """The same without await, over a real connection."""
    counting, tracers = Counting(), TracerProvider()
    tracers.add_span_processor(counting)
    with Client("k", base_url=simulator.base_url, stack=[Tracing(tracers), Deadline(), Timeout()]) as ai:
        stream = ai.stream(LLAMA, "Tell me of the sea.", max_tokens=40)
        if how == "whole":
            stream.result()
        elif how in {"block", "own error"}:
            with contextlib.suppress(KeyError), stream:
                next(iter(stream))
                if how == "own error":
                    raise KeyError("mine")
        elif how != "never read":
            for _ in stream:
                if how != "drained":
                    break
        if how == "closed":
            stream.close()
        del stream
        gc.collect()
    assert sorted(counting.started) == sorted(counting.ended)
    assert len(counting.ended) == 2
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


# 9

# Of each kind of part, what it must have.
PARTS = {
    "text": {"content"},
    "reasoning": {"content"},
    "tool_call": {"name", "id", "arguments"},
    "tool_call_response": {"response", "id"},
    "uri": {"modality", "uri"},
    "blob": {"modality", "content"},
}
FINISHED = {"stop", "length", "content_filter", "tool_call", "error"}


def is_by_the_table(inputs, outputs):
    """Check messages against the table of parts; return the kinds that were seen."""
    seen = set()
    for message in [*inputs, *outputs]:
        assert message["role"] in {"system", "user", "assistant", "tool"}
        for part in message["parts"]:
            assert PARTS[part["type"]] <= part.keys()
            seen.add(part["type"])
    assert {message["finish_reason"] for message in outputs} <= FINISHED
    return seen


def tides(port: str) -> str:
    """Look up the tides of a port."""
    return port


TALK = [
    SystemMessage(content="Be brief."),
    UserMessage(
        content=[
            TextPart(text="w" * 500),
            ImagePart(url="https://example.org/sea.png"),
            ImagePart.of(PIXEL),
        ]
    ),
    AssistantMessage(tool_calls=[ToolCall(id="t1", name="tides", arguments='{"port": "Brest"}')]),
    ToolMessage(content="high", tool_call_id="t1"),
]


@pytest.mark.parametrize("capture", ["none", "spans", "events", "both"])
async def test_what_was_said_is_by_the_table(capture):
    """As JSON on the span, structured on the event, cut to size, and without a None; by default nowhere."""
    records, loggers = InMemoryLogRecordExporter(), LoggerProvider()
    loggers.add_log_record_processor(SimpleLogRecordProcessor(records))
    called = ToolCall(id="t2", name="tides", arguments='{"port": null}')
    answer = chat_result(
        choices=(Choice(reasoning="Hm.", text="v" * 500, tool_calls=(called,), finish_reason="tool_calls"),)
    )
    traced = Traced(answer, capture=capture, longest_part=100, logger_provider=loggers)
    await traced.send(Chat(model="m", messages=TALK, tools=[tides]))
    (call,) = traced.calls
    events = [dict(record.log_record.attributes) for record in records.get_finished_logs()]
    keys = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.definitions")
    assert ({key in call.attributes for key in keys}, len(events)) == (
        {capture in {"spans", "both"}},
        capture in {"events", "both"},
    )
    told = [[json.loads(call.attributes[key]) for key in keys]] if capture in {"spans", "both"} else []
    told += [json.loads(json.dumps([event[key] for key in keys], default=_plain)) for event in events]
    for inputs, outputs, tools in told:
        assert is_by_the_table(inputs, outputs) == PARTS.keys()
        assert tools == [{"type": "function", "name": "tides"}]
        texts = [part["content"] for message in [*inputs, *outputs] for part in message["parts"] if "content" in part]
        assert max(map(len, texts)) < 150
    assert not [key for attributes in (call.attributes, *events) for key, value in attributes.items() if value is None]


def _plain(value):
    return dict(value) if hasattr(value, "keys") else list(value)


# 15


@pytest.mark.parametrize("conventions", ["1.41", "latest", "both"])
async def test_every_number_of_usage_is_one_that_langfuse_knows(conventions):
    """Langfuse takes each unknown number under gen_ai.usage for more tokens, so there is none."""
    usage = Usage(input_tokens=9, output_tokens=5, cached_tokens=4, cache_write_tokens=2, reasoning_tokens=1)
    traced = Traced(chat_result(usage=usage, cost=COST), conventions=conventions, backends=["langfuse", "grafana"])
    await traced.send(CHAT)
    (call,) = traced.calls
    known = {"input_tokens", "output_tokens", "cache_read.input_tokens", "cache_creation.input_tokens"}
    numbers = {key.removeprefix("gen_ai.usage.") for key in call.attributes if key.startswith("gen_ai.usage.")}
    assert numbers == known | {"reasoning.output_tokens", "cost"}
    assert json.loads(call.attributes["langfuse.observation.cost_details"]) == {"total": 0.25}


# What is started is ended


def a_script(chance):
    """Return what the provider does for one call: answers, fails, thinks, streams, breaks off."""
    plans = [
        [chat_result(cost=COST)],
        [3.0, chat_result()],
        [ServerFailed("boom", status=503), 0.5, chat_result()],
        [3600.0],
        [KeyError("ours")],
    ]
    rests = [[0.5, [TextDelta("y")], DONE], [3600.0], [0.2, ServerFailed("boom", status=500)], [DONE]]
    return chance.choice(plans), broken_off(*chance.choice(rests))


async def a_call(chance, pipeline, kept):
    """Send one call and treat it badly."""
    script, stream = a_script(chance)
    streams = chance.random() < 0.5
    pipeline.provider.script = [stream] * 3 if streams else script * 3
    operation = STREAM if streams else chance.choice([CHAT, Chat(model="meta/llama", messages="hi", seed=1)])
    result = await pipeline.send(operation)
    if not isinstance(result, StreamResult):
        return
    how = chance.randrange(4)
    if how == 0:
        await result.result()
    elif how == 1:
        async for _ in result:
            break
        await result.aclose()
    elif how == 2:
        kept.append(result)  # nobody reads it, and nobody closes it


def a_life(chance, tracers):
    """Run a few calls at once on a loop of their own, and take it down in one of several ways."""
    stack = [
        Tracing(tracers),
        Deadline(total=30.0),
        Coalesce(),
        Retry(attempts=2, hedge=Hedge(samples=1, extra=1.0, delay_min=0.1)),
        ConcurrencyLimit(limit=2),
        CostAccounting(),
        Timeout(),
    ]
    loop = VirtualLoop()
    loop.set_exception_handler(lambda *_: None)
    pipeline, kept = Pipeline(ScriptedProvider(), stack, clock=FakeClock([0.5])), []

    async def calls():
        tasks = [asyncio.create_task(a_call(chance, pipeline, kept)) for _ in range(5)]
        for task in tasks:
            await asyncio.sleep(chance.choice([0.0, 0.0, 0.3, 2.0]))
            if chance.random() < 0.4:
                task.cancel()
                if chance.random() < 0.3:
                    await asyncio.sleep(0)
                    task.cancel()
        if how == "waited for":
            await asyncio.gather(*tasks, return_exceptions=True)

    async def cancel_all():
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    how = chance.choice(["waited for", "shut down", "killed"])
    loop.run_until_complete(calls())
    if how == "shut down":
        loop.run_until_complete(cancel_all())
    kept.clear()
    if how != "killed":
        gc.collect()
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()


# A coroutine of a dead loop may be collected while the one inside of it is being closed, of which Python complains.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(4))
def test_as_many_spans_end_as_were_started_whatever_becomes_of_calls(seed, caplog):
    """1,000 calls are cancelled, cancelled twice, left to the collector, or lose their loop; each of their spans ends once."""
    chance, counting, tracers = random.Random(seed), Counting(), TracerProvider()
    tracers.add_span_processor(counting)
    gc.collect()
    gc.freeze()  # so that only what they leave is looked at
    try:
        for _ in range(50):
            a_life(chance, tracers)
            gc.collect()
    finally:
        gc.unfreeze()
    assert len(counting.started) > 300
    assert sorted(counting.started) == sorted(counting.ended)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")] == []


# Over the wire


async def test_a_server_is_told_of_the_attempt_that_asks_it():
    """Each request carries the trace and the attempt that sent it, also one over a real connection; baggage stays at home."""
    failed, answered = http(b"{}", "503 Service Unavailable"), http()
    answers = [failed, answered]

    async def answer(writer):
        writer.write(answers.pop(0))
        await writer.drain()

    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    token = context.attach(baggage.set_baggage("secret", "CANARY"))
    try:
        async with RawServer(answer) as server:
            stack = [Tracing(tracers), Retry(wait_initial=0.01, wait_max=0.01), CostAccounting()]
            async with AsyncClient("k", base_url=server.url, stack=stack) as ai:
                await ai.chat(LLAMA, "hi")
    finally:
        context.detach(token)
    attempts = [span for span in exporter.get_finished_spans() if span.name == "resilient_ai.attempt"]
    told = [re.findall(rb"traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-0[13]\r", head) for head, _ in server.requests]
    assert told == [[(b"%032x" % span.context.trace_id, b"%016x" % span.context.span_id)] for span in attempts]
    assert len(told) == 2
    assert not [head for head, _ in server.requests if b"baggage" in head or b"CANARY" in head]
