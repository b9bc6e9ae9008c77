"""Variables of OpenTelemetry, checked before the SDK reads them: it would raise anything, or take what cannot work."""

import os
import threading
from urllib.parse import urlsplit

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.observability.backends import Protocol, Signal

_COUNTS = tuple(
    f"OTEL_{kind}_{name}"
    for kind in ("BSP", "BLRP")
    for name in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")
)
# Milliseconds; the others are seconds.
_SPANS = ("OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT")
_TIMEOUTS = tuple(f"OTEL_EXPORTER_OTLP_{of}TIMEOUT" for of in ("", "TRACES_", "METRICS_", "LOGS_"))
_LIMITS = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
)
_EXEMPLARS = ("always_on", "always_off", "trace_based")
_MOST = 2**31 - 1
# So many seconds a thread can wait, and no machine runs that long.
_LONGEST = min(threading.TIMEOUT_MAX, 1e9)


def check_variables() -> None:
    """Raise `ConfigurationError` where a variable holds what the SDK could not use; the message names it."""
    for name in _COUNTS:
        if _given(name):
            _check(name, _is_count(os.environ[name], 1), "a whole number >= 1")
    for kind in ("BSP", "BLRP"):
        _check_batch(kind)
    for name, unit in (*((name, 1000) for name in _SPANS), *((name, 1) for name in _TIMEOUTS)):
        if _given(name):
            _check(name, _is_span(os.environ[name], unit), "a positive number")
    for name in _LIMITS:
        if _given(name):
            _check(name, _is_count(os.environ[name], 0), "a whole number >= 0")
    if (name := "OTEL_METRICS_EXEMPLAR_FILTER") in os.environ:
        _check(name, os.environ[name] in _EXEMPLARS, f"one of {_EXEMPLARS}")


def check_endpoint(signal: Signal, protocol: Protocol) -> None:
    """Raise `ConfigurationError` where a variable names a collector that cannot be one; the message does not quote it."""
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        endpoint = os.environ.get(name, "")
        if endpoint and not _is_address(endpoint, protocol):
            raise ConfigurationError(f"{name} must be an address such as 'http://collector.example:4318'")


def wrong_variables() -> str:
    """Return where to look after an error of the SDK that nobody foresaw."""
    names = sorted(name for name in os.environ if name.startswith("OTEL_"))
    return f"it may be one of the variables {', '.join(names)}" if names else "no variable OTEL_* is set"


def _given(name: str) -> bool:
    return bool(os.environ.get(name, "").strip())


def _check_batch(kind: str) -> None:
    queue, batch = f"OTEL_{kind}_MAX_QUEUE_SIZE", f"OTEL_{kind}_MAX_EXPORT_BATCH_SIZE"
    room, size = (int(os.environ[name]) if _given(name) else usual for name, usual in ((queue, 2048), (batch, 512)))
    if size > room:
        raise ConfigurationError(f"{batch} must not be above {queue}, got {size} and {room}")


def _is_count(value: str, lowest: int) -> bool:
    value = value.strip()
    return value.isascii() and value.isdigit() and len(value) <= len(str(_MOST)) and lowest <= int(value) <= _MOST


def _is_span(value: str, unit: int) -> bool:
    try:
        return 0 < float(value) / unit <= _LONGEST
    except ValueError:
        return False


def _is_address(value: str, protocol: Protocol) -> bool:
    if not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value if "://" in value or protocol == "http" else f"http://{value}")
        return (parts.scheme in {"http", "https"} or protocol == "grpc") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check(name: str, fits: bool, wanted: str) -> None:  # noqa: FBT001 - as in `core.checks`
    if not fits:
        raise ConfigurationError(f"{name} must be {wanted}, got {os.environ[name]!r:.60}")
