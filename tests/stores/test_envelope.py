"""The envelope of values on disk."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.stores import _envelope
from resilient_ai.stores._envelope import Refused, seal, unseal

SECRET = bytes(range(32))


@given(payload=st.binary(), key=st.text(), ttl=st.none() | st.floats(0, 1e9))
def test_what_is_sealed_can_be_unsealed_at_once(payload, key, ttl):
    """Any bytes come back as they were, under any key."""
    assert (
        unseal(seal(payload, secret=SECRET, key=key, created=5.0, ttl=ttl), secret=SECRET, key=key, now=5.0) == payload
    )


@given(position=st.integers(0, 46), change=st.integers(1, 255))
def test_every_changed_byte_is_noticed(position, change):
    """Whichever byte of the envelope is changed, it is refused."""
    envelope = bytearray(seal(b"0123456789", secret=SECRET, key="k", created=5.0, ttl=9.0))
    assert len(envelope) == 47
    envelope[position] ^= change
    with pytest.raises(Refused):
        unseal(bytes(envelope), secret=SECRET, key="k", now=5.0)


@pytest.mark.parametrize(("secret", "key"), [(SECRET, "other"), (b"x" * 32, "k")])
def test_an_envelope_is_bound_to_its_key_and_secret(secret, key):
    """A value that was moved to another key, or sealed by another installation, is refused."""
    with pytest.raises(Refused):
        unseal(seal(b"v", secret=SECRET, key="k", created=5.0, ttl=None), secret=secret, key=key, now=5.0)


@pytest.mark.parametrize("length", [0, 1, 36, 40])
def test_a_truncated_envelope_is_refused(length):
    """What is cut off is not a value."""
    with pytest.raises(Refused):
        unseal(seal(b"12345", secret=SECRET, key="k", created=5.0, ttl=None)[:length], secret=SECRET, key="k", now=5.0)


@pytest.mark.parametrize(
    ("now", "fresh"), [(1000.0, True), (1060.0, True), (1060.5, False), (700.0, True), (699.0, False)]
)
def test_age_and_future_decide_whether_it_is_fresh(now, fresh):
    """It holds for its ttl, and clocks may disagree by 300 seconds."""
    envelope = seal(b"v", secret=SECRET, key="k", created=1000.0, ttl=60.0)
    assert unseal(envelope, secret=SECRET, key="k", now=now) == (b"v" if fresh else None)


@pytest.mark.parametrize("created", [math.nan, math.inf])
def test_a_moment_that_is_none_is_never_fresh(created):
    """Not even a well sealed one."""
    assert (
        unseal(seal(b"v", secret=SECRET, key="k", created=created, ttl=None), secret=SECRET, key="k", now=0.0) is None
    )


@pytest.mark.parametrize(("magic", "version", "flags"), [(b"XXX", 1, 0), (b"RAI", 2, 0), (b"RAI", 1, 1)])
def test_unknown_kinds_are_refused(magic, version, flags):
    """A well sealed envelope of another layout is not guessed at."""
    header = struct.pack(">3sBddB", magic, version, 1.0, 1.0, flags)
    envelope = header + _envelope._stamp(SECRET, "k", header, b"v") + b"v"
    with pytest.raises(Refused, match="unknown kind"):
        unseal(envelope, secret=SECRET, key="k", now=1.0)
