"""A text that matches a regular expression, for the everyday part of the syntax."""

import re

_CLASSES = {"d": "1", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a", "n": "\n", "t": "\t"}
_ANCHORS = frozenset("bBAZ")
_COUNT = re.compile(r"\{(\d+)(?:,\d*)?\}")


def example(pattern: str) -> str:
    r"""The shortest text that the pattern describes: first alternatives, least repetitions.

    Groups, classes, escapes, repetitions and alternatives are understood; look-arounds and back references are not.

    >>> example(r"^[A-Z]{3}-\d+$")
    'AAA-1'
    """
    return _alternatives(pattern, 0)[0]


def _alternatives(pattern: str, at: int) -> tuple[str, int]:
    """The first alternative from here to the closing bracket, and where that is."""
    first, at = _sequence(pattern, at)
    while at < len(pattern) and pattern[at] == "|":
        _, at = _sequence(pattern, at + 1)
    return first, at


def _sequence(pattern: str, at: int) -> tuple[str, int]:
    text = ""
    while at < len(pattern) and pattern[at] not in "|)":
        piece, at = _atom(pattern, at)
        times, at = _times(pattern, at)
        text += piece * times
    return text, at


def _atom(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at]
    if char == "(":
        inner = re.compile(r"\?(?::|P<\w+>)").match(pattern, at + 1)
        text, end = _alternatives(pattern, inner.end() if inner else at + 1)
        return text, end + 1
    if char == "[":
        return _bracket(pattern, at)
    if char == "\\":
        escaped = pattern[at + 1 : at + 2]
        return ("" if escaped in _ANCHORS else _CLASSES.get(escaped, escaped)), at + 2
    if char in "^$":
        return "", at + 1
    return ("a" if char == "." else char), at + 1


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    end = at + 1
    while end < len(pattern) and (pattern[end] != "]" or end == at + 1):
        end += 2 if pattern[end] == "\\" else 1
    matcher = re.compile(pattern[at : end + 1])
    candidates = "A0a1 -_.,:/@" + "".join(chr(c) for c in range(32, 127))
    return next((c for c in candidates if matcher.match(c)), ""), end + 1


def _times(pattern: str, at: int) -> tuple[int, int]:
    if at >= len(pattern):
        return 1, at
    counted = _COUNT.match(pattern, at)
    if counted:
        times, at = int(counted[1]), counted.end()
    elif pattern[at] in "*?+":
        times, at = int(pattern[at] == "+"), at + 1
    else:
        return 1, at
    return times, at + (at < len(pattern) and pattern[at] in "?+")
