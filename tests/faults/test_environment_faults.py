"""Faults of the process around the client that no other test holds."""

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from resilient_ai import AsyncClient, CircuitOpen, Client, ResilientAIError, ServerFailed
from resilient_ai.core.events import RetryScheduled
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import Batching, CircuitBreaker, ConcurrencyLimit, CostAccounting, Deadline, Retry, Timeout
from resilient_ai.simulator import Fault
from resilient_ai.testing import FakeClock, ScriptedProvider, chat_result, run

from ..e2e.toxic_proxy import ToxicProxy  # noqa: TID252 - the tests have no package above them
from .servers import RawServer, http

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
CHAT = Chat(model="m", messages="hi")


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0 * 365, -1e9])
def test_a_wall_clock_that_jumps(jump):
    """Waits, timers, deadlines and breaks follow a clock that never jumps."""

    async def broken(call):
        call.clock.offset += jump
        raise ServerFailed("'m' answered 500", status=500)

    async def main():
        clock = FakeClock()
        stack = [Deadline(total=10.0), Retry(), CircuitBreaker(consecutive_failures=3), Timeout(attempt=5.0)]
        pipeline = Pipeline(ScriptedProvider(broken, broken, broken), stack, clock=clock)
        started = clock.monotonic()
        with pytest.raises(ServerFailed):
            await pipeline.send(CHAT)
        with pytest.raises(CircuitOpen) as refused:
            await pipeline.send(CHAT)
        took = clock.monotonic() - started
        await asyncio.sleep(refused.value.retry_after)
        return took, refused.value.retry_after, await pipeline.send(CHAT)

    took, retry_after, answer = run(main())

    assert took < 10
    assert 0 < retry_after < 10
    assert answer.text == "Hello."


@pytest.mark.anyio
async def test_a_fork_leaves_the_parents_connection_alone(sim, settings):
    """A child makes a connection of its own; the parent goes on with the one it has."""
    port = int(sim.url.rsplit(":", 1)[1])
    async with ToxicProxy(port) as proxy:
        with Client(api_key="k", base_url=proxy.base_url, settings=settings) as ai:
            await asyncio.to_thread(ai.chat, MODEL, "hi")
            before = proxy.connections
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                try:
                    os._exit(0 if ai.chat(MODEL, "hi from the child").text else 1)
                finally:
                    os._exit(2)
            code = os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1])
            with_child = proxy.connections
            answer = await asyncio.to_thread(ai.chat, MODEL, "hi again")
            await asyncio.to_thread(ai.close)

    assert code == 0
    assert (before, with_child, proxy.connections) == (1, 2, 2)
    assert answer.attempts == 1


def test_a_loop_that_ends_with_a_request_open(sim, settings):
    """A loop that is left with a request under way does no harm to the next one on the same client."""
    ai = AsyncClient(api_key="k", base_url=sim.base_url, settings=settings)
    sim.faults.script(MODEL, Fault.delay(5))
    tasks = []

    async def left():
        tasks.append(asyncio.create_task(ai.chat(MODEL, "hi")))
        await asyncio.sleep(0.1)

    async def stream_left():
        stream = await ai.send(Stream(model=MODEL, messages="hi"))
        tasks.append(stream)
        await anext(stream)

    async def last():
        answers = await asyncio.gather(*(ai.chat(MODEL, f"Say {number}.") for number in range(5)))
        await ai.ledger.flush()
        await ai.aclose()
        return answers

    asyncio.run(left())
    asyncio.run(stream_left())
    answers = asyncio.run(last())

    assert [answer.attempts for answer in answers] == [1] * 5
    assert tasks[0].cancelled()


def test_threads_that_stream_from_one_client(sim, settings):
    """Sixty-four threads read streams of one blocking client at the same time, each its own whole answer."""
    start = threading.Barrier(64)

    def read(number):
        start.wait()
        with ai.stream(MODEL, f"Say {number}.") as stream:
            return "".join(getattr(event, "text", "") for event in stream), stream.result().text

    with Client(api_key="k", base_url=sim.base_url, settings=settings) as ai, ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(read, range(64)))
        limits = ai.health().limits

    assert all(pieces == whole != "" for pieces, whole in answers)
    assert {limit.in_use for limit in limits} == {0}


