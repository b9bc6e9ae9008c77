"""Finds what tells of a person or opens a door. Every search is linear in the length of a text, whatever stands in it.

The texts are folded (`_folding.py`): blanks, dashes and digits are the plain ones, and nothing in them is invisible.
"""

import re
from collections.abc import Callable, Iterator

from resilient_ai.middleware._named_secrets import find_named
from resilient_ai.middleware._secret_names import may_name_secrets

Span = tuple[int, int]
Finder = Callable[[str], Iterator[Span]]

# No pattern below repeats something that can match the same text in two ways, and what stands in front of an anchor is bounded:
# otherwise a prompt of the right form would keep the process busy for minutes.

_MAIL_DOMAIN = re.compile(r"(?:@|%40|&#64;|\\u0040)[\w-]+(?:\.[\w-]+)*\.[^\W\d_][\w-]+", re.IGNORECASE)
_LONGEST_LOCAL_PART = 64

# What follows the first character looks back behind it: so the search itself runs from one candidate to the next.
_CARD = re.compile(r"[2-6](?<!\d\d)(?<!\d[.,].)\d{3}(?:[ .\-]?\d){9,15}(?!\d)(?![.,]\d)")
# In groups, one below or beside the other. Other numbers in columns look like that often enough: those that go on are left alone.
_CARD_IN_COLUMNS = re.compile(
    r"[2-6](?<!\d.)(?<!\d\s.)(?<!\d\s\s.)\d{3}(\s{1,2})(?:\d{4}\1\d{4}\1\d{4}|\d{6}\1\d{4,5})(?!\d)(?!\1\d{4})"
)
# By their number of digits: how numbers of cards begin.
_CARD_BEGINNINGS = {13: "4", 14: "3", 15: "3", 16: "23456", 17: "56", 18: "56", 19: "46"}

_PHONE_ABROAD = re.compile(r"(?:\+|00(?<![\w.]..))\(?[1-9](?:[ ()./\-]{0,3}\d){7,14}(?!\d)")
_PHONE_AT_HOME = re.compile(
    r"""[(\d](?<![\w.,/\-].)(?<!\(\d)(?:
        (?<=0)(?!\d[./-]\d{1,2}[./-])[1-9](?:[ /-]{0,3}\d){7,11}(?!\w)        # 0431 880-1234, but no date
      | (?<=\()0[1-9](?:\)?[ /-]{0,3}\d){7,11}(?!\w)                          # (0431) 8801234
      | (?<=\()[2-9]\d\d\)[ .-]?\d{3}[ .-]\d{4}(?!\w)                         # (415) 555-0132
      | (?<=1)[ .-]\(?[2-9]\d\d\)?[ .-]\d{3}[ .-]\d{4}(?!\w)                  # 1-415-555-0132
      | (?<=[2-9])\d\d[ .-]\d{3}[ .-]\d{4}(?!\w)                              # 415-555-0132
    )""",
    re.VERBOSE,
)

_TOKEN = re.compile(r"[A-Za-z0-9_\-]{16,}(?:\.[A-Za-z0-9_\-]{8,})*")
_TOKEN_BEGINNINGS = re.compile(
    r"""(?:sk|pk|rk)[-_] | gh[opsur]_ | github_pat_ | glpat- | xox[abeoprs]- | (?:AKIA|ASIA)(?=[A-Z0-9]{12}) | AIza | hf_ | eyJ
      | gsk_ | xai- | pplx- | nvapi- | npm_ | pypi- | r8_ | dop_v1_ | lsv2_ | di- """,
    re.VERBOSE,
)
# What follows such a beginning in a key. Names in small letters begin like that as well, as `sk-learn-for-beginners`.
_IN_KEYS = re.compile(r"[A-Z0-9]|[a-z]{16}")
_RANDOM_PIECE = re.compile(r"[A-Za-z0-9]{20,}")
_SHORTEST_RANDOM, _FEWEST_DIGITS = 32, 2
_BEARER = re.compile(r"bearer[\s:=]{1,4}([\w.~+/=:\-]{8,})")
_IN_ADDRESS = re.compile(r"://([^\s/:@]{0,64}:[^\s/\"<>]{1,256})@")
_IN_QUERY = re.compile(r"[?&]sig=([^\s&\"']{8,})")

_PRIVATE_KEY = re.compile(r"----[- ]{1,2}BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?----")
_PRIVATE_KEY_END = re.compile(r"----[- ]{1,2}END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-----?")


