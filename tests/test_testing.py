"""What tests are written with."""

import asyncio
import socket
import time

import pytest

from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import InvalidResponse, ServerFailed
from resilient_ai.core.media import media_type_of
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.testing import (
    PIXEL,
    FakeClock,
    ManualClock,
    ScriptedProvider,
    ScriptedSource,
    VirtualLoop,
    chat_result,
    run,
    stream_of,
    vector_of,
)

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")


def test_virtual_time_passes_at_once():
    """A year of sleep takes no time, and the loop's clock shows it."""

    async def sleep():
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(365 * 86_400)
        return loop.time() - before

    started = time.monotonic()
    assert run(sleep()) == pytest.approx(365 * 86_400)
    assert time.monotonic() - started < 5


async def test_timers_fire_in_their_order():
    """Whatever the order of their start, sleepers wake in the order of their times, each at its own."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    woken, started = [], loop.time()

    async def sleeper(seconds):
        await asyncio.sleep(seconds)
        woken.append((seconds, round(loop.time() - started, 6)))

    await asyncio.gather(*(sleeper(seconds) for seconds in (3.0, 0.25, 3600.0, 0.0, 1.5)))
    assert woken == [(seconds, seconds) for seconds in (0.0, 0.25, 1.5, 3.0, 3600.0)]


async def test_what_is_ready_comes_before_time():
    """A socket with something to read is read before virtual time jumps."""
    near, far = socket.socketpair()
    with near, far:
        far.send(b"hi")
        loop = asyncio.get_running_loop()
        started, readable = loop.time(), asyncio.Event()
        loop.add_reader(near, readable.set)
        async with asyncio.timeout(5):
            await readable.wait()
        loop.remove_reader(near)
        assert loop.time() == started


async def test_the_fake_clock_remembers_and_knows_chance():
    """Waits are written down, chances come in turn, and the wall clock moves with the loop."""
    clock = FakeClock([0.25, 0.5])
    before = clock.wall()
    await clock.sleep(30)
    with pytest.raises(TimeoutError):
        async with clock.timeout(5):
            await asyncio.sleep(10)
    async with clock.timeout(None):
        pass
    assert clock.slept == [30]
    assert clock.wall() - before == pytest.approx(35)
    assert [clock.random() for _ in range(3)] == [0.25, 0.5, 0.5]
    assert 0 < 1 - FakeClock().random() < 1e-9
    assert repr(clock) == "FakeClock()"


def test_the_manual_clock_says_what_it_is_told():
    """Outside of any loop, `now` is the time."""
    clock = ManualClock([0.5])
    clock.now += 30
    assert (clock.monotonic(), clock.wall() - clock.offset, clock.random()) == (1030.0, 1030.0, 0.5)


async def test_a_script_is_followed_step_by_step(clock):
    """Errors are raised, numbers waited for, functions asked, anything else returned; after that come sensible answers."""

    async def answering(call):
        return chat_result(f"for {call.model}")

    provider = ScriptedProvider(ServerFailed("boom", status=500), 5.0, chat_result("late"), answering)
    pipe = Pipeline(provider, clock=clock)
    with pytest.raises(ServerFailed):
        await pipe.send(CHAT)
    started = clock.monotonic()
    assert (await pipe.send(CHAT)).text == "late"
    assert clock.monotonic() - started == 5
    assert ((await pipe.send(CHAT)).text, (await pipe.send(CHAT)).text) == ("for m", "Hello.")
    assert len(provider.calls) == 4
    await pipe.aclose()
    assert provider.closed


async def test_every_operation_has_a_sensible_answer(clock):
    """Without a script, each operation gets a result of its type."""
    pipe = Pipeline(ScriptedProvider(), clock=clock)
    assert (await pipe.send(Complete(model="m", prompt="x"))).text == "Hello."
    assert list((await pipe.send(Embed(model="m", texts=["a", "b"]))).vectors) == [vector_of("a"), vector_of("b")]
    images = (await pipe.send(Image(model="m", prompt="x", n=2))).images
    assert [(image.data, image.media_type) for image in images] == [(PIXEL, media_type_of(PIXEL))] * 2
    stream = await pipe.send(Stream(model="m", messages="hi"))
    assert (await stream.result()).text == "Hello."


async def test_a_source_follows_its_script():
    """Events are delivered, numbers waited for, errors raised; a script without an end is a cut connection."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    source = ScriptedSource([[TextDelta("a")], 3, [Finished(("stop",))], LookupError()])
    assert await source.read() == [TextDelta("a")]
    assert await source.read() == [Finished(("stop",))]
    assert loop.time() - started == 3
    with pytest.raises(LookupError):
        await source.read()
    assert await source.read() is None
    with pytest.raises(InvalidResponse):
        source.conclude()
    source.abort()
    source.abort()
    assert source.aborted == 2


async def test_a_stream_may_pause():
    """Each text but the first comes after the pause."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    answer = await stream_of("a", "b", "c", pause=2.0).result()
    assert (answer.text, answer.usage.output_tokens, loop.time() - started) == ("abc", 3, 4.0)


def test_vectors_belong_to_texts():
    """The same text has the same vector, another text another, of any length."""
    texts = ["", "a", "b", "ab", "ba", "abcdefg", "abcdefgh"]
    assert len({tuple(vector_of(text)) for text in texts}) == len(texts)
    assert len(vector_of("a", 64)) == 64


def test_threads_of_a_loop_whose_time_jumps_are_waited_for():
    """The end of the loop waits for them in real time, on every version of Python."""
    done = []

    async def main():
        asyncio.get_running_loop().run_in_executor(None, lambda: (time.sleep(0.05), done.append(1)))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert done == [1]
