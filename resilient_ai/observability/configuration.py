"""The one call that sets everything up."""

import logging
import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from resilient_ai.core.checks import (
    check_able,
    check_between,
    check_count,
    check_kind,
    check_seconds,
    check_share,
)
from resilient_ai.core.errors import ConfigurationError
from resilient_ai.middleware._backends import remember_backends
from resilient_ai.observability._environment import check_variables, wrong_variables
from resilient_ai.observability.backends import SIGNALS, Backend, Signal, check_headers, check_signals
from resilient_ai.observability.log_lines import Form
from resilient_ai.observability.telemetry import Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.view import View
    from prometheus_client import CollectorRegistry

Export = Literal["console", "otlp", "otlp_grpc"]

_LOGS = ("auto", *get_args(Form), "off")
_LEAST_FILE = 1 << 20
_LONGEST_INTERVAL = 86_400.0
# Far above those that the standard library names.
_HIGHEST_LEVEL = 1000
_lock = threading.Lock()
# The one that is set up for the process: its providers can be set once.
_current: list[Telemetry] = []


def configure(
    service: str,
    *,
    version: str | None = None,
    environment: str | None = None,
    resource: Mapping[str, str] | None = None,
    export: Export | Collection[Export] = (),
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    backend: Backend | Collection[Backend] = (),
    signals: Collection[Signal] = ("traces", "metrics"),
    prometheus: "int | CollectorRegistry | None" = None,
    prometheus_host: str = "127.0.0.1",
    trace_file: str | Path | None = None,
    trace_file_size: int = 64 << 20,
    sample: float | None = None,
    metric_interval: float | None = None,
    views: "Sequence[View]" = (),
    logs: Form | Literal["auto", "off"] = "auto",
    log_level: int | str = logging.INFO,
    root_logs: bool = False,
    globally: bool = True,
) -> Telemetry:
    """Set up traces, metrics and log lines of a process, on the SDK of OpenTelemetry.

    Every client then reports there, also one that was made before. Whoever has an SDK set up already needs none of this: clients
    report to that. Call it once, where the process begins; a server that forks its workers calls it in each of them.

    Args:
        service: The name of the service, `service.name`.
        version: Its version, `service.version`.
        environment: Such as "production", `deployment.environment.name`.
        resource: Further attributes of everything that is reported.
        export: "console" writes a line for each span to the error channel; "otlp" sends to a collector over HTTP, "otlp_grpc" by
            gRPC. Several are given as a list.
        endpoint: The collector's base address, for "otlp" or "otlp_grpc"; None does what `OTEL_EXPORTER_OTLP_ENDPOINT` says, and
            else takes this machine.
        headers: Sent to the collector, in addition to `OTEL_EXPORTER_OTLP_HEADERS`.
        backend: Presets of `resilient_ai.observability.backends`, such as `langfuse(...)`; one or several.
        signals: What is sent to collector and backends, as far as they take it: "traces", "metrics", "logs".
        prometheus: A port where figures can be scraped, 0 for a free one; or a registry of `prometheus_client` that you serve.
        prometheus_host: The address of that port; "0.0.0.0" for other machines.
        trace_file: Where spans are appended as JSON, one in a line, readable by this user alone; in a folder that is there.
        trace_file_size: Bytes at which the file becomes `<name>.1` and a new one begins. At least 1 MiB.
        sample: Which share of traces is kept, above 0 to 1, unless the caller's trace says so; None does what
            `OTEL_TRACES_SAMPLER` says, and else keeps all.
        metric_interval: Seconds between two reports of figures, a day at most; None does what `OTEL_METRIC_EXPORT_INTERVAL`
            says, else 60.
        views: Views of the SDK, for buckets or attributes of your own.
        logs: How lines of the log are written to the error channel: "json", "pretty", "auto" for pretty in a terminal and else
            JSON, or "off".
        log_level: From which level on, such as `logging.INFO` or "INFO".
        root_logs: Whether lines of everybody are written, by the root logger; else those of this library alone.
        globally: Whether it is set up for the whole process. Otherwise use `Telemetry.applied_to`; log lines are then left alone.

    Returns:
        What was set up, to be flushed and ended.

    Raises:
        ConfigurationError: If an option or a variable `OTEL_*` is wrong, an extra is missing, or the process has providers
            already; and in place of whatever the SDK raises.

    >>> configure("shop", export="otpl")
    Traceback (most recent call last):
        ...
    resilient_ai.core.errors.ConfigurationError: export must be of ('console', 'otlp', 'otlp_grpc'), or left out, got 'otpl'
    """
    try:
        check_kind("root_logs", root_logs, bool)
        check_kind("globally", globally, bool)
        check_count("trace_file_size", trace_file_size, _LEAST_FILE)
        level = _level(log_level)
        check_kind("resource", resource, Mapping, None)
        if sample is not None:
            check_share("sample", sample)
        if metric_interval is not None:
            check_seconds("metric_interval", metric_interval)
            check_between("metric_interval", metric_interval, 0.01, _LONGEST_INTERVAL)
        _check_prometheus(prometheus)
        check_kind("prometheus_host", prometheus_host or None, str)
        check_kind("views", views, Sequence)
        check_kind("trace_file", trace_file, str, Path, None)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    if logs not in _LOGS:
        raise ConfigurationError(f"logs must be one of {_LOGS}, got {logs!r:.40}")
    check_signals("signals", signals)
    attributes = _resource(service, version, environment, resource)
    exports = _exports(export)
    backends = [*_collectors(exports, endpoint, headers), *_backends(backend, signals)]
    handled = logs if globally else "off"
    if not (exports or backends or prometheus is not None or trace_file is not None or handled != "off"):
        raise ConfigurationError("there is nothing to set up: name an export, a backend, prometheus or a trace_file")
    with _lock, _faults_as_ours(), ExitStack() as undo:
        if globally and _current:
            raise ConfigurationError(
                f"telemetry is set up already, for the service {_current[0].service!r}; a process does that once, "
                "or with globally=False for clients of its own"
            )
        check_variables()
        from resilient_ai.observability._building import Building  # noqa: PLC0415 - imports the SDK

        building = Building(attributes, undo, globally=globally)
        for one in backends:
            building.add_backend(one, [signal for signal in SIGNALS if signal in signals and signal in one.signals])
        if "console" in exports:
            building.add_console(handled)
        if trace_file is not None:
            building.add_trace_file(Path(trace_file), trace_file_size)
        if prometheus is not None:
            building.add_prometheus(prometheus, prometheus_host)
        building.make_providers(sample, metric_interval, views)
        building.write_logs(handled, level=level, root=root_logs)
        building.open_trace_file()
        telemetry = building.telemetry(service, [name for one in backends for name in one.attributes])
        if globally:
            # First: a client that finds the providers asks for whom they are.
            undo.callback(remember_backends, ())
            remember_backends(telemetry.trace_backends)
            building.set_globally()
            _current.append(telemetry)
        undo.pop_all()
        return telemetry


