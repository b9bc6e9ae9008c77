"""The envelope of values on disk."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.stores._envelope import Envelopes, Refused

OURS = Envelopes(bytes(range(32)))


@given(payload=st.binary(), name=st.binary(), ttl=st.none() | st.floats(0, 1e9))
def test_what_is_sealed_can_be_unsealed_at_once(payload, name, ttl):
    """Any bytes come back as they were, under any name."""
    assert OURS.unseal(OURS.seal(payload, name=name, created=5.0, ttl=ttl), name=name, now=5.0) == payload


@given(position=st.integers(0, 46), change=st.integers(1, 255))
def test_every_changed_byte_is_noticed(position, change):
    """Whichever byte of the envelope is changed, it is refused."""
    envelope = bytearray(OURS.seal(b"0123456789", name=b"k", created=5.0, ttl=9.0))
    assert len(envelope) == 47
    envelope[position] ^= change
    with pytest.raises(Refused):
        OURS.unseal(bytes(envelope), name=b"k", now=5.0)


@pytest.mark.parametrize(("other", "name"), [(OURS, b"other"), (OURS, b"k" + b"RAI"), (Envelopes(b"x" * 32), b"k")])
def test_an_envelope_is_bound_to_its_name_and_secret(other, name):
    """A value that was moved to another name, or sealed by another installation, is refused."""
    with pytest.raises(Refused):
        other.unseal(OURS.seal(b"v", name=b"k", created=5.0, ttl=None), name=name, now=5.0)


def test_name_and_payload_are_told_apart():
    """The end of a name does not count as the beginning of what follows it."""
    one, other = (OURS._stamp(name, header, b"v") for name, header in ((b"ab", b"c"), (b"a", b"bc")))
    assert one != other


@pytest.mark.parametrize("length", [0, 1, 36, 40])
def test_a_truncated_envelope_is_refused(length):
    """What is cut off is not a value."""
    with pytest.raises(Refused):
        OURS.unseal(OURS.seal(b"12345", name=b"k", created=5.0, ttl=None)[:length], name=b"k", now=5.0)


def test_no_envelope_is_refused():
    """As one that is not ours."""
    with pytest.raises(Refused):
        OURS.unseal(None, name=b"k", now=5.0)


@pytest.mark.parametrize(
    ("now", "fresh"), [(1000.0, True), (1060.0, True), (1060.5, False), (700.0, True), (699.0, False)]
)
def test_age_and_future_decide_whether_it_is_fresh(now, fresh):
    """It holds for its ttl, and clocks may disagree by 300 seconds."""
    envelope = OURS.seal(b"v", name=b"k", created=1000.0, ttl=60.0)
    assert OURS.unseal(envelope, name=b"k", now=now) == (b"v" if fresh else None)


@pytest.mark.parametrize("created", [math.nan, math.inf])
def test_a_moment_that_is_none_is_never_fresh(created):
    """Not even a well sealed one."""
    assert OURS.unseal(OURS.seal(b"v", name=b"k", created=created, ttl=None), name=b"k", now=0.0) is None


@pytest.mark.parametrize(("magic", "version", "flags"), [(b"XXX", 1, 0), (b"RAI", 2, 0), (b"RAI", 1, 1)])
def test_unknown_kinds_are_refused(magic, version, flags):
    """A well sealed envelope of another layout is not guessed at."""
    header = struct.pack(">3sBddB", magic, version, 1.0, 1.0, flags)
    envelope = header + OURS._stamp(b"k", header, b"v") + b"v"
    with pytest.raises(Refused, match="unknown kind"):
        OURS.unseal(envelope, name=b"k", now=1.0)
