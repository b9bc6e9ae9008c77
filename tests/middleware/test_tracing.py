"""Tracing: one span per call, one per attempt, each ended once, and nothing in them that nobody should read."""

import asyncio
import gc
import json
import subprocess
import sys
from decimal import Decimal

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import (
    AttemptTimeout,
    AuthenticationFailed,
    BudgetExceeded,
    BudgetUnavailable,
    CircuitOpen,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidResponse,
    LimitReached,
    NoModelAvailable,
    OutputInvalid,
    PriceUnknown,
    RateLimited,
    ResilientAIError,
    ServerFailed,
    StreamInterrupted,
)
from resilient_ai.core.events import (
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    HedgeSent,
    ModelSkipped,
    PermitGranted,
    RetryScheduled,
    StreamResumed,
)
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Operation, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Choice, Cost, Result, Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import _telemetry_faults
from resilient_ai.middleware.cache import Cache
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.timeout import Timeout
from resilient_ai.middleware.tracing import Tracing
from resilient_ai.testing import PIXEL, FakeClock, ScriptedProvider, ScriptedSource, chat_result

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def fresh_faults(monkeypatch):
    """Every test sees the first fault of its kind."""
    monkeypatch.setattr(_telemetry_faults, "_known", set())


CHAT = Chat(model="meta/llama", messages="hi")
STREAM = Stream(model="meta/llama", messages="hi")
START = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "deepinfra",
    "gen_ai.request.model": "meta/llama",
    "server.address": "scripted.test",
    "server.port": 443,
}


class Traced:
    """A pipeline with tracing around everything, and the spans it exported."""

    def __init__(self, *script, stack=(), clock=None, provider=None):
        self.exporter = InMemorySpanExporter()
        self.tracers = provider or TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.provider = ScriptedProvider(*script)
        self.pipeline = Pipeline(self.provider, [Tracing(self.tracers), *stack], clock=clock)
        self.send = self.pipeline.send

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    @property
    def call(self):
        """The only span of a call."""
        (span,) = [span for span in self.spans if span.name != "resilient_ai.attempt"]
        return span

    @property
    def attempts(self):
        return [span for span in self.spans if span.name == "resilient_ai.attempt"]


class Store(dict):
    async def get_many(self, keys):
        return {key: self[key] for key in keys if key in self}

    async def set_many(self, entries, *, ttl=None):
        self.update(entries)


def streaming(*steps):
    return StreamResult(ScriptedSource(steps), model="meta/llama", first=[TextDelta("x")], clock=FakeClock())


def ours(span):
    """Return what is always there and differs from call to call, taken off."""
    return {name: value for name, value in span.attributes.items() if name != "resilient_ai.call.id"}


async def test_a_chat_in_full():
    """The span of a chat has exactly these attributes."""
    usage = Usage(input_tokens=9, output_tokens=5, cached_tokens=4, cache_write_tokens=2, reasoning_tokens=1)
    answer = chat_result(
        model="meta/llama-2",
        usage=usage,
        request_id="r1",
        cost=Cost(amount=Decimal("0.25"), source="provider"),
        choices=(Choice(finish_reason="stop"), Choice(index=1, finish_reason="length")),
    )
    traced = Traced(answer)
    asked = Chat(
        model="meta/llama", messages="hi", n=2, seed=7, top_k=5, top_p=0.5, max_tokens=9, temperature=0.5, stop="x",
        frequency_penalty=0.1, presence_penalty=0.2, reasoning_effort="low", service_tier="flex",
        response_format="json_object",
    )  # fmt: skip
    await traced.send(asked, tags={"user": "ada", "session": "s", "tenant": "t", "feature": "f"})
    span = traced.call
    assert (span.name, span.kind, span.parent, span.status.status_code) == (
        "chat meta/llama", SpanKind.CLIENT, None, StatusCode.UNSET,
    )  # fmt: skip
    assert (span.instrumentation_scope.name, span.instrumentation_scope.schema_url) == (
        "resilient_ai", "https://opentelemetry.io/schemas/1.41.1",
    )  # fmt: skip
    assert ours(span) == START | {
        "gen_ai.output.type": "json",
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.seed": 7,
        "gen_ai.request.top_k": 5,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.frequency_penalty": 0.1,
        "gen_ai.request.presence_penalty": 0.2,
        "gen_ai.request.stop_sequences": ("x",),
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.response.id": "r1",
        "gen_ai.response.model": "meta/llama-2",
        "gen_ai.response.finish_reasons": ("stop", "length"),
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.cache_creation.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 1,
        "user.id": "ada",
        "session.id": "s",
        "resilient_ai.tenant": "t",
        "resilient_ai.request.service_tier": "flex",
        "resilient_ai.attempts": 1,
        "resilient_ai.outcome": "success",
        "resilient_ai.cost.amount": 0.25,
        "resilient_ai.cost.currency": "USD",
        "resilient_ai.cost.source": "provider",
    }


