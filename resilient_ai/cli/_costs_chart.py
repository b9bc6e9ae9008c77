"""The picture of spend over time as a PNG file, drawn by matplotlib."""

import textwrap
import warnings
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_ai.cli import terminal
from resilient_ai.cli._costs_axes import amounts, every, label, scale
from resilient_ai.cli._extras import needed
from resilient_ai.cli._files import replacing

if TYPE_CHECKING:
    from resilient_ai.cli._costs_over_time import OverTime

MOST_STEPS = 100
_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#999999",
)  # Okabe and Ito's, for all eyes
_MOST_LETTERS = 66  # that fit below the axis with room between
_LONGEST_LINE = 44  # of a name in the legend
_INK, _FAINT = "#222222", "#d0d0d0"
_LOOK = {
    "text.parse_math": False,  # two dollar signs are no formula
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
}


def check() -> None:
    """Raise `WrongUseError` if matplotlib is missing."""
    needed("matplotlib", "plot")


def write_chart(over: "OverTime", path: Path) -> None:
    """Draw stacked bars over time into a PNG file, which takes its name once it is whole.

    Raises:
        WrongUseError: If matplotlib is missing.
        OSError: If the file cannot be written.
    """
    matplotlib = needed("matplotlib", "plot")
    agg = needed("matplotlib.backends.backend_agg", "plot")
    figures = needed("matplotlib.figure", "plot")
    with matplotlib.rc_context(_LOOK), warnings.catch_warnings(), replacing(path) as file:
        warnings.simplefilter("ignore")  # of fonts that lack a letter of a tag
        figure: Any = figures.Figure(figsize=(11, 5), dpi=150, layout="constrained")
        agg.FigureCanvasAgg(figure)
        _draw(over, figure)
        figure.savefig(file, format="png", metadata={"Software": None})


def _draw(over: "OverTime", figure: Any) -> None:
    axes = figure.subplots()
    places = range(len(over.starts))
    bars: list[Any] = []
    below = [Decimal(0)] * len(places)
    for one, colour in zip(over.series, _COLOURS, strict=False):
        heights = [float(amount) for amount in one.amounts]
        bars.append(axes.bar(places, heights, 0.8, bottom=[float(amount) for amount in below], color=colour))
        below = [under + amount for under, amount in zip(below, one.amounts, strict=True)]
    marks = [Decimal(0), *scale(max(below))]
    axes.set_yticks([float(mark) for mark in marks], amounts(marks))
    axes.set_ylim(0, float(marks[-1]))
    names = [label(start, over.step) for start in over.starts]
    shown = every(over.starts, over.step, _MOST_LETTERS // max(map(len, names)))
    axes.set_xticks(shown, [names[place] for place in shown])
    axes.set_xlim(-0.6, max(len(places), 5) - 0.4)
    axes.grid(axis="y", color=_FAINT, linewidth=0.8)
    axes.tick_params(length=0, pad=8)
    axes.set_ylabel("USD")
    axes.set_xlabel(over.remark, loc="left", labelpad=10)
    axes.set_title(over.title, loc="left", pad=14)
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
    if over.column is not None:
        series = [_name(one.name) for one in over.series]
        figure.legend(
            bars, series, loc="outside right upper", frameon=False, borderaxespad=1.2, title=over.column.capitalize()
        )


def _name(text: str) -> str:
    # matplotlib leaves names out that begin with an underscore.
    name = textwrap.fill(terminal.one_line(text), _LONGEST_LINE)
    return f"\u200b{name}" if name.startswith("_") else name
