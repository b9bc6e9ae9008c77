"""A trace as a page for a browser: one file that asks for nothing, runs nothing, and can be read aloud."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resilient_ai.cli._trace_look import STYLE
from resilient_ai.cli._trace_markup import Markup, joined, tag
from resilient_ai.cli._trace_model import Call, Found, Trace
from resilient_ai.cli._trace_rows import MEANINGS, Bar, BarKind, Row, ends_of, rows_of, used
from resilient_ai.cli._trace_words import (
    date_of,
    facts_of,
    lasted,
    result_of,
    shown,
    sums_of,
    ticks,
    title_of,
    tone_of,
    uncounted,
)
from resilient_ai.cli.terminal import counted, usd

_MOST_PARTS = 200  # of one call
_MOST_TICKS = 5
_SLIVER = 0.4  # per cent of the width that the shortest bar has
_HEIGHTS: dict[BarKind, int] = {"call": 4, "other": 5}
_HEIGHT = 10
_MIDDLE = 13  # of a line, in pixels
_DEEPEST = 5
_MOMENT = 10**6  # nanoseconds that an axis is long where nothing took any time


def page(found: Found) -> str:
    """Return the page."""
    pictures = [(trace, list(rows_of(trace, _MOST_PARTS))) for trace in found.traces]
    rows = [row for _, calls in pictures for _, some, _ in calls for row in some]
    numbers = {(call.trace, call.span): str(number) for number, call in enumerate(found.shown, 1)}
    body = tag(
        "body",
        tag("a", "To the calls", href="#calls", class_="skip"),
        tag("header", tag("h1", "Calls"), _period(found), _sums(found), _tools(found, rows), _list(found, numbers)),
        tag("main", *(_trace(trace, calls, numbers) for trace, calls in pictures), id="calls"),
        lang="en",
    )
    return f"<!doctype html>\n{tag('html', _head(found), body, lang='en')}\n"


def _head(found: Found) -> Markup:
    # The only style there may be is this one; scripts, pictures and requests there may be none.
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{shown(found)} · resilient-ai trace"),
        tag("link", rel="icon", href="data:,"),
        tag("style", Markup(STYLE)),
    )


# What stands above the calls


def _period(found: Found) -> Markup:
    if not found.shown:
        return tag("p", "There are no calls to show.")
    first, last = min(call.start for call in found.shown), max(call.end for call in found.shown)
    calls = len(found.shown_calls)
    rest = f" · {calls:,} of {counted(found.matching, 'call')}" if calls < found.matching else ""
    said = [tag("p", remark) for remark in found.remarks]
    return joined(tag("p", f"{date_of(first)} to {date_of(last)}{rest}"), *said)


def _sums(found: Found) -> Markup:
    pairs = [
        tag("div", tag("dt", name), tag("dd", value), class_="bad" if name == "failed" else None)
        for name, value in sums_of(found)
    ]
    note = uncounted(found)
    return joined(tag("dl", *pairs, class_="sums"), *([] if note is None else [tag("p", note)]))


def _tools(found: Found, rows: Sequence[Row]) -> Markup:
    entries = [tag("li", _sample(kind), MEANINGS[kind]) for kind in used(rows)]
    some_failed = any(tone_of(call) == "bad" for call in found.shown)
    box = tag("input", type="checkbox", id="only-failed")
    only_failed = [tag("label", box, "Only what failed", for_="only-failed", class_="filter")] if some_failed else []
    return tag(
        "div", tag("ul", *entries, class_="legend", aria_label="What the bars mean"), *only_failed, class_="tools"
    )


def _sample(kind: BarKind) -> Markup:
    scale = _Scale(0, 100)
    bar = Bar(kind, 50, 50) if kind == "mark" else Bar(kind, 0, 100)
    return tag("svg", scale.shape(bar, 7, ""), aria_hidden="true")


def _list(found: Found, numbers: dict[tuple[str, str], str]) -> Markup:
    heads = (("Call", ""), ("Began", "wide"), ("Took", "number"), ("Attempts", "number wide"), ("Cost", "number wide"))
    head = tag(
        "tr",
        *(tag("th", name, scope="col", class_=kind or None) for name, kind in heads),
        tag("th", "Came to", scope="col"),
    )
    lines = [_line(call, numbers[call.trace, call.span]) for call in found.shown]
    table = tag("table", tag("thead", head), tag("tbody", *lines))
    details = tag("details", tag("summary", f"List of {shown(found)}"), table)
    return tag("nav", details, class_="list", aria_label="List of calls")


def _line(call: Call, number: str) -> Markup:
    failed = " failed" if tone_of(call) == "bad" else ""
    return tag(
        "tr",
        tag("th", tag("a", title_of(call), href=f"#call-{number}"), scope="row"),
        tag("td", date_of(call.start), class_="wide"),
        tag("td", lasted(call.end - call.start), class_="number"),
        tag("td", "" if call.attempts is None else f"{call.attempts:,}", class_="number wide"),
        tag("td", "" if call.money.amount is None else usd(call.money.amount), class_="number wide"),
        tag("td", result_of(call), class_="came"),
        class_=f"call {tone_of(call)}{failed}",
    )


# Calls


def _trace(trace: Trace, calls: "Sequence[tuple[Call, list[Row], int]]", numbers: dict[tuple[str, str], str]) -> Markup:
    start, end = ends_of([row for _, rows, _ in calls for row in rows])
    scale = _Scale(start, end - start or _MOMENT)
    failed = " failed" if any(tone_of(call) == "bad" for call, _, _ in calls) else ""
    name = f"trace {trace.id[:8]}" + (f" · {trace.root}" if trace.root else "")
    table = tag(
        "table",
        _axis(scale),
        *(_call(call, rows, beyond, scale, numbers[call.trace, call.span]) for call, rows, beyond in calls),
        class_="waterfall",
        role="table",
        aria_label=f"Calls of {name}",
    )
    return tag("section", tag("h2", date_of(start), " ", tag("span", name)), table, class_=f"trace{failed}")


def _axis(scale: "_Scale") -> Markup:
    names = (("what", "What"), ("time", ""), ("took", "Took"), ("came", "Came to"))
    cells = [
        tag(
            "th",
            scale.axis() if kind == "time" else tag("span", name, class_="unseen"),
            class_=kind,
            role="columnheader",
        )
        for kind, name in names
    ]
    return tag("thead", tag("tr", *cells, class_="axis", role="row"), role="rowgroup")


def _call(call: Call, rows: Sequence[Row], beyond: int, scale: "_Scale", number: str) -> Markup:
    head, *parts = rows
    failed = " failed" if tone_of(call) == "bad" else ""
    more = [_wide(f"and {beyond:,} more lines; --json has all")] if beyond else []
    return tag(
        "tbody",
        _row(head, scale, f"call-{number}"),
        _wide(_facts(call, head)),
        *(_row(part, scale, None) for part in parts),
        *more,
        class_=f"call{failed}",
        role="rowgroup",
    )


def _row(row: Row, scale: "_Scale", anchor: str | None) -> Markup:
    begin = lasted(min(bar.start for bar in row.bars) - scale.start)
    cost = [] if row.is_call or not row.details else [joined(" ", tag("small", row.details[0]))]
    return tag(
        "tr",
        tag("th", row.label, scope="row", role="rowheader", class_="what"),
        tag("td", scale.bars(row), tag("span", f"begins after {begin}", class_="unseen"), role="cell", class_="time"),
        tag("td", row.lasted, role="cell", class_="took"),
        tag("td", row.result, *cost, role="cell", class_="came"),
        id=anchor,
        role="row",
        class_=f"{'head' if row.is_call else 'part'} {row.tone} d{min(row.depth, _DEEPEST)}",
    )


def _wide(content: str) -> Markup:
    return tag("tr", tag("td", content, colspan="4", role="cell", aria_colspan="4"), role="row", class_="facts")


def _facts(call: Call, head: Row) -> Markup:
    pairs = [joined(tag("dt", name), tag("dd", value)) for name, value in facts_of(call)]
    said = tag("ul", *(tag("li", detail) for detail in head.details))
    hidden = tag("span", f" of {title_of(call)}", class_="unseen")
    return joined(said, tag("details", tag("summary", "all facts", hidden), tag("dl", *pairs)))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where times stand on a line, in per cent of its width."""

    start: int
    length: int

    def place(self, at: int) -> float:
        return max(0.0, min(100.0, (at - self.start) * 100 / self.length))

    def axis(self) -> Markup:
        """Return the names of round times."""
        texts: list[Markup] = []
        for at, name in ticks(self.start, self.start + self.length, _MOST_TICKS):
            place = self.place(at)
            anchor = "end" if place > 96 else "middle" if place > 2 else "start"
            texts.append(tag("text", name, x=_percent(place), y="12", text_anchor=anchor))
        return tag("svg", *texts, class_="bars", aria_hidden="true")

    def bars(self, row: Row) -> Markup:
        """Return the bars of a line, over marks at the round times."""
        places = [self.place(at) for at, _ in ticks(self.start, self.start + self.length, _MOST_TICKS)]
        lines = [tag("line", x1=_percent(at), x2=_percent(at), y1="0", y2="100%", class_="grid") for at in places]
        shapes = [self.shape(bar, _MIDDLE, row.label) for bar in row.bars]
        return tag("svg", *lines, *shapes, class_="bars", aria_hidden="true")

    def shape(self, bar: Bar, middle: int, label: str) -> Markup:
        """Return one bar, which names itself under the mouse."""
        first, last = self.place(bar.start), self.place(bar.end)
        name = list(_name(bar, label))
        if bar.kind == "mark":
            return tag("circle", *name, cx=_percent(first), cy=str(middle), r="4", class_=bar.kind)
        width = max(last - first, _SLIVER)
        first = min(first, 100 - width)
        if bar.kind in {"retry", "line"}:
            y = str(middle)
            return tag("line", *name, x1=_percent(first), x2=_percent(first + width), y1=y, y2=y, class_=bar.kind)
        height = next((pixels for kind, pixels in _HEIGHTS.items() if kind == bar.kind), _HEIGHT)
        return tag(
            "rect",
            *name,
            x=_percent(first),
            width=_percent(width),
            y=f"{middle - height / 2:g}",
            height=str(height),
            rx="2",
            class_=bar.kind,
        )


def _name(bar: Bar, label: str) -> Iterator[Markup]:
    if label:
        what = MEANINGS.get(bar.kind, "")
        yield tag("title", f"{label}: {lasted(bar.end - bar.start)}" + (f", {what}" if what else ""))


def _percent(number: float) -> str:
    return f"{number:.3f}".rstrip("0").rstrip(".") + "%"
