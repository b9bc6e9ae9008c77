from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.cli._costs_axes import amounts, every, label, scale
from resilient_ai.cli._costs_over_time import Step

MONEY = st.decimals(min_value="1e-12", max_value="1e12", allow_nan=False)


@given(MONEY)
def test_a_scale_covers_what_is_drawn(most):
    """There are two to five marks at equal distances, the last of them at the highest bar or above, by less than one step."""
    marks = scale(most)
    step = marks[0]
    assert [step * number for number in range(1, len(marks) + 1)] == marks
    assert (2 <= len(marks) <= 5, marks[-1] - step < most <= marks[-1]) == (True, True)
    assert step.normalize().as_tuple().digits in {(1,), (2,), (5,)}


@pytest.mark.parametrize(
    ("marks", "shown"),
    [
        (["0.0000002", "0.0000004"], ["$0.0000002", "$0.0000004"]),
        (["0.5", "1"], ["$0.50", "$1.00"]),
        (["2E+3", "4E+3"], ["$2,000", "$4,000"]),
        (["0.05", "0.1"], ["$0.05", "$0.10"]),
    ],
)
def test_amounts_are_as_long_as_their_step_needs(marks, shown):
    """Tiny and huge amounts are written in full, all with the same number of decimals."""
    assert amounts([Decimal(mark) for mark in marks]) == shown


@pytest.mark.parametrize(
    ("unit", "hour", "shown"),
    [("hour", 0, "9 Nov"), ("hour", 7, "07:00"), ("day", 0, "9 Nov"), ("week", 0, "9 Nov"), ("month", 0, "Nov 2026")],
)
def test_a_step_is_called_by_what_tells_it_from_the_others(unit, hour, shown):
    """Hours are called by their time, midnight by its day, months with their year."""
    assert label(datetime(2026, 11, 9, hour, tzinfo=UTC), Step(unit)) == shown


@given(
    st.integers(0, 23),
    st.integers(1, 200),
    st.integers(1, 40),
    st.sampled_from([Step("hour"), Step("hour", 2), Step("day")]),
)
def test_labels_are_never_more_than_there_is_room_for(hour, count, most, step):
    """Whatever there is to label, at least one thing is labelled, and no more than was asked for."""
    start = step.floor(datetime(2026, 11, 9, hour, tzinfo=UTC))
    starts = [start]
    while len(starts) < count:
        starts.append(step.after(starts[-1]))
    assert 1 <= len(every(starts, step, most)) <= most


def test_labelled_hours_are_round():
    """Two days of hours are labelled at six and twelve, and not at five and eleven."""
    starts = Step("hour").starts(datetime(2026, 11, 9, 5, tzinfo=UTC), datetime(2026, 11, 11, 4, tzinfo=UTC))
    assert [starts[row].hour for row in every(starts, Step("hour"), 8)] == [6, 12, 18, 0, 6, 12, 18, 0]
