"""A Redis of the tests' own: a private process, port and folder; and what stands between it and a client."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

_START = 10.0


class RedisServer:
    """A `redis-server` on a free port of 127.0.0.1 that keeps nothing."""

    def __init__(self, program, folder):
        self._program, self._folder = program, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket(self):
        return f"{self._folder}/redis.sock"

    def start(self):
        """Start, and wait until it answers."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        options += ["--unixsocket", self.socket]
        self._process = subprocess.Popen(
            [self._program, *options, "--save", "", "--appendonly", "no", "--loglevel", "warning"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + _START
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                self.stop()
                raise RuntimeError("redis-server did not start")
            time.sleep(0.01)

    def stop(self):
        """Kill it, as a crash would, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self):
        """Let it stand still: connections stay open, and nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def _answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def command(self, *words):
        """Ask it past everything that is tested."""
        from redis import Redis

        with contextlib.closing(Redis(port=self.port, protocol=2)) as client:
            return client.execute_command(*words)


class Proxy:
    """Stands between clients and a server, on a free port of 127.0.0.1, and holds answers back where told to.

    Args:
        port: Where the server is.
        tls: The context of a server, for clients that come with TLS.
        pause: Seconds after each 64 KiB of answers.

    Attributes:
        flowing: Whether answers are passed on; what is held back is passed on once it is set again.
        holding: Whether an answer has been held back.
        connections: How many clients have come.
    """

    def __init__(self, port, *, tls=None, pause=0.0):
        self._target, self._tls, self._pause = port, tls, pause
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.holding = asyncio.Event()
        self.connections = 0
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis{'s' if self._tls else ''}://127.0.0.1:{self.port}/0"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _serve(self, reader, writer):
        self._tasks.add(asyncio.create_task(self._carry(reader, writer)))

    async def _carry(self, reader, writer):
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        there = asyncio.create_task(self._pass(reader, far_writer))
        try:
            await self._pass(far_reader, writer, self.flowing)
        finally:
            there.cancel()
            for end in (writer, far_writer):
                end.transport.abort()

    async def _pass(self, source, target, when=None):
        with contextlib.suppress(ConnectionError):
            while data := await source.read(2**16):
                if when is not None and not when.is_set():
                    self.holding.set()
                    await when.wait()
                target.write(data)
                await target.drain()
                if when is not None:
                    await asyncio.sleep(self._pause)
        if when is None:
            target.close()


@contextlib.asynccontextmanager
async def saying(answer, *, hang_up_at=None):
    """A server that answers every command with the same bytes, or hangs up where it is sent certain ones; yields its address."""
    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**16):
                if hang_up_at is not None and hang_up_at in data:
                    break
                writer.write(answer * len(re.findall(rb"(?:^|\n)\*\d+\r", data)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def start_redis(folder):
    """Start a server; without the program the test is skipped, or fails where the services must be there."""
    program = shutil.which("redis-server")
    if program is None:
        reason = "redis-server is not installed"
        if os.environ.get("CI_REQUIRES_SERVICES"):
            pytest.fail(reason)
        pytest.skip(reason)
    return RedisServer(program, folder)
