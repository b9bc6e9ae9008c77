"""Routing by price, speed and health, in virtual time: who gets the traffic, and what a mixed day costs."""

import asyncio
import random
from dataclasses import dataclass, field
from decimal import Decimal

import pytest

from resilient_ai.core.errors import ResilientAIError, ServerFailed
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import ChatResult, Choice, Cost, Usage
from resilient_ai.middleware.circuit_breaker import CircuitBreaker
from resilient_ai.middleware.concurrency_limit import ConcurrencyLimit
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Routing
from resilient_ai.testing import FakeClock, ScriptedProvider, run

pytestmark = pytest.mark.timeout(180)

HOUR = 3600.0


class Chance(FakeClock):
    """A clock whose chance is a seeded generator, and which keeps no list of waits."""

    def __init__(self, seed):
        super().__init__()
        self.generator = random.Random(seed)

    def random(self):
        return self.generator.random()

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)


@dataclass
class Model:
    """A model of the service: its list price, and what is wrong with it when.

    `dearer` and `slower` have a factor from one moment to another, `down` only the moments.
    """

    list_in: float
    list_out: float
    seconds: float = 0.5
    dearer: list = field(default_factory=list)
    slower: list = field(default_factory=list)
    down: list = field(default_factory=list)
    wordy: float = 1.0

    def cost(self, at, tokens_in, tokens_out):
        """Return what is billed for so many tokens at a moment."""
        factor = next((by for begin, end, by in self.dearer if begin <= at < end), 1.0)
        return (self.list_in * tokens_in + self.list_out * self.wordy * tokens_out) * factor / 1e6

    def slowness(self, at):
        return next((by for begin, end, by in self.slower if begin <= at < end), 1.0)

    def is_down(self, at):
        return any(begin <= at < end for begin, end in self.down)

    def is_healthy(self, at):
        return not self.is_down(at) and self.slowness(at) < 3


class Book:
    """The list prices of a service."""

    def __init__(self, models):
        self.models = models

    def chat_cost(self, model, *, input_tokens, output_tokens, **more):
        known = self.models[model]
        return Decimal(round(known.list_in * input_tokens + known.list_out * output_tokens)) / 10**6

    def embedding_cost(self, model, **more):
        return None

    def image_cost(self, model, **more):
        return None


class Service:
    """Answers with as many tokens as the operation's seed says, and bills them."""

    origin = ScriptedProvider.origin

    def __init__(self, models, seed):
        self.models, self.chance = models, random.Random(seed)
        self.began = asyncio.get_running_loop().time()
        self.spent = 0.0
        self.asked = []

    def since(self):
        return asyncio.get_running_loop().time() - self.began

    async def __call__(self, call):
        call.send_started()
        name, at, operation = call.model, self.since(), call.operation
        self.asked.append((at, name))
        model = self.models[name]
        if model.is_down(at):
            await asyncio.sleep(0.05)
            raise ServerFailed("down", status=500)
        tokens_in, tokens_out = len(operation.messages[0].content) // 4, operation.seed
        usual = model.seconds * (1 + tokens_out / 60)
        await asyncio.sleep(usual * model.slowness(at) * self.chance.lognormvariate(0.0, 0.5))
        cost = model.cost(at, tokens_in, tokens_out)
        self.spent += cost
        return ChatResult(
            model=name,
            usage=Usage(input_tokens=tokens_in, output_tokens=round(tokens_out * model.wordy)),
            cost=Cost(amount=Decimal(f"{cost:.12f}"), source="provider"),
            choices=(Choice(text="", finish_reason="stop"),),
        )

    async def aclose(self):
        pass


