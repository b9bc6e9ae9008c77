"""Spans as a trace file has them, written as the SDK does or as OTLP, with their texts made harmless."""

import base64
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from resilient_ai.cli.terminal import one_line
from resilient_ai.middleware import _semconv as names

Part = TypeVar("Part")
Value = str | bool | int | float | tuple[str, ...]
Attributes = Mapping[str, Value]

_ODD = (
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    OverflowError,
)  # what is raised for a thing that is not what it should be
_LONGEST_TEXT = 200
_MOST_TEXTS = 20  # of a list
_LATEST = 253_402_300_799 * 10**9  # the end of the year 9999
_LARGEST = 10**15
_FRACTION = re.compile(r"\.(\d+)")
_METHOD = ("http.request.method", "http.method")
_PROTOCOL_STATUS = "http.status_code"  # as older instrumentations say it
_SERVICE = "service.name"
# What may be shown. Prompts, answers and arguments are not, though a file may have them.
_SHOWN = frozenset(
    {
        value
        for name, value in vars(names).items()
        if name.isupper()
        and isinstance(value, str)
        and value.startswith(("gen_ai.", "resilient_ai.", "error.", "http."))
    }
    - {names.INPUT_MESSAGES, names.OUTPUT_MESSAGES, names.TOOL_DEFINITIONS, names.TOOL_ARGUMENTS, names.TOOL_RESULT}
    - {names.TOOL_DESCRIPTION, names.REQUEST_STOP_SEQUENCES}
    | {*_METHOD, _PROTOCOL_STATUS}
)


class Facts:
    """Attributes, asked for by the kind that they should be; whatever is of another one is not known."""

    __slots__ = ("attributes",)

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes

    def text(self, name: str) -> str | None:
        """Return a text that is not empty."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) and value else None

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self.attributes.get(name)
        return value if isinstance(value, tuple) else ()

    def number(self, name: str) -> float | None:
        """Return a number from zero on."""
        value = self.attributes.get(name)
        return None if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 else value

    def count(self, name: str) -> int | None:
        """Return a whole number from zero on."""
        value = self.number(name)
        return int(value) if value is not None and value == int(value) else None

    def flag(self, name: str) -> bool | None:
        """Return whether something is so."""
        value = self.attributes.get(name)
        return value if isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened within a span, at a time in nanoseconds since 1970."""

    name: str
    at: int
    facts: Facts


