import io
import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.console import Console

from resilient_ai.cli._costs_over_time import OverTime, Series, Step
from resilient_ai.cli._costs_picture import can_show, most_steps, picture
from resilient_ai.cli.failures import WrongUseError

STARTS = Step("day").starts(datetime(2026, 11, 24, tzinfo=UTC), datetime(2026, 11, 28, tzinfo=UTC))
LARGE = Series("large", tuple(map(Decimal, ("0.3", "0", "0.1", "0.2", "0.001"))))
SMALL = Series("small", tuple(map(Decimal, ("0.1", "0", "0", "0.2", "0.003"))))
OVER = OverTime(column="tenant", what="spent", step=Step("day"), starts=STARTS, series=(LARGE, SMALL))


def draw(over, width=60, **console):
    given = {"no_color": True, "color_system": None} | console
    screen = Console(file=io.StringIO(), width=width, force_terminal=True, **given)
    screen.print(picture(over, screen))
    return [line.rstrip() for line in screen.file.getvalue().splitlines()]


def test_bars_are_stacked_on_round_amounts():
    """Each bar is as high as its amounts, the dearest name at the bottom; where little was spent there is a line, else nothing."""
    assert draw(OVER) == [
        "Spent per day by tenant, 2026-11-24 to 2026-11-28 UTC",
        "$0.40┤▒▒▒▒▒▒▒                 ▒▒▒▒▒▒▒",
        "     │▒▒▒▒▒▒▒                 ▒▒▒▒▒▒▒",
        "     │▒▒▒▒▒▒▒                 ▒▒▒▒▒▒▒",
        "$0.30┤███████                 ▒▒▒▒▒▒▒",
        "     │███████                 ▒▒▒▒▒▒▒",
        "     │███████                 ▒▒▒▒▒▒▒",
        "$0.20┤███████                 ███████",
        "     │███████                 ███████",
        "     │███████                 ███████",
        "$0.10┤███████         ███████ ███████",
        "     │███████         ███████ ███████",
        "     │███████         ███████ ███████ _______",
        "     └───┬───────┬───────┬───────┬───────┬────",
        "      24 Nov  25 Nov  26 Nov  27 Nov  28 Nov",
        "█ large  ▒ small",
    ]


def test_with_colours_every_block_is_full():
    """Names are told apart by colour where there is any, in the bars as below them."""
    text = "\n".join(draw(OVER, no_color=False, color_system="256"))
    assert ("▒" in text, "▁" in text) == (False, True)
    for colour in (33, 208):
        assert text.count(f"\x1b[38;5;{colour}m") >= 2


@settings(max_examples=60)
@given(st.integers(30, 200), st.data())
def test_a_picture_is_never_broader_than_its_screen(width, data):
    """Whatever the amounts, no line is longer than the screen is broad, and no step is left out."""
    count = data.draw(st.integers(1, most_steps(width)))
    starts = [STARTS[0]]
    while len(starts) < count:
        starts.append(OVER.step.after(starts[-1]))
    amounts = st.lists(st.decimals(0, 10**7, places=9), min_size=count, max_size=count)
    series = tuple(Series("x" * 90, tuple(data.draw(amounts))) for _ in range(data.draw(st.integers(1, 7))))
    over = replace(OVER, starts=tuple(starts), series=series)
    assume(any(over.totals))
    lines = draw(over, width)
    assert max(map(len, lines)) <= max(width, 46)
    assert any("┬" in line for line in lines)


def test_a_remark_stands_below_the_bars():
    """Whoever compares them learns which of them is short of time."""
    lines = draw(replace(OVER, since=datetime(2026, 11, 24, 16, 12, tzinfo=UTC)))
    assert lines[-2:] == ["the first bar counts from 2026-11-24 16:12 UTC", "█ large  ▒ small"]


def test_names_cannot_command_the_terminal():
    """Control characters of a tag are dropped, and brackets stay what they are."""
    lines = draw(replace(OVER, series=(Series("\x1b[31m[red]a\nb[/]", LARGE.amounts),)))
    assert lines[-1] == "█ [31m[red]a b[/]"


def test_long_names_of_the_legend_are_whole():
    """What a line has no room for goes on in the next."""
    lines = draw(replace(OVER, series=(Series("x" * 90, LARGE.amounts),)), 60)
    assert "".join(lines).count("x") == 90


def test_one_series_has_no_legend():
    """What is of one kind needs no name."""
    assert draw(replace(OVER, column=None, series=(Series("", LARGE.amounts),)))[-1].split()[0] == "24"


@pytest.mark.parametrize(("encoding", "can"), [("utf-8", True), ("ascii", False), ("nonsense", False)])
def test_a_terminal_of_letters_alone_is_found(encoding, can):
    """Blocks are not drawn where they would be question marks."""

    class Named(io.StringIO):
        @property
        def encoding(self):
            return encoding

    assert can_show(Console(file=Named())) is can


def test_without_plotext_the_extra_is_named(monkeypatch):
    """One sentence says what to install."""
    monkeypatch.setitem(sys.modules, "plotext", None)
    with pytest.raises(WrongUseError, match=r"plotext is missing; install it with: pip install 'resilient-ai\[cli\]'"):
        draw(OVER)
