"""A thousand callers on a service whose capacity falls to a tenth and comes back, in virtual time."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from resilient_ai.core.call import Call
from resilient_ai.core.errors import DeadlineExceeded, LimitReached, RateLimited
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware.concurrency_limit import ConcurrencyLimit
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.testing import FakeClock, ScriptedProvider, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
CALLERS = 1_000


class Chance(FakeClock):
    """A clock whose chance is a seeded generator, and which keeps no list of waits."""

    def __init__(self, seed):
        super().__init__()
        self.generator = random.Random(seed)

    def random(self):
        return self.generator.random()

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)


class Server:
    """Takes `slots` requests at once and refuses one more after 0.05 s; what it has taken it finishes."""

    origin = ScriptedProvider.origin

    def __init__(self, slots, seconds, seed):
        self.slots, self.seconds, self.chance = slots, seconds, random.Random(seed)
        self.active = self.sends = 0
        self.used = 0.0
        self.refusals = 0
        self._since = None

    async def __call__(self, call: Call):
        self.sends += 1
        if self.active >= self.slots:
            await asyncio.sleep(0.05)
            self.refusals += 1
            raise RateLimited("too many requests", status=429)
        self._count(+1)
        try:
            await asyncio.sleep(self.seconds * self.chance.uniform(0.5, 1.5))
        finally:
            self._count(-1)
        return chat_result()

    def busy(self):
        """Return the slot seconds that were used since the last time this was asked."""
        self._count(0)
        used, self.used = self.used, 0.0
        return used

    def _count(self, change):
        now = asyncio.get_running_loop().time()
        if self._since is not None:
            self.used += min(self.active, self.slots) * (now - self._since)
        self._since = now
        self.active += change

    async def aclose(self):
        pass


@dataclass
class World:
    """Callers in a closed loop, through a whole pipeline."""

    server: Server
    limit: ConcurrencyLimit
    timeout: float
    pause: float
    seed: int = 1
    outcomes: Counter = field(default_factory=Counter)
    late: list = field(default_factory=list)
    stopped: bool = False

    def __post_init__(self):
        stack = [Deadline(), Retry(attempts=3), self.limit]
        self.pipeline = Pipeline(self.server, stack, clock=Chance(self.seed))

    async def caller(self, number):
        loop, chance = asyncio.get_running_loop(), random.Random(self.seed * 100_000 + number)
        while not self.stopped:
            began = loop.time()
            outcome = "answered"
            try:
                await self.pipeline.send(CHAT, timeout=self.timeout)
            except (DeadlineExceeded, LimitReached, RateLimited) as error:
                outcome = type(error).__name__
            self.outcomes[outcome] += 1
            if loop.time() > began + self.timeout + 0.001:
                self.late.append((outcome, loop.time() - began))
            if outcome != "answered":
                await asyncio.sleep(self.pause * chance.uniform(0.5, 1.5))

    async def phase(self, slots, seconds, *, skip=0.0):
        """Let the service take `slots` for a while; return the part of them that was used after the first `skip` seconds."""
        self.server.slots = slots
        await asyncio.sleep(skip)
        self.server.busy()
        await asyncio.sleep(seconds - skip)
        return self.server.busy() / (slots * (seconds - skip))

    async def __aenter__(self):
        self.tasks = [asyncio.ensure_future(self.caller(number)) for number in range(CALLERS)]
        return self

    async def __aexit__(self, *error):
        self.stopped = True
        await asyncio.gather(*self.tasks)


@pytest.mark.parametrize(
    ("seconds", "steady", "short", "back"), [(2.0, 120.0, 150.0, 60.0), (10.0, 300.0, 400.0, 300.0)]
)
async def test_the_limit_follows_capacity_down_and_up(seconds, steady, short, back):
    """From 200 slots to 20 and back nearly all of them are used, hardly a send is refused and nobody waits too long."""
    server = Server(200, seconds, seed=7)
    limit = ConcurrencyLimit()
    world = World(server, limit, timeout=30 * seconds, pause=5 * seconds)
    async with world:
        assert await world.phase(200, steady) >= 0.9
        assert server.refusals == 0
        assert await world.phase(20, short, skip=5 * seconds) >= 0.9
        in_the_fall = server.refusals
        await world.phase(200, back)
        # One round at each of 22, 24, 28, 36, 52, 84, 148 after at most sixteen at 20 and one at 21.
        assert await world.phase(200, 10 * seconds) >= 0.9
    assert in_the_fall <= 180 + 10
    assert server.refusals < 0.02 * server.sends
    assert world.late == []
    assert world.outcomes["answered"] > 0.95 * (server.sends - server.refusals)
    assert (limit.in_use(server.origin, "m"), limit.waiting(server.origin, "m")) == (0, 0)
    assert [state.limit for state in limit.health()] == [200]


async def test_a_service_of_just_the_limit_never_refuses():
    """With two hundred slots and a limit of two hundred no request is refused, and the slots are full."""
    server = Server(200, 2.0, seed=3)
    world = World(server, ConcurrencyLimit(limit=200), timeout=60.0, pause=5.0)
    async with world:
        await world.phase(200, 10.0)
        assert await world.phase(200, 60.0) >= 0.99
    assert server.refusals == 0
    assert world.late == []


async def test_two_processes_share_a_service_without_knowing_of_each_other():
    """Two limits on one service of a hundred slots fill it, with few refusals, and both get a part."""
    server = Server(100, 2.0, seed=5)
    one, other = (World(server, ConcurrencyLimit(), timeout=60.0, pause=5.0, seed=seed) for seed in (1, 2))
    async with one, other:
        assert await one.phase(100, 200.0) >= 0.9
    assert server.refusals < 0.02 * server.sends
    assert min(world.outcomes["answered"] for world in (one, other)) > 0.2 * server.sends
    assert one.late == other.late == []
