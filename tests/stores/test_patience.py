"""A timeout that measures silence."""

import asyncio
import time

import pytest

from resilient_ai.stores._patience import Patience

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    from resilient_ai.testing import VirtualLoop

    return "asyncio", {"loop_factory": VirtualLoop}


class Voice:
    """Somebody who may be heard."""

    def __init__(self):
        self.last = float("-inf")

    def __call__(self):
        return self.last

    async def speak(self, *, every):
        while True:
            await asyncio.sleep(every)
            self.last = asyncio.get_running_loop().time()


async def waits(seconds, voice):
    """Return for how long silence is borne, in seconds."""
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with Patience(seconds, voice):
            await asyncio.sleep(1_000)
    return asyncio.get_running_loop().time() - began


async def test_silence_ends_it():
    """After its seconds, and what was heard before it began does not count."""
    voice = Voice()
    voice.last = asyncio.get_running_loop().time() - 1.0
    assert await waits(2.0, voice) == pytest.approx(2.0)


async def test_every_sign_of_life_prolongs_it_up_to_ten_times():
    """As long as it goes on; after the last one it is borne once more."""
    voice = Voice()
    speaking = asyncio.create_task(voice.speak(every=1.0))
    asyncio.get_running_loop().call_later(7.5, speaking.cancel)
    assert await waits(2.0, voice) == pytest.approx(9.0)
    speaking = asyncio.create_task(voice.speak(every=1.0))
    assert await waits(2.0, voice) == pytest.approx(20.0)
    speaking.cancel()


async def test_what_ends_in_time_is_left_alone():
    """Also when it ends with an error, and when it is cancelled from outside."""
    async with Patience(2.0, Voice()):
        await asyncio.sleep(1.0)
    with pytest.raises(KeyError):
        async with Patience(2.0, Voice()):
            raise KeyError
    task = asyncio.create_task(waits(2.0, Voice()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(10.0)


def test_an_answer_that_lay_there_while_the_loop_was_busy_counts():
    """Though the loop finds both it and the end of the patience."""

    async def main():
        arrived = asyncio.Event()

        async def serve(reader, writer):
            writer.write(await reader.read(1))
            arrived.set()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with Patience(0.05, Voice()):
            writer.write(b"!")
            await arrived.wait()
            time.sleep(0.1)  # noqa: ASYNC251 - a loop that does something else
            answer = await reader.read(1)
        writer.close()
        await writer.wait_closed()
        server.close()
        return answer

    assert asyncio.run(main()) == b"!"
