"""Checks of options at construction, with one form of sentence for all middleware."""

import math


def check_at_least(name: str, value: float, lowest: int) -> None:
    """Raise `ValueError` unless `value` is `lowest` or more, and finite."""
    if not lowest <= value < math.inf:
        raise ValueError(f"{name} must be >= {lowest}, got {value!r}")


def check_between(name: str, value: float, lowest: float, highest: float) -> None:
    """Raise `ValueError` unless `value` lies from `lowest` to `highest`."""
    if not lowest <= value <= highest:
        raise ValueError(f"{name} must be from {lowest} to {highest}, got {value!r}")


def check_seconds(name: str, value: float) -> None:
    """Raise `ValueError` unless `value` is a positive, finite number of seconds."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number of seconds, got {value!r}")
