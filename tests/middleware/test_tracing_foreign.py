"""Spans of somebody else's making, and what a server writes where names belong."""

import asyncio
from decimal import Decimal

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from resilient_ai.core.messages import Tool, ToolCall
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Choice, Cost
from resilient_ai.middleware import Cache, CostAccounting, Hedge, Logging, Metrics, Retry, Tracing
from resilient_ai.middleware._telemetry_faults import fault_counts
from resilient_ai.middleware._tool_span import tool_attributes
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import FakeClock, ScriptedProvider, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi", temperature=0)
METHODS = [
    *("add_event", "add_link", "end", "get_span_context", "is_recording", "record_exception", "set_attribute"),
    *("set_attributes", "set_status", "update_name"),
]


class Broken(NonRecordingSpan):
    """A span of which one method raises."""

    def __init__(self, name):
        super().__init__(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))
        setattr(self, name, self.fail)
        self.ends = 0

    def is_recording(self):
        return True

    def end(self, end_time=None):
        self.ends += 1

    def fail(self, *args, **options):
        raise KeyError("secret")


class Tracers:
    """A provider of such spans."""

    def __init__(self, name):
        self.name = name
        self.spans = []

    def get_tracer(self, *args, **options):
        return self

    def start_span(self, *args, **options):
        self.spans.append(Broken(self.name))
        return self.spans[-1]

    @property
    def ends(self):
        return [span.ends for span in self.spans]


class Traced:
    """A pipeline with tracing around everything, and the span of the last call."""

    def __init__(self, *script, stack=(), **options):
        self.exporter = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        provider = ScriptedProvider(*script)
        self.send = Pipeline(provider, [Tracing(tracers, **options), *stack], clock=FakeClock([0.5])).send

    @property
    def call(self):
        return self.exporter.get_finished_spans()[-1].attributes


async def slow(_):
    await asyncio.sleep(3.0)
    return chat_result()


@pytest.mark.parametrize("name", METHODS)
async def test_a_span_that_raises_fails_no_call(name):
    """Whatever is asked of it: not a call, a hedge, an answer from the cache, a stream, nor a line of the log."""
    retry = Retry(hedge=Hedge(samples=1, extra=1.0, delay_min=1.0))
    stack = [
        *(Tracing(Tracers(name)), Metrics(MeterProvider([InMemoryMetricReader()])), Logging()),
        *(Cache(MemoryStore(max_bytes=100_000)), retry, CostAccounting()),
    ]
    provider = ScriptedProvider(chat_result(), slow)
    send = Pipeline(provider, stack, clock=FakeClock([0.5])).send
    asked = [CHAT, CHAT, CHAT.model_copy(update={"seed": 1})]
    assert [(await send(operation)).cache for operation in asked] == ["miss", "hit", "miss"]
    assert (await (await send(Stream(model="m", messages="hi"))).result()).text == "Hello."
    assert [call.hedge for call in provider.calls] == [False, False, True, False]


async def test_a_span_that_cannot_say_whether_it_is_recorded_is_left_alone():
    """The fault is counted, and the span ends."""
    before, tracers = fault_counts().get("tracing", 0), Tracers("is_recording")
    pipeline = Pipeline(ScriptedProvider(), [Tracing(tracers)], clock=FakeClock())
    assert (await pipeline.send(CHAT)).text == "Hello."
    assert fault_counts()["tracing"] == before + 1
    assert tracers.ends == [1]


@pytest.mark.parametrize("name", [name for name in METHODS if name not in {"end", "is_recording"}])
async def test_each_span_that_began_ends_once(name):
    """Whatever raises: also an attempt whose answer somebody takes back before its cost is told."""

    async def take_back(call, proceed):
        await proceed(call)
        raise KeyError("taken back")

    tracers = Tracers(name)
    pipeline = Pipeline(ScriptedProvider(), [Tracing(tracers), take_back], clock=FakeClock())
    with pytest.raises(KeyError, match="taken back"):
        await pipeline.send(CHAT)
    assert tracers.ends == [1, 1]


@pytest.mark.parametrize("text", ["as you said: ann@example.org", "a\x1bb", "x" * 201, ""])
async def test_text_of_a_server_that_is_no_name_is_left_out(text):
    """Of a model and an id nothing is told, of a reason to stop that there was another one."""
    told = Choice(text="Hello.", finish_reason=text or None)
    traced = Traced(chat_result(choices=(told,), request_id=text).model_copy(update={"model": text}))
    await traced.send(CHAT)
    found = {name: value for name, value in traced.call.items() if name.startswith("gen_ai.response.")}
    assert found == ({"gen_ai.response.finish_reasons": ("other",)} if text else {})


async def test_names_of_a_server_are_told():
    """Models with a version, ids of answers, and reasons of its own."""
    told = (Choice(text="a", finish_reason="stop"), Choice(text="b", finish_reason="eos_token"))
    answer = chat_result(choices=told, request_id="chatcmpl-4f1c")
    traced = Traced(answer.model_copy(update={"model": "meta-llama/Llama-3.3-70B:9f8a"}))
    await traced.send(CHAT)
    assert {name: value for name, value in traced.call.items() if name.startswith("gen_ai.response.")} == {
        "gen_ai.response.model": "meta-llama/Llama-3.3-70B:9f8a",
        "gen_ai.response.id": "chatcmpl-4f1c",
        "gen_ai.response.finish_reasons": ("stop", "eos_token"),
    }


async def test_a_model_that_was_asked_for_may_have_any_name():
    """Its caller chose it, and finds it on the answer as on the question."""
    traced = Traced(chat_result(model="team@modèle"))
    await traced.send(Chat(model="team@modèle", messages="hi"))
    assert traced.call["gen_ai.response.model"] == traced.call["gen_ai.request.model"] == "team@modèle"


@pytest.mark.parametrize(("name", "told"), [("call_1", "call_1"), ("for ann@example.org", None)])
def test_the_id_of_a_tool_call_is_of_the_server_too(name, told):
    """It is left out where it is none."""
    tool = Tool(name="look_up", description="", parameters={})
    found = tool_attributes(ToolCall(id=name, name="look_up", arguments="{}"), tool)
    assert found.get("gen_ai.tool.call.id") == told


async def test_what_is_still_under_way_at_the_end_may_be_billed_later():
    """Then the cost is said not to be the whole one, also where nothing of it is known yet; else nothing is said."""
    left = []

    async def leave(call, proceed):
        left.append(asyncio.create_task(proceed(call)))
        await asyncio.sleep(1.0)
        return chat_result()

    traced = Traced(slow, stack=[leave, CostAccounting()])
    await traced.send(CHAT)
    assert (traced.call.get("resilient_ai.cost.amount"), traced.call["resilient_ai.cost.complete"]) == (None, False)
    await left[0]
    at_rest = Traced(chat_result(cost=Cost(amount=Decimal(1), source="provider")), stack=[CostAccounting()])
    await at_rest.send(CHAT)
    assert "resilient_ai.cost.complete" not in at_rest.call
