"""The checks of options: what each lets pass, and the one form of sentence with which it refuses."""

import logging
import math
import re
import sys

import pytest

from resilient_ai.core.checks import (
    check_able,
    check_at_least,
    check_between,
    check_callable,
    check_count,
    check_kind,
    check_names,
    check_seconds,
    check_share,
    check_span,
)

NO_NUMBERS = [math.nan, True, False, "3", None, [1], 1j, object]


class Door:
    """Something with two methods."""

    width = 1

    def open(self):
        """Open."""

    def close(self):
        """Close."""


def refused(check, sentence, *arguments, **options):
    """Assert that `check` refuses the option "size" with exactly this sentence."""
    with pytest.raises(ValueError, match=f"^{re.escape(f'size must be {sentence}')}$"):
        check("size", *arguments, **options)


@pytest.mark.parametrize("value", [1, 2, 10**300])
def test_a_count_has_no_upper_bound_unless_one_is_given(value):
    """Whole numbers from the lowest on pass."""
    check_count("size", value, 1)


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), 10**5000, int(sys.float_info.max) * 2],
    ids=["vast", "below zero", "too long to print", "twice the largest"],
)
@pytest.mark.parametrize(
    ("check", "sentence", "arguments"),
    [
        (check_count, "a whole number >= 1", (1,)),
        (check_count, "a whole number from 1 to 200", (1, 200)),
        (check_at_least, ">= 0.001", (0.001,)),
        (check_between, "from 0 to 1", (0, 1)),
        (check_seconds, "a positive number of seconds", ()),
        (check_share, "above 0 and at most 1", ()),
        (check_kind, "of type bool", (bool,)),
    ],
)
def test_what_no_float_can_hold(check, sentence, arguments, value):
    """It would fail in the first sum with a float; the sentence does not print its thousands of digits."""
    refused(check, f"{sentence}, got a number that no float can hold", value, *arguments)


@pytest.mark.parametrize("value", [sys.float_info.max, int(sys.float_info.max)])
def test_the_largest_number(value):
    """What a float can just hold passes."""
    check_seconds("size", value)
    check_at_least("size", value, 0)
    check_span("size", (0, value))


@pytest.mark.parametrize("value", [0, -1, 2.5, 3.0, math.inf, *NO_NUMBERS])
def test_what_is_no_count(value):
    """Too small a number, a broken one and what is no number are refused with the same sentence."""
    refused(check_count, f"a whole number >= 1, got {value!r}", value, 1)


@pytest.mark.parametrize("value", [0, 201, 5.5, *NO_NUMBERS])
def test_a_count_between_two_bounds(value):
    """Both bounds pass; what lies outside is refused with both."""
    check_count("size", 1, 1, 200)
    check_count("size", 200, 1, 200)
    refused(check_count, f"a whole number from 1 to 200, got {value!r}", value, 1, 200)


@pytest.mark.parametrize("value", [0, 0.0009, -math.inf, math.inf, *NO_NUMBERS])
def test_at_least(value):
    """Finite numbers from the lowest on pass."""
    check_at_least("size", 0.001, 0.001)
    check_at_least("size", 7, 0.001)
    refused(check_at_least, f">= 0.001, got {value!r}", value, 0.001)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.inf, *NO_NUMBERS])
def test_between(value):
    """Both bounds pass."""
    check_between("size", 0, 0, 1)
    check_between("size", 1.0, 0, 1)
    refused(check_between, f"from 0 to 1, got {value!r}", value, 0, 1)


@pytest.mark.parametrize("value", [0, 0.0, -1, math.inf, *NO_NUMBERS])
def test_seconds(value):
    """Any positive, finite number is a time."""
    check_seconds("size", 1e-9)
    check_seconds("size", 3600)
    refused(check_seconds, f"a positive number of seconds, got {value!r}", value)


