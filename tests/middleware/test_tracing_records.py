"""What happened on the way as log records in place of events of the span."""

import logging

import pytest
from opentelemetry import _logs
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilient_ai.core.errors import ServerFailed
from resilient_ai.core.events import (
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    HedgeSent,
    ModelSkipped,
    RetryScheduled,
    StreamResumed,
)
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import _telemetry_faults
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.tracing import Tracing
from resilient_ai.testing import FakeClock, ScriptedProvider, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="CANARY")
TOLD = {"call_id": "c", "model": "m"}
ERROR = ServerFailed("CANARY", status=503)


class Recorded:
    """A pipeline with tracing, and the spans and records it exported."""

    def __init__(self, *script, stack=(), **options):
        self.exporter, self.exported = InMemorySpanExporter(), InMemoryLogRecordExporter()
        tracers, self.loggers = TracerProvider(), LoggerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self.exported))
        tracing = Tracing(tracers, logger_provider=self.loggers, **options)
        self.pipeline = Pipeline(ScriptedProvider(*script), [tracing, *stack], clock=FakeClock([0.5]))
        self.send = self.pipeline.send

    @property
    def call(self):
        return self.exporter.get_finished_spans()[-1]

    @property
    def records(self):
        return [record.log_record for record in self.exported.get_finished_logs()]


def telling(*facts):
    async def tell(call, proceed):
        for fact in facts:
            call.emit(fact)
        return await proceed(call)

    return tell


def told(events):
    return [(event.name, dict(event.attributes), event.timestamp) for event in events]


async def test_the_same_facts_are_records_in_place_of_events():
    """Name, attributes and time are those that the span would have had, and the record belongs to it."""
    script = [ServerFailed("CANARY", status=503), chat_result()]
    plain, recorded = Recorded(*script, stack=[Retry()]), Recorded(*script, stack=[Retry()], events="logs")
    await plain.send(CHAT)
    await recorded.send(CHAT)
    (event,) = plain.call.events
    (record,) = recorded.records
    assert (record.event_name, dict(record.attributes)) == (event.name, dict(event.attributes))
    assert event.name == "resilient_ai.retry"
    since = [one.timestamp - span.start_time for one, span in ((event, plain.call), (record, recorded.call))]
    assert since[0] == since[1]
    assert record.observed_timestamp == record.timestamp
    assert (record.trace_id, record.span_id) == (recorded.call.context.trace_id, recorded.call.context.span_id)
    assert (recorded.call.events, plain.records) == ((), [])
    assert "CANARY" not in recorded.exported.get_finished_logs()[0].to_json()


@pytest.mark.parametrize(
    ("fact", "name", "severity"),
    [
        (RetryScheduled(**TOLD, attempt=1, wait=1.0, error=ERROR, retry_after=None), "retry", "WARN"),
        (HedgeSent(**TOLD, after=1.0), "hedge", "INFO"),
        (StreamResumed(**TOLD, how="restart", number=1, error=ERROR), "stream_resumed", "WARN"),
        (ModelSkipped(**TOLD, next_model="n", error=ERROR), "fallback", "WARN"),
        (CircuitOpened(**TOLD, retry_after=30.0), "circuit_breaker.transition", "ERROR"),
        (CircuitHalfOpened(**TOLD), "circuit_breaker.transition", "WARN"),
        (CircuitClosed(**TOLD), "circuit_breaker.transition", "INFO"),
    ],
)
async def test_how_grave_a_record_is(fact, name, severity):
    """As grave as the line of the log about the same fact."""
    recorded = Recorded(stack=[telling(fact)], events="logs")
    await recorded.send(CHAT)
    (record,) = recorded.records
    assert (record.event_name, record.severity_text) == (f"resilient_ai.{name}", severity)
    assert record.severity_number is SeverityNumber[severity]


async def test_a_record_that_cannot_be_written_fails_no_call(monkeypatch, caplog):
    """The fault is counted, and what else is told of the call is as it would be."""
    monkeypatch.setattr(_telemetry_faults, "_counts", {})

    class Broken(LoggerProvider):
        def get_logger(self, *args, **options):
            raise KeyError("CANARY")

    tracers, exporter = TracerProvider(), InMemorySpanExporter()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(tracers, logger_provider=Broken(), events="logs")
    pipeline = Pipeline(ScriptedProvider(), [tracing, telling(HedgeSent(**TOLD, after=1.0))])
    with caplog.at_level(logging.WARNING):
        assert (await pipeline.send(CHAT)).text == "Hello."
    assert exporter.get_finished_spans()[-1].attributes["resilient_ai.hedges"] == 1
    assert (_telemetry_faults.fault_counts(), "CANARY" in caplog.text) == ({"tracing": 1}, False)


async def test_without_a_provider_of_its_own_records_go_to_the_applications():
    """Which drops them where there is none: the span has no event either way."""
    tracers, exporter = TracerProvider(), InMemorySpanExporter()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    pipeline = Pipeline(ScriptedProvider(), [Tracing(tracers, events="logs"), telling(HedgeSent(**TOLD, after=1.0))])
    await pipeline.send(CHAT)
    assert isinstance(_logs.get_logger_provider(), _logs.LoggerProvider)
    assert exporter.get_finished_spans()[-1].events == ()
