"""Unit vectors for texts: texts that share words or parts of words lie near each other."""

import hashlib
import math
import re
from array import array
from functools import lru_cache

_LANE = 4  # bytes per number while features are added up
_WORD_WEIGHT = 6
_MOST_FEATURES = 8192
_WORD = re.compile(r"\w+")


@lru_cache(maxsize=4096)
def vector(text: str, dimensions: int) -> "array[float]":
    """A vector of length 1 for a text, the same at every call and in every process.

    Words weigh six times as much as the triples of letters inside them, so that a shared word counts most, and an
    inflected one still counts.

    >>> def likeness(a, b):
    ...     return sum(x * y for x, y in zip(vector(a, 256), vector(b, 256)))
    >>> likeness("the tide is high", "high tide") > 0.5 > likeness("the tide is high", "a red bicycle")
    True
    """
    total, weight = 0, 0
    for feature, share in _features(text):
        total += share * _projection(feature, dimensions)
        weight += share
    lanes = array("I", total.to_bytes(_LANE * dimensions, "little"))
    middle = weight * 127.5
    return array("f", unit([lane - middle for lane in lanes]))


def unit(values: list[float]) -> list[float]:
    """The values scaled to length 1; all zeros stay as they are."""
    norm = math.sqrt(math.fsum(value * value for value in values)) or 1.0
    return [value / norm for value in values]


def _features(text: str) -> list[tuple[str, int]]:
    """The words of a text and their letter triples, with weights; an empty text has itself."""
    words = _WORD.findall(text.lower())[: _MOST_FEATURES // 4]
    found = [(word, _WORD_WEIGHT) for word in words]
    for word in words:
        padded = f"^{word}$"
        found += [(f"#{padded[i : i + 3]}", 1) for i in range(len(padded) - 2)]
    return found[:_MOST_FEATURES] or [(f"={text}", 1)]


@lru_cache(maxsize=8192)
def _projection(feature: str, dimensions: int) -> int:
    """Random bytes drawn from the feature, one per dimension, side by side in lanes of one large integer.

    Adding such integers adds all dimensions at once; a lane of four bytes cannot overflow with the features allowed.
    """
    drawn = hashlib.shake_256(feature.encode()).digest(dimensions)
    lanes = bytearray(_LANE * dimensions)
    lanes[::_LANE] = drawn
    return int.from_bytes(lanes, "little")
