"""ConcurrencyLimit: permits, their queue, and that none is ever lost."""

import asyncio
import gc
import random
import threading

import pytest

from resilient_ai.core.call import Call
from resilient_ai.core.errors import ConfigurationError, DeadlineExceeded, LimitReached, ServerFailed
from resilient_ai.core.events import PermitGranted
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware.batching import Batching
from resilient_ai.middleware.concurrency_limit import ConcurrencyLimit
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Routing
from resilient_ai.testing import ScriptedProvider, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
STREAM = Stream(model="m", messages="hi")
ORIGIN = ScriptedProvider.origin


class Slow(ScriptedProvider):
    """Takes a while for each request and counts how many are under way."""

    def __init__(self, seconds=1.0):
        super().__init__()
        self.seconds, self.now, self.most, self.order = seconds, 0, 0, []

    async def __call__(self, call):
        self.now += 1
        self.most = max(self.most, self.now)
        self.order.append(call.tags.get("n"))
        try:
            await asyncio.sleep(self.seconds)
            return await super().__call__(call)
        finally:
            self.now -= 1


def test_defaults():
    """The documented limit of the service, and a queue of twice that."""
    assert repr(ConcurrencyLimit()) == "ConcurrencyLimit(limit=200, queue_size=10000)"
    assert ConcurrencyLimit(limit=3, queue_size=0).queue_size == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"limit": 0}, "limit must be >= 1, got 0"), ({"queue_size": -1}, "queue_size must be >= 0, got -1")],
)
def test_senseless_options_are_refused(options, sentence):
    """The sentence names the option and what was given."""
    with pytest.raises(ValueError, match=sentence):
        ConcurrencyLimit(**options)


@pytest.mark.parametrize("outer", [Retry(), Routing(), Batching()])
def test_an_order_that_cannot_work_is_refused(outer):
    """The limit stands inside of Retry, Routing and Batching."""
    with pytest.raises(ConfigurationError, match="ConcurrencyLimit must stand after"):
        Pipeline(ScriptedProvider(), [ConcurrencyLimit(), outer])


async def test_at_most_so_many_are_under_way(clock):
    """A hundred calls through three permits take their turns in the order they came."""
    provider, limit = Slow(), ConcurrencyLimit(limit=3, queue_size=100)
    pipeline = Pipeline(provider, [limit], clock=clock)
    began = clock.monotonic()
    await asyncio.gather(*(pipeline.send(CHAT, tags={"n": str(n)}) for n in range(100)))
    assert provider.most == 3
    assert provider.order == [str(n) for n in range(100)]
    assert clock.monotonic() - began == pytest.approx(34.0)
    assert limit.in_use(ORIGIN, "m") == limit.waiting(ORIGIN, "m") == 0


async def test_a_wait_is_told_and_its_absence_is_not(clock):
    """Who had to wait says how long."""
    events = []
    pipeline = Pipeline(Slow(2.0), [ConcurrencyLimit(limit=1)], clock=clock)
    pipeline.subscribe(lambda event: events.append(event) if isinstance(event, PermitGranted) else None)
    await asyncio.gather(*(pipeline.send(CHAT) for _ in range(3)))
    assert [event.waited for event in events] == pytest.approx([2.0, 4.0])