@pytest.mark.parametrize(
    ("operation", "name", "special"),
    [
        (Complete(model="m", prompt="hi"), "text_completion m", {"gen_ai.response.finish_reasons": ("stop",)}),
        (
            Embed(model="m", texts=["a", "b"], encoding="float", dimensions=32),
            "embeddings m",
            {
                "resilient_ai.request.batch_size": 2,
                "gen_ai.embeddings.dimension.count": 4,
                "gen_ai.request.encoding_formats": ("float",),
                "gen_ai.usage.input_tokens": 2,
            },
        ),
        (
            Image(model="m", prompt="p", n=2, seed=2**64 - 1, size="640x480"),
            "generate_content m",
            {
                "gen_ai.output.type": "image",
                "gen_ai.request.choice.count": 2,
                "resilient_ai.image.size": "640x480",
                "resilient_ai.image.count": 2,
            },
        ),
        (Image(model="m", prompt="p"), "generate_content m", {"resilient_ai.image.count": 1}),
        (Embed(model="m", texts="a"), "embeddings m", {"resilient_ai.request.batch_size": 1}),
    ],
    ids=repr,
)
async def test_other_operations(operation, name, special):
    """Every operation has its name and its own attributes; a seed that no span can hold is left out."""
    traced = Traced()
    await traced.send(operation)
    assert traced.call.name == name
    assert special.items() <= traced.call.attributes.items()
    assert "gen_ai.request.seed" not in traced.call.attributes


async def test_a_sampler_sees_the_five_attributes():
    """What samplers decide by is there when the span starts."""
    seen = []

    class Look(SpanProcessor):
        def on_start(self, span, parent_context=None):
            seen.append(dict(span.attributes))

    traced = Traced()
    traced.tracers.add_span_processor(Look())
    await traced.send(CHAT)
    assert seen[0] == START


@pytest.mark.parametrize(
    ("origin", "server"),
    [("http://localhost:8080/v1", ("localhost", 8080)), ("http://h", ("h", 80)), ("nowhere", (None, None))],
)
async def test_server(origin, server):
    """Address and port come from the origin."""
    traced = Traced()
    traced.provider.origin = origin
    await traced.send(CHAT)
    assert (traced.call.attributes.get("server.address"), traced.call.attributes.get("server.port")) == server


async def test_attempts_are_children_and_bear_their_own_errors(clock):
    """A call that succeeded at the second try shows no error itself; its first attempt does."""
    traced = Traced(
        RateLimited("slow", status=429, retry_after=3.0),
        AttemptTimeout(timer="idle", elapsed=2),
        stack=[Retry(attempts=3), CostAccounting()],
        clock=clock,
    )
    await traced.send(CHAT)
    call, attempts = traced.call, traced.attempts
    assert (call.status.status_code, call.attributes["resilient_ai.attempts"], call.attributes["resilient_ai.retries"]) == (
        StatusCode.UNSET, 3, 2,
    )  # fmt: skip
    assert "error.type" not in call.attributes
    assert [dict(span.attributes) for span in attempts] == [
        {
            "resilient_ai.attempt.number": number,
            "resilient_ai.attempt.kind": "initial" if number == 1 else "retry",
            "resilient_ai.attempt.model": "meta/llama",
            "resilient_ai.attempt.previous_attempts": number - 1,
            **special,
        }
        for number, special in enumerate(
            [
                {
                    "error.type": "429",
                    "http.response.status_code": 429,
                    "resilient_ai.error.class": "RateLimited",
                    "resilient_ai.attempt.outcome": "error",
                },
                {
                    "error.type": "timeout",
                    "resilient_ai.timeout.phase": "idle",
                    "resilient_ai.error.class": "AttemptTimeout",
                    "resilient_ai.attempt.outcome": "error",
                },
                {"resilient_ai.attempt.outcome": "success"},
            ],
            start=1,
        )
    ]
    assert [span.status.status_code for span in attempts] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert {span.parent.span_id for span in attempts} == {call.context.span_id}
    assert {span.kind for span in attempts} == {SpanKind.INTERNAL}
    retries = [event for event in call.events if event.name == "resilient_ai.retry"]
    assert dict(retries[0].attributes) == {
        "resilient_ai.attempt.number": 1,
        "resilient_ai.retry.delay": clock.slept[0],
        "resilient_ai.retry.delay_source": "retry_after",
        "error.type": "429",
    }
    assert retries[1].attributes["resilient_ai.retry.delay_source"] == "backoff"


