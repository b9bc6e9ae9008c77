"""A waterfall in a terminal: lines of rich's text, none longer than the terminal is wide."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.text import Text

from resilient_ai.cli._trace_model import Trace
from resilient_ai.cli._trace_rows import MEANINGS, BarKind, Row, ends_of, rows_of, used
from resilient_ai.cli._trace_words import Tone, date_of, ticks

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 30
WIDEST = 140
_ONE_COLUMN = 64  # narrower terminals have each bar below its words
_MOST_PARTS = 40  # of one call
_STYLES: dict[Tone, str] = {"good": "green", "bad": "red", "faint": "bright_black", "plain": ""}
_THIN = {"first", "other", "call"}
_BAR_STYLES: dict[BarKind, str] = {
    "call": "bright_black",
    "retry": "yellow",
    "line": "magenta",
    "mark": "bold cyan",
    "other": "bright_black",
}
_MOMENT = 10**6  # nanoseconds that an axis is long where nothing took any time
_HEAVY, _LIGHT = 2, 1
# By the weights of the left and the right half of a cell.
_HALVES = {
    (0, 0): " ",
    (0, 1): "╶",
    (1, 0): "╴",
    (1, 1): "─",
    (0, 2): "╺",
    (2, 0): "╸",
    (2, 2): "━",
    (1, 2): "╼",
    (2, 1): "╾",
}
_PLAIN_HALVES = {pair: "=" if _HEAVY in pair else "-" if _LIGHT in pair else " " for pair in _HALVES}
_WHOLE: dict[BarKind, str] = {"retry": "┈", "line": "╌", "mark": "◆"}
_PLAIN_WHOLE: dict[BarKind, str] = {"retry": ".", "line": "~", "mark": "*"}
_SAMPLES: dict[BarKind, str] = {"work": "━━", "first": "──", "stream": "━━", "other": "──"}
_WORDS_OF_ASCII = str.maketrans({"✓": "+", "✗": "x", "○": "o", "·": "-", "…": "~", "µ": "u"})


def drawing(traces: Sequence[Trace], console: "Console", width: int) -> Iterator[Text]:
    """Return the lines of a picture of traces, with a legend of what is in it."""
    pictures = [(trace, list(rows_of(trace, _MOST_PARTS))) for trace in traces]
    rows = [row for _, found in pictures for _, some, _ in found for row in some]
    if not rows:
        return
    pen = _Pen(max(NARROWEST, min(width, WIDEST)), rows, is_ascii=not _can_show(console))
    for trace, found in pictures:
        yield from pen.trace(trace, [(some, beyond) for _, some, beyond in found])
        yield Text()
    yield from pen.legend(used(rows))


def _can_show(console: "Console") -> bool:
    try:
        "━╸┈╌◆✓".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class _Pen:
    """Knows where words and bars stand: in the same columns for all traces."""

    def __init__(self, width: int, rows: Sequence[Row], *, is_ascii: bool) -> None:
        self.width = width
        self.is_ascii = is_ascii
        self.halves = _PLAIN_HALVES if is_ascii else _HALVES
        self.whole = _PLAIN_WHOLE if is_ascii else _WHOLE
        self.is_narrow = width < _ONE_COLUMN
        self.label = min(width * 2 // 5, max(_indent(row) + cell_len(row.label) for row in rows))
        self.lasted = max(len(row.lasted) for row in rows)
        self.result = min(18, max(cell_len(_result(row)) for row in rows))
        self.left = 0 if self.is_narrow else self.label + 2
        self.cells = width - (0 if self.is_narrow else self.left + 2 + self.lasted + 2 + self.result)

    def trace(self, trace: Trace, found: Sequence[tuple[Sequence[Row], int]]) -> Iterator[Text]:
        """Return the head of a trace, an axis, and the lines of its calls."""
        start, end = ends_of([row for some, _ in found for row in some])
        scale = _Scale(start, end - start or _MOMENT, self.cells)
        head = [date_of(start), f"trace {trace.id[:8]}", *([trace.root] if trace.root else [])]
        yield from self.wrapped(head, "bold", 0)
        yield self.axis(scale)
        for some, beyond in found:
            for row in some:
                yield from self.lines(row, scale)
                if row.is_call and row.details:
                    yield from self.wrapped(row.details, "bright_black", _indent(row) + 2)
            if beyond:
                yield from self.wrapped([f"and {beyond:,} more lines; --json has all"], "bright_black", 4)

    def legend(self, kinds: Sequence[BarKind]) -> Iterator[Text]:
        """Return what the bars mean."""
        entries = [f"{self.sample(kind)} {MEANINGS[kind]}" for kind in kinds]
        yield from self.wrapped(entries, "bright_black", 0, between="   ")

    def sample(self, kind: BarKind) -> str:
        if kind in self.whole:
            return self.whole[kind] * (1 if kind == "mark" else 2)
        sample = _SAMPLES[kind]
        return sample if not self.is_ascii else sample.translate({ord("━"): "=", ord("─"): "-"})

    def wrapped(self, parts: Sequence[str], style: str, indent: int, between: str = " · ") -> Iterator[Text]:
        """Return parts side by side, in as many lines as they need; a part that is too long is broken between words."""
        indent = min(indent, self.width // 3)
        lines = [""]
        for part in parts:
            apart, pieces = between, [part]
            if cell_len(part) > self.width - indent:
                pieces = [piece for word in part.split(" ") for piece in chop_cells(word, self.width - indent)]
            for piece in pieces:
                if not lines[-1]:
                    lines[-1] = piece
                elif cell_len(lines[-1] + apart + piece) <= self.width - indent:
                    lines[-1] += apart + piece
                else:
                    lines.append(piece)
                apart = " "
        yield from (self.text(" " * indent + line, style) for line in lines if line)

    def text(self, text: str, style: str = "") -> Text:
        return Text(text.translate(_WORDS_OF_ASCII) if self.is_ascii else text, style)

    def cut(self, text: str, cells: int) -> str:
        """Return a text that is exactly so wide."""
        if cell_len(text) <= cells:
            return set_cell_size(text, cells)
        return set_cell_size(set_cell_size(text, cells - 1).rstrip() + "…", cells)

    def axis(self, scale: "_Scale") -> Text:
        """Return round times above the bars."""
        line = ""
        for at, name in ticks(scale.start, scale.start + scale.length, max(3, self.cells // 8)):
            place = scale.half(at) // 2
            if place >= cell_len(line) + (1 if line else 0) and place + len(name) <= self.cells:
                line = line.ljust(place) + name
        return self.text(" " * self.left + line, "bright_black")

    def lines(self, row: Row, scale: "_Scale") -> Iterator[Text]:
        """Return a line of words and bars; in a narrow terminal two."""
        style = _STYLES[row.tone]
        words = "bold" if row.is_call else "bright_black" if row.tone == "faint" else ""
        label, bars = " " * _indent(row) + row.label, self.bars(row, scale)
        if not self.is_narrow:
            line = self.text(self.cut(label, self.label) + "  ", words)
            line.append_text(bars)
            line.append_text(self.text(f"  {row.lasted:>{self.lasted}}"))
            line.append_text(self.text(f"  {self.cut(_result(row), self.result)}", style))
            line.rstrip()
            yield line
            return
        right = "  ".join(filter(None, (self.cut(row.result, min(14, cell_len(row.result))), row.lasted)))
        line = self.text(self.cut(label, self.width - cell_len(right) - 1) + " ", words)
        line.append_text(self.text(right, style))
        line.rstrip()
        yield line
        bars.rstrip()
        yield bars

    def bars(self, row: Row, scale: "_Scale") -> Text:
        """Return the bars of a line, to half a cell where they are lines themselves."""
        weights, kinds = [0] * (2 * self.cells), [""] * self.cells
        for bar in row.bars:
            first = min(scale.half(bar.start), 2 * self.cells - 1)
            last = max(scale.half(bar.end), first + 1)
            weight = _LIGHT if bar.kind in _THIN else _HEAVY
            weights[first:last] = [weight] * (last - first)
            kinds[first // 2 : (last + 1) // 2] = [bar.kind] * ((last + 1) // 2 - first // 2)
        text = Text()
        for cell, kind in enumerate(kinds):
            halves = self.halves[weights[2 * cell], weights[2 * cell + 1]]
            text.append(_of(kind, self.whole) or halves, _of(kind, _BAR_STYLES) or _STYLES[row.tone])
        return text


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where times stand on a line."""

    start: int
    length: int
    cells: int

    def half(self, at: int) -> int:
        """Return after how many halves of a cell."""
        return max(0, min(2 * self.cells, (at - self.start) * 2 * self.cells // self.length))


def _of(kind: str, table: "Mapping[BarKind, str]") -> str | None:
    return next((value for known, value in table.items() if known == kind), None)


def _indent(row: Row) -> int:
    return 2 * min(row.depth, 6)


def _result(row: Row) -> str:
    if row.is_call or not row.details:
        return row.result
    return f"{row.result} {row.details[0]}"
