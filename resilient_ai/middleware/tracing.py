"""One span per call and one per attempt, by the OpenTelemetry API."""

import os
import sys
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import override

from resilient_ai.core.call import FOR_NOTHING, Call, Next
from resilient_ai.core.checks import check_able, check_kind
from resilient_ai.core.errors import StatusError
from resilient_ai.core.events import (
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    HedgeSent,
    ModelSkipped,
    RetryScheduled,
    StreamResumed,
)
from resilient_ai.core.results import Result
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware import _semconv as names
from resilient_ai.middleware._outcome import Outcome, error_type, outcome_of, stream_outcome
from resilient_ai.middleware._span_attributes import (
    Attributes,
    attempt_end_attributes,
    error_attributes,
    record_attributes,
    request_attributes,
    result_attributes,
    server_of,
    start_attributes,
)
from resilient_ai.middleware._spans import Ending, Otel, inside, load

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

R = TypeVar("R")

_CIRCUIT_STATES: Mapping[type[Event], str] = {
    CircuitOpened: "open",
    CircuitHalfOpened: "half_open",
    CircuitClosed: "closed",
}
_STREAM_OUTCOMES = {"completed": "completed", "closed": "abandoned", "failed": "interrupted", "abandoned": "abandoned"}


@dataclass(frozen=True)
class Tracing:
    """Report every call to OpenTelemetry: one span for the call, one under it for each attempt.

    The span of the call covers everything the caller waited for: cache, queues, tries, fallbacks, and a stream until its end,
    however it ends. It alone carries `gen_ai.*`, so that no backend counts tokens twice. An attempt is current while its
    request is sent, so that spans of an instrumented HTTP client nest under it and trace headers travel along.

    No prompt, answer, tool argument, key or exception message reaches a span. Of the tags only "user", "session" and "tenant"
    do. Errors that a later try made good show on their attempts alone.

    While the application has not imported OpenTelemetry there is nobody to report to, and nothing is imported or done.

    Args:
        tracer_provider: Where spans go; None means the application's global provider, also one that is set later.
        provider_name: The value of `gen_ai.provider.name`.

    Raises:
        ValueError: If an option is of a wrong type.

    >>> Tracing()
    Tracing(tracer_provider=None, provider_name='deepinfra')
    """

    tracer_provider: "TracerProvider | None" = None
    _: KW_ONLY
    provider_name: str = "deepinfra"
    inner_half: "AttemptSpans" = field(init=False, repr=False, compare=False)
    _kept: list[Otel] = field(init=False, repr=False, compare=False, default_factory=list["Otel"])

    def __post_init__(self) -> None:
        """Check the options, and make the part that stands next to the provider."""
        check_able("tracer_provider", self.tracer_provider, "get_tracer")
        check_kind("provider_name", self.provider_name, str)
        object.__setattr__(self, "inner_half", AttemptSpans(self))

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Put a span around a call."""
        otel = self.otel()
        if otel is None:
            return await proceed(call)
        operation = names.OPERATION_NAMES[call.operation.kind]
        span = otel.start(f"{operation} {call.model}", otel.client, start_attributes(call, self.provider_name))
        if span is None:
            return await proceed(call)
        if not span.is_recording():
            if not span.get_span_context().is_valid:
                return await proceed(call)
            return await inside(otel, span, call, proceed)  # not sampled, and what is below must know it
        trace = _CallSpan(otel, span, call)
        try:
            result = await inside(otel, span, call.replace(listeners=(*call.listeners, trace)), proceed)
        except BaseException as error:
            trace.failed(error)
            raise
        if isinstance(result, StreamResult):
            trace.handed_over()
            result.on_end(trace.stream_ended)
        else:
            trace.succeeded(result)
        return result

    def otel(self) -> Otel | None:
        """Return the API, None where nobody can have set up a provider."""
        if self._kept:
            return self._kept[0]
        # The API costs tens of milliseconds to import. Without it no provider can be set, except by this variable.
        imported = "opentelemetry.trace" in sys.modules or "OTEL_PYTHON_TRACER_PROVIDER" in os.environ
        if self.tracer_provider is None and not imported:
            return None
        self._kept.append(load(self.tracer_provider))
        return self._kept[0]


class _CallSpan(Ending):
    """The span of one call; as a listener it writes down what happens on the way."""

    __slots__ = ("call", "first_chunk", "retries", "started")

    def __init__(self, otel: Otel, span: "Span", call: Call[Any]) -> None:
        super().__init__(otel, span)
        self.call = call
        self.started = call.clock.monotonic()
        self.first_chunk: float | None = None
        self.retries = 0

    def __call__(self, event: Event) -> None:
        """Write an event down, unless the span is over."""
        if self.ended:
            return
        if isinstance(event, RetryScheduled):
            self.retries += 1
            self.span.add_event(names.EVENT_RETRY, _retry_attributes(event))
        elif isinstance(event, ModelSkipped):
            attributes = {names.FALLBACK_FROM: event.model, names.FALLBACK_TO: event.next_model}
            self.span.add_event(names.EVENT_FALLBACK, {**attributes, names.ERROR_TYPE: error_type(event.error)})
        elif isinstance(event, StreamResumed):
            how: Attributes = {names.RESUME_HOW: event.how, names.RESUME_NUMBER: event.number}
            self.span.add_event(names.EVENT_RESUME, how | {names.ERROR_TYPE: error_type(event.error)})
        elif isinstance(event, HedgeSent):
            self.span.add_event(names.EVENT_HEDGE, {names.HEDGE_DELAY: event.after})
        elif (state := _CIRCUIT_STATES.get(type(event))) is not None:
            self.span.add_event(names.EVENT_CIRCUIT, {names.CIRCUIT_NAME: event.model, names.CIRCUIT_STATE: state})

    def handed_over(self) -> None:
        """Remember when the first content of a stream arrived."""
        self.first_chunk = self.call.clock.monotonic() - self.started

    def succeeded(self, result: object) -> None:
        """End the span with what came back."""
        answer = result if isinstance(result, Result) else None
        self.finish(lambda: self.attributes("success", answer, None), failed=False)

    def failed(self, error: BaseException) -> None:
        """End the span with what went wrong."""
        self.finish(lambda: self.attributes(outcome_of(error), None, error), failed=True)

    def stream_ended(self, end: StreamEnd) -> None:
        """End the span with the stream."""
        outcome, error = stream_outcome(end)

        def attributes() -> Attributes:
            how = "cancelled" if outcome == "cancelled" else _STREAM_OUTCOMES[end.how]
            return self.attributes(outcome, end.answer, error) | {names.STREAM_OUTCOME: how}

        self.finish(attributes, failed=error is not None)

    def attributes(self, outcome: Outcome, result: Result | None, error: BaseException | None) -> Attributes:
        """Return all that is known at the end."""
        call = self.call
        found = request_attributes(call) | record_attributes(call, result) | {names.OUTCOME: outcome}
        if result is not None:
            found |= result_attributes(result, cached=call.record.cache in FOR_NOTHING)
        if error is not None:
            found |= error_attributes(error)
        if self.retries:
            found[names.RETRIES] = self.retries
        if self.first_chunk is not None:
            found[names.RESPONSE_TIME_TO_FIRST_CHUNK] = self.first_chunk
        return found


class AttemptSpans:
    """The inner half: a span around every request, next to the provider."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Put a span around one attempt, where the call is traced."""
        otel = self._tracing.otel()
        if otel is None or not otel.current_span().is_recording():
            return await proceed(call)
        span = otel.start(names.SPAN_ATTEMPT, otel.internal, _attempt_start_attributes(call))
        if span is None:
            return await proceed(call)
        attempt = _AttemptSpan(otel, span)
        try:
            result = await inside(otel, span, call, proceed)
        except BaseException as error:
            attempt.failed(error)
            raise
        if isinstance(result, StreamResult):
            result.on_end(attempt.stream_ended)
        else:
            attempt.succeeded(result)
        return result

    @override
    def __repr__(self) -> str:
        return "AttemptSpans()"


