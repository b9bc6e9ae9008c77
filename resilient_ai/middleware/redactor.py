"""Masks what tells of a person or opens a door: e-mail addresses, phone numbers, payment cards, keys."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from resilient_ai.core.checks import check_callable, check_kind, check_names

if TYPE_CHECKING:
    from resilient_ai.middleware._folding import Folded

Builtin = Literal["private_key", "key", "email", "card", "phone"]
Span = tuple[int, int]
Finder = Callable[[str], Iterator[Span]]

# Below this nothing of a JSON value is told: it would take Python to the end of its stack.
_DEEPEST = 64
# Numbers may be cards as well; shorter ones are not looked at.
_LEAST_NUMBER = 10**11
# Floats beyond it are no numbers of anything.
_MOST_NUMBER = 10**19


@dataclass(frozen=True, slots=True)
class Found:
    """What a `Redactor` has found.

    Args:
        name: What it is: "email", or the name of a pattern of yours.
        text: The text itself.
    """

    name: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class Redactor:
    r"""Mask what tells of a person or opens a door, before it goes to people and places that should not have it.

    It knows forms, not meanings: names and street addresses pass, and a number of the right form is masked whatever it is. It
    takes about two milliseconds for 20,000 characters, and no text makes it slow; patterns of yours are run as they are.

    Args:
        builtin: What is masked without a pattern of yours: "private_key" blocks; each "key" of a service, token, or password;
            "email" addresses; "card" numbers with a right check digit; and "phone" numbers.
        patterns: Regular expressions of yours by the name of what they find. They come first.
        replace: Called with a `Found` for what stands in its place; None for its name in brackets.
        function: Called at last with the whole text for the text to be told, for what no pattern can find.

    Raises:
        ValueError: If there is no such kind, or a pattern is none.

    >>> Redactor(patterns={"case": r"C-\d{6}"}).text("C-104711: refund ann@example.org, card 4111 1111 1111 1111")
    '[case]: refund [email], card [card]'
    """

    _: KW_ONLY
    builtin: Collection[Builtin] = ("private_key", "key", "email", "card", "phone")
    patterns: Mapping[str, "str | re.Pattern[str]"] = field(default_factory=dict[str, "str | re.Pattern[str]"])
    replace: Callable[[Found], str] | None = None
    function: Callable[[str], str] | None = None
    _own: tuple[tuple[str, Finder], ...] = field(init=False, repr=False, compare=False)
    _usual: tuple[tuple[str, Finder], ...] = field(init=False, repr=False, compare=False)
    _folded: "type[Folded]" = field(init=False, repr=False, compare=False)
    _names_a_secret: Callable[[str], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the options, and compile the patterns."""
        from resilient_ai.middleware._folding import Folded  # noqa: PLC0415 - all three are 6 ms, for few
        from resilient_ai.middleware._redaction import FINDERS  # noqa: PLC0415 - as above
        from resilient_ai.middleware._secret_names import names_a_secret  # noqa: PLC0415 - as above

        check_names("builtin", self.builtin)
        if unknown := sorted(set(self.builtin) - set(get_args(Builtin))):
            raise ValueError(f"builtin must be some of {sorted(get_args(Builtin))}, got {unknown}")
        check_kind("patterns", self.patterns, Mapping)
        check_names("patterns", list(self.patterns))
        check_callable("replace", self.replace)
        check_callable("function", self.function)
        own = [(name, _finder_of(name, pattern)) for name, pattern in self.patterns.items()]
        usual = [(name, finder) for name, finder in FINDERS.items() if name in self.builtin]
        object.__setattr__(self, "_own", tuple(own))
        object.__setattr__(self, "_usual", tuple(usual))
        object.__setattr__(self, "_folded", Folded)
        object.__setattr__(self, "_names_a_secret", names_a_secret)

    def text(self, text: str) -> str:
        """Return a text with everything masked.

        Raises:
            TypeError: If a function of yours returns no text.
            Exception: Whatever a function of yours raises. The text must then not be told.
        """
        for name, finder in self._own:
            text = self._masked(text, name, sorted(finder(text)))
        folded = self._folded(text)
        for name, finder in self._usual:
            spans = folded.find(finder)
            if spans:
                text = self._masked(text, name, spans)
                folded = self._folded(text)
        return text if self.function is None else _checked(self.function(text))

    def value(self, value: Any) -> Any:
        """Return a JSON value with everything masked, names in objects included, and whatever a secret's name stands before.

        Raises:
            TypeError: If a function of yours returns no text.
            Exception: Whatever a function of yours raises. The value must then not be told.

        >>> Redactor().value({"to": ["ann@example.org"], "password": "swordfish", "max_tokens": 20})
        {'to': ['[email]'], 'password': '[key]', 'max_tokens': 20}
        """
        return self._value(value, 0)

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int | float):
            return self._number(value)
        if depth >= _DEEPEST:
            return "[nested too deep]"
        if isinstance(value, Mapping):
            items = cast("Mapping[object, Any]", value).items()
            return {self.text(str(key)): self._item(str(key), item, depth + 1) for key, item in items}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(item, depth + 1) for item in cast("Iterable[Any]", value)]
        return f"[{type(value).__name__}]"

    def _item(self, key: str, item: Any, depth: int) -> Any:
        if "key" in self.builtin and item is not None and not isinstance(item, bool) and self._names_a_secret(key):
            return self._mask("key", str(item))
        return self._value(item, depth)

    def _number(self, number: Any) -> Any:
        has_own = self.patterns or self.function
        if isinstance(number, float) and not (number.is_integer() and abs(number) < _MOST_NUMBER):
            return number
        if abs(number) < _LEAST_NUMBER and not has_own:
            return number
        written = str(int(number))
        masked = self.text(written)
        return number if masked == written else masked

    def _masked(self, text: str, name: str, spans: list[Span]) -> str:
        if not spans:
            return text
        pieces: list[str] = []
        position = 0
        for start, end in _joined(spans):
            pieces += (text[position:start], self._mask(name, text[start:end]))
            position = end
        return "".join((*pieces, text[position:]))

    def _mask(self, name: str, text: str) -> str:
        return f"[{name}]" if self.replace is None else _checked(self.replace(Found(name, text)))


def _joined(spans: list[Span]) -> list[Span]:
    """Return spans without overlaps, in order."""
    joined = [spans[0]]
    for start, end in spans[1:]:
        first, last = joined[-1]
        if start < last:
            joined[-1] = first, max(last, end)
        else:
            joined.append((start, end))
    return joined


def _finder_of(name: str, pattern: "str | re.Pattern[str]") -> Finder:
    try:
        search = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(f"patterns must be regular expressions, got {pattern!r} for {name!r}: {error}") from None

    def find(text: str) -> Iterator[Span]:
        return (match.span() for match in search.finditer(text) if match.group())

    return find


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"a function of a redactor must return a text, got {type(text).__name__}")
    return text
