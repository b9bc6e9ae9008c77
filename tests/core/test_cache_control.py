"""CacheControl: what a call may ask of the cache."""

import math

import pytest

from resilient_ai.core.cache_control import CacheControl


@pytest.mark.parametrize("mode", ["on", "off", "read", "write", "refresh"])
def test_a_mode_alone_is_a_shorthand(mode):
    """A word is the object that says only that; nothing is nothing, and an object is itself."""
    assert CacheControl.of(mode) == CacheControl(mode=mode)
    control = CacheControl(mode=mode, ttl=math.inf)
    assert (CacheControl.of(control), CacheControl.of(None)) == (control, None)


def test_nothing_is_asked_by_default():
    """Everything is left to the stack."""
    control = CacheControl()
    fields = (control.mode, control.ttl, control.max_age, control.stale_while_revalidate, control.stale_if_error)
    assert fields == (None,) * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "maybe"}, "mode must be one of"),
        ({"ttl": 0}, "ttl must be a positive number of seconds, got 0"),
        ({"ttl": math.nan}, "ttl must be a positive"),
        ({"ttl": "60"}, "ttl must be a positive number of seconds, got '60'"),
        ({"max_age": -1}, "max_age must be >= 0, got -1"),
        ({"stale_while_revalidate": math.inf}, "stale_while_revalidate must be >= 0"),
        ({"stale_if_error": "x"}, "stale_if_error must be >= 0"),
    ],
)
def test_options_are_checked(options, message):
    """An option out of its range is refused where it is written."""
    with pytest.raises(ValueError, match=message):
        CacheControl(**options)
