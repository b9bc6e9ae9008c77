"""What a process knows of a counter: the marks it has passed are told once in a window."""

from resilient_ai.middleware._machines.budget_window import BudgetWindow
from resilient_ai.middleware._machines.spending import Spending

DAY = 86_400


def test_a_mark_is_told_when_it_is_reached():
    """Exactly then, and several at once where several are passed."""
    spending, today = Spending([50, 80, 100]), BudgetWindow("day").at(0)
    assert spending.saw(today, 49) == []
    assert spending.saw(today, 50) == [0]
    assert spending.saw(today, 130) == [1, 2]
    assert spending.saw(today, 130) == []


def test_a_mark_is_told_once_in_a_window():
    """Whatever is given back and spent again meanwhile; the next window tells it again."""
    spending, window = Spending([50]), BudgetWindow("day")
    assert spending.saw(window.at(0), 60) == [0]
    assert spending.changed(window.at(0), -30) == []
    assert spending.saw(window.at(DAY - 1), 70) == []
    assert spending.saw(window.at(DAY), 10) == []
    assert spending.saw(window.at(DAY), 50) == [0]


def test_a_window_that_rolls_tells_a_mark_again_after_its_length():
    """It has no end at which it could begin anew."""
    spending, window = Spending([50]), BudgetWindow("minute", rolling=True)
    assert spending.saw(window.at(1_000), 60) == [0]
    assert spending.saw(window.at(1_030), 20) == []
    assert spending.saw(window.at(1_059), 60) == []
    assert spending.saw(window.at(1_060), 60) == [0]


def test_what_is_settled_changes_what_is_known():
    """In the window in which it was reserved, and may pass a mark."""
    spending, window = Spending([50]), BudgetWindow("day")
    spending.saw(window.at(0), 40)
    assert (spending.changed(window.at(0), 15), spending.spent) == ([0], 55)


def test_what_is_settled_for_a_window_that_is_over_changes_nothing():
    """It belongs to the old one."""
    spending, window = Spending([50]), BudgetWindow("day")
    yesterday = window.at(0)
    assert (spending.changed(yesterday, 70), spending.spent) == ([], 0)
    spending.saw(window.at(DAY), 10)
    assert (spending.changed(yesterday, -7), spending.spent) == ([], 10)


def test_a_slice_that_still_counts_can_be_settled():
    """The window has rolled on, but not over it."""
    spending, window = Spending([]), BudgetWindow("minute", rolling=True)
    then = window.at(1_000)
    spending.saw(window.at(1_030), 40)
    spending.changed(then, -10)
    assert spending.spent == 30
    spending.saw(window.at(1_061), 40)
    spending.changed(then, -10)
    assert spending.spent == 40


def test_only_what_was_seen_in_this_slice_is_known():
    """An older figure says nothing about now."""
    spending, window = Spending([]), BudgetWindow("day")
    assert spending.known(window.at(0)) is None
    spending.saw(window.at(0), 7)
    assert spending.known(window.at(5)) == 7
    assert spending.known(window.at(DAY)) is None
