"""Spans of functions that the model asked for."""

import asyncio

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from resilient_ai import AsyncClient
from resilient_ai.core.messages import ToolCall
from resilient_ai.core.results import Choice
from resilient_ai.middleware.tracing import Tracing
from resilient_ai.testing import ScriptedProvider, chat_result

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"  # blocking tools run in threads


class Traced:
    """A client with tracing, whose model asks for tools by a script, and the spans it exported."""

    def __init__(self, *script, provider=None, tracing=None):
        self.exporter = InMemorySpanExporter()
        self.tracers = provider or TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.provider = ScriptedProvider(*script)
        self.client = AsyncClient("k", stack=[tracing or Tracing(self.tracers), self.answer])

    async def answer(self, call, proceed):
        return await self.provider(call)

    async def run(self, *tools):
        async with self.client as ai:
            return await ai.run_tools("m", "CANARY", tools=tools)

    @property
    def spans(self):
        return {span.name: span for span in self.exporter.get_finished_spans()}


def asks(name, arguments="{}"):
    call = ToolCall(id="id1", name=name, arguments=arguments)
    return chat_result(choices=(Choice(tool_calls=(call,), finish_reason="tool_calls"),))


def span_id():
    return trace.get_current_span().get_span_context().span_id


async def test_a_function_that_ran():
    """Its span names it, is current while it runs, in threads too, and says nothing of what went in or came out."""
    seen = []

    def tides(port: str) -> str:
        """Look up the tides of a port."""
        seen.append(span_id())
        return "CANARY"

    traced = Traced(asks("tides", '{"port": "CANARY"}'), chat_result())
    with traced.tracers.get_tracer("app").start_as_current_span("request"):
        run = await traced.run(tides)
    span, request = traced.spans["execute_tool tides"], traced.spans["request"]
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "tides",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "id1",
        "gen_ai.tool.description": "Look up the tides of a port.",
    }
    assert (span.kind, span.status.status_code, seen) == (SpanKind.INTERNAL, StatusCode.UNSET, [span.context.span_id])
    assert span.parent.span_id == traced.spans["chat m"].parent.span_id == request.context.span_id
    assert ([step.output for step in run.steps], span_id()) == (["CANARY"], 0)


async def test_a_function_that_raised():
    """The model is told what was raised; the span only of what kind it was."""

    async def tides():
        raise KeyError("CANARY")

    traced = Traced(asks("tides"), chat_result())
    run = await traced.run(tides)
    span = traced.spans["execute_tool tides"]
    assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, None, ())
    assert (span.attributes["error.type"], span.attributes["resilient_ai.error.class"]) == ("_OTHER", "KeyError")
    assert "CANARY" in run.steps[0].error
    assert "CANARY" not in span.to_json()


@pytest.mark.parametrize("arguments", ["no JSON", '{"port": []}'])
async def test_arguments_that_do_not_fit(arguments):
    """Not even the function was called, and the span says that it failed."""

    def tides(port: int) -> str:
        return "never"

    traced = Traced(asks("tides", arguments), chat_result())
    await traced.run(tides)
    assert traced.spans["execute_tool tides"].status.status_code is StatusCode.ERROR


async def test_a_function_that_is_cancelled():
    """The span ends with the run."""

    async def tides():
        await asyncio.sleep(60)

    traced = Traced(asks("tides"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await traced.run(tides)
    assert traced.spans["execute_tool tides"].attributes["error.type"] == "cancelled"


@pytest.mark.parametrize("why", ["no provider", "not sampled", "suppressed", "described"])
async def test_where_nobody_traces_a_function_runs_all_the_same(why):
    """No span is made of it."""

    def tides():
        return "high"

    tracing = Tracing(trace.NoOpTracerProvider()) if why == "no provider" else None
    sampler = TracerProvider(sampler=ALWAYS_OFF) if why == "not sampled" else None
    traced = Traced(asks("tides"), chat_result(), provider=sampler, tracing=tracing)
    keys = {"suppressed": "suppress_instrumentation", "described": "suppress_language_model_instrumentation"}
    token = context.attach(context.set_value(keys.get(why, "mine"), True))
    run = await traced.run(tides)
    context.detach(token)
    assert ([step.output for step in run.steps], "execute_tool tides" in traced.spans) == (["high"], False)


async def test_a_tool_that_does_not_exist_has_no_span():
    """Nothing was executed."""

    def tides():
        return "high"

    traced = Traced(asks("ebbs"), chat_result())
    await traced.run(tides)
    assert traced.spans.keys() == {"chat m"}


async def test_a_client_without_tracing_runs_functions_as_before():
    """Nobody stands around them."""

    def tides():
        return "high"

    provider = ScriptedProvider(asks("tides"), chat_result())

    async def answer(call, proceed):
        return await provider(call)

    async with AsyncClient("k", stack=[answer]) as ai:
        run = await ai.run_tools("m", "hi", tools=[tides])
    assert [step.output for step in run.steps] == ["high"]


async def test_before_opentelemetry_is_imported_there_is_no_span(monkeypatch):
    """Nobody can have set up a provider."""
    monkeypatch.delitem(__import__("sys").modules, "opentelemetry.trace")
    monkeypatch.delenv("OTEL_PYTHON_TRACER_PROVIDER", raising=False)
    assert Tracing().around_tool(None, None, None) is None