@pytest.mark.parametrize("value", [0, 1.01, -0.5, math.inf, *NO_NUMBERS])
def test_share(value):
    """A share is above 0, and 1 is all."""
    check_share("size", 0.01)
    check_share("size", 1)
    refused(check_share, f"above 0 and at most 1, got {value!r}", value)


@pytest.mark.parametrize("value", [0.0, 1, 1.0, *NO_NUMBERS])
def test_a_share_that_is_not_the_whole(value):
    """Where the whole is too much, 1 is refused as well."""
    check_share("size", 0.99, whole=False)
    refused(check_share, f"above 0 and below 1, got {value!r}", value, whole=False)


@pytest.mark.parametrize(
    "value",
    [
        (2, 1),
        (-1, 2),
        (0, math.inf),
        (0, 10**400),
        (math.nan, 1),
        (0, math.nan),
        (1,),
        (1, 2, 3),
        ("0", "1"),
        "01",
        3,
        None,
    ],
)
def test_span(value):
    """A span is a pair of which the second is no less than the first."""
    check_span("size", (0, 0))
    check_span("size", [0.1, 2.0])
    refused(check_span, f"least and most seconds from 0, got {value!r}", value)


@pytest.mark.parametrize(
    ("value", "kinds", "sentence"),
    [
        ("no", (bool,), "of type bool, got 'no'"),
        (1, (bool,), "of type bool, got 1"),
        (None, (bool,), "of type bool, got None"),
        (True, (int,), "of type int, got True"),
        (True, (logging.Logger, None), "of type Logger or None, got True"),
        ("root", (logging.Logger, None), "of type Logger or None, got 'root'"),
    ],
)
def test_what_is_of_another_kind(value, kinds, sentence):
    """The sentence names the kinds, and what was given."""
    refused(check_kind, sentence, value, *kinds)


@pytest.mark.parametrize(
    ("value", "kinds"), [(False, (bool,)), (-3, (int,)), (None, (int, None)), (logging.root, (logging.Logger, None))]
)
def test_what_is_of_a_kind(value, kinds):
    """An instance of one of the kinds passes, and None where it is among them."""
    check_kind("size", value, *kinds)


@pytest.mark.parametrize("value", [None, Door()])
def test_what_has_the_methods(value):
    """Whatever has the methods passes, of whichever class, and so does None."""
    check_able("size", value, "open", "close")


@pytest.mark.parametrize(
    ("value", "methods", "kind"),
    [
        ("redis://:secret@host", ("open", "close"), "str"),
        (True, ("open", "close"), "bool"),
        (Door, ("open", "close"), "type"),
        (Door(), ("open", "width"), "Door"),
    ],
)
def test_what_lacks_a_method(value, methods, kind):
    """The sentence says the methods and the type alone, for an address may hold a password."""
    first, second = methods
    sentence = f"None or an object with {first}() and {second}(), got an object of type {kind}"
    refused(check_able, sentence, value, *methods)


def test_what_lacks_an_attribute():
    """An attribute that is read later is asked for like a method, whatever its value."""
    check_able("size", Door(), "open", attributes=("width",))
    sentence = "None or an object with open() and height, got an object of type Door"
    refused(check_able, sentence, Door(), "open", attributes=("height",))


@pytest.mark.parametrize("value", [3, "f", True, []])
def test_what_cannot_be_called(value):
    """None and functions pass."""
    check_callable("size", None)
    check_callable("size", print)
    refused(check_callable, f"a function or None, got {value!r}", value)


@pytest.mark.parametrize("value", ["large", b"large", ["large", 1], [""], None, 3, True, math.nan])
def test_what_is_no_list_of_names(value):
    """A single string is no list of its letters."""
    refused(check_names, f"a list of names, got {value!r}", value)


@pytest.mark.parametrize("value", [[], ("a", "b"), {"a"}])
def test_a_list_of_names(value):
    """Any collection of strings passes, an empty one too."""
    check_names("size", value)
