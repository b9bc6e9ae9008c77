"""A text as it looks to a reader, and places in it as it was."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.middleware._folding import Folded


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("plain", "plain"),
        ("Fähre 日本", "Fähre 日本"),
        ("\uff21\uff20\uff11\uff1a", "A@1:"),
        ("\u0664\u096a\u0e54\u09ea\u06f4\U0001d7d2", "444444"),
        ("a\u2013b\u2011c\u2212d\u2014e\ufe58f", "a-b-c-d-e-f"),
        ("a\u00a0b\u2009c\u3000d\u202fe", "a b c d e"),
        ("a\u200bb\u00adc\u2060\ufeffd", "abcd"),
        ("\u200b\u200b", ""),
    ],
)
def test_what_a_text_looks_like(text, folded):
    """Plain signs for those that only look different, nothing that is invisible; other letters stay."""
    assert Folded(text).text == folded


@given(st.text(alphabet="ab1\u200b\u00ad\uff11\u2013 ", max_size=30))
def test_places_are_those_of_the_text_as_it_was(text):
    """What is found begins and ends with a sign that can be seen, and folded again it is what was found."""
    folded = Folded(text)
    spans = folded.find(lambda given: (match.span() for match in re.finditer("[ab1]+", given)))
    assert [Folded(text[start:end]).text for start, end in spans] == re.findall("[ab1]+", folded.text)
    assert not [span for start, end in spans for span in (text[start], text[end - 1]) if span in "\u200b\u00ad"]
