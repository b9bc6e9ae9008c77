"""From the spans of a trace to its calls."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from decimal import Decimal

from resilient_ai.cli._trace_model import (
    Attempt,
    Call,
    Mark,
    MarkKind,
    Money,
    Other,
    Part,
    Stream,
    Tokens,
    Trace,
    Wait,
    WaitKind,
)
from resilient_ai.cli._trace_spans import Facts, Span, SpanEvent
from resilient_ai.middleware import _semconv as names

_OPERATIONS = {*names.OPERATION_NAMES.values(), names.EXECUTE_TOOL}
_DEAREST = 1e9  # dollars; above that it is no price
_CHEAPEST = 1e-15
_LONGEST_WAIT = 1e9  # seconds
_HTTP_STATUS = (names.HTTP_STATUS, "http.status_code")
_DEEPEST = 20
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


def is_call(span: Span) -> bool:
    """Whether a span is that of a call, or of a function that a model has asked for."""
    facts = span.facts
    ours = facts.text(names.CALL_ID) or facts.text(names.OUTCOME) or span.name == names.SPAN_REQUEST
    return bool(ours) or facts.text(names.OPERATION_NAME) in _OPERATIONS


def traces_of(spans: Iterable[Span], chosen: Collection[tuple[str, str]]) -> list[Trace]:
    """Return the chosen calls, trace by trace.

    Args:
        spans: Those of their traces.
        chosen: Trace and span of each call, in the order in which traces are wanted. Where there is no such span, but some that
            stand in it, they tell of the call.
    """
    by_trace: dict[str, dict[str, Span]] = {trace: {} for trace, _ in chosen}
    for span in spans:
        by_trace[span.trace].setdefault(span.id, span)
    wanted = set(chosen)
    return [
        _Tree(found).trace(trace, [span for one, span in chosen if one == trace and (one, span) in wanted])
        for trace, found in by_trace.items()
    ]


class _Tree:
    """The spans of one trace. What says that it stands in itself, or in one that does, stands nowhere."""

    def __init__(self, spans: dict[str, Span]) -> None:
        self.spans = spans
        self.below: defaultdict[str, list[Span]] = defaultdict(list)
        for span in spans.values():
            if span.parent is not None:
                self.below[span.parent].append(span)

    def trace(self, trace: str, chosen: Sequence[str]) -> Trace:
        wanted = set(chosen)
        calls = {one: self.call(trace, one, wanted) for one in chosen}
        within: defaultdict[str | None, list[Call]] = defaultdict(list)
        for call in calls.values():
            within[call.above].append(call)
        found = list(_walk(within))
        reached = {call.span for _, call in found}
        found += [
            (0, call) for call in calls.values() if call.span not in reached
        ]  # two that say they stand in each other
        return Trace(id=trace, root=self.root(chosen), calls=found)

    def root(self, chosen: Sequence[str]) -> str | None:
        """Return the name of what stands around all of them."""
        tops = {([one, *self.above(one)][-1]) for one in chosen}
        top = self.spans.get(tops.pop()) if len(tops) == 1 else None
        return top.name if top is not None and not is_call(top) and top.name != names.SPAN_ATTEMPT else None

    def above(self, span: str) -> Iterator[str]:
        """Return what a span stands in, from the inside out."""
        seen = {span}
        found = self.spans.get(span)
        while found is not None and found.parent is not None and found.parent not in seen:
            seen.add(found.parent)
            yield found.parent
            found = self.spans.get(found.parent)

    def call(self, trace: str, number: str, chosen: set[str]) -> Call:
        span = self.spans.get(number)
        parts = list(self.parts(number))
        above = next((one for one in self.above(number) if one in chosen), None)
        if span is None:
            return _remains(trace, number, parts)
        parts += _from_events(span)
        return _call(span, above, sorted(parts, key=_turn))

    def parts(self, number: str) -> Iterator[Part]:
        for span in self.below[number]:
            if span.name == names.SPAN_ATTEMPT:
                yield _attempt(span, list(self.others(span.id)))
            elif span.name == names.SPAN_LIMITER_WAIT:
                kind: WaitKind = "rate" if span.facts.text(names.LIMITER_NAME) == "rate" else "concurrency"
                yield Wait(kind=kind, start=span.start, end=span.end, model=span.facts.text(names.ATTEMPT_MODEL))
            elif not is_call(span):
                yield _other(span, 0)
                yield from self.others(span.id, 1)

    def others(self, number: str, depth: int = 0) -> Iterator[Other]:
        """Return what stands in a span and is none of ours, as a tree; what says it stands in itself is reached from nowhere."""
        for span in sorted(self.below[number], key=lambda one: one.start):
            if depth < _DEEPEST and not is_call(span) and span.id != number:
                yield _other(span, depth)
                yield from self.others(span.id, depth + 1)


def _walk(within: "dict[str | None, list[Call]]") -> Iterator[tuple[int, Call]]:
    """Return calls in the order of a tree."""
    waiting = [(0, call) for call in sorted(within[None], key=_order, reverse=True)]
    while waiting:
        depth, call = waiting.pop()
        yield depth, call
        waiting += [(depth + 1, one) for one in sorted(within[call.span], key=_order, reverse=True)]


def _order(call: Call) -> tuple[int, int, str]:
    return call.start, -call.end, call.span


def _begin(part: Part) -> int:
    return part.at if isinstance(part, Mark) else part.start


def _turn(part: Part) -> tuple[int, bool]:
    return _begin(part), not isinstance(part, Mark)  # what happened before what follows from it


def _call(span: Span, above: str | None, parts: Sequence[Part]) -> Call:
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


def _remains(trace: str, number: str, parts: list[Part]) -> Call:
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
        parts=sorted(parts, key=_turn),
    )


def _attempt(span: Span, others: Sequence[Other]) -> Attempt:
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


def _other(span: Span, depth: int) -> Other:
    status = next((found for name in _HTTP_STATUS if (found := span.facts.count(name)) is not None), None)
    name = span.name or "(no name)"
    return Other(name=name, start=span.start, end=span.end, failed=span.failed, status=status, depth=depth)


def _from_events(span: Span) -> Iterator[Part]:
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
