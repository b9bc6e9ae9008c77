"""A model that fails for two minutes under a steady load, and comes back: what is sent, and who is served, in virtual time."""

import asyncio
import random
from dataclasses import dataclass
from statistics import mean

import pytest

from resilient_ai.core.errors import CircuitOpen, ResilientAIError, ServerFailed
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware.circuit_breaker import CircuitBreaker
from resilient_ai.middleware.retry import Retry
from resilient_ai.testing import FakeClock, ScriptedProvider, chat_result, run

# Whichever test comes first waits for two simulations of 21,000 calls.
pytestmark = pytest.mark.timeout(180)

CHAT = Chat(model="m", messages="hi")
ANSWER = chat_result()
RATE = 100
OUTAGE = 120.0
AFTER = 90.0
SEEDS = range(2)


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
    """Fails after 0.05 s until the outage is over, and then answers after 0.05 s."""

    origin = ScriptedProvider.origin

    def __init__(self):
        self.began = asyncio.get_running_loop().time()
        self.sends_in_outage = self.sends_after = 0

    async def __call__(self, call):
        is_down = self.since() < OUTAGE
        self.sends_in_outage += is_down
        self.sends_after += not is_down
        await asyncio.sleep(0.05)
        if is_down:
            raise ServerFailed("down", status=500)
        return ANSWER

    def since(self):
        return asyncio.get_running_loop().time() - self.began

    async def aclose(self):
        pass


@dataclass
class Seen:
    """What came of one simulated outage."""

    sends_per_call: float = 0.0
    first_success: float = float("inf")
    served: int = 0
    served_late: int = 0
    calls_after: int = 0
    sends_after: int = 0
    rejected: int = 0

    @property
    def share(self):
        return self.served / self.calls_after


async def simulate(stack, seed, *, after=AFTER):
    """Let a hundred calls a second arrive through the outage and for a while after it."""
    clock, server, seen, tasks = Chance(seed), Server(), Seen(), set()
    pipeline = Pipeline(server, stack, clock=clock)

    async def caller(arrived):
        try:
            await pipeline.send(CHAT)
        except ResilientAIError as error:
            seen.rejected += arrived >= OUTAGE and isinstance(error, CircuitOpen)
        else:
            seen.first_success = min(seen.first_success, server.since() - OUTAGE)
            seen.served += arrived >= OUTAGE
            seen.served_late += arrived < OUTAGE

    calls = 0
    while (arrived := server.since()) < OUTAGE + after:
        task = asyncio.create_task(caller(arrived))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        calls += arrived < OUTAGE
        seen.calls_after += arrived >= OUTAGE
        await asyncio.sleep(1 / RATE)
    await asyncio.gather(*tasks)
    seen.sends_per_call = server.sends_in_outage / calls
    seen.sends_after = server.sends_after
    return seen


@pytest.fixture(scope="module")
def outages():
    """Two outages of the two layers together, each with chances of its own."""
    return [run(simulate([Retry(), CircuitBreaker()], seed)) for seed in SEEDS]


@pytest.mark.parametrize("seed", [0, 1])
def test_retries_alone_hardly_add_to_an_outage(seed):
    """The budget bounds what is sent: one send per call and at most a twentieth more, and no call after it is lost."""
    seen = run(simulate([Retry()], seed, after=10.0))
    assert seen.sends_per_call <= 1.05
    assert seen.first_success <= 0.1
    assert seen.share == 1.0


def test_with_a_breaker_an_outage_costs_nearly_nothing(outages):
    """Of a thousand calls during the outage two are sent, the probes, though each call may be sent three times."""
    assert max(seen.sends_per_call for seen in outages) <= 0.004


def test_a_model_that_is_back_is_found_within_one_break(outages):
    """The longest break is ten seconds, and its probe and the call that waits for it take no half second more."""
    assert max(seen.first_success for seen in outages) <= 10.5


def test_most_calls_after_an_outage_are_served(outages):
    """What is lost in the ninety seconds after it are the calls of what was left of the last break, less the wait for it."""
    assert mean(seen.share for seen in outages) >= 0.98
    for seen in outages:
        assert seen.share >= 0.95
        assert seen.served + seen.rejected == seen.calls_after
        # Those held back by the ramp came again: none is lost to it.
        assert seen.rejected <= RATE * max(0.0, seen.first_success)


def test_a_model_that_is_back_is_not_run_over(outages):
    """In the time after it nothing is sent but what was asked since, and what had been asked before and waited."""
    for seen in outages:
        assert seen.sends_after <= seen.served + seen.served_late + 5
