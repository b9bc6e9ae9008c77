"""What tracing takes from the context around a call, and what it hands on: suppression, parents, trace headers, time."""

import asyncio
import contextvars
import gc

import pytest
from opentelemetry import context, trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import ConnectionFailed, ServerFailed
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import _spans
from resilient_ai.middleware.resume import Resume
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.tracing import Tracing
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, VirtualLoop, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="meta/llama", messages="hi")
STREAM = Stream(model="meta/llama", messages="hi")


class Traced:
    """A pipeline with tracing around everything, and the spans it exported."""

    def __init__(self, *script, stack=(), provider=None, clock=None, **options):
        self.exporter = InMemorySpanExporter()
        self.tracers = provider or TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.provider = ScriptedProvider(*script)
        self.pipeline = Pipeline(self.provider, [Tracing(self.tracers, **options), *stack], clock=clock or FakeClock())
        self.send = self.pipeline.send

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    @property
    def headers(self):
        return [dict(call.headers) for call in self.provider.calls]


@pytest.fixture
def within():
    """Set a value in the context of OpenTelemetry for the time of a test."""
    tokens = []

    def set_value(key, value=True):
        tokens.append(context.attach(context.set_value(key, value)))

    yield set_value
    for token in reversed(tokens):
        context.detach(token)


def remote(flags=1, **state):
    """A context with the span of whoever called us."""
    entries = TraceState(list(state.items()))
    told = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(flags), trace_state=entries)
    return trace.set_span_in_context(NonRecordingSpan(told))


# Suppression


@pytest.mark.parametrize("key", ["suppress_instrumentation", _SUPPRESS_INSTRUMENTATION_KEY], ids=["by name", "by key"])
async def test_where_nothing_is_to_be_instrumented_nothing_is_reported(key, within):
    """No span, no trace header."""
    within(key)
    traced = Traced()
    await traced.send(CHAT)
    assert (traced.spans, traced.headers) == ((), [{}])


@pytest.mark.parametrize(
    "key",
    [
        "suppress_language_model_instrumentation",
        "opentelemetry.genai.client.inference.context",
        "opentelemetry.genai.client.embedding.context",
    ],
)
async def test_a_call_that_somebody_describes_already_is_not_described_twice(key, within):
    """What is ours is reported all the same, under another name and without a key of gen_ai."""
    within(key)
    traced = Traced(backends=["grafana"], conventions="latest")
    await traced.send(CHAT, tags={"conversation": "c", "user": "ada"})
    attempt, call = traced.spans
    assert (call.name, call.kind) == ("resilient_ai.request", SpanKind.INTERNAL)
    assert not [key for key in call.attributes if key.startswith("gen_ai.")]
    assert call.attributes.items() >= {"resilient_ai.outcome": "success", "user.id": "ada", "server.port": 443}.items()
    assert attempt.parent.span_id == call.context.span_id


async def test_other_values_of_the_context_change_nothing(within):
    """Only what is set and true suppresses."""
    within("suppress_instrumentation", value=False)
    within("mine")
    traced = Traced()
    await traced.send(CHAT)
    assert [span.name for span in traced.spans] == ["resilient_ai.attempt", "chat meta/llama"]


# Trace headers


async def test_each_request_is_told_of_its_own_attempt():
    """Retries have headers of their own, all of one trace."""
    traced = Traced(ServerFailed("boom", status=503), chat_result(), stack=[Retry()])
    await traced.send(CHAT)
    first, second, _ = traced.spans
    assert traced.headers == [
        {"traceparent": f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"}
        for span in (first, second)
    ]


async def test_a_caller_may_keep_the_trace_at_home():
    """Without propagation there is no header."""
    traced = Traced(propagate=False)
    await traced.send(CHAT)
    assert (len(traced.spans), traced.headers) == (2, [{}])


async def test_what_is_not_sampled_is_told_so():
    """The provider learns that nobody keeps this trace."""
    traced = Traced(provider=TracerProvider(sampler=ALWAYS_OFF))
    await traced.send(CHAT)
    (headers,) = traced.headers
    assert (headers["traceparent"][-2:], traced.spans) in {("00", ()), ("02", ())}


async def test_the_state_of_a_trace_goes_along():
    """What another vendor wrote into it reaches the provider; headers that were there stay."""

    async def own(call, proceed):
        return await proceed(call.replace(headers={"x-own": "1"}))

    traced = Traced(stack=[own])
    token = context.attach(remote(vendor="1"))
    await traced.send(CHAT)
    context.detach(token)
    (headers,) = traced.headers
    assert (headers["tracestate"], headers["x-own"], headers["traceparent"][3:35]) == ("vendor=1", "1", f"{0xABC:032x}")


@pytest.mark.parametrize("state", ["line\nbreak", "caf\u00e9", None])
async def test_a_trace_that_cannot_be_told_fails_no_call(state):
    """A state that cannot be sent is left out; where nothing can be told there is no header."""

    class Odd(TraceState):
        def to_header(self):
            if state is None:
                raise KeyError("secret")
            return state

    told = SpanContext(0xABC, 0xDEF, is_remote=True, trace_state=Odd([("vendor", "1")]))
    traced = Traced()
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(told)))
    await traced.send(CHAT)
    context.detach(token)
    assert [headers.keys() for headers in traced.headers] == [{"traceparent"} if state else set()]


