"""The budget of extra sends, by example, against a reference, and the bound it promises."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from resilient_ai.middleware._machines.send_budget import SendBudget


def budget(**options):
    return SendBudget(**({"capacity": 10.0, "per_answer": 0.1, "per_second": 0.05} | options))


def test_it_is_full_at_first():
    """Nothing was spent, and nothing more is earned."""
    new = budget()
    assert (new.left(100.0), new.capacity) == (10.0, 10.0)
    new.record_success(100.0)
    assert new.left(5_000.0) == 10.0


def test_it_may_begin_with_less():
    """What it holds at the beginning can be given, also nothing."""
    assert budget(left=0.0).left(100.0) == 0.0
    assert budget(left=3.0).left(100.0) == 3.0


def test_exactly_what_is_left_may_be_spent_and_no_more():
    """The last unit is spent, and what is refused costs nothing."""
    new = budget(capacity=3.0, per_second=0.0)
    assert new.try_spend(100.0, 2.0)
    assert not new.try_spend(100.0, 1.0000001)
    assert new.left(100.0) == 1.0
    assert new.try_spend(100.0, 1.0)
    assert new.left(100.0) == 0.0
    assert not new.try_spend(100.0, 0.1)


def test_answers_and_seconds_earn():
    """A tenth for an answer, a twentieth for a second, up to the capacity."""
    new = budget(left=0.0)
    new.left(100.0)
    new.record_success(100.0)
    assert new.left(100.0) == pytest.approx(0.1)
    assert new.left(110.0) == pytest.approx(0.6)
    new.record_success(112.0)
    assert new.left(112.0) == pytest.approx(0.8)
    assert new.left(1e6) == 10.0


def test_answers_beyond_the_capacity_are_not_saved_up():
    """After a thousand answers there is as much as there was."""
    new = budget(capacity=1.0)
    for _ in range(1000):
        new.record_success(100.0)
    assert [new.try_spend(100.0, 1.0) for _ in range(2)] == [True, False]


def test_the_time_before_it_was_first_asked_earns_nothing():
    """A clock does not begin at zero."""
    assert budget(left=0.0).left(1e9) == 0.0


def test_time_that_runs_backwards_earns_nothing():
    """Between two clocks a step back is no time, and time counts from there."""
    new = budget(left=0.0)
    new.left(100.0)
    assert new.left(50.0) == 0.0
    assert new.left(60.0) == pytest.approx(0.5)


class SendBudgetModel(RuleBasedStateMachine):
    """The reference adds up what was earned and spent; the bound of the docstring is checked after every step."""

    def __init__(self):
        super().__init__()
        self.budget = budget(capacity=5.0)
        self.began = self.now = 100.0
        self.left, self.spent, self.answers = 5.0, 0.0, 0
        self.budget.left(self.now)

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds):
        """Time earns, whether or not anybody looks."""
        self.now += seconds
        self.left = min(5.0, self.left + 0.05 * seconds)

    @rule(count=st.integers(1, 30))
    def answer(self, count):
        """Answers earn."""
        for _ in range(count):
            self.budget.record_success(self.now)
        self.left = min(5.0, self.left + 0.1 * count)
        self.answers += count

    @rule(amount=st.sampled_from([1.0, 2.0]))
    def spend(self, amount):
        """What is there may be spent, to a hair."""
        ok = self.budget.try_spend(self.now, amount)
        if abs(self.left - amount) > 1e-6:
            assert ok == (self.left >= amount)
        if ok:
            self.left = max(0.0, self.left - amount)
            self.spent += amount

    @invariant()
    def keeps_its_bound(self):
        """Extra sends never exceed `capacity + N * per_answer + seconds * per_second`, and it never holds more than it can."""
        assert self.spent <= 5.0 + 0.1 * self.answers + 0.05 * (self.now - self.began) + 1e-6
        assert self.budget.left(self.now) == pytest.approx(self.left, abs=1e-6)


TestSendBudget = SendBudgetModel.TestCase
TestSendBudget.settings = settings(deadline=None)
