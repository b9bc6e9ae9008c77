"""Faults of the network that no other test holds."""

import asyncio
import contextlib
import socket
import time

import pytest

from resilient_ai import AsyncClient, AttemptTimeout, ConnectionFailed, StatusError, StreamInterrupted
from resilient_ai.deepinfra.aiohttp_transport import AiohttpTransport
from resilient_ai.middleware import Timeout

from ..e2e.toxic_proxy import full_backlog  # noqa: TID252 - the tests have no package above them
from .servers import EVENT, QUICK, STREAM_HEAD, RawServer, chunk, client_of, http, output_of

pytestmark = pytest.mark.anyio


async def test_a_resolver_that_is_slow(monkeypatch):
    """Names are looked up beside the loop, and the time of a connection covers it."""

    def slow(*_args, **_options):
        time.sleep(0.8)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    transport = AiohttpTransport(connect_timeout=0.3)
    async with AsyncClient(api_key="k", base_url="https://slow.example/v1", http=transport, stack=[]) as ai:
        with pytest.raises(AttemptTimeout) as caught:
            await ai.chat("m", "hi")
    ticking.cancel()
    await transport.aclose()

    assert (caught.value.timer, caught.value.sent) == ("connect", False)
    assert ticks > 10


async def test_a_first_address_that_swallows_packets(monkeypatch):
    """Where a name has a dead address and a good one, the good one is tried beside it within a quarter of a second."""
    async with RawServer(http()) as server:
        good = int(server.url.split(":")[2].split("/")[0])
        with full_backlog() as dead:
            found = [
                (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
                for port in (dead, good)
            ]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)
            started = time.monotonic()
            async with AsyncClient(api_key="k", base_url="http://localhost:1/v1", stack=[]) as ai:
                answer = await ai.chat("m", "hi")

    assert answer.text == "Hello."
    assert time.monotonic() - started < 2


async def test_headers_one_byte_at_a_time():
    """A head that trickles ends with the timer of the attempt, for a stream with that of the first token."""

    async def trickle(writer):
        for byte in b"HTTP/1.1 200 OK\r\n" + b"x-header: x\r\n" * 50:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async with client_of(trickle, Timeout(attempt=0.2)) as (ai, _):
        with pytest.raises(AttemptTimeout) as whole:
            await ai.chat("m", "hi")
    async with client_of(trickle, Timeout(first_token=0.2)) as (ai, _):
        with pytest.raises(AttemptTimeout) as streamed:
            async with ai.stream("m", "hi"):
                pass

    assert (whole.value.timer, streamed.value.timer) == ("attempt", "first_token")
    assert (whole.value.sent, streamed.value.sent) == (True, True)


async def test_a_stream_one_byte_at_a_time():
    """Bytes that never make an event are no content: the idle timer fires."""

    async def trickle(writer):
        writer.write(STREAM_HEAD + chunk(EVENT % b"Hel"))
        for byte in b": " + b"ping " * 50:
            writer.write(chunk(bytes([byte])))
            await writer.drain()
            await asyncio.sleep(0.02)

    async with client_of(trickle, Timeout(idle=0.2)) as (ai, _), ai.stream("m", "hi") as stream:
        with pytest.raises(StreamInterrupted) as caught:
            await stream.result()

    assert caught.value.__cause__.timer == "idle"
    assert caught.value.partial.text == "Hel"


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    """A proxy that happens to be set in the environment sees nothing, unless the user asks for it."""
    async with RawServer(http(b"{}", "502 Bad Gateway")) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        async with client_of(http()) as (ai, _):
            assert (await ai.chat("m", "hi")).text == "Hello."

        assert proxy.requests == []


@contextlib.asynccontextmanager
async def behind(proxy_answer, monkeypatch, target):
    """Give a client that reaches `target` through a proxy which answers like this."""
    async with RawServer(proxy_answer) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        transport = AiohttpTransport(trust_env=True)
        async with AsyncClient(api_key="k", base_url=target, http=transport, stack=[QUICK]) as ai:
            yield ai, proxy
        await transport.aclose()


async def test_a_proxy_that_cannot_connect(monkeypatch):
    """A tunnel that fails with 502 is an error of the proxy, nothing was sent, and it is tried again."""
    answer = http(b"", "502 Bad Gateway")
    async with behind(answer, monkeypatch, "https://far.example/v1") as (ai, proxy):
        with pytest.raises(ConnectionFailed) as caught:
            await ai.chat("m", "hi")

    assert (caught.value.phase, caught.value.sent, caught.value.retryable) == ("proxy", False, True)
    assert len(proxy.requests) == 3
    assert all(head.startswith(b"CONNECT far.example:443") for head, _ in proxy.requests)
    assert not any(b"authorization" in head.lower() for head, _ in proxy.requests)


