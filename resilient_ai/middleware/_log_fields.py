"""What others have named or bound, as a line of the log may show it: without content and secrets, and cut to size."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

from resilient_ai.middleware._secret_names import names_a_secret
from resilient_ai.middleware.redactor import Redactor

# Characters of a text that are kept.
CAP = 2048

# A shorter text is no key.
_SHORTEST_SECRET = 8
# Names of models and the like, which stand in line after line, are looked through once.
_LONGEST_NAME = 128
# Objects and lists further in are not told.
_DEEPEST = 3
# Names under which applications keep what was said.
_CONTENT = frozenset(
    {"answer", "arguments", "completion", "content", "input", "messages", "output", "prompt", "response", "texts"}
)
_redactor = Redactor(builtin=["private_key", "key"])


def presentable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that may be shown, as they may be shown.

    >>> presentable({"request": "r-17", "api_key": "swordfish", "by": "curl -H 'Authorization: Bearer swordfish'"})
    {'request': 'r-17', 'by': "curl -H 'Authorization: Bearer [key]'"}
    """
    return {
        name: _shown(value, 0)
        for name, value in fields.items()
        if name.lower() not in _CONTENT and not names_a_secret(name)
    }


def cut(text: str) -> str:
    """Return a text of bounded length."""
    return text if len(text) <= CAP else f"{text[:CAP]}…[truncated {len(text) - CAP} chars]"


@lru_cache(maxsize=256)
def _name(text: str) -> str:
    return _redactor.text(text)


def _shown(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        if len(value) > _LONGEST_NAME:
            return cut(_redactor.text(value))
        return value if len(value) < _SHORTEST_SECRET else _name(value)
    if depth >= _DEEPEST:
        return "[nested too deep]"
    if isinstance(value, Mapping):
        named = {str(name): item for name, item in cast("Mapping[object, Any]", value).items()}
        return {name: _shown(item, depth + 1) for name, item in named.items() if not names_a_secret(name)}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(item, depth + 1) for item in cast("Iterable[Any]", value)]
    return cut(_redactor.text(str(value)))  # which is what a formatter would write
