"""Puts the parts of the SDK together, and takes them apart again where one of them fails."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.observability import _exporters
from resilient_ai.observability._console import json_of, line_of
from resilient_ai.observability._destinations import Destination, RecordBatches, Reports, SpanBatches
from resilient_ai.observability._ending import Ending
from resilient_ai.observability._prometheus import reader_for, serve
from resilient_ai.observability._trace_file import TraceFile
from resilient_ai.observability.backends import Backend, Signal
from resilient_ai.observability.log_lines import RecordHandler, attach, form_for, stream_handler
from resilient_ai.observability.telemetry import Telemetry

if TYPE_CHECKING:
    import logging

    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.metrics.export import MetricExporter
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
        # What sends, with its name in messages.
        self._spans: list[tuple[str, SpanExporter, float | None]] = []
        self._metrics: list[tuple[str, MetricExporter]] = []
        self._records: list[tuple[str, LogRecordExporter]] = []
        self._destinations: dict[str, Destination] = {}
        self._readers: list[MetricReader] = []
        self._providers: dict[Signal, Any] = {}
        self._others: dict[str, Callable[[], object]] = {}
        self._at_end: list[Callable[[], object]] = []
        self._prometheus_port: int | None = None
        self._trace_file: Path | None = None
        self._trace_file_size = 0

    def add_backend(self, backend: Backend, signals: Collection[Signal]) -> None:
        """Send signals to a backend or a collector."""
        _exporters.check_environment(backend, signals)
        if "traces" in signals:
            self._spans.append((f"traces to {backend.name}", _exporters.span_exporter(backend), None))
        if "metrics" in signals:
            self._metrics.append((f"metrics to {backend.name}", _exporters.metric_exporter(backend)))
        if "logs" in signals:
            self._records.append((f"logs to {backend.name}", _exporters.log_exporter(backend)))

    def add_console(self, logs: Any) -> None:
        """Write a line for each span to the error channel; it is JSON where lines of the log are, which go there as well."""
        import sys  # noqa: PLC0415 - the channel of now, which a test or a shell may have replaced

        formatter = json_of if logs != "off" and form_for(logs, sys.stderr) == "json" else line_of
        self._spans.append(("traces to the console", ConsoleSpanExporter(out=sys.stderr, formatter=formatter), _SOON))

    def add_trace_file(self, path: Path, size: int) -> None:
        """Append spans to a file, once it is opened."""
        self._trace_file, self._trace_file_size = path, size

    def add_prometheus(self, target: "int | CollectorRegistry", host: str) -> None:
        """Let figures be scraped."""
        port = target if isinstance(target, int) else None
        reader, registry, forget = reader_for(None if isinstance(target, int) else target)
        self._readers.append(reader)
        self._undo.callback(forget)
        if port is not None:
            self._prometheus_port, end = serve(registry, host, port)
            self._others["the port for a Prometheus"] = end
            self._undo.callback(end)

    def make_providers(self, sample: float | None, interval: float | None, views: "Sequence[View]") -> None:
        """Make a provider for each signal that somebody takes."""
        has_traces = bool(self._spans) or self._trace_file is not None
        wanted: dict[Signal, object] = {
            "traces": has_traces,
            "metrics": self._readers or self._metrics,
            "logs": self._records,
        }
        self._check_unset([signal for signal, parts in wanted.items() if parts])
        if not all(isinstance(view, View) for view in cast("Sequence[object]", views)):
            raise ConfigurationError("views must be a list of opentelemetry.sdk.metrics.view.View")
        every = None if interval is None else interval * 1000
        reports = [(name, Reports(exporter, export_interval_millis=every)) for name, exporter in self._metrics]
        readers: list[MetricReader] = [*self._readers, *(one for _, one in reports)]
        for name, one in reports:
            self._undo.callback(one.shutdown)
            self._add(name, one)
        if has_traces:
            sampler = None if sample is None else ParentBased(TraceIdRatioBased(sample))
            tracers = TracerProvider(sampler=sampler, resource=self._resource, shutdown_on_exit=False)
            self._kept("traces", tracers)
            for name, span_exporter, delay in self._spans:
                self._send_spans(name, span_exporter, delay)
        if readers:
            self._kept("metrics", MeterProvider(readers, self._resource, shutdown_on_exit=False, views=views))
        if self._records:
            loggers = LoggerProvider(self._resource, shutdown_on_exit=False)
            self._kept("logs", loggers)
            for name, record_exporter in self._records:
                batches = RecordBatches(record_exporter)
                loggers.add_log_record_processor(batches)
                self._add(name, batches)

    def write_logs(self, form: Any, *, level: int, root: bool) -> None:
        """Write lines of the log to the error channel, and to whoever takes log records."""
        handlers: list[logging.Handler] = [] if form == "off" else [stream_handler(form)]
        if self._globally and "logs" in self._providers:
            handlers.append(RecordHandler(self._providers["logs"]))
        if handlers:
            detach = attach(handlers, root=root, level=level, alone=form != "off")
            self._at_end.append(detach)
            self._undo.callback(detach)

    def open_trace_file(self) -> None:
        """Make the file of spans, when nothing else can be refused any more: what is refused leaves no file behind."""
        if self._trace_file is None:
            return
        try:
            exporter = TraceFile(self._trace_file, self._trace_file_size)
        except OSError as error:
            raise ConfigurationError(f"trace_file: {error}") from None
        self._send_spans("traces to the trace file", exporter, _SOON)

    def telemetry(self, service: str, backends: Sequence[str]) -> Telemetry:
        """Return what was put together."""
        ending = Ending(
            {
                **{name: one.end for name, one in self._destinations.items()},
                **{f"{signal} to others": provider.shutdown for signal, provider in self._providers.items()},
                **self._others,
            }
        )
        self._undo.callback(ending.forget)
        return Telemetry(
            service,
            tracer_provider=self._providers.get("traces"),
            meter_provider=self._providers.get("metrics"),
            logger_provider=self._providers.get("logs"),
            prometheus_port=self._prometheus_port,
            trace_file=self._trace_file,
            trace_backends=list(dict.fromkeys(backends)),
            destinations=list(self._destinations.values()),
            ending=ending,
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

    def _send_spans(self, name: str, exporter: SpanExporter, delay: float | None) -> None:
        batches = SpanBatches(exporter, schedule_delay_millis=delay)
        self._providers["traces"].add_span_processor(batches)
        self._add(name, batches)

    def _add(self, name: str, destination: Destination) -> None:
        """Take note of a destination; of two with one name the second is told apart."""
        while name in self._destinations:
            name += "'"
        self._destinations[name] = destination

    def _kept(self, signal: Signal, provider: Any) -> None:
        self._providers[signal] = provider
        self._undo.callback(provider.shutdown)

    def _check_unset(self, signals: Collection[Signal]) -> None:
        for signal in signals if self._globally else ():
            if not type(_global(signal)).__name__.lstrip("_").startswith("Proxy"):
                raise _taken(signal)


def _global(signal: Signal) -> object:
    found: dict[Signal, Callable[[], object]] = {
        "traces": trace.get_tracer_provider,
        "metrics": metrics.get_meter_provider,
        "logs": _logs.get_logger_provider,
    }
    try:
        return found[signal]()
    except Exception as error:  # a provider that the environment names
        name = f"OTEL_PYTHON_{_NAMES[signal].upper()}_PROVIDER"
        raise ConfigurationError(f"{name} names a provider that cannot be loaded: {type(error).__name__}") from error


def _taken(signal: Signal) -> ConfigurationError:
    name = _NAMES[signal]
    return ConfigurationError(
        f"the process has a {name} provider already, {type(_global(signal)).__name__}, to which clients report; leave configure "
        f"out, or give globally=False and take the stack of Telemetry.applied_to"
    )
