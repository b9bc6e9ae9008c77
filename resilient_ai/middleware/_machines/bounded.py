"""A bound for what is kept by names that callers make up."""

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def make_room(known: dict[K, V], most: int, worth: Callable[[V], float]) -> None:
    """Forget a quarter of what is `known` if that is `most` or more: what is worth least, of equals what came first.

    For a dictionary with an entry for each model, which would grow without end where users make up the names. As a
    quarter goes at once, looking at everything is paid once for many new names, and three quarters of what is worth most stay.

    Args:
        known: What is kept; call this before a new key is added.
        most: How many entries it may have, at least 1.
        worth: What would be lost with an entry, 0 for nothing.

    >>> spent = {"a": 0.0, "b": 7.0, "c": 0.0, "d": 1.0}
    >>> make_room(spent, 5, worth=abs); len(spent)
    4
    >>> make_room(spent, 4, worth=abs); spent
    {'b': 7.0, 'c': 0.0, 'd': 1.0}
    """
    if len(known) >= most:
        # Sorting keeps the order of equals, and a dictionary has the order in which its keys came.
        by_worth = sorted(known, key=lambda key: worth(known[key]))
        for key in by_worth[: max(1, len(known) // 4)]:
            del known[key]
