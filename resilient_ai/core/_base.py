"""The base of the frozen pydantic models."""

from collections.abc import Iterable, Sized
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from resilient_ai.core.errors import InvalidInput

_SHOWN = 80


class FrozenModel(BaseModel):
    """A value: immutable, without unknown fields, without NaN or infinity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        defer_build=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


_ELSEWHERE = {
    "timeout": "use with_options(timeout=...) or send(..., timeout=...)",
    "tags": "use with_options(tags=...) or send(..., tags=...)",
    "cache": "use with_options(cache=...) or send(..., cache=...)",
    "priority": "use with_options(priority=...) or send(..., priority=...)",
}


def explain(
    name: str, error: ValidationError, *, known: Iterable[str] = (), hidden: AbstractSet[str] = frozenset()
) -> InvalidInput:
    """Turn the first complaint of pydantic into one sentence that names the field and the value.

    A value below one of the fields in `hidden` is content: its type and size are named instead. Neither is the value of a
    field that does not exist shown, which may be a misspelled secret; a name in `known` that is close to it is suggested.
    """
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    value: Any = first["input"]
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if not field:  # a check over several fields names them itself
        return InvalidInput(f"{name}: {message}", field=message.partition(":")[0], value=None)
    message = message.removeprefix(f"{field}: ")
    if first["type"] == "extra_forbidden":
        meant = get_close_matches(field, known, n=1)
        hint = _ELSEWHERE.get(field) or (f"did you mean {meant[0]!r}?" if meant else "")
        message = f"there is no such field; {hint}".rstrip("; ")
    elif first["type"] == "too_short":
        message = "must not be empty"
    says_all = first["type"] in {"missing", "extra_forbidden"} or ", got " in message
    given = "" if says_all else f", got {_shown(value, hide=first['loc'][0] in hidden)}"
    return InvalidInput(f"{name}: {field}: {message[:1].lower()}{message[1:]}{given}", field=field, value=value)


def _shown(value: object, *, hide: bool) -> str:
    if hide and value and not isinstance(value, int | float):
        size = f" of length {len(value)}" if isinstance(value, Sized) else ""
        return f"{type(value).__name__}{size}"
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
