"""Several processes that share a cache: one sends for all, nothing is ever wrong, whoever is killed, and whatever Redis does."""

import asyncio
import random
import time
from collections import Counter

import pytest

from benchmarks.cache_kills.clients import client_of, store_of
from benchmarks.cache_kills.crew import Crew
from benchmarks.cache_kills.kills import LEASE_TIME, kill_at_random
from benchmarks.cache_kills.questions import (
    CHAT_MODEL,
    EMBEDDER,
    PAINTER,
    is_right,
    operation_of,
)
from resilient_ai import AsyncClient
from resilient_ai.core.streams import StreamResult
from resilient_ai.simulator import Fault

from ..stores.redis_server import start_redis  # noqa: TID252 - the tests have no package above them

ORDERS = [["chat", [1]], ["stream", [2]], ["embed", list(range(200))], ["image", [3]]]
REQUESTS = {CHAT_MODEL: 2, EMBEDDER: 3, PAINTER: 1}  # 200 texts are sent 96 at a time


@pytest.fixture(scope="module")
def running():
    with Crew() as crew:
        yield crew


@pytest.fixture
def crew(running):
    """Workers to be started; what earlier ones told is forgotten."""
    running.told.clear()
    return running


@pytest.fixture
def redis(tmp_path):
    server = start_redis(tmp_path)
    yield server
    server.stop()


@pytest.fixture(params=["disk", "redis"])
def place(request, tmp_path):
    """Where the store is that all processes share."""
    if request.param == "redis":
        return {"redis": request.getfixturevalue("redis").url}
    return {"directory": str(tmp_path / "cache")}


def did(lines):
    """Return what calls came to; none has failed, and none is wrong."""
    assert [line["failed"] for line in lines if "failed" in line] == []
    found = [line for line in lines if "did" in line]
    assert [(line["did"], line["numbers"]) for line in found if not line["right"]] == []
    return found


def sent(lines):
    """Return how often each text and question was sent."""
    return Counter(name for line in lines for name in line.get("sent", ()))


@pytest.mark.anyio
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order[0])
async def test_what_is_held_to_be_right_is_what_a_client_without_a_cache_gets(sim, order):
    """The oracle of all tests below."""
    async with AsyncClient("k", base_url=sim.base_url, stack=[]) as ai:
        texts = order[1][:96]
        result = await ai.send(operation_of((order[0], texts)))
        if isinstance(result, StreamResult):
            result = await result.result()
        assert is_right((order[0], texts), result)
        other = [number + 1 for number in texts]
        assert not is_right((order[0], other), result)


def calm(lines):
    """Return what was told where no store was late: one that is may be asked in vain, and that is a reason to send."""
    assert [line["faults"] for line in lines if line.get("faults")] == []
    return lines


def test_four_processes_send_once(sim, crew, place):
    """All ask the same at the same moment; one request goes out for each thing, and all have the same answer."""
    sim.faults.rate(Fault.delay(0.5), 1.0)
    lines = calm(crew.run([{"place": place, "url": sim.base_url, "orders": ORDERS}] * 4))
    answers = did(lines)
    for kind, _ in ORDERS:
        of_kind = [line for line in answers if line["did"] == kind]
        assert sorted(line["cache"] for line in of_kind) == ["hit", "hit", "hit", "miss"]
        assert len({line["digest"] for line in of_kind}) == 1
    assert sim.stats().by_model == REQUESTS
    assert set(sent(lines).values()) == {1}


def test_lists_that_overlap_are_never_mixed_up(sim, crew, place):
    """Every vector is that of its text, no process sends a text twice, and once all are kept nobody sends any."""
    chance = random.Random(7)
    lists = [[["embed", chance.sample(range(300), chance.randint(10, 60))] for _ in range(12)] for _ in range(4)]

    jobs = [{"place": place, "url": sim.base_url, "orders": orders, "in_turn": True} for orders in lists]
    sim.faults.rate(Fault.delay(0.02), 1.0)
    first = calm(crew.run(jobs))
    assert len(did(first)) == 48
    sim.reset()
    second = calm(crew.run(jobs[::-1]))
    assert len(did(second)) == 48
    for worker in {line["id"] for line in first}:
        assert set(sent(line for line in first if line["id"] == worker).values()) == {1}
    assert {line["cache"] for line in did(second)} == {"hit"}
    assert (sent(second), sim.stats().requests) == ({}, 0)


