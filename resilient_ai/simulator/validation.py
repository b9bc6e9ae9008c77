"""Checks a request body and words the refusal as the service does."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from resilient_ai.simulator.errors import WireError

M = TypeVar("M", bound=BaseModel)

_TAGS = frozenset(
    {"system", "user", "assistant", "tool", "text", "image_url", "input_audio", "json_schema", "regex", "str"}
)


def parse(schema: type[M], data: Mapping[str, Any], *, native: bool = False) -> M:
    """Read a body, numbers in strings included; unknown fields are ignored.

    Raises:
        WireError: 422 for the first field at fault: with `param` and `code` on the OpenAI routes, with `loc` and `msg`
            on the native ones.
    """
    try:
        # guess: numbers in strings are read as numbers on every route; it is known of the native pictures only.
        return schema.model_validate(data)
    except ValidationError as error:
        first = _most_telling(error.errors(include_url=False, include_input=False))
    raise _refusal(first["loc"], first["msg"], first["type"], first.get("ctx", {}), native=native)


def _most_telling(errors: list[ErrorDetails]) -> ErrorDetails:
    """The first error; of those that a union reports for one field, the first that is not about the type alone."""
    field = errors[0]["loc"][:1]
    same = [error for error in errors if error["loc"][:1] == field]
    return next((error for error in same if not error["type"].endswith("_type")), errors[0])


def _refusal(
    loc: tuple[str | int, ...], message: str, kind: str, context: Mapping[str, Any], *, native: bool
) -> WireError:
    path = _field_path(loc)
    code = None
    if kind == "union_tag_not_found":
        path, message, kind = (*path, "role" if path[0] == "messages" else "type"), "Field required", "missing"
    if kind == "union_tag_invalid":
        name = "ChatMessageRole" if path[0] == "messages" and len(path) == 2 else "type"
        message = f"Input should be a valid {name}: {context['expected_tags']}"
        path = (*path, "role" if name == "ChatMessageRole" else "type")
    if kind == "missing":
        code = "missing_required_parameter"
    elif kind == "too_long":
        code = "array_above_max_length"
    param = ".".join(str(part) for part in path) or None
    return WireError(
        422, message, param=param, code=code, shape="validation" if native else "openai", loc=path, kind=kind
    )


def _field_path(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The path as the caller wrote it, without the names of the variants that a union tried."""
    kept = [part for index, part in enumerate(loc) if not _is_variant(loc, index)]
    return tuple(kept)


def _is_variant(loc: tuple[str | int, ...], index: int) -> bool:
    part = loc[index]
    if not isinstance(part, str) or index == 0:
        return False
    follows_union = isinstance(loc[index - 1], int) or loc[index - 1] in {"content", "response_format"}
    return "[" in part or "-" in part or part == "NamedTool" or (follows_union and part in _TAGS) or part == "str"
