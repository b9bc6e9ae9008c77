"""What sends to one destination: it ends with its provider, or apart from it, and once."""

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilient_ai.observability._destinations import RecordBatches, Reports, SpanBatches


class KeptMetrics(MetricExporter):
    def __init__(self):
        super().__init__()
        self.kept, self.ended = [], 0

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        self.kept.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        self.ended += 1


def spans():
    """Return a destination that has a span to send, its provider, and what tells how many have arrived."""
    exporter = InMemorySpanExporter()
    destination, provider = SpanBatches(exporter), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(destination)
    provider.get_tracer("t").start_span("s").end()
    return destination, provider, lambda: len(exporter.get_finished_spans())


def records():
    exporter = InMemoryLogRecordExporter()
    destination, provider = RecordBatches(exporter), LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(destination)
    provider.get_logger("t").emit(body="r")
    return destination, provider, lambda: len(exporter.get_finished_logs())


def figures():
    exporter = KeptMetrics()
    destination = Reports(exporter)
    provider = MeterProvider([destination], shutdown_on_exit=False)
    provider.get_meter("t").create_counter("c").add(1)
    return destination, provider, lambda: len(exporter.kept) * exporter.ended


@pytest.mark.parametrize("made", [spans, records, figures])
def test_it_ends_with_its_provider(made, caplog):
    """What is waiting is sent; to end it once more does nothing, and says nothing."""
    destination, provider, arrived = made()
    provider.shutdown()
    assert arrived() == 1
    destination.shutdown()
    assert (arrived(), caplog.text) == (1, "")


@pytest.mark.parametrize("made", [spans, records, figures])
def test_it_ends_apart(made, caplog):
    """Its provider has nothing to do for it any more; whoever ends it apart sends what is waiting."""
    destination, provider, arrived = made()
    destination.apart = True
    provider.shutdown()
    assert arrived() == 0
    destination.end()
    assert (arrived(), caplog.text) == (1, "")
