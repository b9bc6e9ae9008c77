"""Puts the parts of the SDK together, and takes them apart again where one of them fails."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.observability import _exporters
from resilient_ai.observability._console import line_of
from resilient_ai.observability._prometheus import reader_for, serve
from resilient_ai.observability._trace_file import TraceFile
from resilient_ai.observability.backends import Backend, Signal
from resilient_ai.observability.log_lines import RecordHandler, attach, stream_handler
from resilient_ai.observability.telemetry import Telemetry

if TYPE_CHECKING:
    import logging

    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.metrics.view import View
    from prometheus_client import CollectorRegistry

# Milliseconds after which spans reach somebody who watches: a terminal, and a file that a program follows.
_SOON = 200
_NAMES = {"traces": "tracer", "metrics": "meter", "logs": "logger"}


class Building:
    """What has been put together so far.

    Args:
        resource: What everything is reported of.
        undo: Takes apart what was begun.
        globally: Whether the providers will be those of the process.
    """

    def __init__(self, resource: Mapping[str, str], undo: ExitStack, *, globally: bool) -> None:
        self._resource = Resource.create(dict(resource))
        self._undo = undo
        self._globally = globally
        self._spans: list[tuple[SpanExporter, float | None]] = []
        self._metrics: list[MetricExporter] = []
        self._records: list[LogRecordExporter] = []
        self._readers: list[MetricReader] = []
        self._providers: dict[Signal, Any] = {}
        self._at_end: list[Callable[[], object]] = []
        self._prometheus_port: int | None = None
        self._trace_file: Path | None = None

    def add_backend(self, backend: Backend, signals: Collection[Signal]) -> None:
        """Send signals to a backend or a collector."""
        _exporters.check_environment(backend, signals)
        if "traces" in signals:
            self._spans.append((_exporters.span_exporter(backend), None))
        if "metrics" in signals:
            self._metrics.append(_exporters.metric_exporter(backend))
        if "logs" in signals:
            self._records.append(_exporters.log_exporter(backend))

    def add_console(self) -> None:
        """Write a line for each span to the error channel."""
        import sys  # noqa: PLC0415 - the channel of now, which a test or a shell may have replaced

        self._spans.append((ConsoleSpanExporter(out=sys.stderr, formatter=line_of), _SOON))

    def add_trace_file(self, path: Path, size: int) -> None:
        """Append spans to a file."""
        try:
            self._spans.append((TraceFile(path, size), _SOON))
        except OSError as error:
            raise ConfigurationError(f"trace_file: {error}") from None
        self._trace_file = path

    def add_prometheus(self, target: "int | CollectorRegistry", host: str) -> None:
        """Let figures be scraped."""
        port = target if isinstance(target, int) else None
        reader, registry, forget = reader_for(None if isinstance(target, int) else target)
        self._readers.append(reader)
        self._undo.callback(forget)
        if port is not None:
            self._prometheus_port, end = serve(registry, host, port)
            self._at_end.append(end)
            self._undo.callback(end)

    def make_providers(self, sample: float | None, interval: float | None, views: "Sequence[View]") -> None:
        """Make a provider for each signal that somebody takes."""
        wanted: dict[Signal, object] = {
            "traces": self._spans,
            "metrics": self._readers or self._metrics,
            "logs": self._records,
        }
        self._check_unset([signal for signal, parts in wanted.items() if parts])
        every = None if interval is None else interval * 1000
        readers = [
            *self._readers,
            *(PeriodicExportingMetricReader(exporter, export_interval_millis=every) for exporter in self._metrics),
        ]
        if self._spans:
            sampler = None if sample is None else ParentBased(TraceIdRatioBased(sample))
            tracers = TracerProvider(sampler=sampler, resource=self._resource)
            self._kept("traces", tracers)
            for span_exporter, delay in self._spans:
                tracers.add_span_processor(BatchSpanProcessor(span_exporter, schedule_delay_millis=delay))
        if readers:
            self._kept("metrics", MeterProvider(metric_readers=readers, resource=self._resource, views=views))
        if self._records:
            loggers = LoggerProvider(resource=self._resource)
            self._kept("logs", loggers)
            for record_exporter in self._records:
                loggers.add_log_record_processor(BatchLogRecordProcessor(record_exporter))

    def write_logs(self, form: Any, *, level: int, root: bool) -> None:
        """Write lines of the log to the error channel, and to whoever takes log records."""
        handlers: list[logging.Handler] = [] if form == "off" else [stream_handler(form)]
        if self._globally and "logs" in self._providers:
            handlers.append(RecordHandler(self._providers["logs"]))
        if handlers:
            detach = attach(handlers, root=root, level=level, alone=form != "off")
            self._at_end.append(detach)
            self._undo.callback(detach)

    def telemetry(self, service: str, backends: Sequence[str]) -> Telemetry:
        """Return what was put together."""
        return Telemetry(
            service,
            tracer_provider=self._providers.get("traces"),
            meter_provider=self._providers.get("metrics"),
            logger_provider=self._providers.get("logs"),
            prometheus_port=self._prometheus_port,
            trace_file=self._trace_file,
            trace_backends=list(dict.fromkeys(backends)),
            on_shutdown=self._at_end,
        )

    def set_globally(self) -> None:
        """Make the providers those of the process."""
        put: dict[Signal, Callable[[Any], None]] = {
            "traces": trace.set_tracer_provider,
            "metrics": metrics.set_meter_provider,
            "logs": _logs.set_logger_provider,
        }
        for signal, provider in self._providers.items():
            put[signal](provider)
            if _global(signal) is not provider:  # somebody was faster
                raise _taken(signal)

    def _kept(self, signal: Signal, provider: Any) -> None:
        self._providers[signal] = provider
        self._undo.callback(provider.shutdown)

    def _check_unset(self, signals: Collection[Signal]) -> None:
        for signal in signals if self._globally else ():
            if not type(_global(signal)).__name__.lstrip("_").startswith("Proxy"):
                raise _taken(signal)


def _global(signal: Signal) -> object:
    if signal == "traces":
        return trace.get_tracer_provider()
    return metrics.get_meter_provider() if signal == "metrics" else _logs.get_logger_provider()


def _taken(signal: Signal) -> ConfigurationError:
    name = _NAMES[signal]
    return ConfigurationError(
        f"the process has a {name} provider already, {type(_global(signal)).__name__}, to which clients report; leave configure "
        f"out, or give globally=False and take the stack of Telemetry.applied_to"
    )
