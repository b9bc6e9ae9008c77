"""Finds what stands behind the name of a secret: a text in quotes, a list or an object, a header, or else a word.

As in `_redaction.py` every search is linear in the length of a text.
"""

import re
from collections.abc import Iterator

from resilient_ai.middleware._secret_names import SAID_BEFORE

Span = tuple[int, int]

_WORD = re.compile(r"""(?!(?:null|none|true|false|nil|undefined)(?![\w-]))[^\s"'`,;&]{4,}""")
# As in code, where a type follows the name; a secret may follow that.
_TYPE = re.compile(
    r"""(?:(?:optional|union|list|dict|sequence|mapping)\[[\w\[\], |.]{1,60}\]|secretstr|string|bytes|str)(?:[\s),;|=?]|$)"""
)
# A number alone behind "token" is more often a count or a price than a secret.
_COUNT = frozenset("0123456789._%$")

# Headers that have more than one word; with the other schemes one follows.
_HEADERS = ("authorization", "cookie")
_LONGEST_PREFIX = 32  # as in "set-" and "proxy-", with the quote before it
_NOTHING = {"null", "none", "true", "false", "nil", "undefined"}
_QUOTE_BEFORE = re.compile(r"""(\\{0,15}["'`])[\w-]{0,16}\Z""")

_IN_BRACKETS = re.compile(r"""(?P<quote>["'`])|(?P<opens>[\[{])|(?P<closes>[\]}])|\n\n""")
_IS_A_NAME = re.compile(r"\s{0,16}:")


def find_named(lowered: str) -> Iterator[Span]:
    """Find the secrets in a text, which is given in small letters."""
    position = 0
    while match := SAID_BEFORE.search(lowered, position):
        start = position = match.end()
        if match["quote"]:
            end = _end_of_quoted(lowered, start, match["quote"])
        elif match["behind"] and lowered[start : start + 1] in {"[", "{"}:
            inside, position = _texts_within(lowered, start)
            yield from inside
            continue
        elif _TYPE.match(lowered, start):
            continue
        elif _is_header(match):
            end = _end_of_header(lowered, match)
        else:
            end = _end_of_word(lowered, start, match["name"])
        if end > start:
            yield start, end
            position = end


def _end_of_quoted(text: str, start: int, quote: str) -> int:
    r"""Return where a text in quotes ends: at its closing quote, or else at the end of the line, as where an answer was cut off.

    In JSON within JSON quotes have backslashes, \" or \\\", and those of the text itself have more. As many as the opening one
    has, or fewer, close it; so do they behind backslashes that stand for themselves.
    """
    depth, mark = len(quote) - 1, quote[-1]
    looked = at = start
    while (at := text.find(mark, at)) >= 0:
        line_end = text.find("\n", looked, at)
        if line_end >= 0:
            return line_end
        behind = at - len(text[looked:at].rstrip("\\")) - looked
        if behind <= depth or (behind - depth) % (2 * depth + 2) == 0:
            return at - min(behind, depth)
        looked = at = at + 1
    line_end = text.find("\n", looked)
    return len(text) if line_end < 0 else line_end


def _texts_within(text: str, start: int) -> tuple[list[Span], int]:
    """Return where the texts in a list or an object stand, but for names of its fields, and where it ends.

    One that is not closed goes to an empty line, or to the end of the text: an answer may be cut off.
    """
    found: list[Span] = []
    depth, position = 0, start
    while match := _IN_BRACKETS.search(text, position):
        position = match.end()
        if match["quote"]:
            backslashes = text[max(start, position - 16) : position - 1]
            quote = backslashes[len(backslashes.rstrip("\\")) :] + match["quote"]
            end = _end_of_quoted(text, position, quote)
            if end > position and not _IS_A_NAME.match(text, end + len(quote)):
                found.append((position, end))
            position = end + len(quote)
            continue
        depth += 1 if match["opens"] else -1
        if depth <= 0 or not (match["opens"] or match["closes"]):
            return found, position
    return found, len(text)


def _is_header(match: re.Match[str]) -> bool:
    return (
        match["name"] in _HEADERS
        and not match.string[match.end("name") : match.start("sign")].strip()
        and match["sign"] in {":", "\\u003a"}
        and match["scheme"] in {None, "digest"}
        and "\n" not in match.group()
    )


def _end_of_header(text: str, match: re.Match[str]) -> int:
    """Return where the value of a header ends: where the text does in which the whole header is quoted, or else the line."""
    start = match.end()
    before = _QUOTE_BEFORE.search(text[max(0, match.start() - _LONGEST_PREFIX) : match.start()])
    if before is not None:
        end = _end_of_quoted(text, start, before[1])
    else:
        line_end = text.find("\n", start)
        end = len(text) if line_end < 0 else line_end
    value = text[start:end].rstrip()
    return start + (0 if value in _NOTHING else len(value))


def _end_of_word(text: str, start: int, name: str) -> int:
    match = _WORD.match(text, start)
    if match is None or (name == "token" and _COUNT.issuperset(match.group())):
        return start
    return start + len(match.group().rstrip(")}]\\"))
