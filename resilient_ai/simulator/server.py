"""The simulator on a real socket, in a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

import uvicorn
from typing_extensions import Unpack

from resilient_ai.deepinfra.catalogue import catalogue
from resilient_ai.simulator.app import create_app
from resilient_ai.simulator.connection import Connection, protocol
from resilient_ai.simulator.settings import Options, Settings
from resilient_ai.simulator.state import Simulator

_BACKLOG = 2048
_START_TIMEOUT = 10.0
_KEEP_ALIVE = 75
_TURN = 0.001
# uvicorn counts tenths of a second, and writes the `Date` header anew at each tenth of them.
_TICKS_A_SECOND = 10


@contextmanager
def serve(*, host: str = "127.0.0.1", port: int = 0, **options: Unpack[Options]) -> Generator[Simulator]:
    """Run the simulated service until the block ends.

    For tests, examples and demonstrations: everything a client does with the real service it can do with this one,
    without a key of value and without a bill. Streams that are still open when the block ends are cut.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        **options: The fields of `Settings`.

    Yields:
        The simulator, once it accepts connections; its `url` is the host, its `base_url` what clients take.

    Raises:
        ValueError: If an option is out of its range.
        OSError: If the address cannot be listened on.

    >>> with serve() as simulator:
    ...     simulator.base_url.startswith("http://127.0.0.1:")
    True
    """
    simulator = Simulator(Settings(**options))
    # Read now, so that the server's loop never waits for a file.
    len(catalogue)
    listener = _listen(host, port)
    simulator.url = f"http://{host}:{listener.getsockname()[1]}"
    thread = _Thread(simulator, listener)
    thread.start()
    try:
        thread.wait_until_started()
        yield simulator
    finally:
        thread.stop()


def _listen(host: str, port: int) -> socket.socket:
    # Named, because asyncio turns the delay of small packets off only for sockets that are said to be TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.listen(_BACKLOG)
    return listener


class _Server(uvicorn.Server):
    """Starts and ends as soon as it can; uvicorn's own looks ten times a second whether it should."""

    def __init__(self, config: uvicorn.Config, connections: set[Connection], ready: threading.Event) -> None:
        super().__init__(config)
        self._connections = connections
        self._ready = ready
        self._told = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), 1.0)
            ticks += _TICKS_A_SECOND

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in self.servers:
            listening.close()
        for listener in sockets or []:
            listener.close()
        # What was accepted a moment ago is still a task, and a connection only in the next turn of the loop.
        while self._connections or len(asyncio.all_tasks()) > 1:
            for connection in list(self._connections):
                connection.close()
            await asyncio.sleep(_TURN)

    def end(self) -> None:
        self.should_exit = True
        self._told.set()


class _Thread(threading.Thread):
    def __init__(self, simulator: Simulator, listener: socket.socket) -> None:
        super().__init__(name="resilient-ai-simulator", daemon=True)
        self._connections: set[Connection] = set()
        self._listener = listener
        self._ready = threading.Event()
        config = uvicorn.Config(
            create_app(simulator),
            loop="asyncio",
            http=protocol(self._connections),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            log_level="critical",
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE,
        )
        self._server = _Server(config, self._connections, self._ready)
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._listener])

    def wait_until_started(self) -> None:
        if not self._ready.wait(_START_TIMEOUT):
            raise RuntimeError("the simulator did not start")  # pragma: no cover  # the port is already ours

    def stop(self) -> None:
        if self._loop is not None and self.is_alive():  # pragma: no branch  # unless it ended by itself
            self._loop.call_soon_threadsafe(self._server.end)
        self.join(_START_TIMEOUT)
