"""What was said, on spans and as events: only where that is asked for, redacted first, and JSON that can be read."""

import json

import pytest
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilient_ai import AsyncClient
from resilient_ai.core.deltas import TextDelta
from resilient_ai.core.errors import ServerFailed
from resilient_ai.core.messages import ToolCall
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Choice
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import _telemetry_faults
from resilient_ai.middleware._span_content import as_json
from resilient_ai.middleware.tracing import Tracing
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, chat_result

pytestmark = pytest.mark.anyio

SWITCH = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CHAT = Chat(model="m", messages="I am ada@example.org")
SAID = [{"role": "user", "parts": [{"type": "text", "content": "I am [email]"}]}]
ANSWERED = [{"role": "assistant", "parts": [{"type": "text", "content": "Hello."}], "finish_reason": "stop"}]


class Captured:
    """A pipeline with tracing, and the spans and events it exported."""

    def __init__(self, *script, **options):
        self.exporter, self.records = InMemorySpanExporter(), InMemoryLogRecordExporter()
        tracers, loggers = TracerProvider(), LoggerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self.records))
        self.tracing = Tracing(tracers, logger_provider=loggers, **options)
        self.pipeline = Pipeline(ScriptedProvider(*script), [self.tracing], clock=FakeClock())
        self.send = self.pipeline.send

    @property
    def call(self):
        return self.exporter.get_finished_spans()[-1]

    def on_span(self, name):
        return json.loads(self.call.attributes[f"gen_ai.{name}"])

    @property
    def events(self):
        return [record.log_record for record in self.records.get_finished_logs()]


@pytest.mark.parametrize(
    ("capture", "word", "spans", "events"),
    [
        (None, None, 0, 0),
        ("none", "SPAN_AND_EVENT", 0, 0),
        ("spans", None, 1, 0),
        ("events", None, 0, 1),
        ("both", "NO_CONTENT", 1, 1),
        (None, "no_content", 0, 0),
        (None, "false", 0, 0),
        (None, "Span_Only", 1, 0),
        (None, "EVENT_ONLY", 0, 1),
        (None, "SPAN_AND_EVENT", 1, 1),
        (None, "true", 1, 0),
        (None, "perhaps", 0, 0),
    ],
)
async def test_where_content_goes(capture, word, spans, events, monkeypatch):
    """As the option says, else as the environment does, else nowhere."""
    monkeypatch.delenv(SWITCH, raising=False)
    if word is not None:
        monkeypatch.setenv(SWITCH, word)
    captured = Captured(capture=capture)
    await captured.send(CHAT)
    assert ("gen_ai.input.messages" in captured.call.attributes, len(captured.events)) == (bool(spans), events)


@pytest.mark.parametrize(("word", "sentence"), [("true", "is taken for SPAN_ONLY"), ("perhaps", "an unknown word")])
def test_an_old_or_unknown_word_is_told(word, sentence, monkeypatch, caplog):
    """Once, when tracing is made."""
    monkeypatch.setenv(SWITCH, word)
    Tracing()
    (record,) = caplog.records
    assert sentence in record.getMessage()


async def test_spans_have_json():
    """What was asked and answered, and which tools there were, each as one compact text."""

    def tides(port: str) -> str:
        """Look up."""
        return port

    captured = Captured(capture="spans")
    await captured.send(Chat(model="m", messages="I am ada@example.org, ü", tools=[tides]))
    assert captured.on_span("input.messages")[0]["parts"][0]["content"] == "I am [email], ü"
    assert captured.on_span("output.messages") == ANSWERED
    assert captured.on_span("tool.definitions") == [{"type": "function", "name": "tides"}]
    assert "ü" in captured.call.attributes["gen_ai.input.messages"]
    assert ": " not in captured.call.attributes["gen_ai.output.messages"]
    assert not [
        key for span in captured.exporter.get_finished_spans()[:-1] for key in span.attributes if "gen_ai" in key
    ]


async def test_an_event_has_structures():
    """Named by the conventions, at the time of the end, within the span, with what the span says of the call."""
    captured = Captured(capture="events")
    await captured.send(CHAT)
    (event,) = captured.events
    span = captured.call
    assert event.event_name == "gen_ai.client.inference.operation.details"
    assert (event.trace_id, event.span_id, event.timestamp) == (
        span.context.trace_id,
        span.context.span_id,
        span.end_time,
    )
    attributes = json.loads(json.dumps(dict(event.attributes), default=list))
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "deepinfra",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 3,
        "server.address": "scripted.test",
        "server.port": 443,
        "gen_ai.input.messages": SAID,
        "gen_ai.output.messages": ANSWERED,
    }


