from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_ai.cli._costs_book import Question
from resilient_ai.cli._costs_over_time import Step, over_time

from .books import at, book

pytestmark = pytest.mark.anyio

NOON = at("2026-11-30T12:00")
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001
STEPS = st.sampled_from([Step("hour"), Step("hour", 6), Step("day"), Step("week"), Step("month")])


def shown(over):
    return [f"{start:%m-%d %H}" for start in over.starts], {
        one.name: [str(amount) for amount in one.amounts] for one in over.series
    }


@given(MOMENTS, STEPS)
def test_steps_follow_one_another(moment, step):
    """Each moment lies in one step, which begins at a whole hour, and the next begins where it ends."""
    start = step.floor(moment)
    end = step.after(start)
    assert start <= moment < end
    assert (step.floor(start), step.floor(end), step.floor(end - timedelta(microseconds=1))) == (start, end, start)


async def test_days_without_a_send_are_shown():
    """A week has a bar for each of its days, whatever was sent on them, and the dearest come first."""
    async with book() as rows:
        rows.send("2026-11-28T23:59", "0.1", "small")
        rows.send("2026-11-30T00:00", "0.2", "large")
        rows.send("2026-11-30T11:00", "0.3", "large")
        rows.send("2026-11-30T11:00", None, "nobody knows")
        question = Question(columns=("model",), since=at("2026-11-27T12:00"))
        over = await over_time(rows.ledger, question, most=50, now=NOON)
    assert shown(over) == (
        ["11-27 00", "11-28 00", "11-29 00", "11-30 00"],
        {"large": ["0", "0", "0", "0.5"], "small": ["0", "0.1", "0", "0"]},
    )
    assert over.title == "Spent per day by model, 2026-11-27 to 2026-11-30 UTC"


async def test_up_to_two_days_are_shown_by_the_hour():
    """Hours are added up within the bounds that were asked for."""
    async with book() as rows:
        for minute in ("09:00", "09:59", "10:00", "11:30"):
            rows.send(f"2026-11-30T{minute}", "1", tenant="a")
        bounds = {"since": at("2026-11-30T09:30"), "until": at("2026-11-30T11:30")}
        over = await over_time(rows.ledger, Question(columns=("day", "tenant"), **bounds), most=50, now=NOON)
    assert shown(over) == (["11-30 09", "11-30 10", "11-30 11"], {"a": ["1", "1", "0"]})
    assert over.title == "Spent per hour by tenant, 2026-11-30 UTC"


@pytest.mark.parametrize(
    ("since", "until", "remark"),
    [
        ("2026-11-23T16:12", None, "the first bar counts from 2026-11-23 16:12 UTC"),
        ("2026-11-23", "2026-11-28T06:00", "the last bar counts until 2026-11-28 06:00 UTC"),
        (
            "2026-11-29T16:12",
            "2026-11-30T06:30",
            "the first bar counts from 2026-11-29 16:12 UTC, the last bar counts until 2026-11-30 06:30 UTC",
        ),
        ("2026-11-23", "2026-11-28", ""),
        ("2026-11-23", "2026-11-30T18:00", ""),
        (None, None, ""),
        ("2020-01-01T16:12", None, ""),
    ],
)
async def test_bars_that_do_not_stand_for_a_whole_step_are_named(since, until, remark):
    """Where the period begins or ends within one; today is known to be under way, and empty years are no bars."""
    async with book() as rows:
        for day in range(24, 30):
            rows.send(f"2026-11-{day}T23:00", "1")
        bounds = {"since": since and at(since), "until": until and at(until)}
        over = await over_time(rows.ledger, Question(columns=("model",), **bounds), most=50, now=NOON)
    assert over.remark == remark


