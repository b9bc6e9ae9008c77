"""The scenarios: each prepares what it needs and returns the coroutine that is to be cancelled."""

import asyncio

import pytest

from resilient_ai.core.deltas import TextDelta
from resilient_ai.core.errors import (
    CircuitOpen,
    ConnectionFailed,
    NoModelAvailable,
    RateLimited,
    ResilientAIError,
    ServerFailed,
    StreamInterrupted,
    StreamMisused,
)
from resilient_ai.core.operations import Complete, Embed, Image, Stream
from resilient_ai.middleware import Hedge
from resilient_ai.testing import vector_of

from .world import FINISHED

SCENARIOS = {}


def scenario(**options):
    """Enter a function in the table; the options are those of its `World`."""

    def enter(function):
        function.options = options
        SCENARIOS[function.__name__] = function
        return function

    return enter


def boom():
    return ServerFailed("boom", status=500)


def cut():
    return ConnectionFailed("cut", phase="receive")


async def failed(coroutine, *kinds):
    """Await what must fail."""
    try:
        await coroutine
    except kinds:
        return
    raise AssertionError(f"none of {kinds} was raised")


# Whole answers


@scenario()
async def chat(world):
    return world.chat()


@scenario()
async def chat_that_fails_twice(world):
    world.script("m", boom(), cut())
    return world.chat()


@scenario()
async def chat_that_fails_for_good(world):
    world.script("m", boom(), boom(), boom())
    return failed(world.chat(), ServerFailed)


@scenario()
async def chat_told_to_wait(world):
    world.script("m", RateLimited("busy", status=429, retry_after=7.0))
    return world.chat()


@scenario(attempt=2.0)
async def chat_whose_first_attempt_hangs(world):
    world.script("m", 500.0)
    return world.chat()


@scenario()
async def chat_from_the_cache(world):
    async def twice():
        answers = [await world.chat(temperature=0) for _ in range(2)]
        assert [answer.cache for answer in answers] == ["miss", "hit"]

    return twice()


@scenario()
async def completion(world):
    return world.send(Complete(model="m", prompt="Once"))


@scenario()
async def image(world):
    world.script("draw", RateLimited("busy", status=429))
    return world.send(Image(model="draw", prompt="a tide", seed=1))


# Queues and circuits


@scenario(permits=1)
async def chat_waiting_for_a_permit(world):
    world.script("m", 2.0)
    await world.bystand(world.chat("first"))
    return world.chat()


@scenario(permits=1)
async def chat_in_the_middle_of_a_queue(world):
    world.script("m", 2.0)
    for number in range(3):
        await world.bystand(world.chat(f"before {number}"))

    async def queue():
        await world.bystand(world.chat("behind"))

    await world.bystand(queue())
    return world.chat()


@scenario(permits=1)
async def chat_waiting_while_the_circuit_opens(world):
    world.script("m", 1.0, boom(), boom(), boom())
    await world.bystand(either(world.chat("first")))
    await world.bystand(either(world.chat("second")))
    return either(world.chat())


@scenario(attempt=3.0, retry={"attempts": 1})
async def half_open_probe_that_hangs(world):
    await open_circuit(world)
    await asyncio.sleep(3.0)
    world.script("m", 500.0)

    async def probe_and_follow():
        await either(world.chat("probe"))
        await asyncio.sleep(11.0)
        await world.chat("follows")

    return probe_and_follow()


@scenario(retry={"attempts": 1})
async def half_open_probe_beside_another(world):
    await open_circuit(world)
    await asyncio.sleep(3.0)
    await world.bystand(world.chat("probe"))

    async def refused_and_again():
        await failed(world.chat("beside"), CircuitOpen)
        await asyncio.sleep(1.0)
        await world.chat("after")

    return refused_and_again()


@scenario(total=4.0)
async def chat_when_the_deadline_is_near(world):
    world.script("m", 1.0, boom(), 500.0)
    return either(world.chat())


# Limits of a minute, and work that nobody waits for

# One request at once, and one more each second.
TIGHT = {"rate": {"requests": 60, "per": 60.0, "burst": 0.02}}


@scenario(**TIGHT)
async def chat_waiting_for_its_time(world):
    await world.chat("first")
    await world.bystand(world.chat("before"))
    return world.chat()


