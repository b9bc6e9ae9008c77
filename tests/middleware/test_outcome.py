"""The words that spans, figures and log lines share."""

from typing import get_args

import pytest

from resilient_ai.core.call import Call
from resilient_ai.core.operations import Chat
from resilient_ai.middleware import _outcome
from resilient_ai.middleware._outcome import (
    STREAM_OUTCOMES,
    Outcome,
    attempt_kind,
    attempt_outcome,
    told_name,
    told_word,
)
from resilient_ai.testing import FakeClock

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


@pytest.mark.parametrize(
    ("fields", "fallbacks", "kind"),
    [
        ({}, None, "initial"),
        ({}, {"other"}, "initial"),
        ({"attempt": 2}, None, "retry"),
        ({}, {"m"}, "fallback"),
        ({"attempt": 2}, {"m"}, "fallback"),
        ({"attempt": 2, "hedge": True}, {"m"}, "hedge"),
    ],
)
def test_an_attempt_is_of_the_first_kind_that_fits(fields, fallbacks, kind):
    """A hedge before a fallback, that before a retry, and else it is the initial one."""
    call = Call(Chat(model="m", messages="hi"), FakeClock()).replace(**fields)
    assert attempt_kind(call, fallbacks) == kind


@pytest.mark.parametrize(
    ("outcome", "raced", "came_late", "expected"),
    [
        ("success", False, False, "success"),
        ("success", True, False, "won"),
        ("success", True, True, "lost"),
        ("cancelled", True, True, "lost"),
        ("cancelled", True, False, "cancelled"),
        ("abandoned", True, False, "abandoned"),
        ("abandoned", True, True, "lost"),
        ("error", True, True, "error"),
        ("refused", False, False, "error"),
        ("refused", True, True, "error"),
    ],
)
def test_what_loses_a_race_did_not_fail(outcome, raced, came_late, expected):
    """And what fails did not lose; next to the provider nothing is refused."""
    assert attempt_outcome(outcome, raced, came_late) == expected


def test_every_call_that_began_to_stream_has_a_word_for_its_stream():
    """All but those that were refused."""
    assert {*STREAM_OUTCOMES} == {*get_args(Outcome)} - {"refused"}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_told(name):
    """As they are, however often."""
    assert [told_name(name), told_word(name), told_word(name)] == [name] * 3


@pytest.mark.parametrize("text", NO_NAMES)
def test_text_that_is_no_name_is_not_told(text):
    """Spaces, signs of control and of addresses, letters of other alphabets, and what is too long."""
    assert [told_name(text), told_word(text), told_word(text)] == [None] * 3


def test_no_name_is_none():
    """An answer need not have one."""
    assert told_name(None) is None


def test_long_text_is_not_kept():
    """However much a server writes, nothing of it stays."""
    before = _outcome._of_few.cache_info().currsize
    for number in range(10):
        told_word(f"{number}" * 300)
    assert _outcome._of_few.cache_info().currsize == before
