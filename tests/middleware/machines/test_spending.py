"""What a process knows of a counter: what is settled of it, and the marks that has passed, each told once in a window."""

from resilient_ai.middleware._machines.budget_window import BudgetWindow
from resilient_ai.middleware._machines.spending import Spending

DAY = 86_400


def known(marks, slot, spent):
    spending = Spending(marks)
    spending.saw(slot, spent)
    return spending


def test_a_mark_is_told_when_it_is_reached():
    """Exactly then, and several at once where several are passed."""
    today = BudgetWindow("day").at(0)
    spending = known([50, 80, 100], today, 0)
    assert [spending.settle(today, amount, 0) for amount in (49, 1, 80, 0)] == [[], [0], [1, 2], []]
    assert spending.spent == spending.settled == 130


def test_what_is_reserved_passes_no_mark():
    """Only once it is settled, with what it came to; what others of this process have reserved does not count meanwhile."""
    today = BudgetWindow("day").at(0)
    spending = known([50], today, 10)
    for spent in (90, 170):
        spending.reserve(today, 80)
        spending.saw(today, spent)
    assert (spending.spent, spending.settled, spending.reserved(today)) == (170, 10, 160)
    assert spending.reserved_in(today) == {0: 160}
    assert (spending.settle(today, 20 - 80, 80), spending.settled, spending.reserved(today)) == ([], 30, 80)
    assert (spending.settle(today, 20 - 80, 80), spending.settled, spending.reserved(today)) == ([0], 50, 0)


def test_what_costs_what_was_reserved_passes_a_mark():
    """The counter stays as it is, and what is settled grows."""
    today = BudgetWindow("day").at(0)
    spending = known([50], today, 60)
    spending.reserve(today, 60)
    assert spending.settle(today, 0, 60) == [0]


def test_a_mark_is_told_once_in_a_window():
    """Whatever is given back and spent again meanwhile; the next window tells it again."""
    window = BudgetWindow("day")
    today = window.at(0)
    spending = known([50], today, 60)
    assert [spending.settle(today, amount, 0) for amount in (0, -30, 40)] == [[0], [], []]
    tomorrow = window.at(DAY)
    spending.saw(tomorrow, 10)
    assert [spending.settle(tomorrow, amount, 0) for amount in (1, 39)] == [[], [0]]


def test_a_window_that_rolls_tells_a_mark_again_after_its_length():
    """It has no end at which it could begin anew."""
    spending, window = Spending([50]), BudgetWindow("minute", rolling=True)
    told = []
    for now, spent in ((1_000, 60), (1_030, 20), (1_059, 60), (1_060, 60)):
        slot = window.at(now)
        spending.saw(slot, spent)
        told.append(spending.settle(slot, 0, 0))
    assert told == [[0], [], [], [0]]


def test_what_is_settled_for_a_window_that_is_over_changes_nothing():
    """It belongs to the old one, and what had been reserved there takes nothing away here."""
    spending, window = Spending([50]), BudgetWindow("day")
    yesterday = window.at(0)
    assert (spending.settle(yesterday, 70, 0), spending.spent) == ([], 0)
    spending.reserve(yesterday, 30)
    tomorrow = window.at(DAY)
    spending.saw(tomorrow, 10)
    assert (spending.reserved(yesterday), spending.reserved(tomorrow), spending.settled) == (30, 0, 10)
    assert (spending.settle(yesterday, -7, 30), spending.spent, spending.reserved(yesterday)) == ([], 10, 0)


def test_a_slice_that_still_counts_can_be_settled():
    """The window has rolled on, but not over it."""
    spending, window = Spending([]), BudgetWindow("minute", rolling=True)
    then = window.at(1_000)
    spending.reserve(then, 10)
    spending.saw(window.at(1_030), 40)
    assert spending.settled == 30
    spending.settle(then, -10, 10)
    assert (spending.spent, spending.settled) == (30, 30)
    spending.saw(window.at(1_061), 40)
    spending.settle(then, -10, 0)
    assert spending.spent == 40


def test_only_what_was_seen_in_this_slice_is_known():
    """An older figure says nothing about now."""
    spending, window = Spending([]), BudgetWindow("day")
    assert spending.known(window.at(0)) is None
    spending.saw(window.at(0), 7)
    assert spending.known(window.at(5)) == 7
    assert spending.known(window.at(DAY)) is None


def test_an_answer_that_comes_late_does_not_undo_what_was_settled_meanwhile():
    """The book had counted the worst case of a send that has been settled since."""
    today = BudgetWindow("day").at(0)
    spending = known([], today, 80)
    spending.reserve(today, 80)
    asked = spending.asks(today)
    spending.settle(today, 5 - 80, 80)
    spending.saw(today, 80 + 70, asked)
    spending.reserve(today, 70)
    assert (spending.spent, spending.settled) == (75, 5)


def test_an_answer_of_an_older_window_is_passed_over():
    """Somebody has looked at the new one meanwhile; and what was asked before any look is taken as it is."""
    spending, window = Spending([]), BudgetWindow("day")
    today = window.at(0)
    assert spending.asks(today) is None
    spending.saw(today, 7, None)
    asked, tomorrow = spending.asks(today), window.at(DAY)
    assert spending.asks(tomorrow) is None
    spending.saw(tomorrow, 3)
    spending.saw(today, 70, asked)
    assert (spending.slot, spending.spent) == (tomorrow, 3)


def test_a_counter_that_was_lost():
    """Nothing is reserved in the one that was begun, so the whole cost of what was reserved before is added."""
    today = BudgetWindow("day").at(0)
    spending = Spending([50])
    assert not spending.saw(today, 80, life=1)
    spending.reserve(today, 80)
    asked = spending.asks(today)
    spending.settle(today, 0, 0, 1)
    assert spending.saw(today, 10, asked, life=2)
    assert (spending.spent, spending.settled, spending.awaits) == (10, 10, False)
    spending.reserve(today, 10)
    assert spending.settle(today, 45 - 80, 80, 1) == []
    assert (spending.spent, spending.settled) == (55, 45)
    assert spending.settle(today, 5 - 10, 10, 2) == [0]
    assert (spending.spent, spending.awaits) == (50, False)


def test_the_life_of_the_next_window_is_another():
    """That is no loss; what is settled for the one before is let go of."""
    spending, window = Spending([]), BudgetWindow("day")
    today, tomorrow = window.at(0), window.at(DAY)
    spending.saw(today, 80, life=1)
    spending.reserve(today, 80)
    assert not spending.saw(tomorrow, 10, life=2)
    assert not spending.saw(tomorrow, 10)
    spending.settle(today, -70, 80, 1)
    assert (spending.spent, spending.awaits, spending.life) == (10, False, 2)


def test_what_is_reserved_can_be_left_to_others():
    """A forked child counts what its parent has reserved as spent."""
    today = BudgetWindow("day").at(0)
    spending = known([], today, 80)
    spending.reserve(today, 80)
    spending.forget_reserved()
    assert (spending.settled, spending.reserved(today)) == (80, 0)
