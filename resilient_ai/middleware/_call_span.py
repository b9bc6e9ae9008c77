"""The span of one call, which writes down what happens on the way."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from typing_extensions import override

from resilient_ai.core import semconv as names
from resilient_ai.core.call import FOR_NOTHING, Call
from resilient_ai.core.deltas import ReasoningDelta, Restarted, StreamEvent
from resilient_ai.core.errors import ProviderError
from resilient_ai.core.events import Event
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.ledger import SendClosed
from resilient_ai.core.operations import Sampling
from resilient_ai.core.results import Result
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._backends import Facts, backend_attributes, remembered_backends
from resilient_ai.middleware._conventions import Conventions
from resilient_ai.middleware._outcome import STREAM_OUTCOMES, is_leaked, outcome_of, stream_outcome
from resilient_ai.middleware._span_attributes import (
    Attribute,
    Attributes,
    add_error,
    add_record,
    add_request,
    add_result,
)
from resilient_ai.middleware._span_content import ContentWriter
from resilient_ai.middleware._span_events import WRITERS
from resilient_ai.middleware._span_records import RecordWriter
from resilient_ai.middleware._spans import Ending, Otel, Times
from resilient_ai.middleware._telemetry_faults import passed_over

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from resilient_ai.middleware._attempt_span import Race

# The id of a call, its body, the try of that, and whether it is a hedge: one request among those that a call makes.
SendKey = tuple[str, str, int, bool]


class Style(NamedTuple):
    """How the span of a call is written.

    Args:
        conventions: Which text of the conventions it follows.
        backends: For whom something is added; None for whom the process is set up.
        tags: Which tags of the call are shown.
        content: What writes prompts and answers, None for nobody.
        is_described: Whether somebody around us describes the call by `gen_ai.*` already.
        records: What writes events as log records, None where they stand on the span.
    """

    conventions: Conventions
    backends: Sequence[str] | None
    tags: Sequence[str]
    content: ContentWriter | None
    is_described: bool = False
    records: RecordWriter | None = None


def without_gen_ai(attributes: Mapping[str, Attribute]) -> Attributes:
    """Return what the span of a call may have that somebody around us describes."""
    return {name: value for name, value in attributes.items() if not name.startswith("gen_ai.")}


class CallSpan(Ending):
    """The span of one call; a listener of its events.

    Attributes:
        hears: The events that it writes down, each with the function that does.
        call: The call as it came to `tracing`.
        style: How the span is written.
        tracing: Whose span it is.
        races: What the inner half knows of attempts for one answer, by body and try.
        begun: What it began with.
        context: What is current inside of it.
        attempts: How many attempts it has counted.
        fallbacks: The models that were asked as another one could not serve.
        hedges: How many second requests went beside a slow one.
        hedge_winner: The number of the attempt that won the last race.
        last_failed: The number of the attempt that was the last to fail before it had an answer, None for none.
        retries: How many waits for another try there were.
        stop_reason: Why a call that fails now would not be tried again, None where nobody said.
        waited: Seconds that requests stood in line.
        discarded: Tokens of answers that were not used, by the name of their attribute.
        first_chunk: Seconds until a stream began, None for what is no stream.
        first_content: Seconds until its first content that is no thought.
        chunks: Pieces of a stream that have arrived.
        unpriced: Attempts that wait to be told their cost, by `SendKey`: functions that end their spans with it, or without.
    """

    hears: ClassVar = WRITERS

    __slots__ = (
        "attempts",
        "begun",
        "call",
        "chunks",
        "context",
        "discarded",
        "fallbacks",
        "first_chunk",
        "first_content",
        "hedge_winner",
        "hedges",
        "last_failed",
        "races",
        "retries",
        "stop_reason",
        "style",
        "tracing",
        "unpriced",
        "waited",
    )

    def __init__(  # noqa: PLR0917 - a call by names costs more, and there is one
        self,
        otel: Otel,
        span: "Span",
        times: Times,
        context: "Context",
        tracing: object,
        style: Style,
        call: Call[Any],
        begun: Mapping[str, Attribute],
    ) -> None:
        super().__init__(otel, span, times)
        self.begun = begun
        self.context = context
        self.tracing = tracing
        self.style = style
        self.call = call
        self.races: dict[tuple[str, int], Race] = {}
        self.attempts = 0
        self.fallbacks: set[str] | None = None
        self.hedge_winner: int | None = None
        self.hedges = 0
        self.last_failed: int | None = None
        self.retries = 0
        self.stop_reason: str | None = None
        self.waited = 0.0
        self.discarded: dict[str, int] | None = None
        self.unpriced: dict[SendKey, Callable[..., None]] | None = None
        self.chunks = 0
        self.first_chunk: float | None = None
        self.first_content: float | None = None

    def __call__(self, event: Event) -> None:
        """Write an event down, unless the span is over."""
        write = self.hears.get(type(event))
        if write is not None and not self.ended:
            try:
                write(self, event)
            except FAULTS as fault:  # telemetry never fails a call
                passed_over("tracing", "note an event", fault)

    def send_closed(self, row: SendClosed) -> None:
        """End the span of an attempt with its cost, also when the call is over; count the tokens of an answer nobody used."""
        which = row.which
        if self.unpriced and which is not None:
            end_attempt = self.unpriced.pop((which.call_id, which.part, which.attempt, which.hedge), None)
            if end_attempt is not None:
                end_attempt(row.cost)
        usage = row.usage
        if row.used or usage is None:
            return
        discarded = self.discarded = self.discarded or {}
        for name, tokens in (
            (names.DISCARDED_INPUT, usage.input_tokens),
            (names.DISCARDED_OUTPUT, usage.output_tokens),
        ):
            if tokens is not None:
                discarded[name] = discarded.get(name, 0) + tokens

    def await_cost(self, key: "SendKey", end: Callable[..., None]) -> None:
        """Call `end` with what a request has cost as soon as that is told, or without anything when the call is over.

        Others may wait for the answer when this call is over. Whoever accounts for it does so before the loop comes round again.
        """
        if self.ended:
            try:
                asyncio.get_running_loop().call_soon(self.give_up_on_costs)
            except RuntimeError:  # no loop runs, and nobody might come back to it
                end()
                return
        waiting = self.unpriced = self.unpriced or {}
        earlier = waiting.pop(key, None)
        if earlier is not None:  # a middleware of the user's sends again and does not count
            earlier()
        waiting[key] = end

    def give_up_on_costs(self) -> None:
        """End the spans of attempts of which nobody has told the cost."""
        waiting, self.unpriced = self.unpriced, None
        for end in (waiting or {}).values():
            end()

    # Ends

    @override
    def before_end(self) -> None:
        if self.unpriced:
            self.give_up_on_costs()

    def handed_over(self, stream: StreamResult) -> None:
        """Remember when the first content of a stream arrived, count what follows, and end with it."""
        self.first_chunk = self.since_start()
        stream.on_events(self.arrived)
        stream.on_end(self.stream_ended)

    def arrived(self, events: Sequence[StreamEvent]) -> None:
        """Count pieces of a stream."""
        self.chunks += len(events)
        if self.first_content is None and any(not isinstance(event, ReasoningDelta | Restarted) for event in events):
            self.first_content = self.since_start()

    def since_start(self) -> float:
        """Return the seconds since the call began."""
        return (self.times.now() - self.times.start) / 1e9

    def succeeded(self, result: object) -> None:
        """End the span with what came back."""
        self.finish("success", result if isinstance(result, Result) else None, None)

    def failed(self, error: BaseException) -> None:
        """End the span with what went wrong."""
        self.finish(outcome_of(error), None, error)

    def stream_ended(self, end: StreamEnd) -> None:
        """End the span with the stream."""
        outcome, error = stream_outcome(end)
        self.finish(outcome, end, error)

    @override
    def describe(self, outcome: str, about: Result | StreamEnd | None, error: BaseException | None) -> Attributes:
        if not isinstance(about, StreamEnd):
            return self.attributes(outcome, about, error)
        pieces = self.chunks - (about.transcript.finished is not None)
        found: Attributes = {names.STREAM_OUTCOME: STREAM_OUTCOMES[outcome], names.STREAM_CHUNKS: pieces}
        if is_leaked(about):
            found[names.STREAM_LEAKED] = True
        if about.how == "completed" and about.answer.usage is None and self.call.record.cache not in FOR_NOTHING:
            found[names.USAGE_MISSING] = True
        return self.attributes(outcome, about.answer, error) | found

    def attributes(self, outcome: str, result: Result | None, error: BaseException | None) -> Attributes:
        """Return all that is known at the end; what was said goes out as well, where that is asked for."""
        call, style = self.call, self.style
        found: Attributes = {names.OUTCOME: outcome}
        add_request(found, call, style.tags)
        add_record(found, call, result, self.fallbacks or ())
        if self.races:  # what is still under way may be billed once this span is over
            found[names.COST_COMPLETE] = False
        if result is not None:
            add_result(found, call, result, style.conventions)
        elif style.conventions == "latest" and isinstance(call.operation, Sampling):
            found[names.RESPONSE_FINISH_REASONS] = ["error"] * call.operation.n
        if error is not None:
            add_error(found, error)
            reason = self.why_not_again(error)
            if reason is not None:
                found[names.RETRY_STOP_REASON] = reason
        self.add_counts(found)
        backends = remembered_backends() if style.backends is None else style.backends
        if backends and not style.is_described:
            found |= backend_attributes(backends, self.facts(result, found))
        if "langfuse" in backends and names.USAGE_CACHE_WRITE in found:
            # It would add a key that it does not know to the tokens that it knows already.
            found[names.USAGE_CACHE_CREATION] = found.pop(names.USAGE_CACHE_WRITE)
        if style.is_described:
            found = without_gen_ai(found)
        if style.content is not None and not style.is_described:
            found |= style.content.write(self, result, {**self.begun, **found})
        return found

    def add_counts(self, found: Attributes) -> None:
        """Add how much of each kind there was, where there was any."""
        if self.retries:
            found[names.RETRIES] = self.retries
        if self.hedges:
            found[names.HEDGES] = self.hedges
        if self.hedge_winner is not None:
            found[names.HEDGE_WINNER] = self.hedge_winner
        if self.waited:
            found[names.LIMITER_WAITED] = self.waited
        if self.first_chunk is not None:
            found[names.RESPONSE_TIME_TO_FIRST_CHUNK] = self.first_chunk
        if self.first_content is not None:
            found[names.STREAM_FIRST_CONTENT] = self.first_content
        if self.discarded:
            found |= self.discarded

    def why_not_again(self, error: BaseException) -> str | None:
        """Return why a call that failed was not tried again, as far as anybody said."""
        if not isinstance(error, ProviderError):
            return None
        return self.stop_reason if error.retryable else "not_retryable"

    def facts(self, result: Result | None, found: Attributes) -> Facts:
        """Return what backends have names of their own for."""
        cost = self.call.record.cost_of(result)
        shown: Any = found.get(names.TAGS, ())
        amount = None if cost is None else float(cost.amount)
        return Facts(amount, self.times.start, self.first_chunk, self.call.tags, shown)