@pytest.mark.parametrize(
    ("first", "most", "step"),
    [
        ("2026-11-30T05:00", 13, "hour"),
        ("2026-11-30T05:00", 12, "2 hours"),
        ("2026-11-29T05:00", 13, "3 hours"),
        ("2026-11-28T05:00", 50, "day"),
        ("2026-08-01T05:00", 50, "week"),
        ("2020-08-01T05:00", 80, "month"),
    ],
)
async def test_the_step_is_the_finest_that_there_is_room_for(first, most, step):
    """A year has no more bars than a day, only longer ones; without a beginning it begins with the first send."""
    async with book() as rows:
        rows.send(first, "1")
        over = await over_time(rows.ledger, Question(columns=("model",)), most=most, now=NOON)
    assert (str(over.step), len(over.starts) <= most, sum(over.totals)) == (step, True, 1)


async def test_a_long_period_begins_with_what_was_sent_in_it():
    """Ten years of which nine are empty are no picture."""
    async with book() as rows:
        rows.send("2026-11-20", "1")
        over = await over_time(rows.ledger, Question(columns=("model",), since=0.0), most=50, now=NOON)
    assert shown(over)[0][0] == "11-20 00"


async def test_those_beyond_the_sixth_are_others():
    """Seven names have a colour each, of eight the last two are added up; a send without a tag is called so."""
    async with book() as rows:
        for number in range(7):
            rows.send("2026-11-20", str(10 - number), tenant=f"t{number}")
        seven = await over_time(rows.ledger, Question(columns=("tenant",)), most=50, now=NOON)
        rows.send("2026-11-20", "8.5")
        eight = await over_time(rows.ledger, Question(columns=("tenant",)), most=50, now=NOON)
    assert [one.name for one in seven.series] == [f"t{number}" for number in range(7)]
    assert [one.name for one in eight.series] == ["t0", "t1", "(none)", "t2", "t3", "t4", "2 others"]
    assert eight.series[-1].amounts[0] == Decimal(9)


async def test_what_was_wasted_can_be_shown_alone():
    """Of what was spent, only what nobody got an answer for."""
    async with book() as rows:
        rows.send("2026-11-20", "1")
        rows.send("2026-11-21", "2", used=False)
        over = await over_time(rows.ledger, Question(columns=("day",)), most=50, now=NOON, wasted=True)
    assert (over.totals[:3], over.title[:15], over.column) == ([0, 2, 0], "Wasted per day,", None)


async def test_where_nothing_was_spent_there_is_nothing_to_draw():
    """Neither of an empty book, nor of one in which everything is unknown or out of the question."""
    async with book() as rows:
        assert await over_time(rows.ledger, Question(columns=("model",)), most=50, now=NOON) is None
        rows.send("2026-11-20", None, tenant="a")
        rows.send("2026-11-20", "1", tenant="b")
        question = Question(columns=("model",), tags={"tenant": "a"})
        assert await over_time(rows.ledger, question, most=50, now=NOON) is None


SENDS = st.lists(st.tuples(st.integers(0, 400 * 24), st.integers(0, 999), st.sampled_from("abcdefghi")), max_size=12)


@settings(max_examples=25, deadline=None)
@given(SENDS, st.integers(30, 110), st.none() | st.integers(0, 400 * 24), st.none() | st.integers(0, 400 * 24))
async def test_no_dollar_is_lost(sends, most, since, until):
    """Whatever the period and the step, the bars add up to what the book says, and there is room for them."""
    async with book() as rows:
        for hours, cost, name in sends:
            rows.send(NOON - hours * 3600, str(cost), name)
        if since is not None and until is not None:
            since, until = max(since, until), min(since, until)
        bounds = [None if hours is None else NOON - hours * 3600 for hours in (since, until)]
        question = Question(columns=("model",), since=bounds[0], until=bounds[1])
        over = await over_time(rows.ledger, question, most=most, now=NOON)
        total = await rows.ledger.total(**question.which)
    assert sum(over.totals if over else []) == total.cost
    assert over is None or (len(over.starts) <= most and len(over.series) <= 7)
