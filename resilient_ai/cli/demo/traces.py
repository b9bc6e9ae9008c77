"""OpenTelemetry spans as JSON lines in a file."""

from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from typing_extensions import override


class JsonLines(SpanExporter):
    """Writes each span as one line of JSON.

    Args:
        path: The file; what it held is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self.spans = 0

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            self._file.write(span.to_json(indent=None) + "\n")
            self.spans += 1
        return SpanExportResult.SUCCESS

    @override
    def shutdown(self) -> None:
        self._file.close()


def tracing_to(exporter: JsonLines) -> TracerProvider:
    """Return a provider of tracers whose spans end up in the exporter."""
    provider = TracerProvider(resource=Resource.create({"service.name": "resilient-ai-demo"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