async def test_a_full_queue_refuses(clock):
    """With one permit and a queue of one, the third call is refused at once."""
    limit = ConcurrencyLimit(limit=1, queue_size=1)
    pipeline = Pipeline(Slow(), [limit], clock=clock)
    outcomes = await asyncio.gather(*(pipeline.send(CHAT) for _ in range(3)), return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["ChatResult", "ChatResult", "LimitReached"]
    assert isinstance(outcomes[2], LimitReached)
    assert (outcomes[2].limit, outcomes[2].retry_after) == (1, None)
    assert str(outcomes[2]) == "1 requests to 'm' are under way and 1 wait"


async def test_models_have_permits_of_their_own(clock):
    """A model that is full does not hold another one up."""
    provider = Slow()
    pipeline = Pipeline(provider, [ConcurrencyLimit(limit=1)], clock=clock)
    await asyncio.gather(*(pipeline.send(Chat(model=f"m{n}", messages="hi")) for n in range(5)))
    assert provider.most == 5


async def test_a_failure_gives_its_permit_back(clock):
    """Whatever the provider raises."""
    limit = ConcurrencyLimit(limit=1)
    pipeline = Pipeline(ScriptedProvider(ServerFailed("boom", status=500)), [limit], clock=clock)
    with pytest.raises(ServerFailed):
        await pipeline.send(CHAT)
    assert limit.in_use(ORIGIN, "m") == 0


async def test_the_deadline_bounds_the_queue(clock):
    """A call that waits too long leaves the queue, and has sent nothing."""
    limit = ConcurrencyLimit(limit=1)
    pipeline = Pipeline(Slow(100.0), [Deadline(total=5.0), limit], clock=clock)
    first = asyncio.ensure_future(pipeline.send(CHAT, timeout=1000.0))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded) as caught:
        await pipeline.send(CHAT)
    assert caught.value.sent is False
    assert limit.waiting(ORIGIN, "m") == 0
    await first
    assert limit.in_use(ORIGIN, "m") == 0