class World:
    """Callers who leave the model to a Routing, in front of a service."""

    def __init__(self, models, seed=1, *, sorts=(6, 3, 1), **options):
        self.models, self.chance, self.sorts = models, random.Random(seed), sorts
        self.service = Service(models, seed)
        options = {"models": list(models), "prefer": "cheapest", "prices": Book(models)} | options
        accounting = CostAccounting(prices=Book(models))
        stack = [Routing(**options), Retry(attempts=2), CircuitBreaker(), ConcurrencyLimit(), accounting]
        self.pipeline = Pipeline(self.service, stack, clock=Chance(seed))
        self.best = 0.0
        self.served, self.failed = [], 0
        self.tasks = set()

    def operation(self):
        """Return a chat: most are short, some have long prompts, some long answers."""
        sort = self.chance.choices(["short", "document", "essay"], self.sorts)[0]
        prompt = self.chance.randint(2_000, 40_000) if sort == "document" else self.chance.randint(50, 2_000)
        answer = self.chance.randint(800, 3_000) if sort == "essay" else self.chance.randint(20, 400)
        return Chat(model="auto", messages="x" * 4 * (prompt // 4), seed=answer)

    async def call(self):
        operation, at = self.operation(), self.service.since()
        tokens = len(operation.messages[0].content) // 4, operation.seed
        healthy = [model for model in self.models.values() if model.is_healthy(at)]
        try:
            answer = await self.pipeline.send(operation)
        except ResilientAIError:
            self.failed += 1
            return None
        self.best += min(model.cost(at, *tokens) for model in healthy)
        self.served.append((at, answer.served_by))
        return answer

    async def traffic(self, seconds, rate):
        """Let calls arrive for a while, `rate` a second on average, and wait for their ends."""
        until = self.service.since() + seconds
        while self.service.since() < until:
            task = asyncio.create_task(self.call())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            await asyncio.sleep(self.chance.uniform(0.5, 1.5) / rate)
        await asyncio.gather(*self.tasks)

    def share(self, name, since, until):
        """Return the share of the calls of a while that a model served."""
        models = [model for at, model in self.served if since <= at < until]
        return models.count(name) / len(models)

    def sends_to(self, name, since, until):
        return sum(model == name and since <= at < until for at, model in self.service.asked)


def mixed_day():
    """Five models: two are billed above their list price, one of these only in the afternoon; slow hours, and outages."""
    return {
        "large": Model(0.90, 0.90, seconds=0.8, wordy=1.2),
        "medium": Model(0.35, 0.40, seconds=0.6, dearer=[(17 * HOUR, 21 * HOUR, 0.4)]),
        "small": Model(0.20, 0.25, seconds=0.4, slower=[(9 * HOUR, 10 * HOUR, 10)], down=[(15 * HOUR, 15.5 * HOUR)]),
        "promising": Model(0.18, 0.20, seconds=0.4, dearer=[(0, 24 * HOUR, 1.8)]),
        "lean": Model(0.10, 0.60, seconds=0.3, dearer=[(4 * HOUR, 24 * HOUR, 2.5)], down=[(2 * HOUR, 2.2 * HOUR)]),
    }


async def spend_a_day(seed, rate=0.1, **options):
    world = World(mixed_day(), seed, **options)
    await world.traffic(24 * HOUR, rate)
    return world


@pytest.mark.parametrize("seed", [0, 1])
def test_a_mixed_day_costs_hardly_more_than_the_best_choice_in_hindsight(seed):
    """Of 8,600 calls none fails, and what is spent is within a twentieth of each call's cheapest healthy model."""
    world = run(spend_a_day(seed))
    assert world.failed == 0
    assert len(world.served) > 8_000
    assert world.best <= world.service.spent <= 1.05 * world.best


async def spend_an_hour(models, rate, **options):
    world = World(models, sorts=(1, 1, 0), **options)
    await world.traffic(HOUR, rate)
    return world


def two(**trouble):
    """Two models, of which the cheaper one is in trouble for ten minutes."""
    return {"dear": Model(2.0, 2.0, seconds=0.1), "cheap": Model(1.0, 1.0, seconds=0.1, **trouble)}


BEGIN, END = 1_200.0, 1_800.0
TROUBLE = {
    "slow": {"slower": [(BEGIN, END, 10)]},
    "hangs": {"slower": [(BEGIN, END, 100)]},
    "down": {"down": [(BEGIN, END)]},
    "dear": {"dearer": [(BEGIN, END, 2.5)]},
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_traffic_leaves_a_model_in_trouble_within_ten_calls_and_comes_back(trouble):
    """Ten calls at most see the trouble before the other model gets them; soon after its end the cheaper one has them again."""
    world = run(spend_an_hour(two(**TROUBLE[trouble]), rate=2.0))
    assert world.failed == 0
    assert world.share("cheap", 60.0, BEGIN) > 0.97
    gone = next(at for at, model in world.service.asked if at >= BEGIN and model == "dear" and leaves(world, at))
    assert world.sends_to("cheap", BEGIN, gone) <= 10
    assert world.sends_to("cheap", gone, END) < 0.05 * 2.0 * (END - BEGIN)
    assert world.share("cheap", END + 120.0, HOUR) > 0.97


def leaves(world, at):
    """Return whether the next ten calls from a moment on go to the dearer model, or nearly."""
    after = [model for moment, model in world.service.asked if moment >= at][:10]
    return after.count("dear") >= 9


@pytest.mark.parametrize("trouble", ["slow", "down"])
def test_a_model_is_found_to_be_back_without_exploring(trouble):
    """What was measured fades, so that the cheaper one has its chance again, though no call is spent on finding out."""
    world = run(spend_an_hour(two(**TROUBLE[trouble]), rate=2.0, explore=0))
    assert world.sends_to("cheap", BEGIN + 10.0, END) < 0.05 * 2.0 * (END - BEGIN)
    assert world.share("cheap", END + 240.0, HOUR) == 1.0


async def spend_four_minutes(models, rate, **options):
    world = World(models, sorts=(1, 1, 0), **options)
    await world.traffic(240.0, rate)
    return world


def test_with_many_calls_under_way_a_model_that_hangs_is_left_when_the_first_is_overdue():
    """At forty calls a second nobody can know sooner: from the moment on at which a call takes too long, ten more go there."""
    world = run(spend_four_minutes(two(slower=[(60.0, 90.0, 100)]), rate=40.0, explore=0))
    overdue = 60.0 + 4 * 0.5
    assert 0 < world.sends_to("cheap", 60.0, overdue + 20.0) <= 40.0 * (overdue - 60.0) + 10
    assert world.share("cheap", 10.0, 60.0) == 1.0
