"""One request and its reply, with refusals turned into errors that name the model."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import orjson

from resilient_ai.core.errors import InvalidInput, InvalidResponse, ProviderError
from resilient_ai.deepinfra.wire.errors import read_error

if TYPE_CHECKING:
    from resilient_ai.core.call import Call
    from resilient_ai.deepinfra.reply import Reply
    from resilient_ai.deepinfra.transport import Transport

JSON_LIMIT = 64 << 20  # bytes of a JSON answer without pictures or vectors
LARGE_LIMIT = 256 << 20  # bytes of an answer of pictures or vectors
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ERROR_LIMIT = 1 << 20
_SHORTEST_SECRET = 8  # a shorter one would be found in ordinary words, and no real key is


class Multipart:
    """A form with files, already encoded."""

    __slots__ = ("content", "content_type")

    def __init__(self, content: bytes, content_type: str) -> None:
        self.content = content
        self.content_type = content_type


@asynccontextmanager
async def exchange(
    transport: "Transport",
    call: "Call[Any]",
    path: str,
    body: "Mapping[str, Any] | Multipart",
    *,
    compressed: bool = True,
    own_connection: bool = False,
) -> "AsyncGenerator[Reply]":
    """Send a body and give the reply of a success; whatever fails in the block drops the connection and names the model.

    Raises:
        InvalidInput: If the body cannot be JSON, or a header of the call cannot be sent.
        StatusError: If the service refused.
        ProviderError: As the transport and the readers raise it.
    """
    content, content_type = (
        (body.content, body.content_type) if isinstance(body, Multipart) else (_encode(body), "application/json")
    )
    for name, value in call.headers.items():
        if not is_header(name, value):
            raise InvalidInput(f"headers: {name!r} holds a character no header may have", field=f"headers.{name}")
    call.send_started(leaving=False)
    reply: Reply | None = None
    try:
        encoding = "gzip" if compressed else "identity"
        reply = await transport.open(
            path,
            content,
            content_type=content_type,
            accept_encoding=encoding,
            idempotency_key=call.idempotency_key,
            headers=call.headers,
            on_leaving=call.bytes_leave,
            own_connection=own_connection,
        )
        if reply.status != 200:
            raise await _error_of(reply, call.model)  # noqa: TRY301 - one handler names the model for every failure
        yield reply
    except BaseException as error:
        if reply is not None:
            reply.abort()
        if isinstance(error, ProviderError):
            error.model = error.model or call.model
            hide_secret(error, transport.secret)
        raise


def is_header(name: str, value: str) -> bool:
    """Return whether something can be sent as a header, and cannot be taken for several."""
    return value.isascii() and value.isprintable() and _HEADER_NAME.fullmatch(name) is not None


def hide_secret(error: ProviderError, secret: str) -> None:
    """Take the key out of whatever an error shows, should the service have repeated it."""
    error.args = tuple(_without(part, secret) for part in error.args)
    for name in ("body", "code", "excerpt", "param", "request_id"):
        if name in error.__dict__:
            setattr(error, name, _without(getattr(error, name), secret))
    cause = error.__cause__
    if isinstance(cause, orjson.JSONDecodeError):
        cause.doc = ""  # it would keep the whole answer


def _without(value: object, secret: str) -> object:
    if isinstance(value, str):
        return value.replace(secret, "[redacted]") if len(secret) >= _SHORTEST_SECRET else value
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return {_without(key, secret): _without(part, secret) for key, part in pairs}
    if isinstance(value, list):
        return [_without(part, secret) for part in cast("list[object]", value)]
    return value


def _encode(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError as error:
        field = next(name for name, value in body.items() if not _is_json(value))
        raise InvalidInput(f"{field}: cannot be sent as JSON: {error}", field=field) from error


def _is_json(value: object) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


async def _error_of(reply: "Reply", model: str) -> ProviderError:
    if 300 <= reply.status < 400:
        return InvalidResponse(
            f"the service answered with a redirect (status {reply.status}), which is never followed", retryable=False
        )
    if reply.status < 400:
        return InvalidResponse(f"the service answered with status {reply.status} instead of 200")
    return read_error(reply.status, await reply.excerpt(_ERROR_LIMIT), reply.headers, model=model)
