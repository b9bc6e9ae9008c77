"""What is owed to counters."""

from concurrent.futures import Future
from dataclasses import replace

import pytest

from resilient_ai.core.budgets import Admission, Charge
from resilient_ai.stores._owed import Owed, forget

ONE = Charge(key="a", slice=0, first=0, amount=7, limit=9, until=1)


def test_charges_of_one_counter_add_up():
    """Those of others stand beside them, and the sum of all is never more than was said."""
    owed = Owed([ONE, replace(ONE, slice=60)])
    owed.add([replace(ONE, amount=-2), replace(ONE, key="b")])
    assert [(one.key, one.slice, one.amount) for one in owed] == [("a", 0, 5), ("a", 60, 7), ("b", 0, 7)]
    assert len(owed) == 3
    owed.clear()
    assert not owed


def test_charges_of_two_lives_stay_apart():
    """Nobody knows yet of which one the counter will be; what each had held adds up too."""
    first, second = (replace(ONE, amount=-3, held=5, life=life) for life in (1, 2))
    owed = Owed([first, second, first])
    assert [(one.life, one.amount, one.whole) for one in owed] == [(1, -6, 4), (2, -3, 2)]


@pytest.fixture
def asked():
    """A charge that is under way."""
    answer = Future()
    answer.set_running_or_notify_cancel()
    return answer


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("admitted", "back"), [(True, [-7]), (False, [])])
def test_what_was_admitted_for_nobody_is_given_back(asked, when, admitted, back):
    """Whether the answer was there or still comes; what was refused is not owed."""
    settled = []
    if when == "before":
        asked.set_result(Admission(admitted=admitted, spent=(0,)))
    forget(asked, [ONE], settled.extend)
    if when == "after":
        asked.set_result(Admission(admitted=admitted, spent=(0,)))
    assert [one.amount for one in settled] == back


def test_it_is_given_back_to_the_counter_it_was_added_to(asked):
    """From one that was begun anew nothing is taken."""
    settled = []
    forget(asked, [ONE], settled.extend)
    asked.set_result(Admission(admitted=True, spent=(0,), lives=(3,)))
    assert [(one.life, one.amount, one.whole) for one in settled] == [(3, -7, 0)]


def test_what_failed_or_was_not_begun_is_not_owed(asked):
    """The first added nothing, and the second is not begun any more."""
    settled = []
    forget(asked, [ONE], settled.extend)
    asked.set_exception(OSError("full"))
    waiting = Future()
    forget(waiting, [ONE], settled.extend)
    assert (settled, waiting.cancelled()) == ([], True)