@dataclass(frozen=True, slots=True)
class SpanLink:
    """Another span that a span has to do with."""

    trace: str
    span: str
    facts: Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span.

    Args:
        trace: Its trace, in hexadecimal digits.
        id: Its own number, likewise.
        parent: That of the span around it, None at the top.
        name: What it calls itself.
        start: Nanoseconds since 1970.
        end: The same, never before `start`.
        failed: Whether its status is an error.
        facts: Those of its attributes that may be shown.
        events: What happened within.
        links: What it has to do with.
        service: Who wrote it.
    """

    trace: str
    id: str
    parent: str | None
    name: str
    start: int
    end: int
    failed: bool
    facts: Facts
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()
    service: str | None = None


def spans_of(value: Any) -> Iterator[Span | None]:
    """Return the spans that a value of a file holds; None for each that has no number or time.

    >>> list(spans_of({"name": "no number"}))
    [None]
    """
    if isinstance(value, list):
        for one in value:
            yield from spans_of(one)
    elif not isinstance(value, dict):
        yield None
    elif "resourceSpans" in value:
        yield from _of_resources(value["resourceSpans"])
    elif not value.keys() & {"resourceLogs", "resourceMetrics"}:  # which a collector may write into the same file
        yield _guarded(value, None)


def _of_resources(resources: Any) -> Iterator[Span | None]:
    for resource in _dicts(resources):
        service = _text(_plain(_dict(resource.get("resource")).get("attributes")).get(_SERVICE))
        for scope in _dicts(resource.get("scopeSpans")):
            for span in _dicts(scope.get("spans")):
                yield _guarded(span, service)


def _guarded(span: dict[str, Any], service: str | None) -> Span | None:
    try:
        return _from_otlp(span, service) if "spanId" in span else _from_sdk(span)
    except _ODD:
        return None


def _each(make: Callable[[dict[str, Any]], Part], given: Any) -> Iterator[Part]:
    """Return what can be made of the things of a list."""
    for one in _dicts(given):
        with suppress(*_ODD):
            yield make(one)


def _from_sdk(span: dict[str, Any]) -> Span:
    context = span["context"]
    start = _moment(span["start_time"])
    return Span(
        trace=_hex(context["trace_id"]),
        id=_hex(context["span_id"]),
        parent=_parent(span.get("parent_id")),
        name=_text(span.get("name")) or "",
        start=start,
        end=_end(span.get("end_time"), start),
        failed=_dict(span.get("status")).get("status_code") == "ERROR",
        facts=_shown(_dict(span.get("attributes"))),
        events=tuple(_each(_event_of_sdk, span.get("events"))),
        links=tuple(_each(_link_of_sdk, span.get("links"))),
        service=_text(_dict(_dict(span.get("resource")).get("attributes")).get(_SERVICE)),
    )


def _event_of_sdk(event: dict[str, Any]) -> SpanEvent:
    return SpanEvent(_text(event["name"]) or "", _moment(event["timestamp"]), _shown(_dict(event.get("attributes"))))


def _link_of_sdk(link: dict[str, Any]) -> SpanLink:
    to = link["context"]
    return SpanLink(_hex(to["trace_id"]), _hex(to["span_id"]), _shown(_dict(link.get("attributes"))))


def _from_otlp(span: dict[str, Any], service: str | None) -> Span:
    start = _moment(span["startTimeUnixNano"])
    return Span(
        trace=_hex(span["traceId"]),
        id=_hex(span["spanId"]),
        parent=_parent(span.get("parentSpanId")),
        name=_text(span.get("name")) or "",
        start=start,
        end=_end(span.get("endTimeUnixNano"), start),
        failed=_dict(span.get("status")).get("code") in {2, "STATUS_CODE_ERROR"},
        facts=_shown(_plain(span.get("attributes"))),
        events=tuple(_each(_event_of_otlp, span.get("events"))),
        links=tuple(_each(_link_of_otlp, span.get("links"))),
        service=service,
    )


def _event_of_otlp(event: dict[str, Any]) -> SpanEvent:
    return SpanEvent(
        _text(event["name"]) or "", _moment(event["timeUnixNano"]), _shown(_plain(event.get("attributes")))
    )


def _link_of_otlp(link: dict[str, Any]) -> SpanLink:
    return SpanLink(_hex(link["traceId"]), _hex(link["spanId"]), _shown(_plain(link.get("attributes"))))


# Values


def _hex(given: Any) -> str:
    """Return a number in hexadecimal digits; protobuf's own JSON has it in base 64."""
    text = given.removeprefix("0x")
    if text.endswith("="):
        return base64.b64decode(text, validate=True).hex()
    if not text or len(text) > 32 or not int(text, 16):
        raise ValueError(given)
    return str(text).lower()


def _parent(given: Any) -> str | None:
    try:
        return _hex(given)
    except (ValueError, AttributeError, TypeError):
        return None


def _moment(given: Any) -> int:
    """Return a time in nanoseconds: a number of them, or a date."""
    if isinstance(given, str) and not given.isdecimal():
        date = datetime.fromisoformat(given)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        whole = int(date.replace(microsecond=0).timestamp()) * 10**9
        fraction = _FRACTION.search(given)
        at = whole + (int(fraction[1][:9].ljust(9, "0")) if fraction else 0)
    else:
        at = int(given)
    if not 0 <= at <= _LATEST:
        raise ValueError(given)
    return at


def _end(given: Any, start: int) -> int:
    try:
        return max(start, _moment(given))
    except (TypeError, ValueError, OverflowError):
        return start


def _shown(attributes: Mapping[str, Any]) -> Facts:
    found: dict[str, Value] = {}
    for name in attributes.keys() & _SHOWN:
        value = _value(attributes[name])
        if value is not None:
            found[name] = value
    return Facts(found)


def _value(value: Any) -> Value | None:
    if isinstance(value, list | tuple):
        return tuple(text for one in value[:_MOST_TEXTS] if (text := _text(one)) is not None)
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if math.isfinite(value) and abs(value) <= _LARGEST else None
    return _text(value)


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    whole = value[: 2 * _LONGEST_TEXT].encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be written
    return one_line(whole, _LONGEST_TEXT)


def _plain(attributes: Any) -> dict[str, Any]:
    """Return attributes of OTLP as a mapping."""
    return {str(one.get("key")): _unpacked(_dict(one.get("value"))) for one in _dicts(attributes)}


def _unpacked(value: dict[str, Any]) -> Any:
    for kind, given in value.items():
        if kind == "intValue":
            return int(given) if isinstance(given, int) or (isinstance(given, str) and len(given) < 20) else None
        if kind == "arrayValue":
            return [_unpacked(one) for one in _dicts(_dict(given).get("values"))]
        if kind in {"stringValue", "boolValue", "doubleValue"}:
            return given
    return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())