@scenario(**TIGHT)
async def chat_waiting_before_others(world):
    await world.chat("first")

    async def go_before():
        world.begin(world.chat("behind"))
        await world.chat()

    return go_before()


@scenario(**TIGHT)
async def batch_work_waiting_for_its_time(world):
    await world.chat("first")
    await world.bystand(world.chat("before", priority="batch"))
    return world.chat(priority="batch")


@scenario(permits=1)
async def batch_work_waiting_for_a_permit(world):
    world.script("m", 2.0)
    await world.bystand(world.chat("first"))
    await world.bystand(world.chat("other", priority="batch"))
    return world.chat(priority="batch")


@scenario(rate={"tokens": 60_000, "per": 60.0})
async def chat_waiting_for_tokens(world):
    await world.bystand(world.chat("first", max_tokens=7_000))
    return world.chat(max_tokens=2_000)


# Several sends


@scenario()
async def embeddings_in_five_batches(world):
    world.script("vec", None, boom(), None)
    return embedded(world, 10)


@scenario()
async def embeddings_of_which_one_batch_fails_for_good(world):
    world.script("vec", None, 0.5, None, *[boom() for _ in range(9)])
    return either(embedded(world, 10))


@scenario(permits=1)
async def embeddings_beside_one_another(world):
    await world.bystand(embedded(world, 7, prefix="other"))
    return embedded(world, 10)


@scenario()
async def fallback_over_three_models(world):
    world.script("a", boom(), boom(), boom())
    world.script("b", cut(), cut(), cut())
    return world.chat(model=("a", "b", "c"))


@scenario(retry={"attempts": 1})
async def fallback_of_which_none_serves(world):
    for model in ("a", "b", "c"):
        world.script(model, boom())
    return failed(world.chat(model=("a", "b", "c")), NoModelAvailable)


# Shared sends


def first(world, own, other):
    """Do what the victim does, and soon after it what joins it."""

    async def join():
        await asyncio.sleep(0.005)
        await other

    async def lead():
        world.begin(join())
        await own

    return lead()


@scenario()
async def chat_that_joins_another(world):
    world.may_leave_tasks = True  # those of the other
    world.script("m", boom())
    await world.bystand(world.chat(temperature=0))
    return world.chat(temperature=0)


@scenario()
async def chat_that_another_joins(world):
    world.may_leave_tasks = True  # those of the other
    world.script("m", boom())
    return first(world, world.chat(temperature=0), world.chat(temperature=0))


@scenario()
async def embeddings_that_join_others(world):
    world.may_leave_tasks = True  # those of the other
    world.script("vec", None, boom())
    await world.bystand(embedded(world, 6))
    return embedded(world, 6)


@scenario()
async def embeddings_that_others_join(world):
    world.may_leave_tasks = True  # those of the other
    world.script("vec", None, boom())
    return first(world, embedded(world, 6), embedded(world, 6))


@scenario()
async def stream_that_joins_another(world):
    world.may_leave_tasks = True  # those of the other
    world.script("m", boom())
    await world.bystand(read(world, temperature=0))
    return read(world, temperature=0)


@scenario()
async def stream_that_another_joins(world):
    world.may_leave_tasks = True  # those of the other
    world.script("m", boom())
    return first(world, read(world, temperature=0), read(world, temperature=0))


# Streams


@scenario()
async def stream_read_to_its_end(world):
    world.script("m", boom())
    return read(world)


@scenario()
async def stream_that_is_cached(world):
    async def twice():
        await read(world, temperature=0)
        await read(world, temperature=0)

    return twice()


@scenario(permits=1)
async def stream_read_while_others_wait(world):
    async def both():
        async with await world.send(Stream(model="m", messages="hi")) as stream:
            await anext(stream)
            await world.bystand(world.chat("behind"))
            await stream.result()

    return both()


@scenario()
async def stream_closed_early(world):
    async def leave():
        async with await world.send(Stream(model="m", messages="hi")) as stream:
            await anext(stream)
            await anext(stream)

    return leave()


@scenario()
async def stream_read_without_a_block(world):
    async def keep():
        stream = await world.send(Stream(model="m", messages="hi"))
        world.kept.append(stream)
        assert (await stream.result()).text == "re: hi"

    return keep()


@scenario()
async def stream_that_breaks(world):
    world.script("m", lambda call: world.server.stream(call, [TextDelta("re: ")], 0.1, [TextDelta("h")], 0.1, cut()))
    return failed(read(world), StreamInterrupted)


