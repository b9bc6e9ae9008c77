"""The windows of budgets: where they begin and end, and that none opens twice."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.middleware._machines.budget_window import BudgetWindow

NEVER = 253_402_300_799


def at(text):
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp())


@pytest.mark.parametrize(
    ("per", "now", "start", "end"),
    [
        ("minute", "2026-11-30T23:59:59", "2026-11-30T23:59:00", "2026-12-01T00:00:00"),
        ("hour", "2026-11-30T23:59:59", "2026-11-30T23:00:00", "2026-12-01T00:00:00"),
        ("day", "2026-11-30T00:00:00", "2026-11-30T00:00:00", "2026-12-01T00:00:00"),
        ("day", "2026-11-29T23:59:59", "2026-11-29T00:00:00", "2026-11-30T00:00:00"),
        ("week", "2026-11-30T00:00:00", "2026-11-30T00:00:00", "2026-12-07T00:00:00"),
        ("week", "2026-11-29T23:59:59", "2026-11-23T00:00:00", "2026-11-30T00:00:00"),
        ("week", "1970-01-01T00:00:00", "1969-12-29T00:00:00", "1970-01-05T00:00:00"),
        ("month", "2026-11-30T12:00:00", "2026-11-01T00:00:00", "2026-12-01T00:00:00"),
        ("month", "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("month", "2028-02-29T23:59:59", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
        ("month", "2026-02-28T23:59:59", "2026-02-01T00:00:00", "2026-03-01T00:00:00"),
        ("month", "2100-02-28T23:59:59", "2100-02-01T00:00:00", "2100-03-01T00:00:00"),
    ],
)
def test_a_calendar_window(per, now, start, end):
    """It begins and ends with its piece of the calendar, in UTC, and is one slice."""
    slot = BudgetWindow(per).at(at(now) + 0.75)
    assert (slot.slice, slot.first, slot.ends, slot.anew) == (at(start), at(start), at(end), at(end))
    assert slot.until > slot.ends


def test_a_window_without_end():
    """It is one slice for ever."""
    window = BudgetWindow("total")
    assert window.at(5.0) == window.at(4e9) == (0, 0, None, NEVER, NEVER)


@pytest.mark.parametrize(
    ("per", "length"), [("minute", 60), ("hour", 3_600), ("day", 86_400), ("week", 604_800), ("month", 2_592_000)]
)
def test_a_window_that_rolls(per, length):
    """Its slices are a sixtieth of it, and the one in which it began counts as a whole."""
    window = BudgetWindow(per, rolling=True)
    now = at("2026-11-30T12:34:56") + 0.5
    slot = window.at(now)
    assert slot.slice <= now < slot.ends == slot.slice + length // 60
    assert slot.first <= now - length < slot.first + length // 60
    assert slot.anew == slot.slice + length
    # The slice counts for the last time just before this.
    assert slot.until >= slot.slice + length + length // 60


def test_the_next_window_begins_on_time():
    """Not a moment before its end, and then at once."""
    window = BudgetWindow("day")
    first = window.at(at("2026-11-30T08:00:00"))
    assert window.at(first.ends - 0.001) == first
    assert window.at(first.ends).slice == first.ends


@pytest.mark.parametrize("rolling", [False, True])
@given(times=st.lists(st.floats(0, 4e9), min_size=1))
def test_no_slice_is_older_than_one_before(rolling, times):
    """A clock that is set back by less than a window opens none again; one that is set back further is followed."""
    window = BudgetWindow("hour", rolling=rolling)
    before = window.at(times[0])
    for now in times[1:]:
        slot = window.at(now)
        if now < before.slice - 3600:
            assert slot.slice <= now < slot.slice + 3600
        else:
            assert slot.slice >= before.slice
        before = slot


@given(now=st.integers(0, 4 * 10**9), per=st.sampled_from(["minute", "hour", "day", "week", "month"]))
def test_windows_lie_side_by_side(now, per):
    """Every moment is in one window, and where that ends the next begins."""
    slot = BudgetWindow(per).at(now)
    assert slot.slice <= now < slot.ends
    assert BudgetWindow(per).at(slot.ends).slice == slot.ends
    assert BudgetWindow(per).at(slot.slice) == slot


@given(
    per=st.sampled_from(["minute", "hour", "day", "week", "month"]),
    now=st.integers(10**8, 4 * 10**9),
    parts=st.dictionaries(st.integers(0, 59), st.integers(1, 50), min_size=1),
    uneven=st.integers(0, 10**9),
    excess=st.integers(1, 200),
)
def test_room_is_there_as_soon_as_enough_has_left(per, now, parts, uneven, excess):
    """At the moment that is told, and not a second sooner; never where slices do not hold as much."""
    slot = BudgetWindow(per, rolling=True).at(now)
    width = slot.ends - slot.slice
    held = {slot.first + place * width + uneven % width: amount for place, amount in parts.items()}
    room_at = BudgetWindow(per, rolling=True).room_at(held, excess)

    def left_by(moment):
        first = BudgetWindow(per, rolling=True).at(moment).first
        return sum(amount for start, amount in held.items() if start < first)

    if sum(held.values()) < excess:
        assert room_at is None
    else:
        assert left_by(room_at - 1) < excess <= left_by(room_at)
