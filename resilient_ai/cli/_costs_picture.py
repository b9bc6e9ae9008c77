"""The picture of spend over time in a terminal: plotext does the axes, rich the colours."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Group
from rich.text import Text

from resilient_ai.cli import terminal
from resilient_ai.cli._costs_axes import amounts, every, label, scale
from resilient_ai.cli._extras import needed

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from resilient_ai.cli._costs_over_time import OverTime

NARROWEST = 50
_BROADEST = 120
_NARROWEST_CHART = 30  # labels need some room below a few bars
_BROADEST_BAR = 8
_ROWS_PER_TICK = 3
_COLOURS = (
    33,
    208,
    36,
    170,
    220,
    80,
    245,
)  # of the 256 that terminals know; told apart also by those who see few colours
_TEXTURES = "█▒░#o+·"
_FIRST_MARK = 0xE000  # characters that no text has, one for each series, until they get their colours
_SLIVER_MARK = 0xE100  # where a step has spent too little for a whole cell


def most_steps(width: int) -> int:
    """Return how many steps there is room for."""
    return min(width, _BROADEST) - 12


def can_show(console: "Console") -> bool:
    """Whether the characters of a picture are among those of the terminal."""
    try:
        f"{_TEXTURES}▁┤└".encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def can_draw() -> bool:
    """Whether plotext is there."""
    return find_spec("plotext") is not None


def picture(over: "OverTime", console: "Console") -> "RenderableType":
    """Return bars over time, stacked, with a legend.

    Raises:
        WrongUseError: If plotext is missing.
    """
    plain = console.no_color or console.color_system is None
    chart = _Chart(over, min(console.width, _BROADEST), needed("plotext", "cli"))
    lines = [_coloured(line, plain=plain) for line in chart.lines()]
    parts: list[RenderableType] = [Text(over.title, style="bold"), *lines]
    if over.remark:
        parts.append(Text(over.remark, style="" if plain else "dim"))
    if over.column is not None:
        entries = [_entry(row, one.name, plain=plain) for row, one in enumerate(over.series)]
        parts.append(Columns(entries, padding=(0, 2)))
    return Group(*parts)


class _Chart:
    """Bars in cells of a terminal, each a character that names its series."""

    def __init__(self, over: "OverTime", width: int, plt: Any) -> None:
        self._over, self._plt = over, plt
        self._marks = scale(max(over.totals))
        self._rows = len(self._marks) * _ROWS_PER_TICK
        self._amounts = amounts(self._marks)
        self._margin = max(map(len, self._amounts)) + 1
        count = len(over.starts)
        self._bar = max(1, min(_BROADEST_BAR, (width - self._margin) // count))
        self._gap = 1 if self._bar > 2 else 0
        self._columns = max(count * self._bar, _NARROWEST_CHART)

    def lines(self) -> list[str]:
        """Return the lines from top to bottom."""
        plt = self._plt
        plt.clear_figure()
        plt.limit_size(False, False)
        plt.plotsize(self._columns + self._margin, self._rows + 2)
        plt.theme("clear")
        for mark, cells in self._cells().items():
            plt.scatter(*zip(*cells, strict=True), marker=chr(mark))
        plt.xlim(0, self._columns - 1)
        plt.ylim(0, self._rows - 1)
        plt.xaxes(True, False)
        plt.yaxes(True, False)
        names = [label(start, self._over.step) for start in self._over.starts]
        shown = every(self._over.starts, self._over.step, self._columns // (max(map(len, names)) + 2))
        places = [row * self._bar + (self._bar - self._gap - 1) // 2 for row in shown]
        plt.xticks(places, [" "] * len(places))
        plt.yticks([(number + 1) * _ROWS_PER_TICK - 1 for number in range(len(self._marks))], self._amounts)
        *lines, _ = plt.uncolorize(plt.build()).rstrip("\n").split("\n")
        return [*(line.rstrip() for line in lines), self._labels(places, [names[row] for row in shown])]

    def _labels(self, places: Sequence[int], names: Sequence[str]) -> str:
        """Return the line below the axis: plotext moves labels that are close to one another, now this way, now that."""
        line = ""
        for place, name in zip(places, names, strict=True):
            start = self._margin + min(place - len(name) // 2, self._columns - len(name))
            line = line.ljust(start) + name
        return line

    def _cells(self) -> dict[int, list[tuple[int, int]]]:
        """Return the cells that each mark fills, as pairs of column and row."""
        cells: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, total in enumerate(self._over.totals):
            columns = range(number * self._bar, (number + 1) * self._bar - self._gap)
            stack = [one.amounts[number] for one in self._over.series]
            done, below = 0, Decimal(0)
            for series, amount in enumerate(stack):
                below += amount
                height = int((below / self._marks[-1] * self._rows).to_integral_value(ROUND_HALF_UP))
                cells[_FIRST_MARK + series] += [(column, row) for column in columns for row in range(done, height)]
                done = height
            if total and not done:
                cells[_SLIVER_MARK + stack.index(max(stack))] += [(column, 0) for column in columns]
        return {mark: found for mark, found in cells.items() if found}


def _coloured(line: str, *, plain: bool) -> Text:
    text = Text(no_wrap=True)
    for character in line:
        kind, series = divmod(ord(character) - _FIRST_MARK, _SLIVER_MARK - _FIRST_MARK)
        if kind == 0:
            text.append(_block(series, plain=plain), "" if plain else f"color({_COLOURS[series]})")
        elif kind == 1:
            text.append("_" if plain else "▁", "" if plain else f"color({_COLOURS[series]})")
        else:
            text.append(character, "" if plain else "dim")
    return text


def _block(series: int, *, plain: bool) -> str:
    return _TEXTURES[series] if plain else "█"


def _entry(series: int, name: str, *, plain: bool) -> Text:
    text = Text(overflow="fold")
    text.append(_block(series, plain=plain) + " ", "" if plain else f"color({_COLOURS[series]})")
    return text.append(terminal.one_line(name))
