"""A text as it looks to a reader: without what is invisible, and with plain signs for those that only look different."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache

Span = tuple[int, int]

_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]+")
# Blanks and dashes of typography, signs and letters of full width, and digits of other scripts.
_UNUSUAL = re.compile(
    "[\u00a0\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\u0e50-\u0e59\u2000-\u200a\u2010-\u2015\u202f\u205f\u2212\u3000"
    "\ufe58\ufe63\ufe6b\uff01-\uff5e\U0001d7ce-\U0001d7ff]"
)


class Folded:
    r"""A text folded, which knows where its places are in the text as it was.

    >>> Folded("\uff144\u200b11").text
    '4411'
    """

    __slots__ = ("_hidden", "_places", "text")

    def __init__(self, text: str) -> None:
        self._places: list[int] = []
        self._hidden: list[int] = []
        if not text.isascii():
            text = self._shown(text) if _INVISIBLE.search(text) else text
            text = _UNUSUAL.sub(_usual, text)
        self.text = text

    def find(self, finder: Callable[[str], Iterator[Span]]) -> list[Span]:
        """Return what a finder finds, by its places in the text as it was, in order."""
        found = sorted(finder(self.text))
        return found if not self._places else [(self._before(start), self._before(end - 1) + 1) for start, end in found]

    def _shown(self, text: str) -> str:
        """Leave out what is invisible, and take note of how much of it stands before which place."""
        hidden = 0
        for match in _INVISIBLE.finditer(text):
            self._places.append(match.start() - hidden)
            hidden += match.end() - match.start()
            self._hidden.append(hidden)
        return _INVISIBLE.sub("", text)

    def _before(self, place: int) -> int:
        at = bisect_right(self._places, place)
        return place + (self._hidden[at - 1] if at else 0)


def _usual(match: re.Match[str]) -> str:
    return _usual_sign(match[0])


@lru_cache(maxsize=512)  # more than there are
def _usual_sign(sign: str) -> str:
    plain = unicodedata.normalize("NFKC", sign)
    return plain if plain.isascii() else str(unicodedata.digit(sign, "-"))
