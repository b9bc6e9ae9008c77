"""One stack outlives loops, is shared by threads, and begins afresh in a forked child, also in the middle of calls."""

import asyncio
import gc
import os
import random
import sys
import threading

import pytest

from resilient_ai.core.errors import ResilientAIError, ServerFailed
from resilient_ai.core.operations import Stream
from resilient_ai.middleware import ConcurrencyLimit

from .scenarios import open_circuit
from .world import World

QUICK = {"latency": 0.0005, "ramp": 0.0, "retry": {"attempts": 3, "wait_initial": 0.001, "wait_max": 0.002}}
THREADS = 16


async def under_way(world):
    """Leave one call before its answer, one in its stream and one in the queue; return what holds them."""
    world.script("m", 500.0)
    hanging = asyncio.create_task(world.chat("hangs"))
    await asyncio.sleep(0.01)
    stream = await world.send(Stream(model="m", messages="hi"))
    waiting = asyncio.create_task(world.chat("waits"))
    await asyncio.sleep(0.01)
    assert held(world) == (2, 1)
    return hanging, stream, waiting


def held(world):
    """Return (in use, waiting) of the model "m"."""
    limit = next(layer for layer in world.pipeline.stack if isinstance(layer, ConcurrencyLimit))
    return limit.in_use(world.server.origin, "m"), limit.waiting(world.server.origin, "m")


def wrong(world):
    """Return what is left behind, asked of a loop of its own, and what fresh calls say."""

    async def look():
        # What is found first may have been all that held the next.
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(0)
        return [*world.leftovers(), *await world.fresh_calls(), *world.leftovers()]

    return asyncio.run(look())


def test_a_loop_that_ends_in_the_middle_of_calls():
    """After `asyncio.run` has cancelled what was under way, the next one finds nothing held."""
    world = World(permits=2, **QUICK)

    async def leave():
        kept.append(await under_way(world))

    kept = []
    asyncio.run(leave())
    kept.clear()
    assert wrong(world) == []


def test_a_loop_that_is_dropped_in_the_middle_of_calls():
    """A loop that is closed without a word takes its calls along: a waiter that will never run passes its turn on."""
    world = World(permits=2, **QUICK)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: None)
    kept = [loop.run_until_complete(under_way(world))]
    loop.close()
    kept.clear()
    del loop
    assert wrong(world) == []


def test_a_probe_whose_loop_ends():
    """A probe that is cancelled with its loop leaves the circuit to the next call."""
    world = World(permits=2, latency=0.0005, retry={"attempts": 1}, break_duration=0.02, ramp=0.0)

    async def leave():
        await open_circuit(world)
        await asyncio.sleep(0.05)
        world.script("m", 500.0)
        kept.append(asyncio.create_task(world.chat("probe")))
        await asyncio.sleep(0.01)

    kept = []
    asyncio.run(leave())
    kept.clear()
    assert wrong(world) == []


@pytest.fixture
def restless():
    """Threads take turns a thousand times more often than they do by default."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_sixteen_loops_share_one_stack(restless):
    """Permits, circuits, rows and spans of one stack hold between threads: answers are right, and nothing is left."""
    world = World(permits=3, **QUICK)
    world.script("m", *[ServerFailed("boom", status=500) if number % 7 == 0 else None for number in range(200)])
    faults, answers, most = [], [], []

    async def one(number, chance):
        try:
            async with asyncio.timeout(chance.choice([0.001, 0.01, 30.0, 30.0])):
                if number % 3:
                    await world.chat(f"chat {number}")
                else:
                    async with await world.send(Stream(model="m", messages="hi")) as stream:
                        most.append(held(world)[0])
                        assert (await stream.result()).text == "re: hi"
        except (TimeoutError, ResilientAIError):
            return 0
        return 1

    def work(seed):
        async def several():
            chance = random.Random(seed)
            return await asyncio.gather(*(one(seed * 100 + number, chance) for number in range(20)))

        try:
            answers.extend(asyncio.run(several()))
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the test
            faults.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(answers) == THREADS * 20
    assert sum(answers) > THREADS
    assert max(most) <= 3
    assert wrong(world) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_fork_in_the_middle_of_calls():
    """The child begins with every permit, whatever becomes of its parent's calls; those come to their end in the parent."""
    world = World(permits=2, **QUICK)

    async def main():
        kept = [await under_way(world)]
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            say(write, lambda: in_child(world, kept))
        os.close(write)
        with os.fdopen(read) as told:
            said = told.read()
        os.waitpid(pid, 0)  # noqa: ASYNC222 - the child has spoken, and is gone in no time
        hanging, stream, waiting = kept.pop()
        async with stream:
            assert (await stream.result()).text == "re: hi"
        await waiting
        hanging.cancel()
        await asyncio.wait({hanging})
        return said

    assert asyncio.run(main()) == "nothing"
    assert wrong(world) == []


def in_child(world, kept):
    """Return what is wrong in the child, in words."""
    broken = []
    if held(world) != (0, 0):
        broken.append(f"held: {held(world)}")
    for task in kept.pop():
        if isinstance(task, asyncio.Task):
            task._log_destroy_pending = False
            task.get_coro().close()
    gc.collect()
    if held(world) != (0, 0):
        broken.append(f"held after the parent's calls were destroyed: {held(world)}")
    return broken + asyncio.run(ask_many(world))


async def ask_many(world):
    world.server.scripts.clear()
    outcomes = await asyncio.gather(*(world.fresh("m", "chat", number) for number in range(10)))
    return [text for outcome in outcomes for text in outcome]


def say(write, ask):
    """In a child: write what `ask` returns, and leave without a trace."""
    try:
        os.write(write, ("; ".join(ask()) or "nothing").encode())
    except BaseException as error:  # noqa: BLE001 - it must not become the parent's
        os.write(write, repr(error).encode())
    finally:
        os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_child_closes_no_row_of_its_parent():
    """A call of the parent that is destroyed in a forked child is none of the child's business."""
    world = World(latency=0.0005)

    async def main():
        world.script("m", 500.0)
        task = asyncio.create_task(world.chat())
        await asyncio.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            task.get_coro().close()
            os._exit(len(world.rows.closes) + len(world.rows.settles))
        task.cancel()
        return pid

    assert os.waitstatus_to_exitcode(os.waitpid(asyncio.run(main()), 0)[1]) == 0