@pytest.mark.parametrize("end", ["read", "closed", "abandoned", "cancelled"])
async def test_a_stream_holds_its_permit_to_its_end(clock, end):
    """However the stream ends, the permit comes back then and not before."""
    limit = ConcurrencyLimit(limit=1)
    pipeline = Pipeline(ScriptedProvider(stream_of("a", "b", pause=5.0)), [limit], clock=clock)
    stream = await pipeline.send(STREAM)
    waiter = asyncio.ensure_future(pipeline.send(CHAT))
    await asyncio.sleep(1.0)
    assert (limit.in_use(ORIGIN, "m"), limit.waiting(ORIGIN, "m")) == (1, 1)
    if end == "read":
        await stream.result()
    elif end == "closed":
        await stream.aclose()
    elif end == "abandoned":
        del stream
    else:
        reader = asyncio.ensure_future(stream.result())
        await asyncio.sleep(1.0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
    assert (await waiter).text == "Hello."
    assert limit.in_use(ORIGIN, "m") == 0


async def test_a_stream_that_is_closed_twice_gives_one_permit_back(clock):
    """A permit is counted once."""
    limit = ConcurrencyLimit(limit=2)
    pipeline = Pipeline(ScriptedProvider(stream_of("a"), stream_of("b")), [limit], clock=clock)
    first, second = await pipeline.send(STREAM), await pipeline.send(STREAM)
    await first.aclose()
    await first.aclose()
    assert limit.in_use(ORIGIN, "m") == 1
    await second.aclose()
    assert limit.in_use(ORIGIN, "m") == 0


async def test_an_abandoned_stream_in_a_cycle_is_found_amid_a_turn(clock):
    """The collector may find it while this very thread takes a permit."""
    limit = ConcurrencyLimit(limit=1)
    pipeline = Pipeline(ScriptedProvider(stream_of("a", "b")), [limit], clock=clock)
    stream = await pipeline.send(STREAM)
    stream.itself = stream
    del stream
    with limit._turns:
        gc.collect()
    assert limit.in_use(ORIGIN, "m") == 0


async def test_a_permit_granted_to_a_cancelled_task_passes_on(clock):
    """Cancelled in the very tick of the grant, the task gives the permit to the next in line."""
    provider, limit = Slow(10.0), ConcurrencyLimit(limit=1)
    pipeline = Pipeline(provider, [limit], clock=clock)
    holder = asyncio.ensure_future(pipeline.send(CHAT))
    await asyncio.sleep(0)
    second, third = asyncio.ensure_future(pipeline.send(CHAT)), asyncio.ensure_future(pipeline.send(CHAT))
    await asyncio.sleep(1.0)
    holder.add_done_callback(lambda _: second.cancel())
    holder.cancel()
    await asyncio.wait([holder, second])
    assert holder.cancelled()
    assert second.cancelled()
    assert (await third).text == "Hello."
    assert (limit.in_use(ORIGIN, "m"), limit.waiting(ORIGIN, "m")) == (0, 0)


async def test_ten_thousand_random_cancellations_leave_nothing_behind(clock):
    """After any mix of answers, failures and cancellations every permit is there and every call gets through."""
    chance = random.Random(7)
    limit = ConcurrencyLimit(limit=5, queue_size=1_000)
    provider = Slow(0.5)
    pipeline = Pipeline(provider, [limit], clock=clock)
    cancelled = 0

    async def one():
        result = await pipeline.send(chance.choice([CHAT, STREAM]))
        if isinstance(result, StreamResult):
            await asyncio.sleep(chance.choice([0, 0.1]))
            if chance.random() < 0.5:
                await result.aclose()

    for _ in range(25):
        tasks = [asyncio.ensure_future(one()) for _ in range(600)]
        for victim in chance.sample(tasks, 550):
            if chance.random() < 0.2:
                await asyncio.sleep(chance.choice([0, 0, 0.1, 0.5]))
            cancelled += victim.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert cancelled >= 10_000
    assert provider.most <= 5
    assert (limit.in_use(ORIGIN, "m"), limit.waiting(ORIGIN, "m")) == (0, 0)
    results = await asyncio.gather(*(pipeline.send(CHAT) for _ in range(50)))
    assert len(results) == 50


async def test_permits_of_unused_models_are_forgotten_beyond_a_thousand(clock):
    """Names of models that users make up do not fill the memory; permits in use stay."""
    limit = ConcurrencyLimit(limit=1)
    pipeline = Pipeline(ScriptedProvider(stream_of("a")), [limit], clock=clock)
    stream = await pipeline.send(STREAM)
    for number in range(1500):
        await pipeline.send(Chat(model=f"m{number}", messages="hi"))
    assert len(limit._permits) <= 1025
    assert limit.in_use(ORIGIN, "m") == 1
    await stream.aclose()


def test_loops_in_several_threads_share_the_permits():
    """Eight loops with one object never have more under way than it allows, and all get through."""
    limit = ConcurrencyLimit(limit=3, queue_size=1_000)
    lock, now, most = threading.Lock(), [0], [0]

    class Provider(ScriptedProvider):
        async def __call__(self, call):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            try:
                await asyncio.sleep(0.0005)
            finally:
                with lock:
                    now[0] -= 1
            return await super().__call__(call)

    counts = []

    async def hammer(seed):
        chance = random.Random(seed)
        pipeline = Pipeline(Provider(), [limit])

        async def one():
            try:
                async with asyncio.timeout(chance.choice([0.0002, 0.001, 30.0, 30.0])):
                    await pipeline.send(CHAT)
            except TimeoutError:
                return 0
            return 1

        counts.append(sum(await asyncio.gather(*(one() for _ in range(100)))))

    threads = [threading.Thread(target=lambda seed=seed: asyncio.run(hammer(seed))) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 8
    assert sum(counts) >= 300
    assert most[0] <= 3
    assert (limit.in_use(ORIGIN, "m"), limit.waiting(ORIGIN, "m")) == (0, 0)


async def test_a_waiter_whose_loop_is_gone_is_passed_over(clock):
    """A permit goes to the next in line when the first of the queue will never run again, and is counted once."""
    limit = ConcurrencyLimit(limit=1)
    pipeline = Pipeline(ScriptedProvider(stream_of("a", "b")), [limit], clock=clock)
    stream = await pipeline.send(STREAM)
    left = []

    async def leave_a_waiter():
        coroutine = limit(Call(CHAT, clock, ORIGIN), ScriptedProvider())
        coroutine.send(None)
        left.append(coroutine)

    thread = threading.Thread(target=lambda: asyncio.run(leave_a_waiter()))
    thread.start()
    thread.join()
    waiter = asyncio.ensure_future(pipeline.send(CHAT))
    await asyncio.sleep(1.0)
    assert limit.waiting(ORIGIN, "m") == 2
    await stream.aclose()
    assert (await waiter).text == "Hello."
    left.pop().close()
    assert (limit.in_use(ORIGIN, "m"), limit.waiting(ORIGIN, "m")) == (0, 0)
