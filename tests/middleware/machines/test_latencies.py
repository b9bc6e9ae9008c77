"""How long a model took lately."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_ai.middleware._machines.latencies import Latencies


def known(*seconds, **options):
    latencies = Latencies(**options)
    for value in seconds:
        latencies.record(value)
    return latencies


def test_nothing_known_is_for_ever():
    """Without a latency every quantile is infinite."""
    assert (len(Latencies()), Latencies().quantile(0.5)) == (0, math.inf)


@pytest.mark.parametrize(
    ("share", "seconds"), [(0.0, 1.0), (0.1, 1.0), (0.11, 2.0), (0.5, 5.0), (0.9, 9.0), (0.91, 10.0), (1.0, 10.0)]
)
def test_a_quantile_is_the_smallest_that_covers_its_share(share, seconds):
    """Of ten latencies nine are covered by the ninth, and one more than nine only by the tenth."""
    assert known(7.0, 1.0, 10.0, 4.0, 2.0, 9.0, 3.0, 8.0, 5.0, 6.0).quantile(share) == seconds


def test_one_latency_is_every_quantile():
    """A single value is all there is."""
    assert [known(3.0).quantile(share) for share in (0.01, 0.5, 0.99)] == [3.0, 3.0, 3.0]


def test_only_the_last_two_hundred_are_remembered():
    """The two hundred and first pushes the first out."""
    latencies = known(*[100.0, *[1.0] * 199])
    assert (len(latencies), latencies.quantile(1.0)) == (200, 100.0)
    latencies.record(1.0)
    assert (len(latencies), latencies.quantile(1.0)) == (200, 1.0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0.01, 0.99))
def test_a_quantile_covers_its_share_and_none_smaller_does(seconds, share):
    """At least the share of the last fifty do not exceed it, and less than that are below it."""
    latencies, last = known(*seconds, size=50), seconds[-50:]
    quantile = latencies.quantile(share)
    assert sum(value <= quantile for value in last) >= share * len(last) - 1e-9
    assert sum(value < quantile for value in last) < share * len(last) + 1e-9
