"""PriceDrift: what is billed beside what a price list says."""

import math
from decimal import Decimal

import pytest

from resilient_ai.middleware._machines.price_drift import PriceDrift, differs


@pytest.mark.parametrize(
    ("billed", "listed", "drifted"),
    [
        ("1.01", "1", False),
        ("1.010001", "1", True),
        ("0.99", "1", False),
        ("0.989999", "1", True),
        ("0", "0", False),
        ("0", "1", True),
        ("0.000001", "0", True),
        # 332.47 millionths, told as 332: 0.14 % and rounded. 9.7 told as 10 is 3 %, and 9.2 told as 10 was not rounded to that.
        ("0.000332", "0.00033247", False),
        ("0.000010", "0.0000097", False),
        ("0.000010", "0.0000095", False),
        ("0.000010", "0.0000092", True),
        ("0.000000", "0.0000004", False),
        # A figure with more decimals was not rounded to six.
        ("0.0000101", "0.0000097", True),
    ],
)
def test_what_differs(billed, listed, drifted):
    """More than 1 % of the listed price, and more than half a millionth where the figure may have been rounded to millionths."""
    assert differs(Decimal(billed), Decimal(listed)) is drifted


def test_nothing_known_is_no_drift():
    """Before any send, and after free ones, both agree."""
    drift = PriceDrift()
    assert (drift.ratio, drift.sends) == (1.0, 0)
    drift.record(Decimal(0), Decimal(0))
    assert (drift.ratio, drift.sends) == (1.0, 1)


def test_a_price_where_the_list_says_free_has_no_bound():
    """What is billed for a model that should cost nothing is infinitely more."""
    drift = PriceDrift()
    drift.record(Decimal(1), Decimal(0))
    assert drift.ratio == math.inf


def test_the_ratio_is_of_sums():
    """A dear send counts for more than a cheap one: 3 dollars in place of 2, to which an old third adds 0.95 of its own."""
    drift = PriceDrift()
    drift.record(Decimal(1), Decimal(1))
    drift.record(Decimal(3), Decimal(2))
    assert drift.ratio == pytest.approx((0.95 + 3) / (0.95 + 2))


def test_old_prices_are_forgotten():
    """A hundred sends after a change of prices the ratio is that of the new ones, to half a per cent."""
    drift = PriceDrift()
    for _ in range(1000):
        drift.record(Decimal(1), Decimal(1))
    for _ in range(100):
        drift.record(Decimal(2), Decimal(1))
    assert drift.ratio == pytest.approx(2.0, rel=0.005)
    assert drift.sends == 1100


def test_warnings_are_an_hour_apart():
    """The first is given at once, the next after an hour."""
    drift = PriceDrift()
    assert [drift.try_warn(now) for now in (0, 1, 3599, 3600, 3601, 7200)] == [True, False, False, True, False, True]
