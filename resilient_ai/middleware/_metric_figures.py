"""The figures of one call."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, cast

from resilient_ai.core import semconv as names
from resilient_ai.core.call import FOR_NOTHING, Call
from resilient_ai.core.clock import time_of
from resilient_ai.core.collector import outside_of_collector
from resilient_ai.core.events import (
    CacheLookedUp,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    HedgeSettled,
    ModelSkipped,
    PermitGranted,
    RetryScheduled,
)
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.ledger import SendClosed, WhichSend
from resilient_ai.core.results import Result, Usage
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._metric_state import Recorder
from resilient_ai.middleware._outcome import (
    Outcome,
    attempt_kind,
    attempt_outcome,
    delay_source,
    error_type,
    outcome_of,
    stream_outcome,
)
from resilient_ai.middleware._telemetry_faults import passed_over

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span


class CallFigures:
    """The figures of one call; as a listener it counts what happens on the way, also behind the call once that is over.

    Attributes:
        hears: The events that it counts, each with the method that does.
    """

    __slots__ = (
        "call",
        "context",
        "fallbacks",
        "first_chunk",
        "instruments",
        "kind",
        "lookup_failed",
        "marks",
        "model",
        "races",
        "recorder",
        "sets",
        "started",
        "state",
        "tenant",
        "waited",
    )

    def __init__(self, recorder: Recorder, call: Call[Any]) -> None:
        self.recorder = recorder
        self.instruments = recorder.instruments
        self.sets = recorder.sets
        self.state = recorder.state
        self.call = call
        # Kept, as `call.model` is a function that is asked often.
        self.kind = call.operation.kind
        self.model = call.operation.model
        self.started = call.clock.monotonic()
        self.tenant = self.sets.tenant_of(call.tags)
        # Of what is recorded while the span of the call is not current; else the current context is the right one.
        self.context: Context | None = None
        self.first_chunk: float | None = None
        self.lookup_failed = False
        self.fallbacks: set[str] | None = None
        # By body and try, where a second request went beside one: whether that answered first, None while there is no answer.
        self.races: dict[tuple[str, int], bool | None] | None = None
        self.waited: dict[str, float] | None = None
        self.marks = self.state.marks_of(self.kind, self.model)
        self.marks.add(id(self))

    def __call__(self, event: Event) -> None:
        """Count an event, if it is one that is counted."""
        count = self.hears.get(type(event))
        if count is not None:
            try:
                count(self, event)
            except FAULTS as fault:  # telemetry never fails a call
                passed_over("metrics", "count an event", fault)

    def attempted(self, call: Call[Any], started: float, outcome: Outcome, error: BaseException | None) -> None:
        """Record one request."""
        raced, came_late = (False, False) if self.races is None else self.place_of(call)
        how = attempt_outcome(outcome, raced, came_late)
        word = None if error is None or how == "lost" else error_type(error)
        # An SDK takes locks, which whoever the garbage collector has interrupted may hold.
        outside_of_collector(self.record_attempt, call, self.since(started), how, word)

    def record_attempt(self, call: Call[Any], elapsed: float, how: str, error: str | None) -> None:
        """Record how long one request took."""
        try:
            attributes = self.sets.of_attempt(call.operation.model, attempt_kind(call, self.fallbacks), how, error)
            self.instruments.attempt_duration.record(elapsed, attributes, self.instruments.apart)
        except FAULTS as fault:  # telemetry never fails a call
            passed_over("metrics", "record an attempt", fault)

    def race_begun(self, call: Call[Any]) -> None:
        """Take note that a second request goes beside one."""
        self.races = self.races or {}
        self.races.setdefault((call.part, call.attempt), None)

    def answered(self, call: Call[Any]) -> None:
        """Take note of an answer, of which the first of a race is used."""
        races, key = self.races, (call.part, call.attempt)
        if races is not None and key in races and races[key] is None:
            races[key] = call.hedge

    def place_of(self, call: Call[Any]) -> tuple[bool, bool]:
        """Return whether a request was in a race, and whether the other one's answer came before."""
        races, key = self.races or {}, (call.part, call.attempt)
        first = races.get(key)
        return key in races, first is not None and first is not call.hedge

    def handed_over(self, stream: StreamResult) -> None:
        """Take note of the first content of a stream, and wait for its end."""
        self.first_chunk = self.since(self.started)
        span = self.call.span
        if span is not None:
            self.context = self.recorder.context_of(cast("Span", span))
        stream.on_end(self.stream_ended)

    def stream_ended(self, end: StreamEnd) -> None:
        """Record a stream, however it ended."""
        finished = end.transcript.finished
        model = (finished and finished.model) or end.transcript.model
        usage = None if finished is None else finished.usage
        self.end(*stream_outcome(end), model, usage)

    def succeeded(self, result: object) -> None:
        """Record an answer."""
        if isinstance(result, Result):
            self.end("success", None, result.model, result.usage)
        else:
            self.end("success", None, None, None)

    def failed(self, error: BaseException) -> None:
        """Record a failure."""
        self.end(outcome_of(error), error, None, None)

    def end(self, outcome: Outcome, error: BaseException | None, model: str | None, usage: Usage | None) -> None:
        """Record a call that is over."""
        self.marks.discard(id(self))
        word = None if error is None else error_type(error)
        outside_of_collector(self.record_safely, self.since(self.started), outcome, word, model, usage)

    def record_safely(
        self, elapsed: float, outcome: Outcome, error: str | None, model: str | None, usage: Usage | None
    ) -> None:
        """Record what is known of the call at its end, as far as an SDK lets us."""
        try:
            self.record(elapsed, outcome, error, model, usage)
        except FAULTS as fault:  # telemetry never fails a call
            passed_over("metrics", "record a call", fault)

    def record(
        self, elapsed: float, outcome: Outcome, error: str | None, model: str | None, usage: Usage | None
    ) -> None:
        """Record what is known of the call at its end.

        One duration leads to its span by an exemplar, as each costs about what recording a figure does: that of
        `gen_ai.client.*` where the service was asked, else that of the request.
        """
        call, instruments, context, apart = self.call, self.instruments, self.context, self.instruments.apart
        record = call.record
        was_asked = record.sends > 0 and record.cache not in FOR_NOTHING
        cache = "error" if self.lookup_failed and record.cache == "miss" else record.cache
        of = self.sets.of_call((self.kind, call.origin, self.model, model, outcome, cache, error, self.tenant))
        instruments.request_duration.record(elapsed, of.request, apart if was_asked else context)
        if record.sends:
            instruments.request_attempts.record(record.sends, of.attempts, apart)
        if was_asked:
            for client in instruments.client:
                client.record(of, elapsed, self.first_chunk, usage, context)
            if instruments.openlit_cost is not None and (cost := record.cost()) is not None:
                instruments.openlit_cost.record(float(cost.amount), of.client, apart)
        if cache != "off":
            instruments.cache_requests.add(1, of.cache, apart)
            if record.saved:
                self.recorder.saved(of.saved, record.saved)
        if outcome == "refused":
            instruments.rejections.add(1, {names.REJECTION_REASON: error or ""}, apart)
        if self.waited:
            for waiting, seconds in self.waited.items():
                instruments.retry_wait.record(seconds, {names.ATTEMPT_MODEL: waiting}, apart)

    def since(self, started: float) -> float:
        """Return the seconds since a point of the clock; 0 where it has stopped with its loop."""
        now = time_of(self.call.clock)
        return now - started if now > started else 0.0

    # What happens on the way

    def send_closed(self, row: SendClosed) -> None:
        """Add what a request cost; what is not known adds nothing."""
        if row.cost and row.which is not None:
            outside_of_collector(self.add_cost, row.which, row.cost, row.used)

    def add_cost(self, which: WhichSend, cost: Decimal, used: bool) -> None:  # noqa: FBT001 - handed on as it is
        """Add a cost."""
        try:
            self.recorder.cost_of(which.kind, self.model, which.model, self.tenant, used=used).add(cost)
        except FAULTS as fault:  # telemetry never fails a call
            passed_over("metrics", "add a cost", fault)

    def retry(self, event: RetryScheduled) -> None:
        """Count a retry, and what it waits."""
        model = self.sets.models.of(event.model)
        attributes = {
            names.ATTEMPT_MODEL: model,
            names.ERROR_TYPE: error_type(event.error),
            names.RETRY_DELAY_SOURCE: delay_source(event),
        }
        self.instruments.retries.add(1, attributes, self.instruments.apart)
        self.waited = self.waited or {}
        self.waited[model] = self.waited.get(model, 0.0) + event.wait

    def hedge(self, event: HedgeSettled) -> None:
        """Count a hedge."""
        attributes = {names.ATTEMPT_MODEL: self.sets.models.of(event.model), names.ATTEMPT_OUTCOME: event.outcome}
        self.instruments.hedges.add(1, attributes, self.instruments.apart)

    def fallback(self, event: ModelSkipped) -> None:
        """Count a model that could not serve."""
        self.fallbacks = {*(self.fallbacks or ()), event.next_model}
        of = self.sets.models.of
        attributes = {
            names.FALLBACK_FROM: of(event.model),
            names.FALLBACK_TO: of(event.next_model),
            names.ERROR_TYPE: error_type(event.error),
        }
        self.instruments.fallbacks.add(1, attributes, self.instruments.apart)

    def transition(self, event: Event) -> None:
        """Count a change of a breaker's state."""
        attributes = self.state.transition(event, self.kind)
        self.instruments.transitions.add(1, attributes, self.instruments.apart)

    def permit(self, event: PermitGranted) -> None:
        """Record a wait for a permit."""
        attributes = {names.LIMITER_NAME: event.limit, names.ATTEMPT_MODEL: self.sets.models.of(event.model)}
        self.instruments.limiter_wait.record(event.waited, attributes, self.instruments.apart)

    def looked_up(self, event: CacheLookedUp) -> None:
        """Take note of a cache that failed, which the record of a call tells as a miss."""
        self.lookup_failed = self.lookup_failed or event.outcome == "error"

    # The class of an event fixes the method that takes it, which no type checker can follow through a lookup.
    hears: ClassVar[Mapping[type[Event], Callable[[Any, Any], None]]] = {
        RetryScheduled: retry,
        HedgeSettled: hedge,
        ModelSkipped: fallback,
        CircuitOpened: transition,
        CircuitHalfOpened: transition,
        CircuitClosed: transition,
        PermitGranted: permit,
        CacheLookedUp: looked_up,
    }