async def test_a_proxy_that_is_down(monkeypatch):
    """A proxy that refuses is an error of the proxy."""
    async with RawServer(b"") as gone:
        url = gone.url.removesuffix("/v1")
    monkeypatch.setenv("HTTPS_PROXY", url)
    transport = AiohttpTransport(trust_env=True)
    async with AsyncClient(api_key="k", base_url="https://far.example/v1", http=transport, stack=[]) as ai:
        with pytest.raises(ConnectionFailed) as caught:
            await ai.chat("m", "hi")
    await transport.aclose()

    assert (caught.value.phase, caught.value.sent) == ("proxy", False)


async def test_a_plain_proxy_that_wants_a_password(monkeypatch):
    """Its 407 is the answer, and is not asked for again."""
    answer = http(b"", "407 Proxy Authentication Required")
    async with behind(answer, monkeypatch, "http://localhost:9/v1") as (ai, proxy):
        with pytest.raises(StatusError) as caught:
            await ai.chat("m", "hi")

    assert (caught.value.status, caught.value.retryable) == (407, False)
    assert len(proxy.requests) == 1


async def test_interim_answers_without_end():
    """A server that says 100 for ever is hung up on after a hundred times."""

    async def interim(writer):
        for _ in range(1000):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 10)
            await writer.drain()
            await asyncio.sleep(0.005)

    async with client_of(interim) as (ai, _):
        with pytest.raises(ConnectionFailed) as caught:
            await ai.chat("m", "hi")

    assert (caught.value.phase, caught.value.sent) == ("receive", True)


async def test_interim_answers_before_the_answer():
    """A few of them, hints included, change nothing."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    async with client_of(early + http()) as (ai, _):
        assert (await ai.chat("m", "hi")).text == "Hello."


class Hasty(RawServer):
    """Answers when the head has come, without reading the body."""

    async def handle(self, reader, writer):
        self.writers.add(writer)
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.requests.append((await reader.readuntil(b"\r\n\r\n"), b""))
            writer.write(self.answer)
            await writer.drain()
            while await reader.read(65536):  # what comes is thrown away, as a polite server does
                pass
        writer.close()
        self.writers.discard(writer)


async def test_an_answer_before_the_request_is_whole():
    """A refusal that comes while a large request is being written is that refusal, not a broken connection."""
    answer = http(b'{"error": {"message": "too large"}}', "413 Payload Too Large", "connection: close")
    async with Hasty(answer) as server, AsyncClient(api_key="k", base_url=server.url, stack=[QUICK]) as ai:
        with pytest.raises(StatusError) as caught:
            await ai.chat("m", "tides " * 1_000_000)

    assert (caught.value.status, len(server.requests)) == (413, 1)


LIMITED = """
import asyncio, os, resource, sys, time
from resilient_ai import AsyncClient
from resilient_ai.middleware import CircuitBreaker, Retry
async def main():
    stack = [Retry(wait_initial=0.01, wait_max=0.02), CircuitBreaker()]
    async with AsyncClient(api_key="k", base_url=sys.argv[1], stack=stack) as ai:
        await ai.chat("m", "hi")
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        started, used = time.monotonic(), time.process_time()
        outcomes = await asyncio.gather(*(ai.chat("m", "hi") for _ in range(20)), return_exceptions=True)
        took, used = time.monotonic() - started, time.process_time() - used
        for one in held:
            os.close(one)
        print({type(one).__name__ for one in outcomes} - {"ChatResult"})  # the connection that was kept may answer
        print({one.sent for one in outcomes if isinstance(one, Exception)}, took < 10, used < 5)
        print((await ai.chat("m", "hi")).text)
asyncio.run(main())
"""


async def test_file_descriptors_run_out():
    """Without a file left calls fail with nothing sent, in bounded time and work, and no circuit opens: it is no fault there."""

    async def slow(writer):
        await asyncio.sleep(0.05)
        writer.write(http())
        await writer.drain()

    async with RawServer(slow) as server:
        lines = await output_of(LIMITED, server.url)

    assert lines == ["{'ConnectionFailed'}", "{False} True True", "Hello."]


async def test_a_proxy_that_wants_a_password(monkeypatch):
    """A tunnel that is refused with 407 stays refused: it is an error of the proxy and is not asked for again."""
    answer = http(b"", "407 Proxy Authentication Required")
    async with behind(answer, monkeypatch, "https://far.example/v1") as (ai, proxy):
        with pytest.raises(ConnectionFailed) as caught:
            await ai.chat("m", "hi")

    assert (caught.value.phase, caught.value.sent, caught.value.retryable) == ("proxy", False, False)
    assert len(proxy.requests) == 1
