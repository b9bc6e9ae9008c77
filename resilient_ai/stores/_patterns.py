"""Patterns of keys: `?` is any character, `*` any number of them, everything else is itself."""

import re
from collections.abc import Callable

_WILD = {"?": ".", "*": ".*"}


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that says whether a key matches `pattern` from its first character to its last.

    >>> fits = matcher("a?[*")
    >>> fits("ab[cd"), fits("abc")
    (True, False)
    """
    # Of several stars in a row all but one would only make the search slower.
    parts = re.split(r"(\?|\*+)", pattern)
    compiled = re.compile("".join(_WILD.get(part[:1]) or re.escape(part) for part in parts), re.DOTALL)
    return lambda key: compiled.fullmatch(key) is not None


def literal_prefix(pattern: str) -> str:
    """Return what every key that matches begins with.

    >>> literal_prefix("ab?d*")
    'ab'
    """
    return re.split(r"[?*]", pattern, maxsplit=1)[0]


def matches_all(pattern: str) -> bool:
    """Return whether every key matches, the empty one included."""
    return pattern != "" and not pattern.strip("*")
