"""What listeners and callbacks of users are spared: to run inside of the garbage collector."""

import asyncio
import gc
import threading

import pytest

from resilient_ai.core.collector import collecting, outside_of_collector
from resilient_ai.core.operations import Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import CircuitBreaker, ConcurrencyLimit, CostAccounting
from resilient_ai.testing import ScriptedProvider, run, stream_of

pytestmark = pytest.mark.anyio


def test_an_action_runs_at_once_where_nothing_is_collected():
    """Also without a loop."""
    done = []
    outside_of_collector(lambda: done.append(1))
    assert done == [1]


async def test_an_action_of_a_finalizer_runs_in_the_next_turn_of_its_loop():
    """And those of finalizers within finalizers as well."""
    done = []
    with collecting(asyncio.get_running_loop()):
        outside_of_collector(lambda: done.append("outer"))
        with collecting(asyncio.get_running_loop()):
            outside_of_collector(lambda: done.append("inner"))
        assert done == []
    outside_of_collector(lambda: done.append("now"))
    await asyncio.sleep(0)
    assert done == ["now", "outer", "inner"]


def test_a_loop_that_is_closed_runs_nothing_so_it_is_done_at_once():
    """Nobody else is left to do it."""

    async def loop():
        return asyncio.get_running_loop()

    done = []
    with collecting(run(loop())):
        outside_of_collector(lambda: done.append(1))
    assert done == [1]


def test_a_loop_that_stands_still_may_never_come_to_it_so_it_is_done_at_once():
    """Nobody knows whether it will run again."""
    loop, done = asyncio.new_event_loop(), []
    with collecting(loop):
        outside_of_collector(lambda: done.append(1))
    loop.close()
    assert done == [1]


async def test_a_listener_that_asks_for_health_while_a_stream_is_collected_in_a_turn(clock):
    """A stream may be found in the middle of a turn of the very parts that the listener asks; what it held is free at once."""
    limit, told, lock = ConcurrencyLimit(), [], threading.Lock()

    def count(event):
        with lock:
            told.append(type(event).__name__)

    async def answer(_call):
        return stream_of("a", "b")

    stack = [CircuitBreaker(), limit, CostAccounting(on_settled=count)]
    pipeline = Pipeline(ScriptedProvider(answer), stack, clock=clock)

    def listener(event):
        told.append((type(event).__name__, pipeline.health().limits[0].in_use))

    stream = await pipeline.send(Stream(model="m", messages="hi"), listener=listener)
    del told[:]
    stream.itself = stream  # only the collector can find it
    del stream
    with limit._turns, lock:
        gc.collect()
    assert told == []
    await asyncio.sleep(0)
    assert (limit.in_use(pipeline.provider.origin, "m"), told) == (0, [("SendSettled", 0), "SendSettled"])
