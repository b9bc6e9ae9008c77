"""Several clients that share their limits through a Redis: together they keep to them, whatever happens to Redis."""

import asyncio
import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from resilient_ai import AsyncClient, Client, DeadlineExceeded, Settings
from resilient_ai.middleware import ConcurrencyLimit, RateLimit
from resilient_ai.simulator import Fault
from resilient_ai.stores import RedisFleet

from ..stores.redis_server import start_redis  # noqa: TID252 - the tests have no package above them

pytestmark = pytest.mark.anyio

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis(running):
    """A server with nothing in it."""
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(16).startswith(b"+OK")
    return running


@pytest.fixture
def own_redis(tmp_path):
    """A server that the test may kill."""
    server = start_redis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def settings_of(tmp_path):
    def make(redis, **options):
        return Settings(home=tmp_path, cache="off", timeout=20, redis_url=redis.url, **options)

    return make


@contextlib.asynccontextmanager
async def two_clients(sim, settings):
    """Give two clients of the same settings, as two processes would have them."""
    async with (
        AsyncClient("k", base_url=sim.base_url, settings=settings) as one,
        AsyncClient("k", base_url=sim.base_url, settings=settings) as other,
    ):
        yield one, other


def fleet_threads():
    return [thread for thread in threading.enumerate() if thread.name == "resilient-ai-fleet"]


def until(claim, seconds=5.0):
    """Wait until `claim()` holds."""
    give_up = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < give_up
        time.sleep(0.005)


async def claimed(claim):
    """Wait until `claim()` holds, while the loop runs."""
    await asyncio.to_thread(until, claim)


async def test_two_clients_keep_to_one_limit(sim, redis, settings_of):
    """Never more than three requests of both together are under way, and all are answered."""
    sim.faults.rate(Fault.delay(0.03), 1.0)
    async with two_clients(sim, settings_of(redis, concurrency=3)) as clients:
        answers = await asyncio.gather(*(ai.chat(MODEL, "hi") for _ in range(9) for ai in clients))
        assert all(limit.in_use == 0 for ai in clients for limit in ai.health().limits)
    stats = sim.stats()
    assert (len(answers), stats.requests, stats.peak_in_flight) == (18, 18, 3)


async def test_a_stream_holds_its_permit_for_the_other_client_too(sim, redis, settings_of):
    """A client waits while the other one reads, and goes once it has ended."""
    async with two_clients(sim, settings_of(redis, concurrency=1)) as (one, other):
        async with one.stream(MODEL, "hi") as stream:
            waiting = asyncio.ensure_future(other.chat(MODEL, "hi"))
            await asyncio.sleep(0.4)
            assert not waiting.done()
            await stream.result()
        assert (await waiting).text
    assert sim.stats().peak_in_flight == 1


async def test_a_call_ends_at_its_deadline_while_the_others_have_all_permits(sim, redis, settings_of):
    """It waits in the queue of the fleet no longer than it has time, and holds nothing afterwards."""
    async with two_clients(sim, settings_of(redis, concurrency=1)) as (one, other):
        async with one.stream(MODEL, "hi"):
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded) as caught:
                await other.with_options(timeout=0.4).chat(MODEL, "hi")
            assert not caught.value.sent
            assert 0.39 <= time.monotonic() - started < 2
        assert (await other.chat(MODEL, "hi")).text
    assert sim.stats().requests == 2


async def test_calls_go_on_with_a_share_when_redis_dies(sim, own_redis, settings_of, caplog):
    """Killed in the middle, Redis fails no call; each client then keeps to a quarter of the limit by itself."""
    sim.faults.rate(Fault.delay(0.03), 1.0)
    async with two_clients(sim, settings_of(own_redis, concurrency=8)) as clients:
        under_way = [asyncio.ensure_future(ai.chat(MODEL, "hi")) for _ in range(20) for ai in clients]
        await claimed(lambda: sim.stats().requests >= 16)
        assert sim.stats().peak_in_flight <= 8
        own_redis.stop()
        assert all([(await call).text for call in under_way])
        await claimed(lambda: not sim.stats().in_flight)
        sim.reset()
        sim.faults.rate(Fault.delay(0.03), 1.0)
        await asyncio.gather(*(ai.chat(MODEL, "hi") for _ in range(10) for ai in clients))
    stats = sim.stats()
    assert (stats.requests, stats.peak_in_flight) == (20, 4)
    told = [record for record in caplog.records if "limits are not shared now" in record.getMessage()]
    assert len(told) == 2  # one for each client, and no more for a minute


async def test_a_client_without_its_redis_begins_all_the_same(sim, own_redis, settings_of):
    """Where Redis is down from the start the first call is answered without delay."""
    own_redis.stop()
    async with AsyncClient("k", base_url=sim.base_url, settings=settings_of(own_redis, concurrency=8)) as ai:
        started = time.monotonic()
        assert (await ai.chat(MODEL, "hi")).text
        assert time.monotonic() - started < 2


async def test_closing_gives_everything_back(sim, redis, settings_of):
    """What a closed client held goes to the other one at once, not when its lease is over, and its thread ends."""
    settings, before = settings_of(redis, concurrency=3), len(fleet_threads())
    one = AsyncClient("k", base_url=sim.base_url, settings=settings)
    async with AsyncClient("k", base_url=sim.base_url, settings=settings) as other, contextlib.AsyncExitStack() as held:
        for _ in range(3):
            await held.enter_async_context(one.stream(MODEL, "hi"))
        waiting = asyncio.ensure_future(other.chat(MODEL, "hi"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert len(fleet_threads()) == before + 2
        closed = time.monotonic()
        await one.aclose()
        assert (await waiting).text
        assert time.monotonic() - closed < 2
    await claimed(lambda: len(fleet_threads()) == before)


async def test_a_limit_closes_its_fleet():
    """Whichever limit has the fleet closes it with the stack, and one without has nothing to close."""

    class Fleet(RedisFleet):
        closed = 0

        async def aclose(self):
            self.closed += 1
            await super().aclose()

    for limit in (lambda fleet: ConcurrencyLimit(fleet=fleet), lambda fleet: RateLimit(requests=1, fleet=fleet)):
        fleet = Fleet("redis://127.0.0.1:9")
        async with AsyncClient("k", stack=[limit(fleet)]):
            pass
        await limit(None).aclose()
        assert fleet.closed == 1


async def test_two_clients_keep_to_one_rate(sim, redis, settings_of):
    """Of 70 requests 60 may go at once and ten more in a second; each alone would have sent its 35 at once."""
    async with two_clients(sim, settings_of(redis, requests_per_minute=600)) as clients:
        started = time.monotonic()
        await asyncio.gather(*(ai.chat(MODEL, "hi") for _ in range(35) for ai in clients))
        elapsed = time.monotonic() - started
    assert sim.stats().requests == 70
    assert 0.9 <= elapsed < 5


def test_blocking_clients_keep_to_one_limit(sim, redis, settings_of):
    """Eight threads with two clients have no more than three requests under way, and closing ends every thread."""
    sim.faults.rate(Fault.delay(0.03), 1.0)
    settings, before = settings_of(redis, concurrency=3), len(fleet_threads())
    with (
        Client("k", base_url=sim.base_url, settings=settings) as one,
        Client("k", base_url=sim.base_url, settings=settings) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda number: (one, other)[number % 2].chat(MODEL, "hi").text, range(16)))
        assert one.health().limits[0].limit_max == 3
    until(lambda: len(fleet_threads()) == before)
    stats = sim.stats()
    assert (len(answers), stats.requests, stats.peak_in_flight) == (16, 16, 3)
