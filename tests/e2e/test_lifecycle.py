"""Cancelling, event loops, threads and forks leave nothing behind."""

import asyncio
import contextlib
import contextvars
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from resilient_ai import AsyncClient, Client, RateLimited, Settings, StreamMisused
from resilient_ai.simulator import Fault, serve

from .raw_server import RawServer

CHAT = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
EMBEDDER = "BAAI/bge-m3"


BODY = b'{"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}'


async def soon(writer):
    """Answer after up to ten milliseconds, so that cancels hit every phase of a request."""
    await asyncio.sleep(random.random() * 0.01)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY)


@pytest.mark.anyio
async def test_ten_thousand_cancels_leave_every_permit_and_connection(tmp_path):
    """After 10,000 requests were cancelled at random moments, 100 of 100 are answered and nothing is held."""
    settings = Settings(home=tmp_path, concurrency=50)
    async with RawServer(soon) as server, AsyncClient(api_key="k", base_url=server.url, settings=settings) as ai:
        await ai.chat("m", "hi")
        tasks_before = len(asyncio.all_tasks())

        async def cancelled():
            task = asyncio.ensure_future(ai.chat("m", "hi"))
            await asyncio.sleep(random.random() * 0.012)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        for _ in range(50):
            await asyncio.gather(*(cancelled() for _ in range(200)))
        answers = await asyncio.gather(*(ai.chat("m", "hi") for _ in range(100)))
        await asyncio.sleep(0.05)
        await ai.ledger.flush()
        open_rows = [row for row in await ai.ledger.by("state") if row.key == ("sent",)]

        assert [answer.text for answer in answers] == ["Hello."] * 100
        assert open_rows == []
        assert len(asyncio.all_tasks()) - tasks_before < 60  # the server's own task per connection


@pytest.mark.anyio
async def test_streams_left_in_every_way_free_their_permits(sim, tmp_path):
    """With two permits, streams that are broken off, abandoned or cancelled never block the next."""
    settings = Settings(home=tmp_path, concurrency=2)
    async with AsyncClient(api_key="k", base_url=sim.base_url, settings=settings) as ai:
        for number in range(12):
            if number % 3 == 0:
                async with ai.stream(CHAT, "Name three tides.") as stream:
                    await anext(stream)
            elif number % 3 == 1:
                task = asyncio.ensure_future(ai.stream(CHAT, "Name three tides.").__aenter__())
                await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                del task
                gc.collect()
            else:
                with pytest.raises(StreamMisused):
                    async with ai.stream(CHAT, "Name three tides.") as stream:
                        await stream.aclose()
                        await stream.result()

        assert (await ai.chat(CHAT, "hi")).text


def test_two_event_loops_in_a_row(sim, settings):
    """One client serves one `asyncio.run` after another."""
    ai = AsyncClient(api_key="k", base_url=sim.base_url, settings=settings)

    async def once():
        return (await ai.chat(CHAT, "hi")).text

    async def last():
        text = await once()
        await ai.aclose()
        return text

    assert asyncio.run(once()) == asyncio.run(last())


def test_a_user_s_own_httpx_client_carries_the_requests(sim, settings):
    """An `httpx.AsyncClient` of the user's is used, and left open."""

    async def main():
        async with httpx.AsyncClient() as http:
            async with AsyncClient(api_key="k", base_url=sim.base_url, http=http, settings=settings) as ai:
                async with ai.stream(CHAT, "hi") as stream:
                    streamed = await stream.result()
                whole = await ai.chat(CHAT, "hi")
            return streamed.text, whole.text, http.is_closed

    streamed, whole, closed = asyncio.run(main())

    assert streamed == whole
    assert not closed


def test_sixty_four_threads(sim, settings):
    """A blocking client answers 64 threads at once."""
    with Client(api_key="k", base_url=sim.base_url, settings=settings) as ai, ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda number: ai.chat(CHAT, f"Say {number}.").text, range(128)))

    assert all(answers)
    assert sim.stats().requests == 128


def test_blocking_inside_of_a_running_loop(sim, settings):
    """The blocking client works where an event loop is already running."""

    async def main():
        with Client(api_key="k", base_url=sim.base_url, settings=settings) as ai, ai.stream(CHAT, "hi") as stream:
            events = list(stream)
            return events, stream.result()

    events, answer = asyncio.run(main())

    assert events
    assert answer.text


def test_a_forked_child_uses_the_client(sim, settings):
    """A child gets connections and a background loop of its own."""
    with Client(api_key="k", base_url=sim.base_url, settings=settings) as ai:
        parent = ai.chat(CHAT, "hi").text
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            try:
                os.write(write, ai.chat(CHAT, "hi").text.encode())
            finally:
                os._exit(0)
        os.close(write)
        child = os.read(read, 10_000).decode()
        os.waitpid(pid, 0)
        os.close(read)

        assert child == parent == ai.chat(CHAT, "hi").text


def test_ctrl_c_cancels_the_call(sim, settings):
    """An interrupt while waiting is raised at once, and the client stays usable."""
    sim.faults.script(CHAT, Fault.delay(30))
    with Client(api_key="k", base_url=sim.base_url, settings=settings) as ai:
        timer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ai.chat(CHAT, "hi")
        timer.join()

        assert ai.chat(CHAT, "hi").text


