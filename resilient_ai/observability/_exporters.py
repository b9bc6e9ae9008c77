"""What sends spans, figures and log records away, by OTLP over HTTP or gRPC."""

import os
from collections.abc import Collection
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.observability._environment import check_endpoint
from resilient_ai.observability.backends import Backend, Signal

if TYPE_CHECKING:
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace.export import SpanExporter

_MODULES = {"http": "opentelemetry.exporter.otlp.proto.http", "grpc": "opentelemetry.exporter.otlp.proto.grpc"}
_HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"


def needed(name: str, extra: str) -> ModuleType:
    """Import a module of an extra.

    Raises:
        ConfigurationError: If it is missing; the message says how to install it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        raise ConfigurationError(
            f"the package {missing} is missing; install it with: pip install 'resilient-ai[{extra}]'"
        ) from None


def span_exporter(backend: Backend) -> "SpanExporter":
    """Return what sends spans to a backend."""
    exporter: SpanExporter = _exporter(backend, "traces", "trace_exporter", "OTLPSpanExporter")
    return exporter


def metric_exporter(backend: Backend) -> "MetricExporter":
    """Return what sends figures to a backend, as it wants them."""
    more = {"preferred_temporality": _deltas()} if backend.delta else {}
    exporter: MetricExporter = _exporter(backend, "metrics", "metric_exporter", "OTLPMetricExporter", **more)
    return exporter


def log_exporter(backend: Backend) -> "LogRecordExporter":
    """Return what sends log records to a backend."""
    exporter: LogRecordExporter = _exporter(backend, "logs", "_log_exporter", "OTLPLogExporter")
    return exporter


def check_environment(backend: Backend, signals: Collection[Signal]) -> None:
    """Raise `ConfigurationError` where the environment names no collector, or holds headers that are meant for somebody else.

    Exporters would send them, and keys among them, to a backend as well.
    """
    if backend.endpoint is None:
        for signal in signals:
            check_endpoint(signal, backend.protocol)
        return
    for signal in signals:
        for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_HEADERS", _HEADERS):
            others = [
                pair.partition("=")[0].strip().lower() for pair in os.environ.get(name, "").split(",") if pair.strip()
            ]
            if set(others) - set(backend.headers_for(signal)):
                raise ConfigurationError(
                    f"{backend.name}: the headers that {name} holds would be sent there as well; unset it, and give headers here"
                )


def _exporter(backend: Backend, signal: Signal, module: str, kind: str, **more: Any) -> Any:
    made = getattr(needed(f"{_MODULES[backend.protocol]}.{module}", "otlp"), kind)
    endpoint = backend.endpoint
    if endpoint is not None and backend.protocol == "http":
        endpoint = f"{endpoint.rstrip('/')}/v1/{signal}"
    return made(endpoint=endpoint, headers=backend.headers_for(signal) or None, **more)


def _deltas() -> dict[type, Any]:
    from opentelemetry.sdk import metrics  # noqa: PLC0415 - only where the SDK is used
    from opentelemetry.sdk.metrics.export import AggregationTemporality  # noqa: PLC0415 - as above

    delta, cumulative = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE
    return {
        metrics.Counter: delta,
        metrics.Histogram: delta,
        metrics.ObservableCounter: delta,
        metrics.UpDownCounter: cumulative,
        metrics.ObservableUpDownCounter: cumulative,
    }
