"""The lines of a waterfall, and the words on them: what the terminal and the page both draw."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from resilient_ai.cli._trace_model import Attempt, Call, Mark, Other, Part, Trace, Wait
from resilient_ai.cli._trace_words import UNUSED, Tone, details_of, lasted, result_of, short, sign, tone_of
from resilient_ai.cli.terminal import usd

BarKind: TypeAlias = Literal["call", "work", "first", "stream", "retry", "line", "mark", "other"]

# In this order in a legend.
MEANINGS: dict[BarKind, str] = {
    "work": "under way",
    "first": "until the first token",
    "stream": "streaming",
    "retry": "wait before a retry",
    "line": "in line for a permit",
    "other": "other spans",
    "mark": "event",
}
_SOURCES = {"backoff": "backoff", "retry_after": "retry-after", "circuit_breaker": "circuit"}


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of a line, in nanoseconds since 1970."""

    kind: BarKind
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a waterfall.

    Args:
        depth: How deep it stands.
        label: What it is.
        bars: Where it stands in time.
        lasted: How long, for people; empty for a moment.
        result: What came of it.
        tone: Whether that was good.
        details: Further facts; those of a call stand below it.
        is_call: Whether it is the line of a whole call.
    """

    depth: int
    label: str
    bars: Sequence[Bar]
    lasted: str
    result: str
    tone: Tone
    details: Sequence[str] = ()
    is_call: bool = False


def rows_of(trace: Trace, most: int) -> Iterator[tuple[Call, list[Row], int]]:
    """Return each call of a trace with its lines, at most so many for the parts of each, and how many there are beyond."""
    for depth, call in trace.calls:
        parts = list(_rows(call, depth + 1))
        yield call, [_of_call(call, depth), *parts[:most]], max(0, len(parts) - most)


def ends_of(rows: Sequence[Row]) -> tuple[int, int]:
    """Return when the first line begins and the last one ends."""
    bars = [bar for row in rows for bar in row.bars]
    return min(bar.start for bar in bars), max(bar.end for bar in bars)


def used(rows: Sequence[Row]) -> list[BarKind]:
    """Return the kinds of bars that a legend must tell of."""
    found = {bar.kind for row in rows for bar in row.bars}
    return [kind for kind in MEANINGS if kind in found]


def _of_call(call: Call, depth: int) -> Row:
    tone = tone_of(call)
    title = call.title or "" if call.is_tool else short(call.title)
    word = "tool" if call.is_tool else call.operation
    return Row(
        depth=depth,
        label=f"{sign(tone)} {word} {title}".rstrip(),
        bars=[Bar("call" if call.parts else "work", call.start, call.end)],
        lasted=lasted(call.end - call.start),
        result=result_of(call),
        tone=tone,
        details=list(details_of(call)),
        is_call=True,
    )


def _rows(call: Call, depth: int) -> Iterator[Row]:
    first = _first_token(call)
    hedged = any(isinstance(part, Attempt) and part.kind == "hedge" for part in call.parts)
    for part in call.parts:
        if isinstance(part, Attempt):
            yield _of_attempt(part, call, depth, first[1] if first is not None and first[0] is part else None)
            for other in part.others:
                yield _of_other(other, depth + 1)
        elif isinstance(part, Wait):
            yield _of_wait(part, depth)
        elif isinstance(part, Other):
            yield _of_other(part, depth)
        elif part.kind != "hedge" or not hedged:
            yield _of_mark(part, depth)


def _first_token(call: Call) -> tuple[Part, int] | None:
    """Return the attempt that brought the first token of a stream, and when."""
    if call.stream is None or call.stream.first_chunk is None:
        return None
    at = call.start + int(min(call.stream.first_chunk, 1e9) * 1e9)
    slack = 2_000  # the SDK writes times in microseconds
    around = [
        part for part in call.parts if isinstance(part, Attempt) and part.start <= at + slack and part.end >= at - slack
    ]
    around.sort(key=lambda part: part.outcome in {"lost", "error", "cancelled"})
    return (around[0], max(around[0].start, min(at, around[0].end))) if around else None


def _of_attempt(part: Attempt, call: Call, depth: int, first: int | None) -> Row:
    label = " ".join(filter(None, (None if part.number is None else str(part.number), part.kind or "attempt")))
    if part.model is not None and part.model != call.title:
        label += f" {short(part.model)}"
    is_alone = sum(isinstance(one, Attempt) for one in call.parts) == 1  # and costs what the call does
    bars = [Bar("work", part.start, part.end)]
    if first is not None:
        bars = [Bar("first", part.start, first), Bar("stream", first, part.end)]
    is_unused = part.outcome in UNUSED
    failed = part.error is not None and not is_unused
    result = "ok" if part.outcome in {"success", None} and part.error is None else part.outcome or ""
    if failed:
        result = (part.error if part.error != "_OTHER" else part.error_class) or "error"
    tone: Tone = "bad" if failed else "faint" if is_unused else "good"
    return Row(
        depth=depth,
        label=label,
        bars=bars,
        lasted=lasted(part.end - part.start),
        result=result,
        tone=tone,
        details=[usd(part.cost)] if part.cost is not None and not is_alone else [],
    )


def _of_wait(part: Wait, depth: int) -> Row:
    label, kind = f"line, {part.kind} limit", "line"
    if part.kind == "retry":
        label, kind = f"wait, {_SOURCES.get(part.source or '', part.source or 'retry')}", "retry"
    bar = Bar("retry" if kind == "retry" else "line", part.start, part.end)
    return Row(depth=depth, label=label, bars=[bar], lasted=lasted(part.end - part.start), result="", tone="plain")


def _of_mark(part: Mark, depth: int) -> Row:
    text = part.text or ""
    labels = {
        "hedge": "hedge",
        "fallback": f"falls back to {short(text)}" if text else "falls back",
        "resumed": f"stream resumed, {text}" if text else "stream resumed",
        "circuit": f"circuit {text.replace('_', ' ')}" if text else "circuit",
    }
    bar = Bar("mark", part.at, part.at)
    return Row(depth=depth, label=labels[part.kind], bars=[bar], lasted="", result=part.error or "", tone="plain")


def _of_other(part: Other, depth: int) -> Row:
    result = str(part.status) if part.status is not None else "error" if part.failed else ""
    return Row(
        depth=depth + part.depth,
        label=part.name,
        bars=[Bar("other", part.start, part.end)],
        lasted=lasted(part.end - part.start),
        result=result,
        tone="bad" if part.failed else "faint",
    )