def test_processes_are_killed_at_any_moment(sim, place):
    """Nothing is wrong, damaged or lost, nobody waits for long, and only what the dead were asking for is asked again."""
    sim.faults.rate(Fault.delay(0.03), 1.0)
    found = kill_at_random(place, sim.base_url, kills=12, seed=1)
    assert (found.troubles(), found.kills) == ([], 12), found


def test_processes_with_two_clients_each_are_killed(sim, tmp_path):
    """Two stores of one process in one folder do not lift each other's locks."""
    sim.faults.rate(Fault.delay(0.03), 1.0)
    place = {"directory": str(tmp_path / "cache")}
    found = kill_at_random(place, sim.base_url, kills=12, seed=1, clients=2)
    assert (found.failed, found.wrong, found.corrupt, found.lost) == ([], [], 0, [])


def test_the_turn_of_a_killed_process_passes_on(sim, crew, place):
    """Killed while its requests are under way, it leaves leases that are taken over in their time."""
    job = {"place": place, "url": sim.base_url, "orders": ORDERS, "lease_time": LEASE_TIME}
    sim.faults.rate(Fault.delay(30.0), 1.0)
    victim = crew.start(job)
    crew.until(lambda: len(crew.lines("sent")) == 6)
    crew.kill(victim)
    sim.faults.clear()
    started = time.monotonic()
    answers = did(crew.run([job]))
    assert time.monotonic() - started < LEASE_TIME + 10
    assert [line["cache"] for line in answers] == ["miss"] * 4


@pytest.mark.anyio
async def test_two_clients_of_one_process_beside_another_process(sim, crew, place):
    """What one of them keeps after another process has come and gone is there for the next one."""
    async with client_of(store_of(place), sim.base_url) as one, client_of(store_of(place), sim.base_url) as two:
        await one.send(operation_of(("embed", [1])))
        await two.send(operation_of(("embed", [2])))
        job = {"place": place, "url": sim.base_url}
        did(await asyncio.to_thread(crew.run, [{**job, "orders": [["embed", [3]]]}]))
        await one.send(operation_of(("embed", [4])))
        await one.cache.stats()  # the store counts behind what it has still to write
        later = await asyncio.to_thread(crew.run, [{**job, "orders": [["embed", [1, 2, 3, 4]]]}])
        assert sent(later) == {}


class Load:
    """Workers that ask without end while something happens to their Redis."""

    def __init__(self, crew, redis, sim, **options):
        self.crew = crew
        self.job = {"place": {"redis": redis.url}, "url": sim.base_url, "lease_time": LEASE_TIME, **options}
        loads = [{"seed": number, "begun": time.monotonic(), "rate": 20.0} for number in range(3)]
        self.workers = [crew.start({**self.job, "load": load}) for load in loads]

    def go_on(self, calls=15):
        """Wait until each worker has had so many more answers."""
        seen = len(self.crew.told)
        self.crew.until(lambda: min(self._answers(seen).get(worker, 0) for worker in self.workers) >= calls)

    def end(self):
        """Let all finish and return what came of their calls."""
        assert [self.crew.stop(worker) for worker in self.workers] == [0, 0, 0]
        return did(self.crew.told)

    def _answers(self, seen):
        return Counter(line["id"] for line in self.crew.told[seen:] if "did" in line)


def is_used_again(load):
    """Return whether of two new processes the second finds what the first one kept."""
    job = {**load.job, "orders": ORDERS}
    did(load.crew.run([job]))
    return sent(load.crew.run([job])) == {}


def test_redis_is_killed_and_comes_back(sim, crew, redis):
    """No call fails, none is wrong, and those that come later use it again."""
    sim.faults.rate(Fault.delay(0.03), 1.0)
    load = Load(crew, redis, sim)
    load.go_on()
    redis.stop()
    load.go_on()
    redis.start()
    load.go_on()
    assert max(line["took"] for line in load.end()) < 10
    assert is_used_again(load)


def test_redis_stands_still_for_a_while(sim, crew, redis):
    """Calls wait for it a few times, as long as they are told to, and then go on without it."""
    sim.faults.rate(Fault.delay(0.03), 1.0)
    load = Load(crew, redis, sim, timeout=0.2)
    load.go_on()
    redis.freeze()
    load.go_on()
    redis.thaw()
    load.go_on()
    assert max(line["took"] for line in load.end()) < 10
    assert is_used_again(load)