@pytest.mark.parametrize("fault", [ValueError, MemoryError, RecursionError, KeyError])
def test_hooks_of_the_user_that_raise(fault):
    """Listeners, on_retry, on_settled and progress may raise what they like: the call is answered as it would be."""
    called = []

    def hook(name):
        def raise_it(*_args):
            called.append(name)
            raise fault

        return raise_it

    async def main():
        stack = [
            Batching(size=1),
            Retry(attempts=2, on_retry=hook("on_retry")),
            CircuitBreaker(),
            CostAccounting(on_settled=hook("on_settled")),
        ]
        provider = ScriptedProvider(ServerFailed("'m' answered 500", status=500), chat_result())
        async with AsyncClient(provider=provider, stack=stack, clock=FakeClock()) as ai:
            ai.subscribe(hook("listener"))
            answer = await ai.chat("m", "hi")
            vectors = await ai.embed("m", ["a", "b"], progress=hook("progress"))
            async with ai.stream("m", "hi") as stream:
                stream.on_end(hook("on_end"))
                streamed = await stream.result()
        return answer, vectors, streamed

    answer, vectors, streamed = run(main())

    assert (answer.text, answer.attempts, len(vectors.vectors), streamed.text) == ("Hello.", 2, 2, "Hello.")
    assert set(called) == {"on_retry", "on_settled", "listener", "progress", "on_end"}


def test_ten_thousand_calls_at_once():
    """All of them are answered, in their turn, and nothing is left in use."""

    async def main():
        stack = [Deadline(), Retry(), CircuitBreaker(), ConcurrencyLimit(limit=200), CostAccounting(), Timeout()]
        async with Pipeline(ScriptedProvider(), stack, clock=FakeClock()) as pipeline:
            answers = await asyncio.gather(*(pipeline.send(CHAT) for _ in range(10_000)), return_exceptions=True)
            return answers, pipeline.health()

    answers, health = run(main())

    assert {type(one).__name__ for one in answers} == {"ChatResult"}
    assert {(limit.in_use, limit.waiting) for limit in health.limits} == {(0, 0)}


@pytest.mark.anyio
async def test_a_caller_who_leaves_in_a_wait_between_tries(settings):
    """A call that is cancelled while it waits for its next try ends at once, and its row is closed."""
    waits = asyncio.Event()

    def noted(event):
        if isinstance(event, RetryScheduled):
            waits.set()

    answer = http(b"", "503 Service Unavailable", "retry-after: 20")
    async with RawServer(answer) as server, AsyncClient(api_key="k", base_url=server.url, settings=settings) as ai:
        ai.subscribe(noted)
        task = asyncio.create_task(ai.chat("m", "hi"))
        await asyncio.wait_for(waits.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 2)
        await ai.ledger.flush()
        states = [row.key for row in await ai.ledger.by("state")]

    assert ("sent",) not in states
    assert len(server.requests) == 1


@pytest.mark.anyio
async def test_an_embedding_in_many_requests_of_which_one_hangs(sim, settings):
    """One batch that hangs ends with the deadline of the call, and the others do not go on in the background."""
    embedder = "BAAI/bge-m3"
    sim.faults.script(embedder, Fault.delay(5))
    async with AsyncClient(api_key="k", base_url=sim.base_url, settings=settings) as ai:
        view = ai.with_options(timeout=0.5)
        with pytest.raises(ResilientAIError) as caught:
            await view.send(Embed(model=embedder, texts=[f"text {number}" for number in range(300)]))
        await asyncio.sleep(0.05)
        in_use = {limit.in_use for limit in ai.health().limits}

    assert caught.value.sent
    assert in_use == {0}
