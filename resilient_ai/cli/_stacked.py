"""A table for a terminal that is too narrow for one: each name on lines of its own, and below it what would stand beside it."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

_INDENT = 2
NARROWEST_NAME = 20  # columns of a terminal; a name in fewer of them cannot be read


def stacked(entries: Iterable[tuple[Text, Text]]) -> Group:
    """Return names with what stands below each; lines are broken between words, and nothing is cut."""
    lines: list[RenderableType] = []
    for name, below in entries:
        lines.append(name)
        if below:
            lines.append(Padding(below, (0, 0, 0, _INDENT)))
    return Group(*lines)


def longest_word(texts: Iterable[str]) -> int:
    """Return how many columns of a terminal these texts need, so that no word of them is broken.

    >>> longest_word(["25 USD per day", ""])
    3
    """
    return max((len(word) for text in texts for word in text.split()), default=0)


def facts(values: Mapping[str, str]) -> Text:
    """Return values with what they are called, those that are empty left out.

    >>> facts({"Requests": "5", "Cost": "$2.50", "Unknown": ""}).plain
    'Requests 5 · Cost $2.50'
    """
    return Text(" · ".join(f"{name} {value}" for name, value in values.items() if value))
