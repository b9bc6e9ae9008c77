"""Values out of a trace file: texts made harmless, numbers that are numbers, times in nanoseconds."""

import base64
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

from resilient_ai.cli.terminal import one_line
from resilient_ai.core import semconv as names

Value = str | bool | int | float | tuple[str, ...]
Attributes = Mapping[str, Value]

_LONGEST_TEXT = 200
_MOST_TEXTS = 20  # of a list
_LATEST = 253_402_300_799 * 10**9  # the end of the year 9999
_LARGEST = 10**15
_FRACTION = re.compile(r"\.(\d+)")
_PROTOCOL_STATUS = "http.status_code"  # as older instrumentations say it
# What may be shown. Prompts, answers and arguments are not, though a file may have them.
_SHOWN = frozenset(
    {
        value
        for name, value in vars(names).items()
        if name.isupper()
        and isinstance(value, str)
        and value.startswith(("gen_ai.", "resilient_ai.", "error.", "http."))
    }
    - {names.INPUT_MESSAGES, names.OUTPUT_MESSAGES, names.TOOL_DEFINITIONS, names.TOOL_ARGUMENTS, names.TOOL_RESULT}
    - {names.TOOL_DESCRIPTION, names.REQUEST_STOP_SEQUENCES}
    | {_PROTOCOL_STATUS}
)


class Facts:
    """Attributes, asked for by the kind that they should be; whatever is of another one is not known."""

    __slots__ = ("attributes",)

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes

    def text(self, name: str) -> str | None:
        """Return a text that is not empty."""
        value = self.attributes.get(name)
        return value if isinstance(value, str) and value else None

    def number(self, name: str) -> float | None:
        """Return a number from zero on."""
        value = self.attributes.get(name)
        return None if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 else value

    def count(self, name: str) -> int | None:
        """Return a whole number from zero on."""
        value = self.number(name)
        return int(value) if value is not None and value == int(value) else None

    def flag(self, name: str) -> bool | None:
        """Return whether something is so."""
        value = self.attributes.get(name)
        return value if isinstance(value, bool) else None


def hex_of(given: Any) -> str:
    """Return a number in hexadecimal digits; protobuf's own JSON has it in base 64."""
    text = given.removeprefix("0x")
    if text.endswith("="):
        return base64.b64decode(text, validate=True).hex()
    if not text or len(text) > 32 or not int(text, 16):
        raise ValueError(given)
    return str(text).lower()


def parent_of(given: Any) -> str | None:
    """Return the number of what stands around a span, None at the top."""
    try:
        return hex_of(given)
    except (ValueError, AttributeError, TypeError):
        return None


def moment_of(given: Any) -> int:
    """Return a time in nanoseconds: a number of them, or a date."""
    if isinstance(given, str) and not given.isdecimal():
        date = datetime.fromisoformat(given)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        whole = int(date.replace(microsecond=0).timestamp()) * 10**9
        fraction = _FRACTION.search(given)
        at = whole + (int(fraction[1][:9].ljust(9, "0")) if fraction else 0)
    else:
        at = int(given)
    if not 0 <= at <= _LATEST:
        raise ValueError(given)
    return at


def end_of(given: Any, start: int) -> int:
    """Return when something ended, which is not before it began."""
    try:
        return max(start, moment_of(given))
    except (TypeError, ValueError, OverflowError):
        return start


def facts_of(attributes: Mapping[str, Any]) -> Facts:
    """Return those attributes that may be shown."""
    found: dict[str, Value] = {}
    for name in attributes.keys() & _SHOWN:
        value = _value(attributes[name])
        if value is not None:
            found[name] = value
    return Facts(found)


def _value(value: Any) -> Value | None:
    if is_list(value):
        return tuple(text for one in value[:_MOST_TEXTS] if (text := text_of(one)) is not None)
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if math.isfinite(value) and abs(value) <= _LARGEST else None
    return text_of(value)


def text_of(value: Any) -> str | None:
    """Return a text on one line, without what a terminal would obey, and not too long; None where it is none."""
    if not isinstance(value, str):
        return None
    if len(value) <= _LONGEST_TEXT and value.isascii() and value.isprintable():
        return value  # as nearly all are
    whole = value[: 2 * _LONGEST_TEXT].encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be written
    return one_line(whole, _LONGEST_TEXT)


def plain(attributes: Any) -> dict[str, Any]:
    """Return attributes of OTLP as a mapping."""
    return {str(one.get("key")): _unpacked(dict_of(one.get("value"))) for one in dicts_of(attributes)}


def _unpacked(value: dict[str, Any]) -> Any:
    for kind, given in value.items():
        if kind == "intValue":
            return int(given) if isinstance(given, int) or (isinstance(given, str) and len(given) < 20) else None
        if kind == "arrayValue":
            return [_unpacked(one) for one in dicts_of(dict_of(given).get("values"))]
        if kind in {"stringValue", "boolValue", "doubleValue"}:
            return given
    return None


def dict_of(value: Any) -> dict[str, Any]:
    """Return an object, an empty one where it is none."""
    return value if is_dict(value) else {}


def dicts_of(value: Any) -> Iterator[dict[str, Any]]:
    """Return the objects of a list, none where it is none."""
    return (one for one in value if is_dict(one)) if is_list(value) else iter(())


def is_dict(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it is an object of JSON."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Whether it is a list of JSON."""
    return isinstance(value, list)