@contextmanager
def _faults_as_ours() -> Generator[None]:
    """Raise what the SDK raises, which may be anything, as what callers are told to expect."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"telemetry cannot be set up, the SDK has raised {type(error).__name__}: {wrong_variables()}"
        ) from error


def _level(given: object) -> int:
    """Return the number of a level, which may be given by its name."""
    if isinstance(given, str):
        named = logging.getLevelNamesMapping().get(given.upper())
        if named is None:
            raise ValueError(f"log_level must be a number or a name of logging such as 'INFO', got {given!r:.40}")
        return named
    check_kind("log_level", given, int, str)
    check_count("log_level", given, 0, _HIGHEST_LEVEL)
    return cast("int", given)


def _check_prometheus(given: object) -> None:
    if isinstance(given, int):
        check_count("prometheus", given, 0, 65535)
        return
    try:
        check_able("prometheus", given, "register", "unregister")
    except ValueError:
        raise ValueError(
            "prometheus must be the number of a port such as 9464, a registry of prometheus_client or None,"
            f" got an object of type {type(given).__name__}"
        ) from None


def _resource(
    service: object, version: object, environment: object, further: Mapping[str, str] | None
) -> dict[str, str]:
    given = {"service.name": service, "service.version": version, "deployment.environment.name": environment}
    found: dict[str, Any] = {**(further or {}), **{name: value for name, value in given.items() if value is not None}}
    for name, value in {"service.name": None, **found}.items():
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"{name} must be a text that is not empty, got {value!r:.60}")
    return found


def _exports(given: Any) -> list[Export]:
    found: list[Any] = [given] if isinstance(given, str) or not isinstance(given, Collection) else [*given]
    for one in found:
        if one not in get_args(Export):
            raise ConfigurationError(f"export must be of {get_args(Export)}, or left out, got {one!r:.40}")
    return list(dict.fromkeys(found))


def _collectors(exports: Collection[Export], endpoint: str | None, headers: Mapping[str, str] | None) -> list[Backend]:
    wanted = [name for name in exports if name != "console"]
    if not wanted and not (endpoint is None and headers is None):
        raise ConfigurationError('endpoint and headers are for export="otlp" or "otlp_grpc"; a backend has its own')
    if len(wanted) > 1:
        raise ConfigurationError('export: "otlp" and "otlp_grpc" are two ways to one collector; name one of them')
    check_headers("headers", headers or {})
    return [
        Backend(name=name, endpoint=endpoint, headers=headers or {}, protocol="http" if name == "otlp" else "grpc")
        for name in wanted
    ]


def _backends(given: Any, signals: Collection[Signal]) -> list[Backend]:
    found: list[Any] = [*given] if isinstance(given, Collection) else [given]
    for one in found:
        if not isinstance(one, Backend):
            raise ConfigurationError(
                f"backend must be one of resilient_ai.observability.backends, got an object of type {type(one).__name__}"
            )
        if not set(signals) & set(one.signals):
            raise ConfigurationError(f"{one.name} takes {tuple(one.signals)}, and signals are {tuple(signals)}")
    return found
