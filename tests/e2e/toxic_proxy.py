"""A TCP proxy that spoils what passes through it, for tests."""

import asyncio
import contextlib
import random
import socket
import ssl
import struct
from dataclasses import dataclass, field

import trustme

BLOCK = 65_536


class Gone(Exception):
    """Nothing more goes over this connection."""


class Toxic:
    """What spoils the bytes of one direction: "down" to the client, or "up" to the server."""

    def __init__(self, direction="down"):
        assert direction in {"down", "up"}
        self.direction = direction

    async def apply(self, link, data):
        """Return what is to be passed on now of `data`; raise `Gone` when nothing more is."""
        del link
        return data


class Latency(Toxic):
    """Every piece comes later by `seconds`, and by up to `jitter` more."""

    def __init__(self, seconds, jitter=0.0, direction="down", seed=0):
        super().__init__(direction)
        self.seconds, self.jitter, self.chance = seconds, jitter, random.Random(seed)

    async def apply(self, link, data):
        del link
        await asyncio.sleep(self.seconds + self.jitter * self.chance.random())
        return data


class Bandwidth(Toxic):
    """So many bytes a second and no more."""

    def __init__(self, rate, direction="down"):
        super().__init__(direction)
        self.rate = rate

    async def apply(self, link, data):
        size = max(1, self.rate // 100)
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            await asyncio.sleep(len(piece) / self.rate)
            await link.write(self.direction, piece)
        return b""


class Slicer(Toxic):
    """Every byte, or every few, in a packet of its own."""

    def __init__(self, size=1, direction="down"):
        super().__init__(direction)
        self.size = size

    async def apply(self, link, data):
        for at in range(0, len(data), self.size):
            await link.write(self.direction, data[at : at + self.size])
            await asyncio.sleep(0)
        return b""


class LimitData(Toxic):
    """An orderly end (FIN) after so many bytes."""

    def __init__(self, after, direction="down"):
        super().__init__(direction)
        self.after = after

    async def apply(self, link, data):
        left = self.after - link.passed[self.direction]
        if len(data) < left:
            return data
        await link.write(self.direction, data[:left])
        self.end(link)
        raise Gone

    def end(self, link):
        """Do what happens after the last byte."""
        link.close()


class ResetPeer(LimitData):
    """A reset (RST) to the client after so many bytes; the server keeps what it has got."""

    def end(self, link):
        link.reset()


class HalfOpen(LimitData):
    """After so many bytes the peer has vanished: nothing more is read or written, and there is no FIN."""

    def end(self, link):
        link.vanished = True


class SlowClose(Toxic):
    """The end of a connection is passed on so much later."""

    def __init__(self, seconds, direction="down"):
        super().__init__(direction)
        self.seconds = seconds


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    vanished: bool = False
    passed: dict = field(default_factory=lambda: {"down": 0, "up": 0})

    async def write(self, direction, data):
        """Pass bytes on."""
        writer = self.client if direction == "down" else self.server
        self.passed[direction] += len(data)
        writer.write(data)
        await writer.drain()

    def close(self):
        """End both sides in order."""
        for writer in filter(None, (self.client, self.server)):
            writer.close()

    def reset(self):
        """Reset the client's side and end the server's."""
        set_reset_at_close(self.client)
        self.client.transport.abort()
        self.server.close()

    def abort(self):
        """Drop both sides at once."""
        for writer in filter(None, (self.client, self.server)):
            writer.transport.abort()


class ToxicProxy:
    """Listens on a free port of this machine and passes connections on to `port`, spoiled by whatever is in `toxics`.

    A connection has the toxics that were there when it was made. `down()` refuses connections and `up()` takes them again;
    `vanish()` lets the peers of all connections be gone without a word. Leaving the block closes everything.

    Args:
        port: Where connections go.
        toxics: What spoils them.
        garbage: Answered to the first bytes of every connection in place of the server.
        certificate: An SSL context; connections are taken over TLS.
    """

    def __init__(self, port, *toxics, garbage=None, certificate=None):
        self.target, self.toxics = port, list(toxics)
        self.garbage, self.certificate = garbage, certificate
        self.links, self.tasks = set(), set()
        self.connections = 0
        self.port, self.listener = 0, None

    @property
    def base_url(self):
        """The address that clients take as their base."""
        return f"{'https' if self.certificate or self.garbage else 'http'}://127.0.0.1:{self.port}/v1"

    @contextlib.contextmanager
    def spoiled(self, *toxics):
        """Spoil connections within the block; those of before and those of the block are dropped."""
        self.drop()
        self.toxics = list(toxics)
        try:
            yield self
        finally:
            self.toxics = []
            self.drop()

    def vanish(self):
        """Pass nothing more over the connections there are, without ending them."""
        for link in self.links:
            link.vanished = True

    def drop(self):
        """Drop every connection."""
        for link in self.links:
            link.abort()

    async def up(self):
        """Take connections."""
        self.listener = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self.certificate, backlog=512
        )
        self.port = self.listener.sockets[0].getsockname()[1]

    def down(self):
        """Refuse connections, and drop those there are."""
        self.listener.close()
        self.drop()

    async def __aenter__(self):
        await self.up()
        return self

    async def __aexit__(self, *_):
        self.down()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        task, link = asyncio.current_task(), Link(writer)
        self.tasks.add(task)
        self.links.add(link)
        self.connections += 1
        try:
            await self._connect(reader, link)
        except (OSError, asyncio.CancelledError):  # the streams of asyncio complain about a handler that is cancelled
            link.abort()
        finally:
            link.close()
            self.links.discard(link)
            self.tasks.discard(task)

    async def _connect(self, reader, link):
        if self.garbage is not None:
            await reader.read(BLOCK)
            link.client.write(self.garbage)
            await link.client.drain()
            return
        server_reader, link.server = await asyncio.open_connection("127.0.0.1", self.target)
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(self._pump(reader, link, "up"))
            pumps.create_task(self._pump(server_reader, link, "down"))

    async def _pump(self, reader, link, direction):
        toxics = [toxic for toxic in self.toxics if toxic.direction == direction]
        with contextlib.suppress(OSError, Gone):
            while data := await reader.read(BLOCK):
                for toxic in toxics:
                    data = await toxic.apply(link, data)
                if link.vanished:
                    break
                await link.write(direction, data)
        if link.vanished:
            await asyncio.Event().wait()
        for toxic in toxics:
            if isinstance(toxic, SlowClose):
                await asyncio.sleep(toxic.seconds)
        link.close()


@contextlib.contextmanager
def full_backlog():
    """Give a port whose queue of connections is full, so that the first packet of another one is dropped."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            one = sockets.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def set_reset_at_close(writer):
    """Have the peer see a reset instead of an end when the connection is closed."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def self_signed():
    """Return an SSL context of a server with a certificate that nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context
