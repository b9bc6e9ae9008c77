"""From single spans to calls, attempts, waits and events."""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from resilient_ai.cli._trace_model import Attempt, Call, Mark, MarkKind, Money, Other, Part, Stream, Tokens, Wait
from resilient_ai.cli._trace_spans import Span, SpanEvent
from resilient_ai.cli._trace_values import Facts
from resilient_ai.core import semconv as names

_DEAREST = 1e9  # dollars; above that it is no price
_CHEAPEST = 1e-15
_LONGEST_WAIT = 1e9  # seconds
_HTTP_STATUS = (names.HTTP_STATUS, "http.status_code")
# Facts that are shown as they are, by the word that people and programs see.
_DETAILS = {
    "tenant": names.TENANT,
    "tags": names.TAGS,
    "finish_reasons": names.RESPONSE_FINISH_REASONS,
    "texts": names.BATCH_SIZE,
    "dimensions": names.EMBEDDINGS_DIMENSION_COUNT,
    "images": names.IMAGE_COUNT,
    "size": names.IMAGE_SIZE,
    "tier": names.SERVICE_TIER,
    "retries": names.RETRIES,
    "hedges": names.HEDGES,
    "hedge_winner": names.HEDGE_WINNER,
    "stop_reason": names.RETRY_STOP_REASON,
    "waited_in_line": names.LIMITER_WAITED,
    "fallback": names.FALLBACK_MODEL,
    "route": names.ROUTE,
    "route_reason": names.ROUTE_REASON,
    "timeout": names.TIMEOUT_PHASE,
    "budget": names.BUDGET_NAME,
    "response_id": names.RESPONSE_ID,
    "tool_call": names.TOOL_CALL_ID,
}


def call_of(span: Span, above: str | None, parts: Sequence[Part]) -> Call:
    """Return a call from its span, the call it ran in, and what happened in it."""
    facts = span.facts
    operation = facts.text(names.OPERATION_NAME) or "call"
    is_tool = operation == names.EXECUTE_TOOL
    prefix, _, rest = span.name.partition(" ")
    title = facts.text(names.TOOL_NAME if is_tool else names.REQUEST_MODEL) or (rest if prefix == operation else None)
    if title is None:
        title = next((part.model for part in parts if isinstance(part, Attempt) and part.model), None)
    leader = next((link for link in span.links if link.facts.text(names.LINK_TYPE) == "coalesced_leader"), None)
    return Call(
        trace=span.trace,
        span=span.id,
        above=above,
        id=facts.text(names.CALL_ID),
        service=span.service,
        operation=operation,
        title=title,
        served_by=facts.text(names.RESPONSE_MODEL),
        start=span.start,
        end=span.end,
        outcome=facts.text(names.OUTCOME),
        failed=span.failed,
        complete=True,
        error=facts.text(names.ERROR_TYPE),
        error_class=facts.text(names.ERROR_CLASS),
        details={
            word: value
            for word, name in _DETAILS.items()
            if (value := facts.attributes.get(name)) not in (None, "", ())
        },
        attempts=facts.count(names.ATTEMPTS),
        cache=facts.text(names.CACHE_OUTCOME),
        cache_age=facts.number(names.CACHE_AGE),
        leader=None if leader is None else (leader.trace, leader.span),
        tokens=_tokens(facts),
        money=_money(facts),
        stream=_stream(facts),
        parts=parts,
    )


def remains_of(trace: str, number: str, parts: list[Part]) -> Call:
    """Return what its parts tell of a call that has not ended, or whose span is in another file."""
    attempts = [part for part in parts if isinstance(part, Attempt)]
    nothing = Facts({})
    return Call(
        trace=trace,
        span=number,
        above=None,
        id=None,
        service=None,
        operation="call",
        title=next((part.model for part in attempts if part.model), None),
        served_by=None,
        start=min((_begin(part) for part in parts), default=0),
        end=max((_begin(part) if isinstance(part, Mark) else part.end for part in parts), default=0),
        outcome=None,
        failed=False,
        complete=False,
        error=None,
        error_class=None,
        details={},
        attempts=len(attempts),
        cache=None,
        cache_age=None,
        leader=None,
        tokens=_tokens(nothing),
        money=_money(nothing),
        stream=None,
        parts=in_order(parts),
    )


