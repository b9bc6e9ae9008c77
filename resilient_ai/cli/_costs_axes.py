"""Where the axes of a picture of money over time have their marks, and what stands at them."""

from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_ai.cli._costs_over_time import Step


def scale(most: Decimal) -> list[Decimal]:
    """Return marks for an axis from zero on, at round amounts, the last of them at `most` or above; three to five.

    >>> scale(Decimal("0.0042"))[-1]
    Decimal('0.005')
    """
    unit = Decimal(1).scaleb(most.adjusted() - 1)
    step = next(unit * factor for factor in (2, 5, 10, 20) if unit * factor * 5 >= most).normalize()
    count = int((most / step).to_integral_value(ROUND_CEILING))
    return [step * number for number in range(1, count + 1)]


def amounts(marks: Sequence[Decimal]) -> list[str]:
    """Return amounts with the same number of decimals.

    >>> amounts([Decimal("0.5"), Decimal("1.0"), Decimal("1.5")])
    ['$0.50', '$1.00', '$1.50']
    """
    places = max(0, *(-int(mark.normalize().as_tuple().exponent) for mark in marks))
    return [f"${mark:,.{2 if places == 1 else places}f}" for mark in marks]


def label(moment: datetime, step: "Step") -> str:
    """Return how a step is called below the axis."""
    if step.unit == "hour" and moment.hour:
        return f"{moment:%H:%M}"
    return f"{moment:%b %Y}" if step.unit == "month" else f"{moment.day} {moment:%b}"


def every(starts: Sequence[datetime], step: "Step", most: int) -> list[int]:
    """Return which steps get a label, so that there are at most `most`: each n-th, hours at round ones."""
    if step.unit == "hour":
        for hours in (3, 6, 12, 24):
            found = [row for row, start in enumerate(starts) if not start.hour % hours]
            if 0 < len(found) <= most < len(starts):
                return found
    return list(range(0, len(starts), -(-len(starts) // max(1, most))))
