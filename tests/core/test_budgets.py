"""The unit of counters."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.budgets import PER_DOLLAR, Admission, Charge, dollars, refused, taken_back, units


@pytest.mark.parametrize(
    ("amount", "count"),
    [
        ("0", 0),
        ("1", 10**12),
        ("0.0025", 2_500_000_000),
        ("0.000000000001", 1),
        ("0.0000000000000001", 1),
        ("1.0000000000001", 10**12 + 1),
        ("9007.199254740993", 9_007_199_254_740_993),
        ("-0.0025", -2_500_000_000),
    ],
)
def test_an_amount_is_rounded_up_to_a_whole_number(amount, count):
    """So that what is reserved is never less than what may be spent."""
    assert units(Decimal(amount)) == count


@given(count=st.integers(-(2**62), 2**62))
def test_there_and_back(count):
    """Nothing is lost, however much it is."""
    assert units(dollars(count)) == count


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (25 * PER_DOLLAR, "25"), (1, "0.000000000001"), (-PER_DOLLAR, "-1")]
)
def test_dollars_read_well(count, text):
    """Without zeros at the end."""
    assert f"{dollars(count):f}" == text


def test_what_is_taken_back_leaves_nothing():
    """A charge and what takes it back go to the same counter and come to nothing."""
    one = Charge(key="a", slice=60, first=0, amount=7, limit=9, until=120, scope={"tenant": "a"})
    back = taken_back([one, one])
    assert back == [Charge(key="a", slice=60, first=0, amount=-7, limit=9, until=120, scope={"tenant": "a"})] * 2
    assert taken_back(back) == [one, one]


def test_what_is_taken_back_from_a_counter_that_was_lost():
    """Nothing: it is of another life and never held it."""
    one = Charge(key="a", slice=60, first=0, amount=7, limit=9, until=120)
    (back,) = taken_back([one], [5])
    assert [back.in_life(life) for life in (5, 6, None)] == [-7, 0, 0]
    assert [one.in_life(life) for life in (5, None)] == [7, 7]


def test_a_refusal_has_the_slices_that_count():
    """Of charges with a limit whose window has several, the oldest first; what is empty or out of the window is left out."""
    rolling = Charge(key="a", slice=60, first=0, amount=7, limit=9, until=120)
    soft, calendar = replace(rolling, key="b", limit=None), replace(rolling, key="c", first=60)
    held = {90: 1, 60: 2, 30: 0, 0: 3, -30: 4}
    found = refused([5, 5, 5], [rolling, soft, calendar], lambda charge: held)
    assert found == Admission(admitted=False, spent=(5, 5, 5), parts={"a": {0: 3, 60: 2}})
    assert list(found.parts["a"]) == [0, 60]
    assert refused([5], [calendar], lambda charge: held) == Admission(admitted=False, spent=(5,))
