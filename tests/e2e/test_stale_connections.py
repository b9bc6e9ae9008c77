"""A server that drops its idle connections fails nobody, and threads that share a client do not harm each other."""

import asyncio
import base64
import collections
import contextlib
import io
import json
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from resilient_ai import AsyncClient, ConnectionFailed, Settings
from resilient_ai.deepinfra.aiohttp_transport import AiohttpTransport
from resilient_ai.middleware import CircuitBreaker

from .raw_server import RawServer

pytestmark = pytest.mark.anyio

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
CHAT = json.dumps(
    {
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


def http(body):
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def picture():
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return json.dumps({"images": [f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"]}).encode()


def reset(writer):
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def close(writer):
    writer.close()


class OneAnswerServer(RawServer):
    """Answers the first `good` requests of each connection and drops the connection at the one after them."""

    def __init__(self, body, drop=reset, good=1, last_words=b""):
        super().__init__(http(body))
        self.drop, self.good, self.last_words = drop, good, last_words
        self.connections = 0
        self.arrived = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        self.gate.set()

    async def all_arrived(self, count):
        for _ in range(count):
            await self.arrived.acquire()

    async def handle(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        self.writers.add(writer)
        self.connections += 1
        served = 0
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")), 0)
                if served == self.good:  # at the head already, so that a large body is still being written
                    self.requests.append((head, None))
                    if self.last_words:
                        writer.write(self.last_words)
                        await writer.drain()
                    break
                self.requests.append((head, await reader.readexactly(length)))
                served += 1
                self.arrived.release()
                await self.gate.wait()
                writer.write(self.answer)
                await writer.drain()
        self.drop(writer)
        self.writers.discard(writer)


@contextlib.asynccontextmanager
async def served(tmp_path, body, **options):
    async with (
        OneAnswerServer(body, **options) as server,
        AsyncClient(api_key="k", base_url=server.url, settings=Settings(home=tmp_path, cache="off")) as ai,
    ):
        yield ai, server


def breakers(ai):
    breaker = next(layer for layer in ai._pipeline.stack if isinstance(layer, CircuitBreaker))
    return [(one.state, one.failures) for one in breaker.health()]


async def gathered(ai, server, count):
    """Ask `count` times at once, answered only once all have arrived, so that each has a connection of its own."""
    server.gate.clear()
    calls = [asyncio.create_task(ai.chat("m", "hi")) for _ in range(count)]
    await server.all_arrived(count)
    server.gate.set()
    return await asyncio.gather(*calls)


@pytest.mark.parametrize("drop", [reset, close])
async def test_calls_one_after_another_on_dead_connections(tmp_path, drop):
    """Calls whose kept connection is dead each time succeed with one attempt, and the breaker sees no failure."""
    async with served(tmp_path, CHAT, drop=drop) as (ai, _):
        results = [await ai.chat("m", "hi") for _ in range(20)]
        assert [result.attempts for result in results] == [1] * 20
        assert breakers(ai) == [("closed", 0)]


@pytest.mark.parametrize("drop", [reset, close])
async def test_calls_at_once_on_a_pool_of_dead_connections(tmp_path, drop):
    """Twenty calls at once over a pool of twenty dead connections succeed with one attempt each."""
    async with served(tmp_path, CHAT, drop=drop) as (ai, server):
        await gathered(ai, server, 20)
        assert server.connections == 20
        results = await asyncio.gather(*(ai.chat("m", "hi") for _ in range(20)))
        assert [result.attempts for result in results] == [1] * 20
        assert breakers(ai) == [("closed", 0)]


async def test_one_dead_connection_condemns_its_idle_neighbours(tmp_path):
    """The request is repeated on a new connection, never on another idle one, and only once."""
    async with served(tmp_path, CHAT) as (ai, server):
        await gathered(ai, server, 5)
        await ai.chat("m", "hi")
        assert (len(server.requests), server.connections) == (5 + 2, 5 + 1)


async def test_an_image_has_a_connection_of_its_own(tmp_path):
    """It must not be sent twice, and so never meets a kept connection that is dead; the kept ones are left alone."""
    async with served(tmp_path, picture()) as (ai, server):
        results = [await ai.image("m", "a lighthouse") for _ in range(2)]
        assert [result.attempts for result in results] == [1, 1]
        assert (len(server.requests), server.connections) == (2, 2)


async def test_a_connection_that_has_said_something_unasked_is_not_used_again():
    """What came between two requests is nobody's answer, and least of all that of the next one."""

    async def chatty(writer):
        writer.write(http(CHAT))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(http(CHAT.replace(b"Hello", b"nobody's")))
        await writer.drain()

    async with RawServer(chatty) as server, AsyncClient(api_key="k", base_url=server.url, stack=[]) as ai:
        for _ in range(4):
            assert (await ai.chat("m", "hi")).text == "Hello"
            await asyncio.sleep(0.05)


async def test_a_new_connection_that_dies_is_a_failure():
    """What dies on a new connection is no stale connection: one request, and the error."""
    async with OneAnswerServer(CHAT, good=0) as server:
        async with AsyncClient(api_key="k", base_url=server.url, stack=[]) as ai:
            with pytest.raises(ConnectionFailed):
                await ai.chat("m", "hi")
        assert len(server.requests) == 1


async def test_a_connection_that_dies_in_the_answer_is_a_failure():
    """Once one byte of an answer has come, the request has been received and is not sent again."""
    async with (
        OneAnswerServer(CHAT, drop=close, last_words=b"HTTP/1.1 2") as server,
        AsyncClient(api_key="k", base_url=server.url, stack=[]) as ai,
    ):
        await ai.chat("m", "hi")
        with pytest.raises(ConnectionFailed):
            await ai.chat("m", "hi")
        assert len(server.requests) == 2


@pytest.mark.parametrize("size", [1000, 2 << 20])
async def test_the_whole_body_is_sent_again(size):
    """A repeated request carries its whole body, also one that is written from a file."""
    body = bytes(range(250)) * (size // 250)
    transport = AiohttpTransport()
    async with OneAnswerServer(b"{}") as server:
        for _ in range(2):
            request = httpx.Request("POST", server.url, content=body)
            response = await transport.handle_async_request(request)
            assert await response.aread() == b"{}"
        assert [sent for _, sent in server.requests] == [body, None, body]
        await transport.aclose()


async def test_a_document_on_a_dead_connection():
    """A GET is repeated on a new connection too."""
    transport = AiohttpTransport()
    async with OneAnswerServer(b"{}") as server:
        for _ in range(5):
            response = await transport.handle_async_request(httpx.Request("GET", server.url))
            assert await response.aread() == b"{}"
        assert len(server.requests) == 5 + 4
        await transport.aclose()


async def test_closing_the_pool_repeats_nothing():
    """A request that is cut off by closing its own pool fails and is not sent again."""
    transport = AiohttpTransport()
    async with OneAnswerServer(b"{}", drop=close, good=5) as server:
        response = await transport.handle_async_request(httpx.Request("POST", server.url, content=b"a"))
        await response.aread()
        server.gate.clear()
        request = httpx.Request("POST", server.url, content=b"b")
        waiting = asyncio.create_task(transport.handle_async_request(request))
        await server.all_arrived(2)
        await transport.aclose()
        with pytest.raises(httpx.ReadError):
            await waiting
        server.gate.set()
        assert (len(server.requests), server.connections) == (2, 1)


def test_threads_that_share_a_client(server, tmp_path):
    """One client under many event loops that come and go in sixteen threads answers every call."""
    server.reset()
    ai = AsyncClient(api_key="k", base_url=server.base_url, settings=Settings(home=tmp_path, cache="off"))
    outcomes = collections.Counter()
    start = threading.Barrier(16)

    async def three():
        return await asyncio.gather(*(ai.chat(MODEL, "hi") for _ in range(3)), return_exceptions=True)

    def work():
        start.wait()
        for _ in range(4):
            outcomes.update(type(one).__name__ for one in asyncio.run(three()))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"ChatResult": 16 * 4 * 3}


class _SlowToTell(asyncio.SelectorEventLoop):
    """An event loop during whose `is_closed`, asked from another thread, that other thread is suspended."""

    def __init__(self):
        super().__init__()
        self.owner = threading.get_ident()
        self.asked, self.go_on = threading.Event(), threading.Event()

    def is_closed(self):
        if threading.get_ident() != self.owner:
            self.asked.set()
            self.go_on.wait(0.2)
        return super().is_closed()


def test_a_pool_added_while_another_is_added(server):
    """Two threads that make their pools at the same time both keep theirs."""
    server.reset()
    transport = AiohttpTransport()
    url = f"{server.base_url}/openai/models"
    slow = _SlowToTell()

    async def ask_and_keep():
        response = await transport.handle_async_request(httpx.Request("GET", url))
        await response.aread()
        return response.status_code

    async def ask():
        statuses = [await ask_and_keep() for _ in range(3)]
        await transport.aclose()
        return statuses

    slow.run_until_complete(ask_and_keep())
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lambda: asyncio.run(ask()))
        assert slow.asked.wait(10)
        second = threads.submit(lambda: asyncio.run(ask()))
        answers = [first.result(30), second.result(30)]
    slow.run_until_complete(transport.aclose())
    slow.close()
    assert answers == [[200] * 3] * 2
