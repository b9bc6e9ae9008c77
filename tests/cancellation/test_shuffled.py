"""Fifty calls at once, some cancelled, on a loop that runs what is ready in any order: nothing is held, every answer is right."""

import asyncio
import os
import random

import pytest

from resilient_ai.core.errors import ConnectionFailed, RateLimited, ResilientAIError, ServerFailed
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.middleware import Hedge
from resilient_ai.testing import vector_of

from .harness import ShuffledLoop
from .scenarios import breaks
from .world import World

CALLS = 50
SEEDS = int(os.environ.get("SOAK_SEEDS", "30"))
pytestmark = pytest.mark.timeout(60 + SEEDS)


def trouble(chance):
    """Return a step of the server's script: often none, else a failure or a wait."""
    return chance.choice(
        [
            None,
            None,
            None,
            chance.random() * 3,
            30.0,
            ServerFailed("boom", status=500),
            ConnectionFailed("cut", phase="receive"),
            RateLimited("busy", status=429, retry_after=chance.choice([None, 0.5, 2.0])),
        ]
    )


async def chat(world, number, chance):
    model = chance.choice(["a", "b", ("a", "b", "c")])
    await world.chat(f"chat {number}", model=model, priority=chance.choice(["interactive", "batch"]))


async def cached(world, number, chance):
    # Several ask the same at the same time.
    await world.chat(f"same {number % 3}", model="a", temperature=0)


async def complete(world, number, chance):
    answer = await world.send(Complete(model="a", prompt=f"complete {number}"))
    assert answer.text == f"re: complete {number}"


async def embed(world, number, chance):
    texts = [f"{number}.{part}" for part in range(chance.randrange(1, 9))]
    result = await world.send(Embed(model="vec", texts=texts))
    assert result.vectors[:] == [pytest.approx(vector_of(text)) for text in texts]


async def image(world, number, chance):
    assert (await world.send(Image(model="draw", prompt=f"image {number}", n=2))).images[1].data


async def read(world, number, chance):
    async with await world.send(Stream(model=("b", "a"), messages=f"read {number}")) as stream:
        answer = await stream.result()
    assert answer.text == f"re: read {number}"


async def read_what_breaks(world, number, chance):
    operation = Stream(model="flaky", messages=f"read {number}", on_interrupt="restart")
    async with await world.send(operation) as stream:
        answer = await stream.result()
    assert answer.text == f"re: read {number}"


async def leave(world, number, chance):
    async with await world.send(Stream(model="b", messages=f"leave {number}")) as stream:
        assert (await anext(stream)).text == "re: "


async def forget(world, number, chance):
    stream = await world.send(Stream(model="a", messages=f"forget {number}"))
    await anext(stream)


async def in_haste(world, number, chance):
    try:
        async with asyncio.timeout(chance.random() * 2):
            await world.send(Chat(model="a", messages="hi"))
    except TimeoutError:
        pass


SORTS = (chat, chat, cached, complete, embed, image, read, read_what_breaks, leave, forget, in_haste)


async def crowd(seed):
    """Send fifty calls, cancel some, and return (answers, what went wrong)."""
    chance = random.Random(seed)
    hedge = chance.choice([None, Hedge(quantile=0.5, samples=3, delay_min=0.15, extra=1.0)])
    world = World(
        permits=chance.randrange(1, 6),
        rate=chance.choice([None, {"requests": 300, "tokens": 100_000}]),
        retry={"hedge": hedge},
        attempt=5.0,
        farewell=chance.choice([0.0, 0.05]),
    )
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: world.complaints.append(f"the loop was told {context['message']!r}"))
    for model in ("a", "b", "c", "vec", "draw"):
        world.script(model, *(trouble(chance) for _ in range(12)))
    world.script("flaky", *(chance.choice([None, breaks(world), breaks(world)]) for _ in range(12)))
    tasks = [loop.create_task(chance.choice(SORTS)(world, number, chance)) for number in range(CALLS)]
    victims = set(chance.sample(tasks, CALLS // 3))
    for victim in victims:
        for _ in range(chance.choice([1, 1, 2])):
            loop.call_later(chance.choice([0.0, 0.1, chance.random() * 10]), victim.cancel)
    await asyncio.wait(tasks, timeout=10_000)
    answers, broken = 0, []
    for task in tasks:
        if not task.done():
            broken.append(f"a call hangs: {task!r}")
            task.cancel()
        elif task.cancelled():
            broken += [] if task in victims else ["a call was cancelled that nobody cancelled"]
        elif not isinstance(task.exception(), ResilientAIError | None):
            broken.append(f"a call raised {task.exception()!r}")
        else:
            answers += task.exception() is None
    victim = victims = task = tasks = None
    return answers, broken + await world.settle()


@pytest.mark.parametrize("block", range(min(SEEDS, 10)))
def test_a_crowd_in_any_order(block):
    """Whoever is answered is answered right, and afterwards the stack is as good as new."""
    answers, broken = 0, {}
    for seed in range(block, SEEDS, 10):
        with asyncio.Runner(loop_factory=lambda seed=seed: ShuffledLoop(seed)) as runner:
            answered, wrong = runner.run(crowd(seed))
        answers += answered
        if wrong:
            broken[seed] = wrong
    assert broken == {}
    assert answers > 0


def test_the_loop_runs_in_any_order():
    """The order of what is ready depends on the seed, and the same seed gives the same order."""

    async def order():
        seen = []
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(6)]
        for number, task in enumerate(tasks):
            task.add_done_callback(lambda _, number=number: seen.append(number))
        await asyncio.wait(tasks)
        await asyncio.sleep(1)
        return tuple(seen)

    def once(seed):
        with asyncio.Runner(loop_factory=lambda: ShuffledLoop(seed)) as runner:
            return runner.run(order())

    orders = [once(seed) for seed in range(20)]
    assert orders == [once(seed) for seed in range(20)]
    assert len(set(orders)) > 10
    assert all(sorted(seen) == list(range(6)) for seen in orders)
