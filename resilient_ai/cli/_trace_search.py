"""Which calls of a file are wanted: it is read twice, first for the calls, then for what happened in the chosen ones."""

import heapq
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from resilient_ai.cli._trace_calls import is_call, traces_of
from resilient_ai.cli._trace_json import LONGEST, Notes, values_of
from resilient_ai.cli._trace_model import Found
from resilient_ai.cli._trace_spans import Span, spans_of
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.terminal import counted
from resilient_ai.core import semconv as names

_MOST_TOOLS = 1000  # functions that are shown beside the calls that asked for them
_MOST_SPANS = 50_000  # that are kept of the chosen traces
_MOST_UNKNOWN = 10_000  # calls whose own span may still come, or has come already
_PIECES = (names.SPAN_ATTEMPT, names.SPAN_LIMITER_WAIT)

Key = tuple[str, str]
Ranked = tuple[int, int, Key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which calls are asked for. Functions that models have asked for are no calls: they come with those they stand between.

    Args:
        most: At most so many calls, the last ones.
        slowest: Whether the slowest come first, instead of the last ones.
        failed: Whether only those count that ended with an error.
        model: Part of the name of a model that was asked or has answered.
        trace: The first digits of a trace, or the id of a call.
    """

    most: int
    slowest: bool = False
    failed: bool = False
    model: str | None = None
    trace: str | None = None


@dataclass(slots=True, kw_only=True)
class _Entry:
    """What choosing needs to know of a call."""

    start: int
    end: int
    failed: bool
    models: set[str]
    id: str | None
    is_tool: bool

    def take(self, span: Span) -> None:
        """Let a part tell of a call whose own span is not there."""
        self.start, self.end = min(self.start, span.start), max(self.end, span.end)
        self.models |= _models(span)


def find(file: BinaryIO, wanted: Wanted) -> Found:
    """Return the wanted calls of a file, and all that happened in them.

    Raises:
        WrongUseError: If the file holds something else.
    """
    notes, skipped = Notes(), 0
    chosen = _Chosen(wanted)
    for value in values_of(file, notes):
        for span in spans_of(value):
            if span is None:
                skipped += 1
            else:
                chosen.add(span)
    if (notes.unreadable or skipped) and not chosen.spans:
        raise WrongUseError(
            "there are no spans in it: a trace file has one span on each line, as JSON of OpenTelemetry's SDK or of OTLP"
        )
    keys = chosen.keys()
    kept, left_out = _kept(file, keys)
    return Found(
        traces=traces_of(kept, keys),
        calls=chosen.calls,
        matching=chosen.matching,
        left_out=left_out,
        remarks=_remarks(notes, skipped),
    )


class _Chosen:
    """Sees every span once and remembers the best calls, in memory that does not grow with the file."""

    def __init__(self, wanted: Wanted) -> None:
        self.spans = self.calls = self.matching = 0
        self._wanted = wanted
        self._best: list[Ranked] = []
        self._tools: list[Ranked] = []
        self._order = 0
        self._unknown: OrderedDict[Key, _Entry] = OrderedDict()
        self._known: OrderedDict[Key, None] = OrderedDict()

    def add(self, span: Span) -> None:
        self.spans += 1
        if is_call(span):
            key = span.trace, span.id
            if key in self._known:  # as one that was exported twice
                return
            self._unknown.pop(key, None)
            self._known[key] = None
            if len(self._known) > _MOST_UNKNOWN:
                self._known.popitem(last=False)
            self._offer(key, _entry(span))
        elif span.name in _PIECES and span.parent is not None and (span.trace, span.parent) not in self._known:
            self._note(span, (span.trace, span.parent))

    def keys(self) -> list[Key]:
        """Return the wanted calls: in the order of time, or the slowest first."""
        for key, entry in self._unknown.items():
            self._offer(key, entry)
        self._unknown.clear()
        # Where calls were left out, so are the functions that come behind all the calls that were not.
        is_cut = self.matching > len(self._best)
        tools = [tool for tool in self._tools if not is_cut or tool > self._best[0]]
        return [key for _, _, key in sorted(self._best + tools, reverse=self._wanted.slowest)]

    def _note(self, piece: Span, key: Key) -> None:
        entry = self._unknown.get(key)
        if entry is not None:
            entry.take(piece)
            return
        entry = self._unknown[key] = _entry(piece)
        entry.failed, entry.id = False, None
        if len(self._unknown) > _MOST_UNKNOWN:
            self._offer(*self._unknown.popitem(last=False))

    def _offer(self, key: Key, entry: _Entry) -> None:
        self.calls += not entry.is_tool
        if not self._matches(key, entry):
            return
        self.matching += not entry.is_tool
        self._order += 1
        rank = entry.end - entry.start if self._wanted.slowest else entry.start
        # Of equals the later in the file is the later; for the slowest the earlier comes first.
        one = (rank, -self._order if self._wanted.slowest else self._order, key)
        best, most = (self._tools, _MOST_TOOLS) if entry.is_tool else (self._best, self._wanted.most)
        if len(best) < most:
            heapq.heappush(best, one)
        else:
            heapq.heappushpop(best, one)

    def _matches(self, key: Key, entry: _Entry) -> bool:
        wanted = self._wanted
        if wanted.failed and not entry.failed:
            return False
        if wanted.model is not None and not any(wanted.model.lower() in model for model in entry.models):
            return False
        if wanted.trace is None:
            return True
        return wanted.trace == entry.id or key[0].startswith(wanted.trace.lower().removeprefix("0x"))


def _entry(span: Span) -> _Entry:
    return _Entry(
        start=span.start,
        end=span.end,
        failed=span.failed,
        models=_models(span),
        id=span.facts.text(names.CALL_ID),
        is_tool=span.facts.text(names.OPERATION_NAME) == names.EXECUTE_TOOL,
    )


def _models(span: Span) -> set[str]:
    asked = (names.REQUEST_MODEL, names.RESPONSE_MODEL, names.FALLBACK_MODEL, names.ATTEMPT_MODEL)
    return {model.lower() for name in asked if (model := span.facts.text(name))}


def _kept(file: BinaryIO, keys: list[Key]) -> tuple[list[Span], int]:
    """Read what belongs to the chosen calls; return how much there was no room for, too."""
    calls, traces = set(keys), {trace for trace, _ in keys}
    chosen: list[Span] = []
    others: list[Span] = []
    left_out = 0
    for span in _spans(file, traces) if calls else ():
        if (span.trace, span.id) in calls:
            chosen.append(span)
        elif is_call(span) or (span.name in _PIECES and (span.trace, span.parent) not in calls):
            continue
        elif len(others) < _MOST_SPANS:
            others.append(span)
        else:
            left_out += 1
    return chosen + others, left_out


def _spans(file: BinaryIO, traces: Collection[str]) -> Iterator[Span]:
    for value in values_of(file, Notes()):
        for span in spans_of(value, traces):
            if span is not None:
                yield span


def _remarks(notes: Notes, skipped: int) -> list[str]:
    said: list[str] = []
    if notes.torn:
        said.append("the file ends within a span, as one does that is being written; that one is left out")
    if notes.unreadable:
        said.append(f"{counted(notes.unreadable, 'line')} could not be read, the first of them line {notes.first:,}")
    if notes.too_long:
        said.append(f"{counted(notes.too_long, 'line')} longer than {LONGEST // 1024**2} MB left out")
    if skipped:
        said.append(f"{counted(skipped, 'span')} without a number or a time left out")
    return said