async def test_a_call_that_failed_tells_what_was_asked():
    """There is no answer, and the message of the error is told nowhere."""
    captured = Captured(ServerFailed("CANARY", status=500), capture="both")
    with pytest.raises(ServerFailed):
        await captured.send(CHAT)
    (event,) = captured.events
    assert (captured.on_span("input.messages"), event.attributes["error.type"]) == (SAID, "500")
    assert "gen_ai.output.messages" not in captured.call.attributes
    assert "CANARY" not in captured.call.to_json() + str(dict(event.attributes))


async def test_a_stream_that_broke_tells_what_had_come():
    """With the reason that stands for none."""
    source = ScriptedSource([ServerFailed("boom", status=500)])
    captured = Captured(StreamResult(source, model="m", first=[TextDelta("Hel")], clock=FakeClock()), capture="spans")
    stream = await captured.send(Stream(model="m", messages="hi"))
    await stream.aclose()
    (message,) = captured.on_span("output.messages")
    assert (message["parts"][0]["content"], message["finish_reason"]) == ("Hel", "error")


async def test_long_parts_are_cut_and_stay_json():
    """What is cut off is counted."""
    captured = Captured(chat_result("y" * 100), capture="spans", longest_part=16)
    await captured.send(Chat(model="m", messages="x" * 50))
    (asked,), (answered,) = captured.on_span("input.messages"), captured.on_span("output.messages")
    assert asked["parts"][0]["content"].startswith("x" * 16 + "…[truncated 34 ")
    assert answered["parts"][0]["content"].startswith("y" * 16 + "…[truncated 84 ")


async def test_nothing_is_said_of_vectors():
    """The conventions have no place for it."""
    captured = Captured(capture="spans")
    await captured.send(Embed(model="m", texts="CANARY"))
    assert "CANARY" not in captured.call.to_json()


class Blind:
    """A redactor that fails."""

    def text(self, text):
        raise KeyError("CANARY")

    def value(self, value):
        raise KeyError("CANARY")


@pytest.mark.parametrize("capture", ["spans", "events"])
async def test_what_cannot_be_redacted_is_not_told(capture, monkeypatch):
    """And the rest of the span is as it would be."""
    monkeypatch.setattr(_telemetry_faults, "_counts", {})
    captured = Captured(capture=capture, redactor=Blind())
    await captured.send(Chat(model="m", messages="CANARY"))
    told = captured.call.to_json() + str([dict(event.attributes) for event in captured.events])
    assert ("CANARY" in told, captured.call.attributes["resilient_ai.outcome"]) == (False, "success")
    assert _telemetry_faults.fault_counts()["tracing"] >= 1


async def test_an_event_that_cannot_be_emitted_fails_no_call(monkeypatch):
    """The span is as it would be."""

    class Broken(LoggerProvider):
        def get_logger(self, *args, **options):
            raise KeyError("CANARY")

    captured = Captured(capture="both")
    captured.tracing._style.content._records._logger_provider = Broken()
    assert (await captured.send(CHAT)).text == "Hello."
    assert captured.call.attributes["resilient_ai.outcome"] == "success"


async def test_without_a_provider_of_its_own_events_go_to_the_applications():
    """Which drops them where there is none."""
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    pipeline = Pipeline(ScriptedProvider(), [Tracing(tracers, capture="events")])
    await pipeline.send(CHAT)
    assert isinstance(_logs.get_logger_provider(), _logs.LoggerProvider)
    assert "gen_ai.input.messages" not in exporter.get_finished_spans()[-1].attributes


@pytest.mark.parametrize(("capture", "told"), [("spans", True), ("events", False)])
async def test_what_a_function_was_given_and_gave(capture, told):
    """On its span, redacted."""

    async def tides(who: str) -> str:
        return f"high for {who}"

    call = ToolCall(id="id1", name="tides", arguments='{"who": "ada@example.org"}')
    provider = ScriptedProvider(chat_result(choices=(Choice(tool_calls=(call,)),)), chat_result())
    captured = Captured(capture=capture)

    async def answer(call, proceed):
        return await provider(call)

    async with AsyncClient("k", stack=[captured.tracing, answer]) as ai:
        await ai.run_tools("m", "hi", tools=[tides])
    (span,) = [span for span in captured.exporter.get_finished_spans() if span.name == "execute_tool tides"]
    arguments, result = (span.attributes.get(f"gen_ai.tool.call.{name}") for name in ("arguments", "result"))
    assert (arguments, result) == (('{"who":"[email]"}', "high for [email]") if told else (None, None))


@pytest.mark.parametrize(("part", "text"), [(["ü"], '["ü"]'), (["\ud800"], '["\\ud800"]'), ([2**70], f"[{2**70}]")])
def test_json_of_what_json_has_no_room_for(part, text):
    """Half of a surrogate pair is escaped, so that it can be sent."""
    assert as_json(part) == text