class _AttemptSpan(Ending):
    __slots__ = ()

    def succeeded(self, result: object) -> None:
        cost = result.cost if isinstance(result, Result) else None
        self.finish(
            lambda: attempt_end_attributes(None, cost) | {names.ATTEMPT_OUTCOME: "success"},
            failed=False,
        )

    def failed(self, error: BaseException) -> None:
        outcome = outcome_of(error)
        self.finish(
            lambda: attempt_end_attributes(error, None) | {names.ATTEMPT_OUTCOME: outcome},
            failed=True,
        )

    def stream_ended(self, end: StreamEnd) -> None:
        outcome, error = stream_outcome(end)
        cost = end.transcript.finished.cost if end.transcript.finished is not None else None
        self.finish(
            lambda: attempt_end_attributes(error, cost) | {names.ATTEMPT_OUTCOME: outcome},
            failed=error is not None,
        )


def _attempt_start_attributes(call: Call[Any]) -> Attributes:
    asked = next((listener.call.model for listener in call.listeners if isinstance(listener, _CallSpan)), call.model)
    return {
        names.ATTEMPT_NUMBER: call.record.sends + 1,
        names.ATTEMPT_KIND: "fallback" if call.model != asked else "retry" if call.attempt > 1 else "initial",
        names.ATTEMPT_MODEL: call.model,
        **server_of(call.origin),
    }


def _retry_attributes(event: RetryScheduled) -> Attributes:
    return {
        names.ATTEMPT_NUMBER: event.attempt,
        names.RETRY_DELAY: event.wait,
        names.RETRY_DELAY_SOURCE: _delay_source(event),
        names.ERROR_TYPE: error_type(event.error),
    }


def _delay_source(event: RetryScheduled) -> str:
    if event.retry_after is None:
        return "backoff"
    asked = isinstance(event.error, StatusError) and event.error.retry_after == event.retry_after
    return "retry_after" if asked else "circuit_breaker"
