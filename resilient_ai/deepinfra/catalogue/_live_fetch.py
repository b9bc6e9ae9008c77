"""Asks the provider for its two lists of models."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from resilient_ai.core.clock import Clock, within
from resilient_ai.core.errors import AttemptTimeout, InvalidResponse, ProviderError

if TYPE_CHECKING:
    from resilient_ai.deepinfra.transport import Transport

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns the body of the document at a path below the base address; raises ProviderError where there is none."""

OPENAI_LIST: Final = "/openai/models"
# It stands beside `/v1`, on the same host, and so the key goes nowhere else.
NATIVE_LIST: Final = "/../models/list"
_BODY_LIMIT = 16 << 20
_ERROR_LIMIT = 1 << 20


def fetch_with(transport: "Transport") -> Fetch:
    """Return a function that asks through the connections of a client, for at most 16 MiB."""

    async def fetch(path: str) -> bytes:
        from resilient_ai.deepinfra.exchange import hide_secret  # noqa: PLC0415 - only a refresh needs the network
        from resilient_ai.deepinfra.wire.errors import read_error  # noqa: PLC0415 - as above

        try:
            reply = await transport.get(path)
            if reply.status == 200:
                return await reply.read(_BODY_LIMIT)
            excerpt = await reply.excerpt(_ERROR_LIMIT)
            reply.abort()
            if reply.status < 400:
                raise InvalidResponse(f"the list of models was answered with status {reply.status} instead of 200")
            error = read_error(reply.status, excerpt, reply.headers, model=path.removeprefix("/.."))
            error.model = None  # what was asked is a list
            raise error
        except ProviderError as error:
            hide_secret(error, transport.secret)
            raise

    return fetch


async def both(fetch: Fetch, clock: Clock, timeout: float) -> tuple[bytes | Exception, bytes | Exception]:
    """Ask for both lists at once, and return for each its body or why there is none."""
    openai, native = await asyncio.gather(
        _one(fetch, OPENAI_LIST, clock, timeout), _one(fetch, NATIVE_LIST, clock, timeout)
    )
    return openai, native


async def _one(fetch: Fetch, path: str, clock: Clock, timeout: float) -> bytes | Exception:
    async def ask() -> bytes:
        body = await fetch(path)
        if not isinstance(body, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # a function of a user may return anything
            raise TypeError(f"fetch must return bytes, got {type(body).__name__}")
        if len(body) > _BODY_LIMIT:
            raise InvalidResponse(f"the list of models is longer than {_BODY_LIMIT} bytes")
        return body

    try:
        return await within(clock, timeout, ask, lambda: AttemptTimeout(timer="attempt", elapsed=timeout))
    except Exception as error:  # noqa: BLE001 - the other list may still come
        return error
