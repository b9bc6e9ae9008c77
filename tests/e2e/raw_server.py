"""A server without a framework, which sends whatever bytes a test wants."""

import asyncio
import contextlib


class RawServer:
    """Answers every request with the same bytes, or as a coroutine function of the writer likes.

    Leaving the block drops every connection and waits for what serves it.
    """

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        self.writers = set()
        self.tasks = set()

    async def handle(self, reader, writer):
        self.writers.add(writer)
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")), 0)
                self.requests.append((head, await reader.readexactly(length)))
                if callable(self.answer):
                    await self.answer(writer)
                    break
                writer.write(self.answer)
                await writer.drain()
        writer.close()
        self.writers.discard(writer)

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.handle, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.gather(*self.tasks)
