"""What every reader and writer of JSON here has in common: narrowing, bounds, and the sentence that says what was wrong."""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

import orjson

from resilient_ai.core.errors import InvalidInput, InvalidResponse
from resilient_ai.core.log import Log
from resilient_ai.core.money import MOST_OF_A_SEND
from resilient_ai.core.results import Cost

EXCERPT = 500
_ABSURD = 10**12
# The query of a signed address opens what it leads to for whoever reads the log.
_QUERY = re.compile(r"(https?://[^\s\"?]*)\?[^\s\"]*")
_NUMBER = re.compile(r"-?(?:NaN|Infinity|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)")
# So many numbers that are none are passed over, and fewer where reading the text again for each would take long.
_MOST_ODD_NUMBERS = 32
_MOST_CHARACTERS = 32 << 20
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-deepinfra-request-id")

_log = Log()
_disbelieved: set[str] = set()  # models of which it was told
_MOST_DISBELIEVED = 1024


class Malformed(ValueError):
    """A part of an answer that cannot be read; whoever reads the whole says whose answer it was."""


def load_object(data: bytes, *, model: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON object that an answer consists of.

    Raises:
        InvalidResponse: If the body is empty, not JSON, nested too deeply, or not an object.

    >>> load_object(b'{"id": "1"}', model="m", headers={})
    {'id': '1'}
    """
    try:
        value = load_json(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        what = f"is not JSON ({error.msg})" if data.strip() else "is empty"
        raise unreadable(f"the body {what}", data, model=model, headers=headers) from error
    found = as_object(value)
    if found is None:
        raise unreadable("the body is JSON but not an object", data, model=model, headers=headers)
    return found


def load_json(data: bytes) -> Any:
    """Return a JSON value, with None for a number that is none: `NaN`, `Infinity`, and what no float holds, such as `1e400`.

    Not every server's JSON is strict. A figure that is not known must not take along the answer that was paid for.

    Raises:
        orjson.JSONDecodeError: If it is not JSON for another reason, or has too many such numbers.

    >>> load_json(b'{"text": "NaN", "cost": NaN, "tokens": 1e400}')
    {'text': 'NaN', 'cost': None, 'tokens': None}
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as found:
        error = found
    # Outside of the handler, so that no error keeps another one, and with it the whole answer.
    text = error.doc
    for _ in range(max(1, min(_MOST_ODD_NUMBERS, _MOST_CHARACTERS // max(1, len(text))))):
        start = max(0, error.pos - 1)
        number = _NUMBER.match(text, start if text[start : start + 1] == "-" else error.pos)
        if number is None or math.isfinite(float(number[0])):
            break
        text = f"{text[: number.start()]}null{text[number.end() :]}"
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as found:
            error = found
    raise error


def unreadable(
    what: str, data: bytes, *, model: str, headers: Mapping[str, str], retryable: bool = True
) -> InvalidResponse:
    """Return the error for an answer that cannot be read, with its first characters."""
    return InvalidResponse(
        f"the answer of {model!r} cannot be read: {what}",
        excerpt=_QUERY.sub(r"\1?[redacted]", data[:EXCERPT].decode("utf-8", "replace")),
        model=model,
        request_id=header_request_id(headers),
        retryable=retryable,
    )


def header_request_id(headers: Mapping[str, str]) -> str | None:
    """Return the name of the request as a header gives it."""
    return next((value for name in _REQUEST_ID_HEADERS if (value := headers.get(name))), None)


def request_id_of(body: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """Return the name of the request: `id` or `request_id` of the body, else the header's."""
    return as_text(body.get("id")) or as_text(body.get("request_id")) or header_request_id(headers)


def dump(value: Any) -> str:
    """Return a JSON value as text; empty where it is nested more deeply than anybody means."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return ""


def as_object(value: Any) -> dict[str, Any] | None:
    """Return a JSON object, None for anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def as_list(value: Any) -> list[Any] | None:
    """Return a JSON array, None for anything else."""
    return cast("list[Any] | None", value) if isinstance(value, list) else None


def as_text(value: Any) -> str | None:
    """Return a text that is not empty, None for anything else."""
    return value if isinstance(value, str) and value else None


def as_count(value: Any) -> int | None:
    """Return a whole number from 0 to a million million, None for anything else.

    >>> as_count(12), as_count(12.0), as_count(-1), as_count(True), as_count("12")
    (12, 12, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return None
    return int(value) if 0 <= value <= _ABSURD else None


def as_money(value: Any) -> Decimal | None:
    """Return an amount that is not negative, with exactly the digits it was written with.

    >>> as_money(9.68e-05), as_money(-0.0), as_money(-1), as_money(None)
    (Decimal('0.0000968'), Decimal('0.0'), None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _ABSURD:
        return None
    # A zero may have a sign.
    return Decimal(repr(abs(value)))


def provider_cost(amount: Decimal | None, *, model: str) -> Cost | None:
    """Return the service's own figure as a cost; None for one that cannot be meant, of which the log is told once per model.

    >>> str(provider_cost(Decimal("0.0000097"), model="m")), provider_cost(Decimal(1001), model="m")
    ('0.0000097 USD', None)
    """
    if amount is None or amount <= MOST_OF_A_SEND:
        return None if amount is None else Cost(amount=amount, source="provider")
    if model not in _disbelieved and len(_disbelieved) < _MOST_DISBELIEVED:
        _disbelieved.add(model)
        _log.warning(
            "%s is said to have cost %.6g USD for one request, which is not believed: such figures count as not told",
            model,
            amount,
        )
    return None


def with_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Add the caller's own fields, which win; `max_completion_tokens` goes by the name the service knows.

    Raises:
        InvalidInput: If they change `stream`, which must fit how the answer is read.

    >>> with_extra({"model": "m", "max_tokens": 5}, {"max_completion_tokens": 9})
    {'model': 'm', 'max_tokens': 9}
    """
    if "stream" in extra and bool(extra["stream"]) != bool(body.get("stream")):
        raise InvalidInput("extra: 'stream' follows from the operation", field="extra", value=extra["stream"])
    for name, value in extra.items():
        body["max_tokens" if name == "max_completion_tokens" else name] = value
    return body
