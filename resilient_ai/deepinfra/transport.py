"""Requests to one origin, with the key, and their failures told apart.

httpx is the interface: a request is an `httpx.Request`, a connection pool an `httpx.AsyncBaseTransport`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import httpx

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.deepinfra.aiohttp_transport import ON_LEAVING, OWN_CONNECTION, AiohttpTransport
from resilient_ai.deepinfra.connection_errors import translate
from resilient_ai.deepinfra.reply import Reply

JSON = "application/json"
# What else a request says of itself.
_OURS = frozenset({"content-length", "host", "idempotency-key", "transfer-encoding"})
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Transport:
    """Sends requests with the key, to one origin only, and tells failures apart.

    Args:
        base_url: Where every request goes; redirects are answers, never followed.
        secret: The key, sent with every request and shown nowhere.
        headers: Sent with every request as well.
        http: A user's own client; its transport, proxies and limits are used, its redirects and authentication are not.
        connect_timeout: Seconds for a connection of the default pool.
    """

    def __init__(
        self,
        base_url: str,
        secret: str,
        headers: Mapping[str, str],
        *,
        http: httpx.AsyncClient | httpx.AsyncBaseTransport | None = None,
        connect_timeout: float = 5.0,
    ) -> None:
        self._base = base_url
        self.secret = secret
        self._headers = MappingProxyType({**headers, "Authorization": f"Bearer {secret}"})
        given = cast("object", http)
        if given is not None and not isinstance(given, httpx.AsyncClient | httpx.AsyncBaseTransport):
            raise ConfigurationError(
                f"http: an httpx.AsyncClient or httpx.AsyncBaseTransport, got {type(given).__name__}"
            )
        self._http = http
        self._pool = (
            http if isinstance(http, httpx.AsyncBaseTransport) else AiohttpTransport(connect_timeout=connect_timeout)
        )
        self._tells_when_bytes_leave = isinstance(self._pool, AiohttpTransport) and not isinstance(
            http, httpx.AsyncClient
        )
        self._connect_timeout = connect_timeout
        self._urls: dict[str, httpx.URL] = {}
        self._json_headers: dict[str, httpx.Headers] = {}

    async def open(
        self,
        path: str,
        content: bytes,
        *,
        content_type: str = JSON,
        accept_encoding: str = "identity",
        idempotency_key: str | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        on_leaving: Callable[[], None] | None = None,
        own_connection: bool = False,
    ) -> Reply:
        """Post a body and return the answer once its head has arrived.

        Args:
            path: The part of the address after the base.
            content: The body.
            content_type: Its media type.
            accept_encoding: The encodings that the answer may have.
            idempotency_key: The same for every send of the same request, so that a server can tell a repeat.
            headers: Sent with this request as well; those that every request has stay as they are.
            on_leaving: Called once there is a connection, before the first byte is written.
            own_connection: Whether it must not meet a kept connection that may turn out dead, as it must not be sent twice.

        Raises:
            ConnectionFailed: If no answer came; `.phase` and `.sent` say how far it got.
            AttemptTimeout: If no connection was made in time.
            InvalidResponse: If the answer is no HTTP.
        """
        prepared = self._prepared(content_type, accept_encoding)
        own = _encoded(headers, prepared) if headers else []
        if idempotency_key is not None:
            own.append((b"Idempotency-Key", idempotency_key.encode("ascii")))
        if own:
            prepared = httpx.Headers([*prepared.raw, *own])
        request = httpx.Request("POST", self._url(path), headers=prepared, content=content)
        if own_connection:
            request.extensions[OWN_CONNECTION] = True
        if on_leaving is not None:
            if self._tells_when_bytes_leave:
                request.extensions[ON_LEAVING] = on_leaving
            else:
                on_leaving()
        return await self._send(request)

    async def get(self, path: str) -> Reply:
        """Ask for a document and return the answer once its head has arrived; raises as `open` does."""
        return await self._send(httpx.Request("GET", self._url(path), headers=self._headers))

    async def _send(self, request: httpx.Request) -> Reply:
        try:
            if isinstance(self._http, httpx.AsyncClient):
                response = await self._http.send(request, stream=True, follow_redirects=False, auth=None)
            else:
                response = await self._pool.handle_async_request(request)
        except httpx.HTTPError as error:
            raise translate(
                error,
                host=request.url.netloc.decode("ascii"),
                connect_timeout=self._connect_timeout if self._http is None else None,
            ) from error
        return Reply(response)

    def _prepared(self, content_type: str, accept_encoding: str) -> httpx.Headers:
        kept = self._json_headers.get(accept_encoding) if content_type == JSON else None
        if kept is None:
            kept = httpx.Headers({**self._headers, "Content-Type": content_type, "Accept-Encoding": accept_encoding})
            if content_type == JSON:
                self._json_headers[accept_encoding] = kept
        return kept

    def _url(self, path: str) -> httpx.URL:
        url = self._urls.get(path)
        if url is None:
            url = httpx.URL(self._base + path)
            if len(self._urls) < 1000:  # a path names a model at most, so there are few; never let them pile up
                self._urls[path] = url
        return url

    async def aclose(self) -> None:
        """Close the connections of the default pool; a user's client stays the user's to close."""
        if self._http is None:
            await self._pool.aclose()


def _encoded(headers: Mapping[str, str], kept: httpx.Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers of one call as they are sent, without those that every request has."""
    return [
        (name.encode("ascii"), value.encode("ascii"))
        for name, value in headers.items()
        if name not in kept and name.lower() not in _OURS
    ]
