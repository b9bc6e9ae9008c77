"""Which names stand before secrets, as names in JSON and lines of a log, and as words in a text."""

import re
import unicodedata
from functools import lru_cache

# In small letters; the blank stands for whatever names have between two words, and for nothing at all.
_KINDS = ("access", "account", "api", "auth", "encryption", "master", "private", "secret", "shared", "signing")
WORDS = (
    *(f"{kind} key" for kind in _KINDS),
    *("authorization", "cookie", "credential", "passphrase", "passwd", "password", "pwd", "secret", "signature", "token"),
)  # fmt: skip
# One of them is in every such name.
_HINTS = ("key", "pass", "token", "secret", "pwd", "authorization", "cookie", "credential", "signature")
_ENDS = tuple(word.replace(" ", "") for word in WORDS)
# What may still follow, as in `password2` and `secrets`; "tokens" are more often counted than kept secret.
_FOLLOWS = r"value|hash|string|base64"
_REST = re.compile(rf"(?:{_FOLLOWS}|(?<!token)s|\d)+\Z")
_LONGEST_NAME = 64

_SAID = "|".join(word.replace(" ", "[ _.-]?") for word in WORDS)
# Types of code that says a name and holds no secret, also with a default behind it.
_TYPE = r"(?:optional\[)?(?:str|string|bytes|secretstr)\]?(?:\ ?\|\ ?none)?"
# Each part has its bound, so that a look from one place is short, whatever stands there.
SAID_BEFORE = re.compile(
    rf"""(?P<name>{_SAID})
        (?:(?<!token)s)?(?:[_-]?\d{{1,4}})?(?:[_-]?(?:{_FOLLOWS}))?
        (?P<behind>(?:\\{{0,15}}["'`])?\]?)                            # "password", \"password\", env["password"]
        (?:\s{{0,4}}:\s{{0,4}}{_TYPE}(?=\ {{0,4}}=))?                    # password: str = "..."
        \s{{0,16}}(?P<sign>[:=]{{1,2}}>?|\\u003[ad])                    # also := and => and what JSON makes of = and :
        (?:[^\S\n]{{5,16}}|\s{{0,4}})
        (?:[|>]-?\n\s{{1,16}})?                                         # YAML, in a line of its own
        (?:[bfru]{{1,2}}(?=["'`]))?(?P<quote>\\{{0,15}}["'`])?
        (?:(?P<scheme>basic|bearer|digest|token)\s{{1,4}}(?=\S))?""",
    re.VERBOSE,
)


def names_a_secret(name: str) -> bool:
    """Whether what goes by this name in a JSON object or a line of a log is a secret.

    >>> [names_a_secret(name) for name in ("X-Api-Key", "refreshToken", "dbPassword2", "max_tokens", "keyboard")]
    [True, True, True, False, False]
    """
    return _ends_as_one(name.rstrip()[-_LONGEST_NAME:])


@lru_cache(maxsize=512)
def _ends_as_one(name: str) -> bool:
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
    letters = "".join(filter(str.isalnum, name)).lower()
    return letters.endswith(_ENDS) or _REST.sub("", letters).endswith(_ENDS)


def may_name_secrets(lowered: str) -> bool:
    """Whether a text in small letters can hold such a name; it is quicker than to look for one."""
    return any(hint in lowered for hint in _HINTS)
