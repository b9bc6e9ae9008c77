"""Names as a server gave them."""

import pytest

from resilient_ai.core._told import told_name

NAMES = [
    "meta-llama/Llama-3.3-70B-Instruct-Turbo",
    "meta-llama/Llama-3.3-70B:9f8a7b",
    "chatcmpl-4f1c2a9b8e7d",
    "call_0",
    "functions.look_up:0",
    "c++",
    "x" * 200,
]
NO_NAMES = ["", "a b", "ann@example.org", "a\nb", "a\x1b[31m", "a\n", "naïve", "{}", "x" * 201]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_told(name):
    """As they are."""
    assert told_name(name) == name


@pytest.mark.parametrize("text", [None, *NO_NAMES])
def test_text_that_is_no_name_is_not_told(text):
    """Spaces, signs of control and of addresses, letters of other alphabets, what is too long, and nothing at all."""
    assert told_name(text) is None
