"""A query of the catalogue as it is written on a command line."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from resilient_ai.cli.failures import WrongUseError

if TYPE_CHECKING:
    from resilient_ai.deepinfra.catalogue import Catalogue, ModelQuery

_COUNTS = {"context": "min_context", "dimensions": "dimensions", "limit": "limit"}
_PRICES = ("max_input_price", "max_output_price")
_WORDS = ("org", "family", "text")
_FLAGS = ("tools", "vision", "json", "reasoning", "code", "prompt_caching")
CONDITIONS = ", ".join((*_FLAGS, *(f"{name}=..." for name in (*_COUNTS, *_PRICES, *_WORDS))))


def query_of(text: str, kind: str, catalogue: "Catalogue") -> "ModelQuery":
    """Return a query such as "tools,context=100000".

    Raises:
        WrongUseError: If it cannot be read, or nothing fits; the message says which part of it is wrong.
    """
    from resilient_ai.deepinfra.catalogue import ModelQuery  # noqa: PLC0415 - slow to import

    wanted: dict[str, Any] = {"kind": {"embed": "embedding"}.get(kind, kind)}
    parts = [part for part in map(str.strip, text.split(",")) if part]
    if not parts:
        raise WrongUseError(f"--query: names no condition, got {text!r}; there are {CONDITIONS}")
    for part in parts:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals and name in _FLAGS:
            wanted[name] = True
        elif equals and value and name in _WORDS:
            wanted[name] = value
        elif equals and name in _COUNTS:
            wanted[_COUNTS[name]] = _number(part, value, int)
        elif equals and name in _PRICES:
            wanted[name] = _number(part, value, float)
        else:
            raise WrongUseError(f"--query: {part!r} is none of {CONDITIONS}")
    try:
        query = ModelQuery(**wanted, catalogue=catalogue)
    except ValueError as error:
        raise WrongUseError(f"--query: {error}") from None
    if not query.models():
        raise WrongUseError("--query: no model fits; `resilient-ai models` lists what there is")
    return query


def _number(part: str, value: str, kind: Callable[[str], float]) -> float:
    try:
        return kind(value.replace("_", ""))
    except ValueError:
        raise WrongUseError(f"--query: {part!r} needs a number") from None
