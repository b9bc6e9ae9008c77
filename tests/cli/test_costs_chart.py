import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from PIL import Image

from resilient_ai.cli._costs_chart import check, write_chart
from resilient_ai.cli._costs_over_time import OverTime, Series, Step
from resilient_ai.cli.failures import WrongUseError

STARTS = Step("day").starts(datetime(2026, 11, 24, tzinfo=UTC), datetime(2026, 11, 28, tzinfo=UTC))
LARGE = Series("large", tuple(map(Decimal, ("0.3", "0", "0.1", "0.2", "0.001"))))
OVER = OverTime(column="tenant", what="spent", step=Step("day"), starts=STARTS, series=(LARGE,))
BLUE, ORANGE = (0, 114, 178), (230, 159, 0)


def colours(path):
    """Return how many pixels have each colour."""
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (1650, 750))
        return {colour: count for count, colour in image.convert("RGB").getcolors(1 << 20)}


def test_a_chart_shows_each_series_in_its_colour(tmp_path):
    """Twice the amount has twice the area, on top of the first."""
    series = (LARGE, Series("double", tuple(2 * amount for amount in LARGE.amounts)))
    path = tmp_path / "costs.png"
    write_chart(replace(OVER, series=series), path)
    found = colours(path)
    assert found[ORANGE] / found[BLUE] == pytest.approx(2, rel=0.05)
    assert (path.stat().st_mode & 0o777, [file.name for file in tmp_path.iterdir()]) == (0o600, ["costs.png"])


@pytest.mark.parametrize("name", ["_hidden", "two $ of $ them", "租户 \x1b[31m", "x" * 300, ""])
def test_any_name_can_be_drawn(tmp_path, name):
    """Names that mean something to matplotlib, or that its font lacks, are drawn without a complaint, and in the legend."""
    path = tmp_path / "costs.png"
    write_chart(replace(OVER, series=(replace(LARGE, name=name),)), path)
    with_name = colours(path)
    write_chart(replace(OVER, column=None), path)
    without = colours(path)
    assert with_name[BLUE] > 10_000
    assert without[BLUE] > with_name[BLUE]  # as there is no legend to make room for


@pytest.mark.parametrize("factor", ["1e-9", "1e12"])
def test_any_amount_can_be_drawn(tmp_path, factor):
    """Tiny and huge amounts have the same bars; only what stands beside them differs."""
    path = tmp_path / "costs.png"
    write_chart(replace(OVER, series=(Series("m", tuple(amount * Decimal(factor) for amount in LARGE.amounts)),)), path)
    assert colours(path)[BLUE] > 10_000


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
    """A folder in the place of the file stays, and no draft is left."""
    (tmp_path / "costs.png").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_chart(OVER, tmp_path / "costs.png")
    assert [file.name for file in tmp_path.iterdir()] == ["costs.png"]


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    """One sentence says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        WrongUseError, match=r"matplotlib is missing; install it with: pip install 'resilient-ai\[plot\]'"
    ):
        check()