def find_mail_addresses(text: str) -> Iterator[Span]:
    """Find "someone@somewhere.org", also as it stands in the address of a page."""
    if not any(sign in text for sign in ("@", "%40", "&#64;", "\\u0040")):
        return
    before = 0
    for match in _MAIL_DOMAIN.finditer(text):
        start, lowest = match.start(), max(before, match.start() - _LONGEST_LOCAL_PART)
        if text[start - 1 : start] == '"':
            start = _start_of_quoted(text, lowest, start)
        while start > lowest and (text[start - 1].isalnum() or text[start - 1] in "._%+-'"):
            start -= 1
        before = match.end()
        if start < match.start():
            yield start, before


def find_cards(text: str) -> Iterator[Span]:
    """Find numbers of payment cards, which a check digit tells from other numbers."""
    position = 0
    while match := _CARD.search(text, position):
        length = _length_of_card(match.group())
        position = match.start() + (length or 1)
        if length:
            yield match.start(), position
    position = 0
    while match := _CARD_IN_COLUMNS.search(text, position):
        is_card = _length_of_card(match.group()) == len(match.group())
        position = match.end() if is_card else match.start() + 1
        if is_card:
            yield match.span()


def find_phone_numbers(text: str) -> Iterator[Span]:
    """Find phone numbers as they are written for callers from abroad, and in the usual forms of Europe and America."""
    if "+" in text or "00" in text:
        yield from (match.span() for match in _PHONE_ABROAD.finditer(text))
    yield from (match.span() for match in _PHONE_AT_HOME.finditer(text))


def find_keys(text: str) -> Iterator[Span]:
    """Find keys, tokens and passwords: by how they begin, by what stands before them, or because they look random."""
    for match in _TOKEN.finditer(text):
        if _begins_like_a_key(match.group()) or _looks_random(match.group()):
            yield match.span()
    if "://" in text:
        yield from (match.span(1) for match in _IN_ADDRESS.finditer(text))
    lowered = text.lower()
    if len(lowered) != len(text):  # some letters become two, and then places in one are not places in the other
        lowered = "".join(letter.lower() if letter.isascii() else letter for letter in text)
    if "bearer" in lowered:
        yield from (match.span(1) for match in _BEARER.finditer(lowered))
    if "sig=" in lowered:
        yield from (match.span(1) for match in _IN_QUERY.finditer(lowered))
    if may_name_secrets(lowered):
        yield from find_named(lowered)


def find_private_keys(text: str) -> Iterator[Span]:
    """Find blocks of private keys; one without an end goes to the end of the text."""
    position = 0
    while match := _PRIVATE_KEY.search(text, position):
        end = _PRIVATE_KEY_END.search(text, match.end())
        position = end.end() if end else len(text)
        yield match.start(), position


FINDERS: dict[str, Finder] = {
    "private_key": find_private_keys,
    "key": find_keys,
    "email": find_mail_addresses,
    "card": find_cards,
    "phone": find_phone_numbers,
}


def _start_of_quoted(text: str, lowest: int, end: int) -> int:
    """Return where the quoted name of "ann smith"@example.org begins, `end` if that is no such name."""
    start = text.rfind('"', lowest, end - 1)
    if start < 0 or "\n" in text[start:end]:
        return end
    return lowest + len(text[lowest:start].rstrip("\\"))  # in JSON a quote has some in front


def _length_of_card(found: str) -> int | None:
    """Return how many characters belong to the number of a card that this text begins with, None if it does not."""
    digits = ""
    candidate: int | None = None
    for at, character in enumerate(found):
        if not character.isdecimal():
            continue
        digits += character
        whole = not found[at + 1 : at + 2].isdecimal()
        if whole and digits[0] in _CARD_BEGINNINGS.get(len(digits), "") and _luhn(digits):
            candidate = at + 1
    return candidate


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(doubled)) % 10 == 0


def _begins_like_a_key(token: str) -> bool:
    beginning = _TOKEN_BEGINNINGS.match(token)
    return beginning is not None and _IN_KEYS.search(token, beginning.end()) is not None


def _looks_random(token: str) -> bool:
    if len(token) < _SHORTEST_RANDOM:
        return False
    return any(
        sum(map(str.isdigit, piece)) >= _FEWEST_DIGITS and piece.lower() != piece != piece.upper()
        for piece in _RANDOM_PIECE.findall(token)
    )
