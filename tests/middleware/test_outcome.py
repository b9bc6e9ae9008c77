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
    told_word,
)
from resilient_ai.testing import FakeClock


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


def test_words_are_names_that_come_again():
    """As they are, however often; what is no name is not told."""
    assert [told_word(text) for text in ("stop", "stop", "a b", "a b", "x" * 201)] == ["stop", "stop", None, None, None]


def test_long_text_is_not_kept():
    """However much a server writes, nothing of it stays."""
    before = _outcome._of_few.cache_info().currsize
    for number in range(10):
        told_word(f"{number}" * 300)
    assert _outcome._of_few.cache_info().currsize == before
