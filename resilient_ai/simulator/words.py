"""What can be read out of a prompt: its subject, its names, its numbers."""

import re
from collections.abc import Sequence
from typing import Any

_WORD = re.compile(r"[^\W\d_][\w'-]*")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
_QUOTED = re.compile(r"\"([^\"\n]{1,80})\"|“([^”\n]{1,80})”|'([^'\n]{2,80})'(?!\w)")
_NAME = re.compile(r"(?<![.!?] )(?<!^)(?<!\n)\b([A-Z][\w-]+(?: [A-Z][\w-]+)*)")
_SMALL = frozenset(
    _WORD.findall(
        "a about after all also an and answer any are as at be before but by can could current did do does each "
        "explain find for from get give had has have he her here his how i if in into is it its just know let list "
        "look make many me more most much my name need no not of on one only or our out please say sentence sentences "
        "she short should show so some tell than that the their them then there these they this those to today two up "
        "us use using very was we were what when where which who why will with word words would write you your "
        "describe brief briefly"
    )
)


class Hints:
    """The names, numbers and subject of a prompt.

    >>> Hints("When is high tide in Kiel and Emden?").names
    ['Kiel', 'Emden']
    """

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.names = _unique([*_quoted(prompt), *_NAME.findall(prompt)])
        self._numbers = [float(n) if "." in n else int(n) for n in _NUMBER.findall(prompt)]
        self._used = 0

    @property
    def subject(self) -> str:
        """Up to three telling words of the prompt, in order."""
        return " ".join(content_words(self.prompt)[:3]) or "your question"

    def phrase(self, name: str = "") -> str:
        """Words for a text field: the next name of the prompt, else its subject."""
        labelled = (
            re.search(rf"\b{re.escape(name)}\b\s*(?:is|:|=)\s*([^\s,;.]+)", self.prompt, re.IGNORECASE)
            if name
            else None
        )
        if labelled:
            return labelled[1].strip("\"'")
        if not self.names:
            return self.subject
        found = self.names[self._used % len(self.names)]
        self._used += 1
        return found

    def choose(self, options: Sequence[Any]) -> Any:
        """The option that the prompt speaks of, else the first."""
        lowered = self.prompt.lower()
        return next((o for o in options if isinstance(o, str) and o and o.lower() in lowered), options[0])

    def number(self, low: float | None, high: float | None, *, whole: bool) -> float | int | None:
        """The next number of the prompt within the bounds."""
        for index, value in enumerate(self._numbers):
            fits = (low is None or value >= low) and (high is None or value <= high)
            if fits and (not whole or value == int(value)):
                return self._numbers.pop(index)
        return None


def content_words(text: str) -> list[str]:
    """The words of a text without the small ones, each once, in order."""
    return _unique([w for w in _WORD.findall(text) if w.lower() not in _SMALL and len(w) > 1])


def _quoted(text: str) -> list[str]:
    return ["".join(groups) for groups in _QUOTED.findall(text)]


def _unique(items: list[str]) -> list[str]:
    seen: dict[str, str] = {}
    for item in items:
        seen.setdefault(item.lower(), item)
    return list(seen.values())
