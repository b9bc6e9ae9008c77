"""The spans and points of one call, made by the SDK from constants, with nothing of this library around it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Tracer, set_span_in_context

from resilient_ai.core.call import Call, Middleware, Next
from resilient_ai.core.operations import Operation
from resilient_ai.core.pipeline import Pipeline

R = TypeVar("R")

# What the points of an attempt have in common; all others are recorded when the call is over.
_OF_ATTEMPT = "resilient_ai.attempt.duration"


class SpanSample(NamedTuple):
    """What one span was made of."""

    name: str
    kind: SpanKind
    begun: Mapping[str, Any]
    ended: Mapping[str, Any]


class PointSample(NamedTuple):
    """What one figure was made of; one that had an exemplar was recorded where a span was current."""

    name: str
    unit: str
    bounds: list[float]
    value: float
    attributes: Mapping[str, Any]
    in_span: bool


class Sample(NamedTuple):
    """What one call reports."""

    call: SpanSample
    attempt: SpanSample
    points: list[PointSample]


class _Starts(SpanProcessor):
    def __init__(self) -> None:
        self.begun: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, SpanSample] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        del parent_context
        self.begun[span.name] = dict(span.attributes or {})

    def on_end(self, span: ReadableSpan) -> None:
        begun = self.begun[span.name]
        ended = {name: value for name, value in (span.attributes or {}).items() if name not in begun}
        self.ended[span.name] = SpanSample(span.name, span.kind, begun, ended)


async def sample_of(build: Callable[[TracerProvider, MeterProvider], Pipeline], operation: Operation[Any]) -> Sample:
    """Send an operation once, and return what was reported of it."""
    spans, reader = _Starts(), InMemoryMetricReader()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(spans)
    pipeline = build(tracers, MeterProvider([reader], shutdown_on_exit=False))
    await pipeline.send(operation)
    data = reader.get_metrics_data()
    assert data is not None
    points = [
        PointSample(
            metric.name,
            metric.unit or "",
            list(point.explicit_bounds),
            point.sum,
            dict(point.attributes or {}),
            bool(point.exemplars),
        )
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if isinstance(point, HistogramDataPoint)
    ]
    attempt = spans.ended.pop("resilient_ai.attempt")
    (call,) = spans.ended.values()
    return Sample(call, attempt, points)


class Alone:
    """A middleware that reports what a sample says of every call, and knows nothing of the call."""

    def __init__(self, sample: Sample, tracers: TracerProvider, meters: MeterProvider) -> None:
        tracer = tracers.get_tracer("bench.alone")
        of_attempt = [point for point in sample.points if point.name == _OF_ATTEMPT]
        of_call = [point for point in sample.points if point.name != _OF_ATTEMPT]
        self._around = _around(tracer, sample.call, _recorder(meters, of_call))
        self.inner_half = _around(tracer, sample.attempt, _recorder(meters, of_attempt))

    def __call__(self, call: Call[R], proceed: Next[R], /) -> Awaitable[R]:
        """Report a call."""
        return self._around(call, proceed)


def _around(tracer: Tracer, sample: SpanSample, record: Callable[[], None]) -> Middleware:
    """Return a middleware that puts a span around what it is asked for, and records points inside of it."""
    name, kind, begun, ended = sample

    async def report(call: Call[R], proceed: Next[R], /) -> R:
        span = tracer.start_span(name, None, kind, begun)
        token = contexts.attach(set_span_in_context(span))
        result = await proceed(call)
        record()
        contexts.detach(token)
        span.set_attributes(ended)
        span.end()
        return result

    return report


def _recorder(meters: MeterProvider, points: list[PointSample]) -> Callable[[], None]:
    meter, apart = meters.get_meter("bench.alone"), Context({"apart": "from spans"})
    made = {
        point.name: meter.create_histogram(
            point.name, unit=point.unit, explicit_bucket_boundaries_advisory=point.bounds
        )
        for point in points
    }
    calls = [
        (made[point.name].record, point.value, point.attributes, None if point.in_span else apart) for point in points
    ]

    def record() -> None:
        for put, value, attributes, context in calls:
            put(value, attributes, context)

    return record