# Parents


async def test_a_stream_that_is_asked_for_again_stays_in_its_trace():
    """Whatever span its reader has by then, the new attempt belongs to the call."""

    async def breaks(call):
        source = ScriptedSource([ConnectionFailed("reset", phase="receive")])
        return StreamResult(source, model=call.model, first=[TextDelta("x")], clock=call.clock)

    async def whole(call):
        source = ScriptedSource([[Finished(("stop",))]])
        return StreamResult(source, model=call.model, first=[TextDelta("x")], clock=call.clock)

    traced = Traced(breaks, whole, stack=[Resume()])
    stream = await traced.send(STREAM.model_copy(update={"on_interrupt": "restart"}))
    with traced.tracers.get_tracer("app").start_as_current_span("reader"):
        await stream.result()
    call = next(span for span in traced.spans if span.name.startswith("chat"))
    attempts = [span for span in traced.spans if span.name == "resilient_ai.attempt"]
    assert [span.parent.span_id for span in attempts] == [call.context.span_id] * 2


async def test_two_tracings_of_one_stack_keep_their_spans_apart():
    """Each has its own call and its own attempt under it."""
    second = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(second))
    traced = Traced(stack=[Tracing(tracers)])
    await traced.send(CHAT)
    for spans in (traced.spans, second.get_finished_spans()):
        attempt, call = spans
        assert (attempt.name, attempt.parent.span_id) == ("resilient_ai.attempt", call.context.span_id)


# The end of a context


def test_a_call_that_is_collected_elsewhere_complains_of_nothing(caplog):
    """A coroutine whose loop was killed is closed in another context than it was begun in."""
    traced = Traced(3600.0)
    loop = VirtualLoop()
    loop.set_exception_handler(lambda *_: None)
    started = contextvars.copy_context().run(loop.create_task, traced.send(CHAT))
    loop.run_until_complete(asyncio.sleep(1))
    loop.close()
    del started
    gc.collect()
    assert [span.attributes["error.type"] for span in traced.spans] == ["cancelled", "cancelled"]
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


async def test_a_runtime_context_of_somebody_elses_is_let_go_its_own_way():
    """Where attaching gives something that is no variable's, detaching is all there is."""
    traced = Traced(KeyError("no"))
    tracing, attached = traced.pipeline.stack[0], []
    otel = tracing.otel()
    tracing._kept[0] = otel._replace(attach=attached.append, detach=lambda _: attached.pop())
    with pytest.raises(KeyError):
        await traced.send(CHAT)
    assert (attached, len(traced.spans)) == ([], 2)


async def test_a_forked_copy_of_a_span_is_the_parents(monkeypatch):
    """A child that inherits a stream under way does not report its end as well."""
    traced = Traced()
    stream = await traced.send(STREAM)
    monkeypatch.setattr(_spans, "_process", object())
    await stream.result()
    assert traced.spans == ()


def test_a_child_process_is_another_one(monkeypatch):
    """What is remembered of the process changes with a fork."""
    before = _spans._process
    monkeypatch.setattr(_spans, "_process", before)
    _spans._new_process()
    assert _spans._process is not before


# Time


async def test_spans_have_the_time_of_the_calls_clock():
    """In virtual time an hour is an hour, and no wall clock that is set meanwhile makes an end precede its start."""
    clock = FakeClock()
    traced = Traced(1800.0, ServerFailed("boom", status=503), 1800.0, chat_result(), stack=[Retry()], clock=clock)
    before = clock.wall()

    async def set_back(call):
        clock.offset -= 7200
        raise ServerFailed("boom", status=503)

    traced.provider.script = [1800.0, set_back, 1800.0, chat_result()]
    await traced.send(CHAT)
    first, second, call = traced.spans
    assert call.start_time == pytest.approx(before * 1e9)
    assert (first.end_time - first.start_time) / 1e9 == pytest.approx(1800)
    assert (call.end_time - call.start_time) / 1e9 == pytest.approx(3600 + clock.slept[0])
    (retry,) = call.events
    assert call.start_time <= first.start_time <= first.end_time <= retry.timestamp <= second.start_time
    assert second.end_time <= call.end_time


def test_a_clock_that_stopped_with_its_loop_leaves_the_last_known_time():
    """A stream that is found after its loop was closed ends when it was last heard of."""
    traced = Traced()
    loop = VirtualLoop()
    stream = loop.run_until_complete(traced.send(STREAM))
    loop.close()
    del stream
    gc.collect()
    attempt, call = traced.spans
    assert call.attributes["resilient_ai.stream.outcome"] == "abandoned"
    assert call.start_time <= attempt.start_time <= attempt.end_time == call.end_time


async def test_a_provider_that_has_no_tracer_to_give_fails_no_call(caplog):
    """It is asked again for the next call; the log says what could not be done, and not what it said."""

    class Broken:
        asked = 0

        def get_tracer(self, *_, **__):
            self.asked += 1
            raise KeyError("secret")

    broken = Broken()
    pipeline = Pipeline(ScriptedProvider(chat_result("a"), chat_result("b")), [Tracing(broken)])
    assert [(await pipeline.send(CHAT)).text for _ in range(2)] == ["a", "b"]
    assert broken.asked == 2
    assert "secret" not in caplog.text
