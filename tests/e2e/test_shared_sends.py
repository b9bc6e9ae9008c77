"""Twenty callers of the same, over real sockets: what the server counts, and what each caller gets."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from resilient_ai import AsyncClient, CacheControl, Chat, Client, Complete, Embed, Image, Settings, Stream
from resilient_ai.core.streams import StreamResult
from resilient_ai.simulator import Fault

pytestmark = pytest.mark.anyio

CHAT = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
OPERATIONS = [
    Chat(model=CHAT, messages="Name three seas.", temperature=0),
    Stream(model=CHAT, messages="Name three seas.", temperature=0),
    Complete(model=CHAT, prompt="The three seas are", temperature=0),
    Embed(model="BAAI/bge-m3", texts=[f"text {number % 40}" for number in range(60)]),
    Image(model="black-forest-labs/FLUX-1-schnell", prompt="a lighthouse", seed=7, size="256x256"),
]
each = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.kind)


async def whole(result):
    return await result.result() if isinstance(result, StreamResult) else result


def slow(sim, operation):
    """Let the first request take a while, so that everyone comes in time."""
    sim.faults.script(operation.model, Fault.delay(0.3))


def wait_for(condition):
    """Wait for up to ten seconds until something is so."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@each
async def test_twenty_callers_one_request(ai, sim, operation):
    """One request, one bill, twenty equal answers; the sum of their costs is the bill."""
    slow(sim, operation)

    async def ask():
        return await whole(await ai.send(operation))

    answers = await asyncio.gather(*(ask() for _ in range(20)))
    assert sim.stats().requests == 1
    assert sum((answer.cost.amount for answer in answers), Decimal(0)) == sim.stats().bill
    assert sorted(answer.cache for answer in answers) == ["joined"] * 19 + ["miss"]
    apart = {"cache", "cost", "attempts", "saved"}
    assert all(answer.model_dump(exclude=apart) == answers[0].model_dump(exclude=apart) for answer in answers)
    again = await ask()
    assert (again.cache, again.attempts, sim.stats().requests) == ("hit", 0, 1)
    assert again.saved == pytest.approx(sim.stats().bill)


@pytest.mark.parametrize("who", [0, 7])
@each
async def test_one_that_is_cancelled(ai, sim, operation, who):
    """Nineteen answers and one request, whoever leaves."""
    slow(sim, operation)

    async def ask():
        return await whole(await ai.send(operation))

    tasks = [asyncio.create_task(ask()) for _ in range(20)]
    await asyncio.to_thread(wait_for, lambda: sim.stats().in_flight)
    tasks[who].cancel()
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [number == who for number in range(20)]
    assert sim.stats().requests == 1
    bills = [task.result().cost.amount for task in tasks if not task.cancelled()]
    assert sum(bills, Decimal(0)) == sim.stats().bill


def test_twenty_threads_of_the_blocking_client(sim, tmp_path):
    """They share one loop, so one request as well."""
    operation = OPERATIONS[0]
    slow(sim, operation)
    with Client("k", base_url=sim.base_url, settings=Settings(home=tmp_path)) as ai, ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: ai.send(operation), range(20)))
    assert sim.stats().requests == 1
    assert {answer.text for answer in answers} == {answers[0].text}


@each
async def test_an_outage_is_answered_from_the_cache(sim, tmp_path, operation):
    """What is too old is still better than nothing, and says so."""
    settings = Settings(home=tmp_path, cache_stale_if_error=3600, attempts=1)
    async with AsyncClient("k", base_url=sim.base_url, settings=settings) as ai:
        first = await whole(await ai.send(operation, cache=CacheControl(ttl=1e-6)))
        sim.faults.script(operation.model, Fault.status(503), times=50)
        stale = await whole(await ai.send(operation))
    assert (stale.cache, stale.cost.amount) == ("stale", 0)
    apart = {"cache", "cost", "attempts", "saved", "cache_age", "usage", "request_id", "service_tier", "hits"}
    assert stale.model_dump(exclude=apart) == first.model_dump(exclude=apart)
    assert stale.cache_age > 0
