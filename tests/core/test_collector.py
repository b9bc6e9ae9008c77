"""What listeners and callbacks of users are spared: to run inside of the garbage collector."""

import asyncio
import gc
import threading
import time

import pytest
from opentelemetry.sdk.metrics import AlignedHistogramBucketExemplarReservoir, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View

from resilient_ai.core.collector import collecting, collecting_if, outside_of_collector
from resilient_ai.core.operations import Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import CircuitBreaker, ConcurrencyLimit, CostAccounting, Metrics
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


def test_an_action_that_needs_a_lock_of_what_was_interrupted_waits_for_it():
    """Without a loop it runs in a thread of its own, so that who holds the lock goes on and lets it go."""
    lock, done = threading.Lock(), threading.Event()

    def need_it():
        with lock:
            done.set()

    with lock, collecting(None):
        outside_of_collector(need_it)
        assert not done.is_set()
    assert done.wait(5)


@pytest.mark.parametrize(("error", "is_late"), [(GeneratorExit(), True), (asyncio.CancelledError(), False)])
async def test_a_coroutine_that_is_closed_ends_in_a_finalizer(error, is_late):
    """A cancellation comes from a task that goes on."""
    done = []
    with collecting_if(error):
        outside_of_collector(lambda: done.append(1))
    assert done == ([] if is_late else [1])
    await asyncio.sleep(0)
    assert done == [1]


class Greedy(AlignedHistogramBucketExemplarReservoir):
    """Whatever is allocated while figures are read may set the garbage collector going; here it does so for certain."""

    def collect(self, point_attributes):
        gc.collect()
        return super().collect(point_attributes)


@pytest.mark.timeout(20)
def test_figures_of_a_stream_that_is_found_while_figures_are_read():
    """The SDK holds a lock then, which nobody but who was interrupted lets go of."""
    reader = InMemoryMetricReader()
    view = View(
        instrument_type=Histogram,
        exemplar_reservoir_factory=lambda _: Greedy,
    )
    pipeline = Pipeline(ScriptedProvider(), [Metrics(MeterProvider([reader], views=[view]))])

    async def leave():
        await (await pipeline.send(Stream(model="m", messages="hi"))).result()
        stream = await pipeline.send(Stream(model="m", messages="hi"))
        stream.itself = stream  # only the collector can find it

    run(leave())
    assert reader.get_metrics_data() is not None
    for _ in range(500):  # a thread of its own waits for the lock
        (metric,) = [metric for metric in metrics_of(reader) if metric.name == "resilient_ai.request.duration"]
        counts = {point.attributes["resilient_ai.outcome"]: point.count for point in metric.data.data_points}
        if counts == {"success": 1, "abandoned": 1}:
            break
        time.sleep(0.01)
    assert counts == {"success": 1, "abandoned": 1}


def metrics_of(reader):
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    return scope.metrics


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