@scenario()
async def stream_left_to_the_garbage_collector(world):
    async def forget():
        stream = await world.send(Stream(model="m", messages="hi"))
        await anext(stream)
        await asyncio.sleep(0.1)
        await anext(stream)
        stream = None
        await asyncio.sleep(0.1)

    return forget()


@scenario(attempt=2.0)
async def stream_that_falls_silent(world):
    world.script("m", lambda call: world.server.stream(call, [TextDelta("re: ")], 500.0))
    return either(read(world))


# A second request beside a slow one

HEDGED = {"retry": {"hedge": Hedge(quantile=0.5, samples=1, delay_min=0.2, extra=1.0)}}


async def hedged(world, send, *steps):
    """Send once so that the model's time is known, then again with a server that follows `steps`."""
    await send()
    world.script("m", *steps)

    async def slow():
        before = len(world.server.asked)
        await send()
        assert len(world.server.asked) == before + 2

    return slow()


@scenario(**HEDGED)
async def chat_of_which_the_second_request_wins(world):
    return await hedged(world, world.chat, 500.0, None, None)


@scenario(**HEDGED)
async def chat_of_which_the_first_request_wins(world):
    return await hedged(world, world.chat, 0.5, None, 5.0, None)


@scenario(**HEDGED)
async def chat_of_which_the_second_request_fails(world):
    return await hedged(world, world.chat, 1.0, None, 0.1, boom())


@scenario(**HEDGED)
async def stream_of_which_the_second_request_wins(world):
    world.may_leave_tasks = True
    return await hedged(world, lambda: read(world), 500.0, None, None)


@scenario(**HEDGED)
async def streams_that_come_at_once(world):
    world.may_leave_tasks = True
    return await hedged(world, lambda: read(world), 0.2, None, None)


# Streams that are mended


def breaks(world):
    """Return a step of a stream that breaks after its first words."""
    return lambda call: world.server.stream(call, [TextDelta("re: ")], 0.1, cut())


@scenario()
async def stream_that_starts_again(world):
    world.script("m", breaks(world), boom())
    return read(world, on_interrupt="restart")


@scenario(permits=1)
async def stream_that_goes_on(world):
    rest = [TextDelta("hi")], 0.1, [FINISHED]
    world.script("m", breaks(world), None, lambda call: world.server.stream(call, *rest))

    async def go_on():
        async with await world.send(Stream(model="m", messages="hi", on_interrupt="continue")) as stream:
            await anext(stream)
            await world.bystand(world.chat("behind"))
            assert (await stream.result()).text == "re: hi"

    return go_on()


@scenario()
async def stream_that_breaks_too_often(world):
    world.script("m", *[breaks(world) for _ in range(4)])
    return failed(read(world, on_interrupt="restart"), StreamInterrupted)


@scenario()
async def stream_closed_while_it_is_asked_for_again(world):
    world.script("m", breaks(world), 1.0, None)

    async def read_until_closed():
        stream = await world.send(Stream(model="m", messages="hi", on_interrupt="restart"))
        world.kept.append(stream)
        world.begin(close_later(stream))
        await failed(stream.result(), StreamMisused)

    async def close_later(stream):
        await asyncio.sleep(0.5)
        await stream.aclose()

    return read_until_closed()


@scenario(**HEDGED)
async def stream_that_starts_again_with_a_second_request(world):
    world.may_leave_tasks = True
    await read(world)
    world.script("m", breaks(world), 500.0, None, None)
    return read(world, on_interrupt="restart")


# What the helpers of scenarios are


async def either(coroutine):
    """Await what may succeed or be refused by the stack."""
    try:
        await coroutine
    except ResilientAIError:
        return


async def open_circuit(world):
    world.script("m", *[boom() for _ in range(3)])
    for _ in range(3):
        await failed(world.chat(), ServerFailed)
    await failed(world.chat(), CircuitOpen)


async def embedded(world, count, prefix="t"):
    texts = [f"{prefix}{number}" for number in range(count)]
    result = await world.send(Embed(model="vec", texts=texts))
    assert result.vectors[:] == [pytest.approx(vector_of(text)) for text in texts]


async def read(world, **options):
    async with await world.send(Stream(model="m", messages="hi", **options)) as stream:
        answer = await stream.result()
    assert answer.text == "re: hi", answer.text