async def test_facts_on_the_way_are_events_of_the_span():
    """A skipped model and every turn of a breaker are on the span of the call they happened in."""
    told = {"call_id": "c", "model": "m"}
    facts = [
        ModelSkipped(**told, next_model="n", error=CircuitOpen(model="m", retry_after=1)),
        CircuitOpened(**told, retry_after=5),
        CircuitHalfOpened(**told),
        CircuitClosed(**told),
        StreamResumed(**told, how="restart", number=1, error=KeyError("CANARY")),
        HedgeSent(**told, after=1.5),
        PermitGranted(**told, waited=0),
    ]

    async def tell(call, proceed):
        for fact in facts:
            call.emit(fact)
        return await proceed(call.replace(operation=call.operation.on("n")))

    traced = Traced(stack=[tell])
    await traced.send(CHAT)
    assert [(event.name, dict(event.attributes)) for event in traced.call.events] == [
        (
            "resilient_ai.fallback",
            {"resilient_ai.fallback.from": "m", "resilient_ai.fallback.to": "n", "error.type": "circuit_open"},
        ),
        *[
            (
                "resilient_ai.circuit_breaker.transition",
                {"resilient_ai.circuit_breaker.name": "m", "resilient_ai.circuit_breaker.state": state},
            )
            for state in ("open", "half_open", "closed")
        ],
        (
            "resilient_ai.stream_resumed",
            {
                "resilient_ai.stream_resumed.how": "restart",
                "resilient_ai.stream_resumed.number": 1,
                "error.type": "_OTHER",
            },
        ),
        ("resilient_ai.hedge", {"resilient_ai.attempt.number": 1, "resilient_ai.hedge.delay": 1.5}),
    ]
    assert traced.call.attributes["resilient_ai.fallback.model"] == "n"
    assert traced.attempts[0].attributes["resilient_ai.attempt.kind"] == "fallback"


async def test_facts_after_the_end_are_passed_over(caplog):
    """A fact that comes when the span is over is not written to it."""
    kept = []

    async def keep(call, proceed):
        kept.append(call)
        return await proceed(call)

    traced = Traced(stack=[keep])
    await traced.send(CHAT)
    error = KeyError("late")
    kept[0].emit(RetryScheduled(call_id="c", model="m", attempt=1, wait=1, error=error, retry_after=None))
    assert (len(traced.call.events), caplog.records) == (0, [])


