"""Freshness: what an entry is good for at its age."""

import math

import pytest

from resilient_ai.middleware._machines.freshness import CLOCK_SKEW, Freshness


@pytest.mark.parametrize(
    ("limits", "age", "ttl", "worth"),
    [
        ({}, 0.0, 60.0, "fresh"),
        ({}, 60.0, 60.0, "fresh"),
        ({}, 60.1, 60.0, "over"),
        ({}, 1e12, math.inf, "fresh"),
        ({"max_age": 10}, 10.0, math.inf, "fresh"),
        ({"max_age": 10}, 10.1, math.inf, "over"),
        ({"max_age": 0}, 0.1, 60.0, "over"),
        ({"stale_while_revalidate": 5}, 65.0, 60.0, "stale"),
        ({"stale_while_revalidate": 5}, 65.1, 60.0, "over"),
        ({"stale_if_error": 5}, 65.0, 60.0, "spare"),
        ({"stale_if_error": 5}, 65.1, 60.0, "over"),
        ({"stale_while_revalidate": 2, "stale_if_error": 5}, 61.0, 60.0, "stale"),
        ({"stale_while_revalidate": 2, "stale_if_error": 5}, 63.0, 60.0, "spare"),
        ({"max_age": 10, "stale_while_revalidate": 5}, 11.0, 60.0, "over"),
        ({"max_age": 70, "stale_while_revalidate": 20}, 70.0, 60.0, "stale"),
        ({"max_age": 70, "stale_while_revalidate": 20}, 71.0, 60.0, "over"),
        ({"max_age": 10, "stale_if_error": 5}, 15.0, 60.0, "spare"),
        ({"max_age": 10, "stale_if_error": 5}, 15.1, 60.0, "over"),
        ({"max_age": 10, "stale_if_error": 5}, 15.1, math.inf, "over"),
        ({}, -CLOCK_SKEW, 60.0, "fresh"),
        ({}, -CLOCK_SKEW - 0.1, 60.0, "over"),
        ({}, -CLOCK_SKEW - 0.1, math.inf, "over"),
        ({}, math.nan, 60.0, "over"),
    ],
)
def test_an_entry_is_worth_what_its_age_allows(limits, age, ttl, worth):
    """Every limit holds up to and including its last second, and a future that no clock explains is never an answer."""
    assert Freshness(**limits).worth(age=age, ttl=ttl) == worth


@pytest.mark.parametrize(
    ("age", "made_in", "chance", "early", "worth"),
    [
        (58.0, 2.0, 0.0, 1.0, "fresh"),
        (58.0, 2.0, 0.63, 1.0, "fresh"),  # -ln(0.37) is 0.994
        (58.0, 2.0, 0.64, 1.0, "due"),  # -ln(0.36) is 1.022
        (50.0, 2.0, 0.64, 1.0, "fresh"),
        (50.0, 2.0, 0.64, 5.0, "due"),
        (59.9, 2.0, 0.99, 0.0, "fresh"),
        (59.9, 0.0, 0.99, 1.0, "fresh"),
        (60.0, 2.0, 0.0, 1.0, "due"),
    ],
)
def test_an_entry_is_due_before_its_end_by_chance(age, made_in, chance, early, worth):
    """The nearer the end and the longer it took, the likelier; with the formula's own numbers."""
    assert Freshness(early=early).worth(age=age, ttl=60.0, made_in=made_in, chance=chance) == worth


def test_what_never_ends_is_never_due():
    """Without an end there is nothing to be early for."""
    assert Freshness().worth(age=1e9, ttl=math.inf, made_in=9.0, chance=0.9999999999) == "fresh"
