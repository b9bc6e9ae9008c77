"""Faults whose expected behaviour the library does not show yet."""

import asyncio

import pytest

from resilient_ai import ConnectionFailed

from .servers import RawServer, http, output_of
from .test_network_faults import behind

pytestmark = pytest.mark.anyio


async def test_a_proxy_that_wants_a_password(monkeypatch):
    """A tunnel that is refused with 407 stays refused: it is an error of the proxy and is not asked for again."""
    answer = http(b"", "407 Proxy Authentication Required")
    async with behind(answer, monkeypatch, "https://far.example/v1") as (ai, proxy):
        with pytest.raises(ConnectionFailed) as caught:
            await ai.chat("m", "hi")

    assert (caught.value.phase, caught.value.sent, caught.value.retryable) == ("proxy", False, False)
    assert len(proxy.requests) == 1


LIMITED = """
import asyncio, os, resource, sys
from resilient_ai import AsyncClient
from resilient_ai.middleware import CircuitBreaker
async def main():
    async with AsyncClient(api_key="k", base_url=sys.argv[1], stack=[CircuitBreaker()]) as ai:
        await ai.chat("m", "hi")
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        await asyncio.gather(*(ai.chat("m", "hi") for _ in range(20)), return_exceptions=True)
        for one in held:
            os.close(one)
        print((await ai.chat("m", "hi")).text)
asyncio.run(main())
"""


async def test_file_descriptors_that_run_out_say_nothing_about_the_server():
    """A process without a file left is at fault itself: the circuit of the model stays closed."""

    async def slow(writer):
        await asyncio.sleep(0.05)
        writer.write(http())
        await writer.drain()

    async with RawServer(slow) as server:
        assert await output_of(LIMITED, server.url) == ["Hello."]
