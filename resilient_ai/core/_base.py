"""The base of the frozen pydantic models."""

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


def explain(name: str, error: ValidationError) -> InvalidInput:
    """Turn the first complaint of pydantic into one sentence that names the field and the value."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    value: Any = first["input"]
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if not field:  # a check over several fields names them itself
        return InvalidInput(f"{name}: {message}", field=message.partition(":")[0], value=None)
    shown = repr(value)
    if len(shown) > _SHOWN:
        shown = shown[:_SHOWN] + "..."
    given = "" if first["type"] == "missing" else f", got {shown}"
    return InvalidInput(f"{name}: {field}: {message[:1].lower()}{message[1:]}{given}", field=field, value=value)