@pytest.mark.parametrize(
    ("error", "kind", "outcome"),
    [
        (AuthenticationFailed("no", status=401), "401", "error"),
        (AttemptTimeout(timer="connect", elapsed=1), "timeout", "error"),
        (DeadlineExceeded(timeout=1, elapsed=1, sent=True), "timeout", "error"),
        (TimeoutError(), "timeout", "error"),
        (ConnectionFailed("no", phase="dns"), "connection_error", "error"),
        (StreamInterrupted("no", partial=None), "stream_interrupted", "error"),
        (InvalidResponse("no"), "invalid_response", "error"),
        (OutputInvalid("no", raw="no"), "invalid_response", "error"),
        (CircuitOpen(model="m", retry_after=1), "circuit_open", "refused"),
        (BudgetExceeded("no", spent=1, limit=1), "budget_exceeded", "refused"),
        (BudgetUnavailable("no", budget="b"), "budget_unavailable", "refused"),
        (PriceUnknown("no", model="m"), "price_unknown", "refused"),
        (LimitReached("no", limit=1), "limit_reached", "refused"),
        (LimitReached("no", limit=1, limiter="rate"), "rate_limit_local", "refused"),
        (LimitReached("no", limit=1, limiter="concurrency"), "queue_full", "refused"),
        (NoModelAvailable({}), "no_route", "refused"),
        (KeyError("no"), "_OTHER", "error"),
        (asyncio.CancelledError(), "cancelled", "cancelled"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
async def test_failures(error, kind, outcome):
    """A failed call has status ERROR without a word, a type out of a closed list, and ends once with its attempt."""
    traced = Traced(error)
    with pytest.raises(type(error)):
        await traced.send(CHAT)
    for span in (traced.call, *traced.attempts):
        assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, None, ())
        assert (span.attributes["error.type"], span.attributes["resilient_ai.error.class"]) == (
            kind,
            type(error).__name__,
        )
    assert traced.call.attributes["resilient_ai.outcome"] == outcome
    assert traced.call.attributes["server.address"] == "scripted.test"
    assert len(traced.spans) == 2


async def test_a_cancelled_call_ends_its_spans():
    """Cancelled while the service thinks, both spans end at once."""
    traced = Traced(3600.0)
    task = asyncio.create_task(traced.send(CHAT))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [span.attributes["error.type"] for span in traced.spans] == ["cancelled", "cancelled"]


async def test_a_call_that_is_dropped_unfinished_ends_its_spans(caplog):
    """A coroutine that is thrown away while it waits detaches cleanly, and ends its spans in the next turn of the loop."""
    traced = Traced(3600.0)
    call = traced.send(CHAT)
    call.send(None)
    call.close()
    await asyncio.sleep(0)
    assert [span.attributes["error.type"] for span in traced.spans] == ["cancelled", "cancelled"]
    assert caplog.records == []


@pytest.mark.parametrize("stack", [[Deadline(total=5.0)], [Timeout(attempt=5.0)]], ids=["call", "attempt"])
async def test_an_attempt_that_a_timer_of_the_stack_ends_took_too_long(stack, clock):
    """It is cancelled like one whose caller leaves, and is told as what it is: an error."""
    traced = Traced(60.0, stack=stack, clock=clock)
    with pytest.raises(ResilientAIError):
        await traced.send(CHAT)
    (attempt,) = traced.attempts
    found = {name: attempt.attributes[name] for name in ("resilient_ai.attempt.outcome", "error.type")}
    assert found == {"resilient_ai.attempt.outcome": "error", "error.type": "timeout"}
    assert attempt.status.status_code is StatusCode.ERROR


async def test_an_attempt_whose_caller_leaves_is_cancelled(clock):
    """However much time it had."""
    traced = Traced(60.0, stack=[Deadline(total=50.0), Timeout(attempt=40.0)], clock=clock)
    task = asyncio.create_task(traced.send(CHAT))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert traced.attempts[0].attributes["error.type"] == "cancelled"


@pytest.mark.parametrize(
    "how", ["completed", "closed", "failed", "abandoned", "cancelled", "own error", "foreign task"]
)
async def test_every_end_of_a_stream_ends_its_spans_once(how, caplog):
    """However a stream ends, its spans end with it, once, and the caller's context is untouched."""
    steps = {
        "completed": [[Finished(("stop",), Usage(input_tokens=1, output_tokens=2))]],
        "failed": [ServerFailed("boom", status=500)],
    }
    traced = Traced(2.0, streaming(*steps.get(how, [3600.0])), clock=FakeClock())
    before = trace.get_current_span()
    stream = await traced.send(STREAM)
    assert traced.spans == ()
    assert trace.get_current_span() is before
    if how == "completed":
        await stream.result()
    elif how == "closed":
        await stream.aclose()
        await stream.aclose()
    elif how == "failed":
        with pytest.raises(StreamInterrupted):
            await stream.result()
    elif how == "cancelled":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await stream.result()
    elif how == "own error":
        with pytest.raises(KeyError):
            async with stream:
                raise KeyError("mine")
    elif how == "foreign task":
        await asyncio.create_task(stream.aclose())
    del stream
    gc.collect()
    await asyncio.sleep(0)  # what the collector finds is told by the loop
    expected = {
        "completed": ("success", "completed", None),
        "failed": ("error", "interrupted", "stream_interrupted"),
        "cancelled": ("cancelled", "cancelled", "cancelled"),
    }.get(how, ("abandoned", "abandoned", None))
    attributes = traced.call.attributes
    found = [attributes.get(f"resilient_ai.{name}") for name in ("outcome", "stream.outcome")]
    assert (*found, attributes.get("error.type")) == expected
    assert attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(2.0)
    assert attributes["gen_ai.request.stream"] is True
    assert attributes.get("gen_ai.response.finish_reasons") == (("stop",) if how == "completed" else None)
    failed = StatusCode.ERROR if expected[2] else StatusCode.UNSET
    assert [span.status.status_code for span in traced.spans] == [failed, failed]
    assert [span.name for span in traced.spans] == ["resilient_ai.attempt", "chat meta/llama"]
    assert (trace.get_current_span() is before, caplog.records) == (True, [])


async def test_the_cost_of_a_stream_is_on_its_spans():
    """What the service said the stream cost is on the attempt and on the call."""
    cost = Cost(amount=Decimal("0.5"), source="provider")
    traced = Traced(streaming([Finished(("stop",), cost=cost)]))
    await (await traced.send(STREAM)).result()
    assert [span.attributes["resilient_ai.cost.amount"] for span in traced.spans] == [0.5, 0.5]


async def test_wasted_and_incomplete_cost_shows():
    """What failed tries cost, and that one of them is not known, is on the span of the call."""

    async def costs(call):
        call.record.costs += [(Decimal(1), "table", False), (None, "provider", False), (Decimal(2), "table", True)]
        return chat_result()

    traced = Traced(costs)
    await traced.send(CHAT)
    found = {name: traced.call.attributes.get(f"resilient_ai.cost.{name}") for name in ("amount", "wasted", "complete")}
    assert found == {"amount": 3.0, "wasted": 1.0, "complete": False}


async def test_a_cache_hit_counts_no_tokens():
    """A hit costs nothing, has no attempt, and no usage that a backend could bill."""
    store = Store()
    asked = Chat(model="meta/llama", messages="hi", seed=1)
    await Traced(stack=[Cache(store)]).send(asked)
    traced = Traced(stack=[Cache(store)])
    await traced.send(asked)
    attributes = traced.call.attributes
    assert (attributes["resilient_ai.cache.outcome"], attributes["resilient_ai.cost.amount"]) == ("hit", 0.0)
    assert (attributes["resilient_ai.attempts"], traced.attempts) == (0, [])
    assert not [name for name in attributes if name.startswith("gen_ai.usage.")]


async def test_only_the_span_of_the_call_speaks_of_models_and_tokens():
    """No attempt carries gen_ai.*, and all usage keys are of the known five."""
    traced = Traced()
    await traced.send(CHAT)
    assert not [name for name in traced.attempts[0].attributes if name.startswith("gen_ai.")]
    usage = {name for name in traced.call.attributes if name.startswith("gen_ai.usage.")}
    assert usage == {"gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"}


async def test_the_attempt_is_current_while_the_request_is_sent():
    """A span that an HTTP client makes nests under the attempt, and the call under the caller's own span."""
    seen = []

    async def look(call):
        seen.append(trace.get_current_span().get_span_context().span_id)
        return chat_result()

    traced = Traced(look)
    with traced.tracers.get_tracer("app").start_as_current_span("request"):
        await traced.send(CHAT)
    request, call = traced.spans[2], traced.spans[1]
    assert seen == [traced.attempts[0].context.span_id]
    assert call.parent.span_id == request.context.span_id


async def test_concurrent_calls_keep_their_spans_apart():
    """Calls that run at the same time each have their own attempts."""
    traced = Traced(1.0, chat_result(), 1.0, chat_result())
    await asyncio.gather(traced.send(CHAT), traced.send(CHAT))
    calls = {span.context.span_id for span in traced.spans if span.name != "resilient_ai.attempt"}
    assert {span.parent.span_id for span in traced.attempts} == calls
    assert len(calls) == 2


async def test_what_is_not_sampled_says_so_below():
    """When the call is not sampled, nothing under it starts a trace of its own."""
    seen = []

    async def look(call):
        seen.append((trace.get_current_span().get_span_context(), call.listeners))
        return chat_result()

    traced = Traced(look, provider=TracerProvider(sampler=ALWAYS_OFF))
    await traced.send(CHAT)
    ((context, listeners),) = seen
    assert (traced.spans, context.is_valid, context.trace_flags.sampled, listeners) == ((), True, False, ())


async def test_without_a_provider_nothing_is_traced():
    """With the API alone the call passes through as it is."""
    seen = []

    async def look(call):
        seen.append((call.listeners, trace.get_current_span().get_span_context().is_valid))
        return chat_result()

    pipe = Pipeline(ScriptedProvider(look), [Tracing(trace.NoOpTracerProvider())])
    assert (await pipe.send(CHAT)).text == "Hello."
    assert seen == [((), False)]


@pytest.mark.parametrize("variable", [None, "sdk_tracer_provider"])
def test_nothing_is_imported_before_somebody_traces(variable):
    """Importing and using the middleware does not import OpenTelemetry, unless the environment names a provider."""
    program = """
import sys
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware.tracing import Tracing
from resilient_ai.testing import ScriptedProvider, run
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
run(Pipeline(ScriptedProvider(), [Tracing()]).send(Chat(model="m", messages="hi")))
print("opentelemetry.trace" in sys.modules)
"""
    environment = {"OTEL_PYTHON_TRACER_PROVIDER": variable} if variable else {}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == str(variable is not None)


class Bursting(SpanProcessor):
    """A processor that raises at the end of every span."""

    def on_end(self, span):
        raise KeyError("secret")


@pytest.mark.parametrize("operation", [CHAT, STREAM])
async def test_telemetry_never_fails_a_call(operation, caplog):
    """A span processor that raises and a result that cannot be described change nothing about the call."""
    odd = chat_result().model_copy(update={"usage": 3}) if operation is CHAT else streaming([Finished(("stop",))])
    traced = Traced(odd)
    traced.tracers.add_span_processor(Bursting())
    result = await traced.send(operation)
    if operation is STREAM:
        assert (await result.result()).text == "x"
    else:
        assert (result.text, "could not describe" in caplog.text) == ("Hello.", True)
    assert "could not end a span: KeyError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("name", ["chat meta/llama", "resilient_ai.attempt"])
async def test_a_sampler_that_raises_leaves_the_call_alone(name, caplog):
    """A span that cannot be started is left out."""

    class Broken(Sampler):
        def should_sample(self, parent_context, trace_id, span_name, *args, **options):
            if span_name == name:
                raise KeyError("secret")
            return ALWAYS_ON.should_sample(parent_context, trace_id, span_name)

        def get_description(self):
            return "Broken"

    traced = Traced(provider=TracerProvider(sampler=Broken()))
    assert (await traced.send(CHAT)).text == "Hello."
    assert name not in [span.name for span in traced.spans]
    assert "could not start a span: KeyError" in caplog.text


async def test_no_content_reaches_a_span():
    """Prompt, answer, key and exception text are in none of the exported bytes."""
    canaries = ["CANARY-PROMPT", "CANARY-ANSWER", "CANARY-KEY", "CANARY-ERROR", "CANARY-TAG"]
    prompt, answer, key, message, tag = canaries
    error = ServerFailed(message, status=500, body=message)
    traced = Traced(
        error, chat_result(answer), streaming([TextDelta(answer)], KeyError(message)), KeyError(message),
        stack=[Retry(attempts=2)], clock=FakeClock(),
    )  # fmt: skip
    fields = {"model": "m", "extra": {"key": key}}
    await traced.send(Chat(messages=prompt, user=key, **fields), tags={"feature": tag})
    with pytest.raises(KeyError):
        await (await traced.send(Stream(messages=prompt, **fields))).result()
    with pytest.raises(KeyError):
        await traced.send(Embed(texts=prompt, **fields))
    await traced.send(Image(prompt=prompt, negative_prompt=prompt, images=PIXEL, **fields))
    exported = json.dumps([json.loads(span.to_json()) for span in traced.spans])
    assert len(traced.spans) == 9
    assert not [canary for canary in canaries if canary in exported]


async def test_the_described_stack_shows_both_halves():
    """The part next to the provider is in the stack, where it stands."""
    names = [layer.name for layer in Pipeline(ScriptedProvider(), [Tracing(), Retry()]).describe()]
    assert names == ["Tracing", "Retry", "AttemptSpans", "ScriptedProvider"]


def test_the_global_provider_is_the_default():
    """Without a provider of its own, tracing uses the application's, also one that is set later."""
    assert Tracing().otel().tracer.__class__.__name__ == "ProxyTracer"


async def test_before_opentelemetry_is_imported_calls_pass_through(monkeypatch):
    """While nobody has imported the API there is nobody to report to."""
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    monkeypatch.delenv("OTEL_PYTHON_TRACER_PROVIDER", raising=False)
    tracing = Tracing()
    assert (await Pipeline(ScriptedProvider(), [tracing]).send(CHAT)).text == "Hello."
    assert tracing.otel() is None


async def test_an_operation_and_a_result_of_somebody_elses():
    """What is not one of ours has a span with what all have in common."""

    class Own(Operation):
        kind = "chat"

    traced = Traced(Result(model="m"))
    await traced.send(Own(model="meta/llama"))
    common = {"gen_ai.response.model": "m", "resilient_ai.attempts": 1, "resilient_ai.outcome": "success"}
    assert ours(traced.call) == START | common
