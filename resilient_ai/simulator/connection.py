"""The socket under a request: waiting that ends with it, and breaking it on purpose."""

import asyncio
import functools
import socket
import struct
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send

_SCOPE_KEY = "resilient_ai.simulator.connection"
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Connection:
    """One client connection.

    Args:
        transport: The transport under it; `None` where another server than ours runs the application.
    """

    def __init__(self, transport: asyncio.Transport | None = None) -> None:
        self._transport = transport
        self.lost = asyncio.Event()

    @classmethod
    def of(cls, scope: Scope) -> "Connection":
        """The connection that a request came in on."""
        found: Connection | None = scope.get(_SCOPE_KEY)
        return cls() if found is None else found

    @property
    def gone(self) -> bool:
        """Whether nobody listens any more."""
        return self.lost.is_set() or (self._transport is not None and self._transport.is_closing())

    async def pause(self, seconds: float) -> bool:
        """Wait, but no longer than the connection lasts; tells whether it still stands."""
        try:
            await asyncio.wait_for(self.lost.wait(), seconds)
        except TimeoutError:
            return not self.gone
        return False

    def close(self) -> None:
        """Let the connection go at once."""
        if self._transport is not None:  # pragma: no branch  # only connections of our own server are kept
            self._transport.abort()

    async def abort(self, *, reset: bool = False) -> None:
        """Break the connection without a farewell; `reset` makes the peer see a reset instead of an end of file."""
        if self._transport is None:
            raise ConnectionAbortedError("this server cannot break a connection on purpose")
        if reset:
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self._transport.abort()
        await self.lost.wait()


class _KeepsConnection:
    """Mixed into a uvicorn protocol: hands each request its connection and remembers those that are open."""

    app: Any
    open_connections: set[Connection]

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)  # type: ignore[misc]  # the protocol it is mixed into has the method
        self.connection = Connection(transport)
        self.open_connections.add(self.connection)
        self.app = functools.partial(_call_with, self.app, self.connection)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.lost.set()
        self.open_connections.discard(self.connection)
        super().connection_lost(exc)  # type: ignore[misc]  # as above


async def _call_with(app: ASGIApp, connection: Connection, scope: Scope, receive: Receive, send: Send) -> None:
    scope[_SCOPE_KEY] = connection
    await app(scope, receive, send)


def protocol(connections: set[Connection]) -> type[asyncio.Protocol]:
    """A uvicorn protocol class, httptools where it is installed, that keeps its open connections in the given set."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Base  # noqa: PLC0415  # optional
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol as Base  # type: ignore[assignment]  # noqa: PLC0415
    made = type("SimulatorProtocol", (_KeepsConnection, Base), {"open_connections": connections})
    return cast("type[asyncio.Protocol]", made)
