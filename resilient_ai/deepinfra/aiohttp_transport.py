"""The default connection pool: aiohttp's, as an httpx transport.

It is called directly, because httpx's own pool loses slots when requests are cancelled and is slow at hundreds of streams.
"""

import asyncio
import contextlib
import functools
import io
import os
import ssl
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextvars import ContextVar
from typing import TypeAlias

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader
from aiohttp.tracing import Trace
from typing_extensions import override

# The extension of a request that holds what to call once there is a connection, before the first byte is written.
ON_LEAVING = "resilient_ai.on_leaving"
# The extension of a request that must not be sent twice: on a connection of its own it cannot meet one that is dead already.
OWN_CONNECTION = "resilient_ai.own_connection"
_STALE = 2.0  # seconds within which a reused connection shows that it was dead already
_MOST_INTERIM = 100
_RAW_BODY_LIMIT = 1 << 20  # aiohttp wants larger bodies as a file, so that writing them yields to the loop


class AiohttpTransport(httpx.AsyncBaseTransport):
    """An httpx transport over aiohttp's connection pool; one pool per event loop, none shared with a forked child.

    Failures keep their true cause: what failed before the request left is an `httpx.ConnectError`, whatever failed after it an
    `httpx.ReadError`. A request whose kept connection turns out to be dead, because no byte of an answer came back on it, is sent
    again once, on a new connection: a server that drops its idle connections is not a server that fails.

    Args:
        connect_timeout: Seconds for name, connection and TLS together.
        max_connections: Connections at once to all hosts; 0 is no limit, because limiting is a middleware's work.
        verify: False, or an SSL context, to trust other certificates than the system's.
        trust_env: Whether proxies named in the environment are used.
    """

    def __init__(
        self,
        *,
        connect_timeout: float = 5.0,
        max_connections: int = 0,
        verify: ssl.SSLContext | bool = True,
        trust_env: bool = False,
    ) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_connect=connect_timeout)
        self._max_connections = max_connections
        self._verify = verify
        self._trust_env = trust_env
        self._pools: dict[tuple[int, bool], _Pools] = {}

    def _of_this_process(self, *, kept: bool) -> "_Pools":
        # The sockets of a parent belong to it: they stay under its number, never closed or collected in a child.
        key = os.getpid(), kept
        return self._pools.get(key) or self._pools.setdefault(key, _Pools())

    async def _session(self, *, kept: bool) -> "_Session":
        loop = asyncio.get_running_loop()
        pools = self._of_this_process(kept=kept)
        known = pools.get(loop)
        if known is None:
            lifetime = self._lifetime(kept=kept)
            known = await anext(lifetime), lifetime
            pools.add(loop, known)
        return known[0]

    async def _lifetime(self, *, kept: bool) -> "AsyncGenerator[_Session]":
        # A loop that shuts down closes its asynchronous generators first, and so this session while it still can.
        http = aiohttp.ClientSession(
            connector=_Connector(limit=self._max_connections, ssl=self._verify, force_close=not kept).of_wires(),
            timeout=self._timeout,
            auto_decompress=False,
            trust_env=self._trust_env,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        session = _Session(http)
        try:
            yield session
        finally:
            await session.close()

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        session = await self._session(kept=OWN_CONNECTION not in request.extensions)
        with _as_httpx_errors():
            response = await self._exchange(session.http, request)
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=session.body_of(response), request=request
        )

    async def _exchange(self, session: aiohttp.ClientSession, request: httpx.Request) -> aiohttp.ClientResponse:
        loop = asyncio.get_running_loop()
        started = loop.time()
        route = _Route(request.extensions.get(ON_LEAVING))
        _route.set(route)  # never reset: a coroutine collected with its loop ends in another context
        try:
            try:
                return await _send(session, request)
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, ConnectionError):
                # A connection that dies later died at work, which may be billed already.
                if session.closed or not route.was_stale() or loop.time() - started > _STALE:
                    raise
            return await _send(session, request)
        finally:
            route.kept = None

    @override
    async def aclose(self) -> None:
        for kept in (True, False):
            known = self._of_this_process(kept=kept).pop(asyncio.get_running_loop())
            if known is not None:
                await known[1].aclose()


