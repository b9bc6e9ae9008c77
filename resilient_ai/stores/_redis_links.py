"""The connections of one event loop to a Redis: few, each with one caller at a time, and none used again after a doubt."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

from resilient_ai.stores._patience import Patience
from resilient_ai.stores._redis_address import package_missing, unusable

_MOST = 16
_WAIT_CONNECT = 2.0  # seconds; nobody waits for it longer than the own patience

Command = tuple[str | bytes | int, ...]


class Connection(Protocol):
    """What of a connection of redis-py is used."""

    async def connect(self) -> object:
        """Open the socket, authenticate and select the database."""
        ...

    async def disconnect(self, *, nowait: bool) -> object:
        """Close the socket."""
        ...

    def pack_commands(self, commands: Sequence[Command]) -> Any:
        """Return the bytes of commands."""
        ...

    async def send_packed_command(self, command: Any, *, check_health: bool) -> object:
        """Send bytes."""
        ...

    async def read_response(self, *, disable_decoding: bool) -> Any:
        """Read one answer."""
        ...


class NoneFree(Exception):
    """All connections are in use by others."""


class RedisLinks:
    """Lends each connection to one caller at a time, first come, first served.

    A connection whose answers were not read to the end, because the caller was cancelled or lost patience or because something
    went wrong, is closed at once: what still arrives on it belongs to nobody. New ones are made behind the callers' backs, so
    that a slow handshake ends in a connection though those who asked have given up.

    The connections are closed with the loop, if they were not before.

    Args:
        make: Makes a connection that is not connected yet.
        broken: The error of a connection that does not work.
        failed: The error of a command that was refused, where the connection works.
    """

    def __init__(self, make: Callable[[], Connection], *, broken: type[Exception], failed: type[Exception]) -> None:
        self._make = make
        self._broken = broken
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._heard = float("-inf")
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[tuple[Connection, bool]]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._count = 0
        self._closed = False
        self._keeper = self._until_the_loop_ends()
        self._kept = False

    async def ask(self, commands: Sequence[Command], *, within: float) -> list[Any]:
        """Send commands in one go; return their answers in order, where a command failed its error.

        Raises:
            NoneFree: If others used all connections for too long.
            TimeoutError: If nothing was heard on any connection for `within` seconds, or not everything in ten times as long.
            Exception: If the connection failed, or what came was no answer.
        """
        has_one = False
        try:
            async with Patience(within, lambda: self._heard):
                connection, used = await self._take()
                has_one = True
                try:
                    return await self._exchange(connection, commands)
                except self._broken:
                    if not used:
                        raise
                # The server has closed it while it lay idle, as it does at a restart, and the others with it.
                await self._close_idle()
                connection, _ = await self._take()
                return await self._exchange(connection, commands)
        except TimeoutError:
            if not has_one and self._count > len(self._connecting):
                raise NoneFree from None
            raise

    async def connect(self) -> None:
        """Have a connection ready."""
        connection, _ = await self._take()
        self._give(connection)

    async def aclose(self) -> None:
        """Close what is idle now, and the rest when it comes back."""
        self._closed = True
        await self._keeper.aclose()

    async def _exchange(self, connection: Connection, commands: Sequence[Command]) -> list[Any]:
        answers: list[Any] = []
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                answers.append(await self._answer(connection))
                self._heard = self._loop.time()
        except BaseException:
            await self._drop(connection)
            raise
        if self._closed:
            await self._drop(connection)
        else:
            self._give(connection)
        return answers

    async def _answer(self, connection: Connection) -> Any:
        try:
            return await connection.read_response(disable_decoding=True)
        except self._failed as error:
            return error

    async def _take(self) -> tuple[Connection, bool]:
        """Return a connection, and whether it was used before."""
        if self._closed:
            raise NoneFree
        if not self._kept:
            self._kept = True
            await anext(self._keeper)
        if self._idle:
            return self._idle.pop(), True
        mine: asyncio.Future[tuple[Connection, bool]] = self._loop.create_future()
        self._waiting.append(mine)
        self._connect_more()
        try:
            return await mine
        except BaseException:
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                self._give(mine.result()[0])
            with suppress(ValueError):
                self._waiting.remove(mine)
            raise

    def _give(self, connection: Connection, *, used: bool = True) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result((connection, used))
                return
        self._idle.append(connection)

    async def _drop(self, connection: Connection) -> None:
        self._count -= 1
        await _close(connection)
        self._connect_more()

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await self._drop(connection)

    def _connect_more(self) -> None:
        while not self._closed and self._count < _MOST and len(self._connecting) < len(self._waiting):
            self._count += 1
            self._connecting.add(asyncio.create_task(self._connect()))

    async def _connect(self) -> None:
        connection = self._make()
        error: Exception | None = None
        try:
            async with asyncio.timeout(_WAIT_CONNECT):
                await connection.connect()
        except BaseException as reason:
            self._count -= 1
            await _close(connection)
            if not isinstance(reason, Exception):
                raise
            error = reason
        finally:
            # Before anybody is told: whoever asks next must find that nothing is under way.
            self._connecting.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        if error is None:
            self._heard = self._loop.time()
            self._give(connection, used=False)
        else:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        """Let nobody wait on: where no connection can be made there is none to wait for."""
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(error)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        # A loop that is shut down in order ends its asynchronous generators, and nothing else could close sockets in time.
        try:
            yield
        finally:
            self._closed = True
            for task in tuple(self._connecting):
                task.cancel()
            self._tell(NoneFree())
            await self._close_idle()
            await asyncio.sleep(0)  # sockets are closed in the next turn of the loop


def links_to(url: str) -> Callable[[], RedisLinks]:
    """Return what makes the connections of a loop.

    Raises:
        ConfigurationError: If the package is missing, or does not know what to do with `url`.
    """
    try:
        from redis.asyncio import ConnectionPool  # noqa: PLC0415 - it takes a third of a second; who shares nothing needs none
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import ConnectionError as Broken  # noqa: PLC0415
        from redis.exceptions import ResponseError  # noqa: PLC0415
    except ImportError:
        raise package_missing() from None
    # The package's own annotations leave open what else may be given.
    from_url = cast("Callable[..., Any]", ConnectionPool.from_url)  # pyright: ignore[reportUnknownMemberType]
    # Older versions of the package believe whatever host a certificate is for.
    tls = {"ssl_check_hostname": True} if url.startswith("rediss:") and "ssl_cert_reqs" not in url else {}
    try:
        # It only makes connections, which it does not keep. Waits are measured around it.
        pool = from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=None, protocol=2, **tls)
        make = cast("Callable[[], Connection]", pool.make_connection)
        make()
    except Exception as error:  # noqa: BLE001 - its text may quote the password
        raise unusable(error) from None
    return lambda: RedisLinks(make, broken=Broken, failed=ResponseError)


async def _close(connection: Connection) -> None:
    # Aborted, as closing would wait for a server that does not read to take the rest of what was written.
    with suppress(Exception):  # a broken connection cannot be closed better
        writer = getattr(connection, "_writer", None)
        if writer is not None:
            writer.transport.abort()
        await connection.disconnect(nowait=True)
