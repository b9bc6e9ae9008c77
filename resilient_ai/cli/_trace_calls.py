"""From the spans of a trace to its calls."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from resilient_ai.cli._trace_model import Call, Other, Part, Trace, Wait, WaitKind
from resilient_ai.cli._trace_parts import attempt_of, call_of, happened_in, in_order, other_of, remains_of
from resilient_ai.cli._trace_spans import Span
from resilient_ai.core import semconv as names

_OPERATIONS = {*names.OPERATION_NAMES.values(), names.EXECUTE_TOOL}
_DEEPEST = 20


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
    calls: dict[str, list[str]] = {trace: [] for trace in by_trace}
    for trace, span_id in chosen:
        calls[trace].append(span_id)
    return [Tree(found, calls[trace]).trace(trace) for trace, found in by_trace.items()]


class Place(NamedTuple):
    """Where a span stands.

    Args:
        within: The chosen call or function around it, None for none.
        top: What stands around everything, be it the span itself; None where that stands in itself.
    """

    within: str | None
    top: str | None


class Tree:
    """The spans of one trace. What says that it stands in itself, or in one that does, stands nowhere."""

    def __init__(self, spans: dict[str, Span], chosen: Sequence[str]) -> None:
        self.spans = spans
        self.chosen = dict.fromkeys(chosen)
        self.places: dict[str, Place] = {}
        self.below: defaultdict[str, list[Span]] = defaultdict(list)
        for span in spans.values():
            if span.parent is not None:
                self.below[span.parent].append(span)

    def trace(self, trace: str) -> Trace:
        calls = {one: self.call(trace, one) for one in self.chosen}
        within: defaultdict[str | None, list[Call]] = defaultdict(list)
        for call in calls.values():
            within[call.above].append(call)
        found = list(_walk(within))
        reached = {call.span for _, call in found}
        found += [
            (0, call) for call in calls.values() if call.span not in reached
        ]  # two that say they stand in each other
        return Trace(id=trace, root=self.root(), calls=found)

    def root(self) -> str | None:
        """Return the name of what stands around all of them."""
        tops = {self.place(one).top for one in self.chosen}
        top = self.spans.get(tops.pop() or "") if len(tops) == 1 else None
        return top.name if top is not None and not is_call(top) and top.name != names.SPAN_ATTEMPT else None

    def place(self, number: str) -> Place:
        """Return where a span stands. What is found on the way up is kept, so that no span is passed twice."""
        path: dict[str, None] = {}
        at: str | None = number
        while at is not None and at not in self.places and at not in path:
            path[at] = None
            at = span.parent if (span := self.spans.get(at)) is not None else None
        if at in path:
            order = [*path]
            self._place_circle(order[order.index(at) :])
        for one in reversed(path):
            if one not in self.places:
                above = span.parent if (span := self.spans.get(one)) is not None else None
                self.places[one] = Place(None, one) if above is None else self._below(above)
        return self.places[number]

    def _below(self, above: str) -> Place:
        place = self.places[above]
        return Place(above, place.top) if above in self.chosen else place

    def _place_circle(self, circle: Sequence[str]) -> None:
        """Place spans of which each stands in the next one, and the last one in the first."""
        within: str | None = None
        for one in (*reversed(circle), *reversed(circle)):
            self.places[one] = Place(within if within != one else None, None)
            within = one if one in self.chosen else within

    def call(self, trace: str, number: str) -> Call:
        span = self.spans.get(number)
        parts = list(self.parts(number))
        if span is None:
            return remains_of(trace, number, parts)
        parts += happened_in(span)
        return call_of(span, self.place(number).within, in_order(parts))

    def parts(self, number: str) -> Iterator[Part]:
        for span in self.below[number]:
            if span.name == names.SPAN_ATTEMPT:
                yield attempt_of(span, list(self.others(span.id)))
            elif span.name == names.SPAN_LIMITER_WAIT:
                kind: WaitKind = "rate" if span.facts.text(names.LIMITER_NAME) == "rate" else "concurrency"
                yield Wait(kind=kind, start=span.start, end=span.end, model=span.facts.text(names.ATTEMPT_MODEL))
            elif not is_call(span):
                yield other_of(span, 0)
                yield from self.others(span.id, 1)

    def others(self, number: str, depth: int = 0) -> Iterator[Other]:
        """Return what stands in a span and is none of ours, as a tree; what says it stands in itself is reached from nowhere."""
        for span in sorted(self.below[number], key=lambda one: one.start):
            if depth < _DEEPEST and not is_call(span) and span.id != number:
                yield other_of(span, depth)
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