async def _send(session: aiohttp.ClientSession, request: httpx.Request) -> aiohttp.ClientResponse:
    content = request.content
    return await session.request(
        request.method,
        str(request.url),
        headers=[(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw],
        data=io.BytesIO(content) if len(content) > _RAW_BODY_LIMIT else content or None,
        allow_redirects=False,
    )


class _Session:
    """A session of aiohttp's, and the answers that are still read from it."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http
        self._bodies: weakref.WeakSet[_AiohttpBody] = weakref.WeakSet()

    def body_of(self, response: aiohttp.ClientResponse) -> "_AiohttpBody":
        body = _AiohttpBody(response)
        self._bodies.add(body)
        return body

    async def close(self) -> None:
        # Once the loop has closed, an answer cannot give its connection back any more.
        for body in list(self._bodies):
            body.abort()
        await self.http.close()


_Pool: TypeAlias = tuple[_Session, AsyncGenerator[_Session]]


class _Pools:
    """The sessions of one process by event loop; threads add theirs at the same time."""

    def __init__(self) -> None:
        self._known: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._lock = threading.Lock()

    def get(self, loop: asyncio.AbstractEventLoop) -> _Pool | None:
        return self._known.get(loop)

    def add(self, loop: asyncio.AbstractEventLoop, pool: _Pool) -> None:
        gone: list[_Pool | None] = []  # collected only after the lock is free again
        with self._lock:
            self._known[loop] = pool
            gone.extend(self._known.pop(other, None) for other in list(self._known) if other.is_closed())

    def pop(self, loop: asyncio.AbstractEventLoop) -> _Pool | None:
        with self._lock:
            return self._known.pop(loop, None)


class _Wire(ResponseHandler):
    """A connection that knows whether a byte has come back; one from the pool has heard an answer before.

    A server may announce its answer with interim ones (1xx), but not for ever.
    """

    heard = False
    interim = 0

    @override
    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        self.interim = self.interim + 1 if 100 <= data[0].code < 200 else 0
        if self.interim <= _MOST_INTERIM:
            super().feed_data(data, size)
        elif self.transport is not None and not self.transport.is_closing():
            self.set_exception(aiohttp.ClientPayloadError(f"more than {_MOST_INTERIM} interim answers"))
            self.transport.close()

    @override
    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)


class _Route:
    """Which connection a request went out on."""

    __slots__ = ("fresh_only", "kept", "on_leaving")

    def __init__(self, on_leaving: Callable[[], None] | None) -> None:
        self.fresh_only = False
        self.kept: _Wire | None = None
        self.on_leaving = on_leaving

    def has_connection(self) -> None:
        """Tell whoever wants to know that bytes are about to leave; once, also where the request is sent again."""
        if self.on_leaving is not None:
            self.on_leaving()
            self.on_leaving = None

    def was_stale(self) -> bool:
        return self.kept is not None and not self.kept.heard


_route: ContextVar[_Route] = ContextVar("_route")


class _Connector(aiohttp.TCPConnector):
    """A pool that gives a request one kept connection at most; whatever it asks for after that is new.

    Hooks for tracing would tell as much, but they cost more per request than the answer is worth.
    """

    def of_wires(self) -> "_Connector":
        # aiohttp has no other way to name the class of its connections. Should it lose this one, the tests of stale
        # connections fail.
        kind: type[ResponseHandler] = _Wire
        self._factory = functools.partial(kind, loop=self._loop)
        return self

    @override
    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        route = _route.get()
        fresh_only, route.fresh_only, route.kept = route.fresh_only, True, None
        while True:
            connection = await super().connect(req, traces, timeout)
            wire = connection.protocol
            if not isinstance(wire, _Wire) or not wire.heard:
                route.has_connection()
                return connection
            if not fresh_only and not wire.should_close:
                route.kept, wire.heard = wire, False
                route.has_connection()
                return connection
            # It has said something that nobody asked for, or is a neighbour of a dead one: idle as long, most likely as dead.
            connection.close()


class _AiohttpBody(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def at_end(self) -> bool:
        return self._response.content.at_eof()

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx_errors():
            try:
                while chunk := await self._response.content.readany():
                    yield chunk
            except RuntimeError as error:  # so aiohttp says that the connection was closed under the reader
                raise httpx.ReadError(_text(error)) from error

    def abort(self) -> None:
        self._response.close()

    @override
    async def aclose(self) -> None:
        self._response.close()


@contextlib.contextmanager
def _as_httpx_errors() -> Generator[None]:
    try:
        yield
    except aiohttp.ServerTimeoutError as error:
        raise httpx.ConnectTimeout(_text(error)) from error
    except (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError) as error:
        raise httpx.ProxyError(_text(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(_text(error)) from error
    except aiohttp.ClientResponseError as error:
        raise httpx.RemoteProtocolError(type(error).__name__) from error
    except aiohttp.ClientPayloadError as error:
        raise httpx.ReadError(type(error).__name__) from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise httpx.ReadError(_text(error)) from error


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