def attempt_of(span: Span, others: Sequence[Other]) -> Attempt:
    """Return an attempt from its span."""
    facts = span.facts
    return Attempt(
        number=facts.count(names.ATTEMPT_NUMBER),
        kind=facts.text(names.ATTEMPT_KIND),
        model=facts.text(names.ATTEMPT_MODEL),
        start=span.start,
        end=span.end,
        outcome=facts.text(names.ATTEMPT_OUTCOME),
        error=facts.text(names.ERROR_TYPE),
        error_class=facts.text(names.ERROR_CLASS),
        status=facts.count(names.HTTP_STATUS),
        cost=_dollars(facts, names.COST_AMOUNT),
        others=others,
    )


def other_of(span: Span, depth: int) -> Other:
    """Return what is known of a span of somebody else."""
    status = next((found for name in _HTTP_STATUS if (found := span.facts.count(name)) is not None), None)
    name = span.name or "(no name)"
    return Other(name=name, start=span.start, end=span.end, failed=span.failed, status=status, depth=depth)


def happened_in(span: Span) -> Iterator[Part]:
    """Return what the events of a call's span tell."""
    for event in span.events:
        facts = event.facts
        if event.name == names.EVENT_RETRY:
            yield _wait(event, span.end)
        elif event.name == names.EVENT_HEDGE:
            yield _mark("hedge", event, None)
        elif event.name == names.EVENT_FALLBACK:
            yield _mark("fallback", event, facts.text(names.FALLBACK_TO))
        elif event.name == names.EVENT_RESUME:
            yield _mark("resumed", event, facts.text(names.RESUME_HOW))
        elif event.name == names.EVENT_CIRCUIT:
            yield _mark("circuit", event, facts.text(names.CIRCUIT_STATE))


def _wait(event: SpanEvent, end: int) -> Wait:
    delay = min(event.facts.number(names.RETRY_DELAY) or 0.0, _LONGEST_WAIT)
    return Wait(
        kind="retry",
        start=event.at,
        # A call that was cancelled has not waited to the end.
        end=max(event.at, min(end, event.at + int(delay * 1e9))),
        source=event.facts.text(names.RETRY_DELAY_SOURCE),
        error=event.facts.text(names.ERROR_TYPE),
    )


def _mark(kind: MarkKind, event: SpanEvent, text: str | None) -> Mark:
    return Mark(kind=kind, at=event.at, text=text, error=event.facts.text(names.ERROR_TYPE))


def _stream(facts: Facts) -> Stream | None:
    outcome, first = facts.text(names.STREAM_OUTCOME), facts.number(names.RESPONSE_TIME_TO_FIRST_CHUNK)
    if outcome is None and first is None and not facts.flag(names.REQUEST_STREAM):
        return None
    return Stream(
        outcome=outcome,
        chunks=facts.count(names.STREAM_CHUNKS),
        first_chunk=first,
        first_content=facts.number(names.STREAM_FIRST_CONTENT),
    )


def _tokens(facts: Facts) -> Tokens:
    return Tokens(
        input=facts.count(names.USAGE_INPUT_TOKENS),
        output=facts.count(names.USAGE_OUTPUT_TOKENS),
        cached=facts.count(names.USAGE_CACHE_READ),
        reasoning=facts.count(names.USAGE_REASONING),
        discarded_input=facts.count(names.DISCARDED_INPUT),
        discarded_output=facts.count(names.DISCARDED_OUTPUT),
    )


def _money(facts: Facts) -> Money:
    return Money(
        amount=_dollars(facts, names.COST_AMOUNT),
        wasted=_dollars(facts, names.COST_WASTED),
        source=facts.text(names.COST_SOURCE),
        complete=facts.flag(names.COST_COMPLETE) is not False,
    )


def _dollars(facts: Facts, name: str) -> Decimal | None:
    amount = facts.number(name)
    if amount is None or amount >= _DEAREST:
        return None
    return Decimal(str(amount)) if amount >= _CHEAPEST else Decimal(0)


def _begin(part: Part) -> int:
    return part.at if isinstance(part, Mark) else part.start


def in_order(parts: Iterable[Part]) -> list[Part]:
    """Return parts in the order of time, what happened before what followed from it, and under each what stands in it."""
    groups: list[list[Part]] = []
    for part in parts:
        if isinstance(part, Other) and part.depth:
            groups[-1].append(part)
        else:
            groups.append([part])
    return [part for group in sorted(groups, key=_turn) for part in group]


def _turn(group: Sequence[Part]) -> tuple[int, bool]:
    return _begin(group[0]), not isinstance(group[0], Mark)
