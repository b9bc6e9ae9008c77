"""How long a retry waits."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_ai.middleware._machines.backoff import Backoff

BACKOFF = Backoff(initial=0.5, longest=8.0)


def test_wait_doubles_up_to_the_bound():
    """With chance at its highest each wait is twice the one before, until the bound."""
    assert [BACKOFF.wait(tries, 1.0) for tries in range(1, 7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


def test_wait_is_a_random_share_of_its_bound():
    """Full jitter: chance decides how much of the bound is waited."""
    assert [BACKOFF.wait(3, chance) for chance in (0.0, 0.25, 0.5)] == [0.0, 0.5, 1.0]


def test_a_servers_wait_is_a_lower_bound_with_a_tenth_of_jitter():
    """Whatever chance says, nobody returns before the server's time, and not all at the same moment."""
    assert BACKOFF.wait(1, 0.0, 5.0) == 5.0
    assert BACKOFF.wait(1, 1.0, 5.0) == 5.5
    assert BACKOFF.wait(1, 1.0, 40.0) == 41.0


def test_a_longer_computed_wait_wins_over_the_servers():
    """A server's short wait does not shorten ours."""
    assert BACKOFF.wait(5, 1.0, 1.0) == 8.0


@pytest.mark.parametrize("hint", [math.nan, math.inf, -math.inf, -1.0, 0.0, None])
def test_a_senseless_hint_is_ignored(hint):
    """A hint that is no positive finite number leaves the computed wait."""
    assert BACKOFF.wait(2, 1.0, hint) == 1.0


@settings(deadline=None)
@given(
    tries=st.integers(1, 10**6),
    chance=st.floats(0, 1),
    initial=st.floats(0, 1e300),
    longest=st.floats(0, 1e6),
    hint=st.none() | st.floats(),
)
def test_every_wait_is_finite_and_at_least_zero(tries, chance, initial, longest, hint):
    """No number of tries, no size of a setting and no hint gives a wait that never ends."""
    wait = Backoff(initial=initial, longest=longest).wait(tries, chance, hint)

    assert 0 <= wait < math.inf
    if hint is not None and 0 < hint < math.inf:
        assert wait >= hint
    else:
        assert wait <= longest
