"""Checks of options at construction, with one form of sentence: the option, what it must be, and what was given."""

import sys
from collections.abc import Collection, Sequence
from typing import TypeGuard

# Whole numbers may be larger than any float, and then fail in the first sum with one.
_LARGEST = sys.float_info.max


def is_unicode(text: str) -> bool:
    r"""Return whether a text can be written down: half of a surrogate pair, as JSON may hold it, can be nowhere.

    >>> is_unicode("ä"), is_unicode("\ud800")
    (True, False)
    """
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_count(name: str, value: object, lowest: int, highest: int | None = None) -> None:
    """Raise `ValueError` unless `value` is a whole number from `lowest` to `highest`; None is whatever a float can hold.

    >>> check_count("attempts", 2.5, 1)
    Traceback (most recent call last):
        ...
    ValueError: attempts must be a whole number >= 1, got 2.5
    """
    wanted = f">= {lowest}" if highest is None else f"from {lowest} to {highest}"
    fits = _is_whole(value) and lowest <= value <= (_LARGEST if highest is None else highest)
    _ensure(fits, name, f"a whole number {wanted}", value)


def check_at_least(name: str, value: object, lowest: float) -> None:
    """Raise `ValueError` unless `value` is a finite number, `lowest` or more."""
    _ensure(_is_number(value) and lowest <= value, name, f">= {lowest}", value)


def check_between(name: str, value: object, lowest: float, highest: float) -> None:
    """Raise `ValueError` unless `value` is a number from `lowest` to `highest`."""
    _ensure(_is_number(value) and lowest <= value <= highest, name, f"from {lowest} to {highest}", value)


def check_seconds(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is a positive, finite number of seconds."""
    _ensure(_is_number(value) and value > 0, name, "a positive number of seconds", value)


def check_span(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is a pair of finite numbers of seconds, the least, from 0, and the most."""
    fits = False
    if _is_collection(value) and len(value) == 2:
        least, most = value
        fits = _is_number(least) and _is_number(most) and 0 <= least <= most
    _ensure(fits, name, "least and most seconds from 0", value)


def check_share(name: str, value: object, *, whole: bool = True) -> None:
    """Raise `ValueError` unless `value` is a number above 0 and at most 1, or below 1 where the `whole` is too much."""
    if whole:
        _ensure(_is_number(value) and 0 < value <= 1, name, "above 0 and at most 1", value)
    else:
        _ensure(_is_number(value) and 0 < value < 1, name, "above 0 and below 1", value)


def check_kind(name: str, value: object, *kinds: type | None) -> None:
    """Raise `ValueError` unless `value` is of one of the `kinds`; True and False are only of the kind `bool`.

    >>> check_kind("adaptive", "no", bool)
    Traceback (most recent call last):
        ...
    ValueError: adaptive must be of type bool, got 'no'
    """
    types = tuple(kind for kind in kinds if kind is not None)
    fits = value is None if None in kinds else False
    fits = fits or (isinstance(value, types) and (bool in types or not isinstance(value, bool)))
    _ensure(fits, name, f"of type {' or '.join('None' if kind is None else kind.__name__ for kind in kinds)}", value)


def check_able(name: str, value: object, *methods: str, attributes: Sequence[str] = ()) -> None:
    """Raise `ValueError` unless `value` is None or has these methods and attributes, which are all that its user will touch.

    The sentence has only its type, as it may hold a secret.

    >>> check_able("fleet", "redis://:secret@10.0.0.5", "acquire", "release")
    Traceback (most recent call last):
        ...
    ValueError: fleet must be None or an object with acquire() and release(), got an object of type str
    """
    able = not isinstance(value, type) and all(callable(getattr(value, method, None)) for method in methods)
    if value is not None and not (able and all(hasattr(value, attribute) for attribute in attributes)):
        wanted = " and ".join([*(f"{method}()" for method in methods), *attributes])
        raise ValueError(
            f"{name} must be None or an object with {wanted}, got an object of type {type(value).__name__}"
        )


def check_callable(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is None or can be called."""
    _ensure(value is None or callable(value), name, "a function or None", value)


def check_names(name: str, value: object) -> None:
    """Raise `ValueError` unless `value` is a collection of names; a single string is none, though it can be iterated over.

    >>> check_names("models", "large")
    Traceback (most recent call last):
        ...
    ValueError: models must be a list of names, got 'large'
    """
    fits = _is_collection(value) and all(isinstance(one, str) and one for one in value)
    _ensure(fits, name, "a list of names", value)


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number that is finite, also as a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_collection(value: object) -> TypeGuard[Collection[object]]:
    return isinstance(value, Collection) and not isinstance(value, str)


def _ensure(fits: bool, name: str, wanted: str, value: object) -> None:  # noqa: FBT001 - the condition comes first, as in assert
    if not fits:
        vast = _is_whole(value) and not _is_number(value)  # thousands of digits, which Python may refuse to print
        raise ValueError(f"{name} must be {wanted}, got {'a number that no float can hold' if vast else repr(value)}")
