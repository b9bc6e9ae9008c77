"""Spans as a trace file has them, written as OpenTelemetry's SDK does or as OTLP."""

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from resilient_ai.cli._trace_values import (
    Facts,
    dict_of,
    dicts_of,
    end_of,
    facts_of,
    hex_of,
    is_dict,
    is_list,
    moment_of,
    parent_of,
    plain,
    text_of,
)

Part = TypeVar("Part")

_ODD = (
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    OverflowError,
)  # what is raised for a thing that is not what it should be
_SERVICE = "service.name"


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


def spans_of(value: Any, traces: Collection[str] | None = None) -> Iterator[Span | None]:
    """Return the spans that a value of a file holds; None for each that has no number or time.

    Args:
        value: The value.
        traces: Spans of other traces are left out; None for none.

    >>> list(spans_of({"name": "no number"}))
    [None]
    """
    for span, service in _told(value):
        if traces is None or _trace(span) in traces:
            yield _guarded(span, service)


def _told(value: Any) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Return what should be spans, and who wrote them, where that stands around them."""
    for one in value if is_list(value) else [value]:
        if not is_dict(one):
            yield {}, None
        elif "resourceSpans" in one:
            for resource in dicts_of(one["resourceSpans"]):
                service = text_of(plain(dict_of(resource.get("resource")).get("attributes")).get(_SERVICE))
                scopes = dicts_of(resource.get("scopeSpans"))
                yield from ((span, service) for scope in scopes for span in dicts_of(scope.get("spans")))
        elif not one.keys() & {"resourceLogs", "resourceMetrics"}:  # which a collector may write into the same file
            yield one, None


def _trace(span: dict[str, Any]) -> str | None:
    with suppress(*_ODD):
        return hex_of(span["traceId"] if "spanId" in span else span["context"]["trace_id"])
    return None


def _guarded(span: dict[str, Any], service: str | None) -> Span | None:
    try:
        return _from_otlp(span, service) if "spanId" in span else _from_sdk(span)
    except _ODD:
        return None


def _each(make: Callable[[dict[str, Any]], Part], given: Any) -> Iterator[Part]:
    """Return what can be made of the things of a list."""
    for one in dicts_of(given):
        with suppress(*_ODD):
            yield make(one)


def _from_sdk(span: dict[str, Any]) -> Span:
    context = span["context"]
    start = moment_of(span["start_time"])
    return Span(
        trace=hex_of(context["trace_id"]),
        id=hex_of(context["span_id"]),
        parent=parent_of(span.get("parent_id")),
        name=text_of(span.get("name")) or "",
        start=start,
        end=end_of(span.get("end_time"), start),
        failed=dict_of(span.get("status")).get("status_code") == "ERROR",
        facts=facts_of(dict_of(span.get("attributes"))),
        events=tuple(_each(_event_of_sdk, span.get("events"))),
        links=tuple(_each(_link_of_sdk, span.get("links"))),
        service=text_of(dict_of(dict_of(span.get("resource")).get("attributes")).get(_SERVICE)),
    )


def _event_of_sdk(event: dict[str, Any]) -> SpanEvent:
    return SpanEvent(
        text_of(event["name"]) or "", moment_of(event["timestamp"]), facts_of(dict_of(event.get("attributes")))
    )


def _link_of_sdk(link: dict[str, Any]) -> SpanLink:
    to = link["context"]
    return SpanLink(hex_of(to["trace_id"]), hex_of(to["span_id"]), facts_of(dict_of(link.get("attributes"))))


def _from_otlp(span: dict[str, Any], service: str | None) -> Span:
    start = moment_of(span["startTimeUnixNano"])
    return Span(
        trace=hex_of(span["traceId"]),
        id=hex_of(span["spanId"]),
        parent=parent_of(span.get("parentSpanId")),
        name=text_of(span.get("name")) or "",
        start=start,
        end=end_of(span.get("endTimeUnixNano"), start),
        failed=dict_of(span.get("status")).get("code") in {2, "STATUS_CODE_ERROR"},
        facts=facts_of(plain(span.get("attributes"))),
        events=tuple(_each(_event_of_otlp, span.get("events"))),
        links=tuple(_each(_link_of_otlp, span.get("links"))),
        service=service,
    )


def _event_of_otlp(event: dict[str, Any]) -> SpanEvent:
    return SpanEvent(
        text_of(event["name"]) or "", moment_of(event["timeUnixNano"]), facts_of(plain(event.get("attributes")))
    )


def _link_of_otlp(link: dict[str, Any]) -> SpanLink:
    return SpanLink(hex_of(link["traceId"]), hex_of(link["spanId"]), facts_of(plain(link.get("attributes"))))
