"""What the span of a call is told of events on the way."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from resilient_ai.core import semconv as names
from resilient_ai.core.events import (
    CacheLookedUp,
    CallJoined,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    HedgeSent,
    ModelSkipped,
    PermitGranted,
    RetryScheduled,
    RetrySuppressed,
    StreamResumed,
)
from resilient_ai.middleware._outcome import delay_source, error_type
from resilient_ai.middleware._span_attributes import Attributes
from resilient_ai.middleware._span_origin import span_context
from resilient_ai.middleware._span_records import Severity

if TYPE_CHECKING:
    from resilient_ai.middleware._call_span import CallSpan

_SHORT_WAIT = 0.005  # seconds in a queue that are not worth a span
_STOP_REASONS = {
    "budget": "budget",
    "ceiling": "exhausted",
    "circuit": "circuit",
    "deadline": "deadline",
    "wait": "wait",
}
_CIRCUIT_STATES: Mapping[type[Event], tuple[str, Severity]] = {
    CircuitOpened: ("open", "ERROR"),
    CircuitHalfOpened: ("half_open", "WARN"),
    CircuitClosed: ("closed", "INFO"),
}


def _retried(trace: "CallSpan", event: RetryScheduled) -> None:
    trace.retries += 1
    trace.stop_reason = "exhausted"  # unless another reason is told, or an answer comes
    attributes: Attributes = {
        # Counted over the whole call, as on the spans of attempts; `event.attempt` begins anew with each model.
        names.ATTEMPT_NUMBER: trace.last_failed or trace.attempts,
        names.RETRY_DELAY: event.wait,
        names.RETRY_DELAY_SOURCE: delay_source(event),
        names.ERROR_TYPE: error_type(event.error),
    }
    _note(trace, names.EVENT_RETRY, attributes)


def _gave_up(trace: "CallSpan", event: RetrySuppressed) -> None:
    trace.stop_reason = _STOP_REASONS[event.reason]


def _hedged(trace: "CallSpan", event: HedgeSent) -> None:
    trace.hedges += 1
    attributes: Attributes = {names.ATTEMPT_NUMBER: trace.attempts + 1, names.HEDGE_DELAY: event.after}
    _note(trace, names.EVENT_HEDGE, attributes, "INFO")


def _skipped(trace: "CallSpan", event: ModelSkipped) -> None:
    trace.stop_reason = None
    trace.fallbacks = {*(trace.fallbacks or ()), event.next_model}
    attributes: Attributes = {names.FALLBACK_FROM: event.model, names.FALLBACK_TO: event.next_model}
    _note(trace, names.EVENT_FALLBACK, attributes | {names.ERROR_TYPE: error_type(event.error)})


def _resumed(trace: "CallSpan", event: StreamResumed) -> None:
    attributes: Attributes = {names.RESUME_HOW: event.how, names.RESUME_NUMBER: event.number}
    _note(trace, names.EVENT_RESUME, attributes | {names.ERROR_TYPE: error_type(event.error)})


def _turned(trace: "CallSpan", event: CircuitOpened | CircuitHalfOpened | CircuitClosed) -> None:
    state, severity = _CIRCUIT_STATES[type(event)]
    attributes: Attributes = {names.CIRCUIT_NAME: event.model, names.CIRCUIT_STATE: state}
    _note(trace, names.EVENT_CIRCUIT, attributes, severity)


def _looked_up(trace: "CallSpan", event: CacheLookedUp) -> None:
    origin = None if event.filled_by is None else span_context(event.filled_by)
    if origin is not None:
        trace.span.add_link(origin, {names.LINK_TYPE: "cache_origin"})


def _joined(trace: "CallSpan", event: CallJoined) -> None:
    leader: Any = event.leader_span
    if leader is not None:
        trace.span.add_link(leader.get_span_context(), {names.LINK_TYPE: "coalesced_leader"})


def _let_through(trace: "CallSpan", event: PermitGranted) -> None:
    """Add up the wait; a long one becomes a span, which is made now that its end is known."""
    trace.waited += event.waited
    if event.waited <= _SHORT_WAIT:
        return
    otel, end = trace.otel, trace.times.now()
    attributes: Attributes = {names.LIMITER_NAME: event.limit, names.ATTEMPT_MODEL: event.model}
    start = end - int(event.waited * 1e9)
    span = otel.start(names.SPAN_LIMITER_WAIT, otel.internal, attributes, start, trace.context)
    if span is not None:
        span.end(end)


def _note(trace: "CallSpan", name: str, attributes: Attributes, severity: Severity = "WARN") -> None:
    at, records = trace.times.now(), trace.style.records
    if records is None:
        trace.span.add_event(name, attributes, at)
    else:
        records.emit(name, attributes, trace.context, at, severity)


WRITERS: Mapping[type[Event], Callable[["CallSpan", Any], None]] = {
    CacheLookedUp: _looked_up,
    CallJoined: _joined,
    CircuitClosed: _turned,
    CircuitHalfOpened: _turned,
    CircuitOpened: _turned,
    HedgeSent: _hedged,
    ModelSkipped: _skipped,
    PermitGranted: _let_through,
    RetryScheduled: _retried,
    RetrySuppressed: _gave_up,
    StreamResumed: _resumed,
}
