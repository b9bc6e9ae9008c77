"""The simulator on a real socket, in a thread of its own."""

import asyncio
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from typing_extensions import Unpack

from resilient_ai.deepinfra.catalogue import catalogue
from resilient_ai.simulator.app import create_app
from resilient_ai.simulator.connection import Connection, protocol
from resilient_ai.simulator.settings import Options, Settings
from resilient_ai.simulator.state import Simulator

_BACKLOG = 2048
_START_TIMEOUT = 10.0
_POLL = 0.002
_KEEP_ALIVE = 75


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


class _Thread(threading.Thread):
    def __init__(self, simulator: Simulator, listener: socket.socket) -> None:
        super().__init__(name="resilient-ai-simulator", daemon=True)
        self._connections: set[Connection] = set()
        self._listener = listener
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
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._listener])

    def wait_until_started(self) -> None:
        end = time.monotonic() + _START_TIMEOUT
        while not self._server.started:
            if not self.is_alive() or time.monotonic() > end:
                raise RuntimeError("the simulator did not start")  # pragma: no cover  # the port is already ours
            time.sleep(_POLL)

    def stop(self) -> None:
        if self._loop is not None and self.is_alive():  # pragma: no branch  # unless it ended by itself
            self._loop.call_soon_threadsafe(self._end)
        self.join(_START_TIMEOUT)

    def _end(self) -> None:
        self._server.should_exit = True
        for connection in list(self._connections):
            connection.close()
