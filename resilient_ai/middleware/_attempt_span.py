"""The span of one attempt, and the race that two of them may run."""

from collections.abc import Awaitable
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from typing_extensions import override

from resilient_ai.core import semconv as names
from resilient_ai.core.call import Call, Next
from resilient_ai.core.collector import collecting_if
from resilient_ai.core.errors import StatusError
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.results import Cost, Result
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._call_span import CallSpan
from resilient_ai.middleware._outcome import (
    Outcome,
    attempt_kind,
    attempt_outcome,
    ended_by,
    outcome_of,
    stream_outcome,
)
from resilient_ai.middleware._span_attributes import (
    Attributes,
    add_error,
    who_attributes,
)
from resilient_ai.middleware._spans import Ending, Otel, let_go, trace_headers
from resilient_ai.middleware._telemetry_faults import passed_over

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span

    from resilient_ai.middleware.tracing import Tracing

R = TypeVar("R")


class AttemptSpans:
    """The inner half: a span around every request, next to the provider, which is told of it by trace headers."""

    def __init__(self, tracing: "Tracing") -> None:
        self._tracing = tracing

    def __call__(self, call: Call[R], proceed: Next[R], /) -> Awaitable[R]:
        """Put a span around one attempt, where the call is traced; else there is no coroutine of ours in its way."""
        otel = None if call.span is None else self._tracing.otel()
        if otel is None:
            return proceed(call)
        trace = _trace_of(call, self._tracing)
        attempt = None if trace is None else _started(otel, trace, call)
        span = cast("Span", call.span) if attempt is None else attempt.span
        if self._tracing.propagate:
            headers = trace_headers(span)
            call = call.replace(headers={**call.headers, **headers} if call.headers else headers)
        return proceed(call) if attempt is None else _spanned(otel, attempt, call, proceed)

    @override
    def __repr__(self) -> str:
        return "AttemptSpans()"


async def _spanned(otel: Otel, attempt: "_AttemptSpan", call: Call[R], proceed: Next[R]) -> R:
    token = otel.attach(otel.context_of(attempt.span, None))
    try:
        result = await proceed(call)
    except BaseException as error:
        let_go(otel, token)
        with collecting_if(error):
            attempt.failed(error)
        raise
    otel.detach(token)
    attempt.answered()
    if isinstance(result, StreamResult):
        result.on_end(attempt.stream_ended)
    else:
        attempt.succeeded(result)
    return result


class Race:
    """The attempts that are made for one answer: one, or two side by side.

    It knows spans and numbers and not the attempts, which know it: all is freed without the garbage collector.

    Attributes:
        runners: The spans that have run in it, each with whether it is a hedge.
        under_way: How many of them have not ended.
        winner: The number of the attempt whose answer is used, None while there is none.
    """

    __slots__ = ("runners", "under_way", "winner")

    def __init__(self) -> None:
        self.runners: list[tuple[Span, bool]] = []
        self.under_way = 0
        self.winner: int | None = None


class _AttemptSpan(Ending):
    __slots__ = ("call", "number", "race", "trace")

    def __init__(self, trace: CallSpan, span: "Span", race: Race, call: Call[Any], number: int) -> None:
        super().__init__(trace.otel, span, trace.times)
        self.trace = trace
        self.race = race
        self.call = call
        self.number = number

    def answered(self) -> None:
        """Take note that there is an answer; the first of a race is the one that is used."""
        race = self.race
        if race.winner is None:
            race.winner = self.number
            if self.call.hedge or len(race.runners) > 1:
                self.trace.hedge_winner = self.number

    def succeeded(self, result: object) -> None:
        self.close("success", None, result.cost if isinstance(result, Result) else None)

    def failed(self, error: BaseException) -> None:
        error = ended_by(self.call, error)
        self.trace.last_failed = self.number
        self.close(outcome_of(error), error, None, is_billed=False)

    def stream_ended(self, end: StreamEnd) -> None:
        outcome, error = stream_outcome(end)
        self.close(outcome, error, end.transcript.finished.cost if end.transcript.finished is not None else None)

    def close(
        self, outcome: Outcome, error: BaseException | None, cost: Cost | None, *, is_billed: bool = True
    ) -> None:
        """End the span."""
        call, race, winner = self.call, self.race, self.race.winner
        raced = call.hedge or len(race.runners) > 1
        told = attempt_outcome(outcome, raced, winner is not None and winner != self.number)
        if told == "lost":
            error = None
        race.under_way -= 1
        key = (call.part, call.attempt)
        if not race.under_way and self.trace.races.get(key) is race:
            del self.trace.races[key]
        own = None if cost is None else cost.amount
        if is_billed and (cost is None or cost.source != "provider"):
            # What only the service can know stands. Else whoever accounts for it says in a moment, from further out.
            end = partial(self.priced, told, error, self.times.now(), own)
            self.trace.await_cost((call.id, call.part, call.attempt, call.hedge), end)
        else:
            self.finish(told, own, error)

    def priced(self, told: str, error: BaseException | None, at: int, *amounts: Decimal | None) -> None:
        """End the span with what it has cost: as the answer says, unless somebody has said more behind it."""
        self.finish(told, amounts[-1], error, at)

    @override
    def describe(self, outcome: str, about: Decimal | None, error: BaseException | None) -> Attributes:
        found: Attributes = {names.ATTEMPT_OUTCOME: outcome}
        if about is not None:
            found[names.COST_AMOUNT] = float(about)
        if error is not None:
            add_error(found, error)
            if isinstance(error, StatusError):
                found[names.HTTP_STATUS] = error.status
        return found


def _trace_of(call: Call[Any], tracing: "Tracing") -> CallSpan | None:
    """Return the span that is recorded of a call, by this tracing and no other one."""
    for listener in reversed(call.listeners):
        if isinstance(listener, CallSpan) and listener.tracing is tracing:
            return listener
    return None


def _started(otel: Otel, trace: CallSpan, call: Call[Any]) -> _AttemptSpan | None:
    """Start the span of an attempt under the span of its call, wherever it runs: a hedge has a task of its own."""
    key, model = (call.part, call.attempt), call.model
    race = trace.races.get(key)
    # A request that waits in line may be overtaken by the one that was to help it.
    if race is None or any(hedge is call.hedge for _, hedge in race.runners):
        race = Race()
    number, beside = trace.attempts + 1, race.runners
    # Where the server is the span of the call says.
    attributes: Attributes = {
        names.ATTEMPT_NUMBER: number,
        names.ATTEMPT_KIND: attempt_kind(call, trace.fallbacks),
        names.ATTEMPT_MODEL: model,
        names.ATTEMPT_PREVIOUS: call.attempt - 1 + len(beside),
    }
    if call.tags:
        attributes |= who_attributes(call.tags)
    links = _links_to(otel, beside) if beside else ()
    span = otel.start(names.SPAN_ATTEMPT, otel.internal, attributes, trace.times.now(), trace.context, links)
    if span is None:
        return None
    trace.attempts = number
    trace.races[key] = race
    beside.append((span, call.hedge))
    race.under_way += 1
    return _AttemptSpan(trace, span, race, call, number)


def _links_to(otel: Otel, beside: "list[tuple[Span, bool]]") -> "list[Link]":
    try:
        return [otel.link(sibling.get_span_context(), {names.LINK_TYPE: "hedge_sibling"}) for sibling, _ in beside]
    except FAULTS as fault:  # telemetry never fails a call
        passed_over("tracing", "link an attempt", fault)
        return []
