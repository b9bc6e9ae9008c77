"""Scores: what is expected of a model, from how its last calls went."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.middleware._machines.scoreboard import Look, Mean, Score


def answered(seconds, times=6, *, start=0.0, score=None, size=1.0):
    """Return a score of calls of so many seconds, one after the other, and the time of the last end."""
    score, now = score or Score(), start
    for _ in range(times):
        number = score.begin(now, size)
        now += seconds
        score.end(number, now, good=True)
    return score, now


def failed(score, now, times):
    for _ in range(times):
        score.end(score.begin(now, 1.0), now, good=False)


class TestMean:
    def test_nothing_is_the_prior(self):
        """What nobody measured is what was assumed; without an assumption it is unknown."""
        mean = Mean(half_life=60.0, most=5)
        assert mean.value(1e9, prior=7.0) == 7.0
        assert mean.plain is None

    def test_a_value_fades_by_half_in_a_half_life(self):
        """It counts 1 at first, then a half, then a quarter beside the one of the prior."""
        mean = Mean(half_life=60.0, most=5)
        mean.add(0.0, 4.0)
        assert [mean.value(at, prior=0.0) for at in (0.0, 60.0, 120.0)] == pytest.approx([2.0, 4 / 3, 0.8])
        assert mean.plain == 4.0

    def test_the_latest_push_the_others_out(self):
        """Five values count at most, so that a fifth of the mean is new with each."""
        mean = Mean(half_life=60.0, most=5)
        for _ in range(100):
            mean.add(0.0, 0.0)
        mean.add(0.0, 1.0)
        assert mean.plain == pytest.approx(0.2)
        mean.add(0.0, 1.0)
        assert mean.plain == pytest.approx(0.36)

    def test_a_value_may_count_less(self):
        """One of a tenth moves a full mean by a tenth of what another would."""
        mean = Mean(half_life=60.0, most=10)
        for _ in range(10):
            mean.add(0.0, 0.0)
        mean.add(0.0, 1.0, weight=0.1)
        assert mean.plain == pytest.approx(0.01)

    def test_time_that_runs_backwards_counts_as_none(self):
        """As between two clocks."""
        mean = Mean(half_life=60.0, most=5)
        mean.add(100.0, 1.0)
        mean.add(0.0, 1.0)
        assert mean.value(0.0, prior=0.0) == pytest.approx(2 / 3)

    @given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1), st.floats(0, 1e9))
    def test_it_lies_between_what_went_in(self, values, later):
        """Whatever the times, no mean is above the largest or below the smallest."""
        mean = Mean(half_life=60.0, most=5)
        for at, value in values:
            mean.add(at, value)
        known = [value for _, value in values]
        assert min(known) * 0.999 <= mean.plain <= max(known) * 1.001
        assert min(*known, 1.0) * 0.999 <= mean.value(later, prior=1.0) <= max(*known, 1.0) * 1.001


def test_of_a_new_model_nothing_is_known():
    """It costs what the list says, answers as long as others, and nothing speaks against it."""
    look = Score().look(0.0, usual_length=300.0)
    assert look == Look(length=300.0)
    assert look[1:] == (1.0, False, None, None, 0.0, 0, False, -math.inf)


class TestPrice:
    def test_what_is_billed_is_known_at_once(self):
        """One bill at 1.8 times the list price counts five times as much as the list."""
        score = Score()
        score.record_cost(0.0, 1.8, listed=1.0, units=10.0, used=True)
        look = score.look(0.0, 1000.0)
        assert look.drift == pytest.approx((1.8 + 0.2) / 1.2)
        assert (look.is_billed, look.rate) == (True, pytest.approx(0.18))

    def test_a_new_price_is_noticed_within_few_bills(self):
        """After five bills most of the change is seen."""
        score = Score()
        for _ in range(50):
            score.record_cost(0.0, 1.0, listed=1.0, units=0.0, used=True)
        for _ in range(5):
            score.record_cost(0.0, 2.0, listed=1.0, units=0.0, used=True)
        assert score.look(0.0, 1000.0).drift > 1.6
        assert score.look(0.0, 1000.0).rate is None

    def test_it_fades_towards_the_list_price(self):
        """After a night it is as if nobody had billed anything."""
        score = Score()
        score.record_cost(0.0, 3.0, listed=1.0, units=1.0, used=True)
        assert score.look(12 * 3600.0, 1000.0).drift == pytest.approx(1.0, abs=0.01)

    def test_what_was_wasted_is_put_on_the_next_answer(self):
        """A send whose answer nobody got makes the one that was used dearer, once."""
        score = Score()
        score.record_cost(0.0, 1.0, listed=1.0, units=1.0, used=False)
        assert score.look(0.0, 1000.0).is_billed is False
        score.record_cost(0.0, 1.0, listed=1.0, units=1.0, used=True)
        assert score.look(0.0, 1000.0).rate == 2.0
        score.record_cost(0.0, 1.0, listed=1.0, units=1.0, used=True)
        assert score.look(0.0, 1000.0).rate == 1.5

    @pytest.mark.parametrize("used", [True, False])
    def test_one_absurd_bill_fades_within_a_night(self, used):
        """It counts as ten times the list price, also where it is put on the next answer."""
        score = Score()
        for _ in range(5):
            score.record_cost(0.0, 1.0, listed=1.0, units=1.0, used=True)
        score.record_cost(0.0, 1e9, listed=1.0, units=1.0, used=used)
        score.record_cost(0.0, 1.0, listed=1.0, units=1.0, used=True)
        assert score.look(0.0, 1000.0).drift < 3.0
        assert score.look(0.0, 1000.0).rate < 3.0
        assert score.look(12 * 3600.0, 1000.0).drift == pytest.approx(1.0, abs=0.02)

    def test_without_a_list_price_a_bill_is_measured_by_those_before(self):
        """Ten times what a token cost so far, and any price where it cost nothing yet."""
        score = Score()
        for cost in (0.0, 2.0):
            score.record_cost(0.0, cost, listed=None, units=1.0, used=True)
        assert score.look(0.0, 1000.0).rate == 1.0
        score.record_cost(0.0, 1e9, listed=None, units=1.0, used=True)
        assert score.look(0.0, 1000.0).rate == 4.0

    def test_without_a_list_price_there_is_the_price_of_a_token(self):
        """Nothing is divided by an unknown or free list price."""
        score = Score()
        score.record_cost(0.0, 1.0, listed=None, units=100.0, used=True)
        score.record_cost(0.0, 1.0, listed=0.0, units=100.0, used=True)
        look = score.look(0.0, 1000.0)
        assert (look.drift, look.is_billed, look.rate) == (1.0, False, pytest.approx(0.01))

    def test_the_length_of_answers_is_that_of_others_until_enough_are_known(self):
        """Twenty answers count as much as what is usual elsewhere."""
        score = Score()
        for _ in range(20):
            score.record_length(0.0, 3000.0)
        assert score.look(0.0, usual_length=1000.0).length == pytest.approx(2000.0)


class TestSpeed:
    def test_a_slowdown_shows_at_once_and_fades_to_the_usual(self):
        """The last five calls count; minutes later what is usual counts again."""
        score, now = answered(0.5, 100)
        score, now = answered(1.0, 5, start=now, score=score)
        assert score.look(now, 1000.0).pace > 0.75
        assert score.look(now + 600.0, 1000.0).pace == pytest.approx(0.5, abs=0.05)

    def test_what_is_slow_is_told_by_the_usual(self):
        """Three times the usual, or three deviations above it, and a quarter of a second more at least."""
        assert answered(1.0)[0].slow_from(1.0) == pytest.approx(3.0)
        assert answered(0.01)[0].slow_from(1.0) == pytest.approx(0.26)
        varying = Score()
        for seconds in [20.0, *[1.0] * 4]:
            varying.end(varying.begin(0.0, 1.0), seconds, good=True)
        assert varying.slow_from(1.0) == pytest.approx(4.8 + 3 * 7.6)

    def test_a_long_answer_is_no_slow_one(self):
        """What counts is the time for its size, which may turn out to be another than expected."""
        score, now = answered(1.0, 100)
        assert score.slow_from(20.0) == pytest.approx(60.0)
        number = score.begin(now, 1.0)
        score.end(number, now + 20.0, good=True, size=20.0)
        look = score.look(now + 20.0, 1000.0)
        assert (look.trouble, look.pace) == (0.0, pytest.approx(1.0))

    def test_until_five_answers_nothing_is_slow(self):
        """Who knows little does not judge."""
        score, now = answered(0.1, 4)
        assert score.slow_from(1.0) == math.inf
        answered(100.0, 1, start=now, score=score)
        assert score.look(now + 100.0, 1000.0).trouble == 0.0

    def test_slow_calls_hardly_change_what_is_usual(self):
        """A hundred slow calls are not the usual, but thousands are."""
        score, now = answered(1.0, 100)
        score, now = answered(10.0, 50, start=now, score=score)
        assert score.slow_from(1.0) < 5.0
        score, now = answered(10.0, 3000, start=now, score=score)
        assert score.slow_from(1.0) > 10.0


class TestTrouble:
    def test_two_failures_are_trouble_where_nothing_else_is_known(self):
        """One failure is half of what is known, as one good call is assumed."""
        score = Score()
        failed(score, 0.0, 1)
        assert score.look(0.0, 1000.0).trouble == 0.5
        failed(score, 0.0, 1)
        assert score.look(0.0, 1000.0).trouble > 0.5

    @pytest.mark.parametrize("kind", ["failed", "slow"])
    def test_five_bad_calls_in_a_row_are_trouble_after_good_ones(self, kind):
        """Four are not."""
        score, now = answered(0.5, 100)
        for count in range(1, 6):
            if kind == "failed":
                failed(score, now, 1)
            else:
                answered(5.0, 1, start=now, score=score)
            trouble = score.look(now + 5.0, 1000.0).trouble
            assert (trouble > 0.5) == (count == 5)

    def test_it_fades_and_good_calls_end_it(self):
        """After three minutes the model has its chance again, after three good calls at once."""
        score, now = answered(0.5, 100)
        failed(score, now, 10)
        assert score.look(now, 1000.0).trouble > 0.7
        assert score.look(now + 180.0, 1000.0).trouble < 0.5
        score, now = answered(0.5, 3, start=now, score=score)
        assert score.look(now, 1000.0).trouble < 0.5

    def test_a_model_that_fails_again_after_that_is_out_at_once(self):
        """One failure is enough then, as nothing good has been seen."""
        score, now = answered(0.5, 100)
        failed(score, now, 10)
        failed(score, now + 180.0, 1)
        assert score.look(now + 180.0, 1000.0).trouble > 0.5

    def test_calls_that_are_overdue_count_before_they_end(self):
        """Four that are under way for too long are enough, those that have just begun say nothing."""
        score, now = answered(0.5, 100)
        for _ in range(3):
            score.begin(now, 1.0)
        assert score.look(now + 1.4, 1000.0).trouble == 0.0
        assert 0.0 < score.look(now + 1.6, 1000.0).trouble < 0.5
        late = score.begin(now + 0.05, 1.0)
        assert score.look(now + 1.6, 1000.0).trouble > 0.5
        score.begin(now + 1.5, 1.0)
        assert score.look(now + 1.6, 1000.0).is_awaited
        score.end(late, now + 1.6, good=None)
        assert score.look(now + 1.6, 1000.0).trouble > 0.5

    def test_a_call_that_takes_long_says_nothing_while_later_ones_are_answered(self):
        """It is that one that is slow, and not the model."""
        score, now = answered(0.5, 100)
        for _ in range(10):
            score.begin(now, 1.0)
        assert score.look(now + 5.0, 1000.0).trouble > 0.5
        score.end(score.begin(now + 5.0, 1.0), now + 5.5, good=True)
        assert score.look(now + 5.5, 1000.0).trouble == 0.0

    def test_a_thousand_that_hang_are_looked_at_no_longer_than_it_takes(self):
        """The share never passes 1."""
        score, now = answered(0.5, 100)
        for _ in range(1000):
            score.begin(now, 1.0)
        assert 0.95 < score.look(now + 60.0, 1000.0).trouble <= 1.0

    def test_a_cancelled_call_says_something_only_if_it_was_slow(self):
        """Who gave up early says nothing about the model."""
        score, now = answered(0.5, 100)
        score.end(score.begin(now, 1.0), now + 0.1, good=None)
        assert score.look(now, 1000.0) == score.look(now, 1000.0)._replace(trouble=0.0, is_awaited=False)
        score.end(score.begin(now, 1.0), now + 10.0, good=None)
        assert score.look(now + 10.0, 1000.0).trouble > 0.0
        assert score.answers == 100

    def test_the_end_of_a_call_counts_once(self):
        """A number that is not under way is passed over."""
        score, now = answered(0.5, 100)
        number = score.begin(now, 1.0)
        for _ in range(10):
            score.end(number, now, good=False)
        assert score.look(now, 1000.0).trouble < 0.2
        assert not score.look(now, 1000.0).is_awaited

    def test_a_stream_that_broke_is_a_failure_beside_its_beginning(self):
        """It is told apart from the answer that had begun."""
        score = Score()
        score.end(score.begin(0.0, 1.0), 0.5, good=True)
        score.record_trouble(1.0)
        assert score.look(1.0, 1000.0).trouble == pytest.approx(1 / 3, abs=0.01)
