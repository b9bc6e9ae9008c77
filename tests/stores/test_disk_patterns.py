"""Patterns of keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.stores._patterns import literal_prefix, matcher, matches_all


@pytest.mark.parametrize(
    ("pattern", "fits", "misses"),
    [
        ("", [""], ["a"]),
        ("*", ["", "a", "a\nb"], []),
        ("a?c", ["abc", "a\nc"], ["ac", "abbc", "xabc", "abcx"]),
        ("a**c", ["ac", "abbc"], ["acb"]),
        ("[a]*", ["[a]", "[a]b"], ["a"]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_only_two_characters_mean_something(pattern, fits, misses):
    """The whole key has to match."""
    assert list(filter(matcher(pattern), fits + misses)) == fits


@given(st.text(), st.text("ab?*[]"))
def test_what_matches_begins_with_the_prefix(key, pattern):
    """And a pattern of stars matches everything."""
    assert not matcher(pattern)(key) or key.startswith(literal_prefix(pattern))
    assert not matches_all(pattern) or matcher(pattern)(key)


def test_many_stars_do_not_make_a_search_slow():
    """Stars in a row are one star."""
    assert not matcher("*" * 1000 + "b")("a" * 1000)