def test_context_variables_reach_the_call(sim, settings):
    """What the calling thread has set, such as a trace, is seen by the middleware in the background."""
    seen = []
    variable = contextvars.ContextVar("variable")

    async def look(call, proceed):
        seen.append(variable.get())
        return await proceed(call)

    variable.set("of the caller")
    with Client(api_key="k", base_url=sim.base_url, stack=[look], settings=settings) as ai:
        ai.chat(CHAT, "hi")

    assert seen == ["of the caller"]


@pytest.mark.anyio
async def test_a_burst_beyond_the_provider_s_limit_is_queued(tmp_path):
    """Sixty calls against a limit of ten all succeed, and the server never sees more than ten at once."""
    with serve(limit=10) as sim:
        settings = Settings(home=tmp_path, concurrency=10)
        async with AsyncClient(api_key="k", base_url=sim.base_url, settings=settings) as ai:
            answers = await asyncio.gather(*(ai.chat(CHAT, f"Say {number}.") for number in range(60)))
            stats = sim.stats()

    assert all(answer.text for answer in answers)
    assert stats.peak_in_flight <= 10
    assert stats.requests == 60


@pytest.mark.anyio
async def test_the_provider_s_limit_is_an_error_of_its_own(tmp_path):
    """Without a limit of ours the provider refuses, and the error is RateLimited."""
    with serve(limit=1) as sim:
        sim.faults.script(CHAT, Fault.delay(0.5))
        async with AsyncClient(api_key="k", base_url=sim.base_url, stack=[]) as ai:
            slow = asyncio.ensure_future(ai.chat(CHAT, "hi"))
            await asyncio.sleep(0.2)
            with pytest.raises(RateLimited):
                await ai.chat(CHAT, "hi")
            await slow


PROGRAMS = {
    "a client that nobody closes": """
ai = Client(api_key="k", base_url=URL)
print(ai.chat(MODEL, "hi").text)
""",
    "a stream that nobody reads to its end": """
ai = Client(api_key="k", base_url=URL)
stream = ai.stream(MODEL, "hi")
print(next(iter(stream)))
""",
    "an asynchronous client whose stream outlives its loop": """
ai = AsyncClient(api_key="k", base_url=URL)
async def main():
    global stream
    stream = await ai.send(Stream(model=MODEL, messages="hi"))
    print(await anext(stream))
asyncio.run(main())
""",
    "a forked child that leaves by sys.exit": """
ai = Client(api_key="k", base_url=URL)
print(ai.chat(MODEL, "hi").text)
pid = os.fork()
if pid == 0:
    ai.chat(MODEL, "hi")
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
""",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_program_ends_although_it_left_things_open(sim, tmp_path, program):
    """Whatever a program forgets to close, it ends by itself."""
    head = "import asyncio, os, sys\nfrom resilient_ai import AsyncClient, Client, Stream\n"
    head += f"URL, MODEL = {sim.base_url!r}, {CHAT!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", head + program],
        env={**os.environ, "RESILIENT_AI_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_forked_child_leaves_the_parents_calls_alone(sim, tmp_path):
    """A child has all permits for itself, and does not close rows, permits and streams of its parent."""
    with Client(api_key="k", base_url=sim.base_url, settings=Settings(home=tmp_path, concurrency=2)) as ai:
        streams = [ai.stream(CHAT, "Name three tides.") for _ in range(2)]
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            streams.clear()
            gc.collect()
            text = ai.chat(CHAT, "hi").text
            ai.ledger.flush()  # what a process has not flushed when it leaves by _exit is lost
            os._exit(0 if text else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answers = [stream.result() for stream in streams]
        ai.ledger.flush()
        total = ai.ledger.total()

    assert code == 0
    assert all(answer.cost.source == "provider" for answer in answers)
    assert total.unknown == 0


EVENTS = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "Hello."}, "finish_reason": null}]}\n\n'
    b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


def hanging(body):
    """Send a part of a chunked body and say no more, until the reader or the server leaves."""

    async def answer(writer):
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"%x\r\n%b\r\n" % (len(body), body))
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    return answer


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "left open"])
@pytest.mark.parametrize("events", [EVENTS, EVENTS[:95]], ids=["whole", "half"])
def test_a_loop_that_ends_leaves_no_connection(settings, events, closes):
    """Neither one whose last bytes are still waited for, nor one whose stream is still read by somebody."""
    kept = []

    async def main(url):
        ai = AsyncClient(api_key="k", base_url=url, settings=settings)
        stream = await ai.stream("m", "hi").__aenter__()
        kept.append(stream)
        if events is EVENTS:
            assert (await stream.result()).text == "Hello."
        if closes:
            await ai.aclose()

    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(RawServer(hanging(events))) as server,
        warnings.catch_warnings(record=True, action="always") as record,
    ):
        asyncio.run(main(server.url))
        kept.clear()
        gc.collect()
    assert [str(one.message) for one in record if issubclass(one.category, ResourceWarning)] == []
