"""ConcurrencyLimit: permits, their queue, and that none is ever lost."""

import asyncio
import gc
import random
import threading

import pytest

from resilient_ai.core.call import Call
from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import (
    AttemptTimeout,
    BadRequest,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    LimitReached,
    Overloaded,
    RateLimited,
    RequestTooLarge,
    ServerFailed,
    StatusError,
    StreamInterrupted,
)
from resilient_ai.core.events import LimitChanged, PermitGranted
from resilient_ai.core.health import LimitState
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware._fleet_permit import FleetPermit
from resilient_ai.middleware.batching import Batching
from resilient_ai.middleware.concurrency_limit import ConcurrencyLimit
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Routing
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, chat_result, stream_of

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
    """The documented limit of the service, approached from below, and a queue for bursts."""
    shown = "ConcurrencyLimit(limit=200, initial=32, queue_size=10000, adaptive=True, fleet=None)"
    assert repr(ConcurrencyLimit()) == shown
    assert ConcurrencyLimit(limit=3, queue_size=0).queue_size == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"limit": 0}, "limit must be a whole number >= 1, got 0"),
        ({"initial": 0}, "initial must be a whole number >= 1, got 0"),
        ({"queue_size": -1}, "queue_size must be a whole number >= 0, got -1"),
    ],
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


async def test_a_call_that_would_wait_past_its_deadline_is_refused_at_once(clock):
    """Once ten permits came back the wait is predicted; who has less time left does not queue."""
    limit = ConcurrencyLimit(limit=2)
    pipeline = Pipeline(Slow(4.0), [Deadline(), limit], clock=clock)
    await asyncio.gather(*(pipeline.send(CHAT) for _ in range(10)))
    under_way = [asyncio.ensure_future(pipeline.send(CHAT)) for _ in range(2 + 6)]
    await asyncio.sleep(0)
    began = clock.monotonic()
    with pytest.raises(
        LimitReached, match=r"a permit for 'm' takes about 12.0 s, and the call has 11.0 s left"
    ) as caught:
        await pipeline.send(CHAT, timeout=11.0)
    assert clock.monotonic() == began
    assert (caught.value.limit, caught.value.retry_after) == (2, pytest.approx(12.0))
    assert (await pipeline.send(CHAT, timeout=25.0)).text == "Hello."
    await asyncio.gather(*under_way)


async def test_nothing_is_predicted_while_the_limit_doubles(clock):
    """A queue that looks too long for a limit of sixteen is not, as the limit is thirty-two a second later."""
    limit = ConcurrencyLimit(limit=64, initial=16)
    pipeline = Pipeline(Slow(4.0), [Deadline(), limit], clock=clock)
    for _ in range(10):
        await pipeline.send(CHAT)
    outcomes = await asyncio.gather(*(pipeline.send(CHAT, timeout=10.5) for _ in range(16 + 32)))
    assert len(outcomes) == 48


async def test_a_full_queue_says_how_long_it_is(clock):
    """Where the wait can be predicted, the error names it, also for a call without a deadline."""
    limit = ConcurrencyLimit(limit=1, queue_size=5)
    pipeline = Pipeline(Slow(2.0), [limit], clock=clock)
    for _ in range(10):
        await pipeline.send(CHAT)
    outcomes = await asyncio.gather(*(pipeline.send(CHAT) for _ in range(7)), return_exceptions=True)
    assert isinstance(outcomes[6], LimitReached)
    assert outcomes[6].retry_after == pytest.approx(10.0)


async def test_interactive_calls_go_first_and_batch_is_not_starved(clock):
    """In a queue of both, four interactive calls go and then one of batch."""
    provider = Slow()
    pipeline = Pipeline(provider, [ConcurrencyLimit(limit=1)], clock=clock)
    await asyncio.gather(
        *(pipeline.send(CHAT, tags={"n": f"b{n}"}, priority="batch") for n in range(3)),
        *(pipeline.send(CHAT, tags={"n": f"i{n}"}) for n in range(9)),
    )
    assert provider.order == ["b0", "i0", "i1", "i2", "i3", "b1", "i4", "i5", "i6", "i7", "b2", "i8"]


async def test_batch_leaves_room_for_interactive_calls(clock):
    """Ten batch calls take eight of ten permits; an interactive one that comes later does not wait."""
    provider, limit = Slow(10.0), ConcurrencyLimit(limit=10)
    pipeline = Pipeline(provider, [limit], clock=clock)
    batch = [asyncio.ensure_future(pipeline.send(CHAT, priority="batch")) for _ in range(10)]
    await asyncio.sleep(1.0)
    assert (limit.in_use(ORIGIN, "m"), limit.waiting(ORIGIN, "m")) == (8, 2)
    began = clock.monotonic()
    await pipeline.send(CHAT)
    assert clock.monotonic() - began == pytest.approx(10.0)
    await asyncio.gather(*batch)
    assert (limit.in_use(ORIGIN, "m"), limit.waiting(ORIGIN, "m")) == (0, 0)


async def test_the_limit_grows_while_it_is_used_and_shrinks_when_refused(clock):
    """Every change is told, outside of the turn, and seen by `health`."""
    refused = RateLimited("slow down", status=429)
    limit = ConcurrencyLimit(limit=10, initial=2)
    pipeline = Pipeline(
        ScriptedProvider(1.0, chat_result(), refused, Overloaded("busy", status=503)), [limit], clock=clock
    )
    told = []

    def note(event):
        if isinstance(event, LimitChanged):
            told.append((event.model, event.limit, limit.in_use(ORIGIN, "m")))

    pipeline.subscribe(note)
    await pipeline.send(CHAT)
    assert told == [("m", 4, 0)]
    for _ in range(2):
        with pytest.raises(StatusError):
            await pipeline.send(CHAT)
    assert told == [("m", 4, 0), ("m", 3, 0)]
    assert limit.health() == [LimitState(key=(ORIGIN, "m"), limit=3, limit_max=10, in_use=0, waiting=0)]


async def test_growth_lets_those_who_wait_through(clock):
    """A limit that doubles gives the new permits to the queue at once."""
    provider = Slow()
    pipeline = Pipeline(provider, [ConcurrencyLimit(initial=2)], clock=clock)
    began = clock.monotonic()
    await asyncio.gather(*(pipeline.send(CHAT) for _ in range(2 + 4 + 8 + 16)))
    assert clock.monotonic() - began == pytest.approx(4.0)
    assert provider.most == 16


@pytest.mark.parametrize(
    ("error", "change"),
    [
        (BadRequest("no", status=422), 2),
        (RequestTooLarge("no", status=413), 2),
        (ServerFailed("boom", status=500), 1),
        (AttemptTimeout(timer="attempt", elapsed=1.0), 1),
        (asyncio.CancelledError(), 1),
    ],
)
async def test_what_an_error_says_about_the_limit(clock, error, change):
    """A request that was refused for its content was taken; a failure says nothing."""
    limit = ConcurrencyLimit(limit=2, initial=1)
    with pytest.raises(type(error)):
        await Pipeline(ScriptedProvider(error), [limit], clock=clock).send(CHAT)
    assert [state.limit for state in limit.health()] == [change]


@pytest.mark.parametrize(("end", "change"), [("completed", 2), ("closed", 1), ("failed", 1)])
async def test_what_the_end_of_a_stream_says_about_the_limit(clock, end, change):
    """A stream that was read to its end was taken; one that was left or broke says nothing."""
    limit = ConcurrencyLimit(limit=2, initial=1)
    source = ScriptedSource([[Finished(("stop",), Usage())]] if end == "completed" else [])
    stream = await Pipeline(
        ScriptedProvider(StreamResult(source, model="m", first=[TextDelta("a")], clock=clock)), [limit], clock=clock
    ).send(STREAM)
    if end == "closed":
        await stream.aclose()
    elif end == "failed":
        with pytest.raises(StreamInterrupted):
            await stream.result()
    else:
        await stream.result()
    assert stream.ended == end
    assert [(state.limit, state.in_use) for state in limit.health()] == [(change, 0)]


async def test_a_limit_that_is_not_adaptive_stays(clock):
    """Neither success nor refusal moves it."""
    limit = ConcurrencyLimit(limit=5, adaptive=False)
    pipeline = Pipeline(ScriptedProvider(RateLimited("slow down", status=429)), [limit], clock=clock)
    with pytest.raises(RateLimited):
        await pipeline.send(CHAT)
    await asyncio.gather(*(pipeline.send(CHAT) for _ in range(20)))
    assert [state.limit for state in limit.health()] == [5]


async def test_a_call_that_waited_is_asked_whether_it_may_still_go(clock):
    """What `recheck` raises is the end of the call, and its permit goes to the next; who did not wait is not asked."""
    limit, asked = ConcurrencyLimit(limit=1), []

    def may_go():
        asked.append(limit.in_use(ORIGIN, "m"))
        if len(asked) == 1:
            raise CircuitOpen(model="m", retry_after=3.0)

    async def outer(call, proceed):
        return await proceed(call.replace(recheck=may_go))

    provider, events = Slow(), []
    pipeline = Pipeline(provider, [outer, limit], clock=clock)
    pipeline.subscribe(lambda event: events.append(event) if isinstance(event, PermitGranted) else None)
    outcomes = await asyncio.gather(*(pipeline.send(CHAT) for _ in range(3)), return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["ChatResult", "CircuitOpen", "ChatResult"]
    assert asked == [1, 1]
    assert (len(provider.calls), len(events), limit.in_use(ORIGIN, "m")) == (2, 1, 0)


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


@pytest.mark.parametrize("shared", [False, True])
async def test_batch_and_interactive_cancellations_leave_nothing_behind(clock, shared):
    """Both classes, an adaptive limit that is refused now and then, a crowd that leaves: every permit comes back."""
    chance = random.Random(11)
    fleet = OneFleet() if shared else None
    limit = ConcurrencyLimit(limit=8, initial=4, fleet=fleet)

    class Moody(Slow):
        async def __call__(self, call):
            if chance.random() < 0.05:
                raise RateLimited("slow down", status=429)
            return await super().__call__(call)

    pipeline = Pipeline(Moody(0.5), [Deadline(total=20.0), limit], clock=clock)
    for _ in range(20):
        tasks = [
            asyncio.ensure_future(pipeline.send(CHAT, priority=chance.choice(["batch", "interactive"])))
            for _ in range(100)
        ]
        for victim in chance.sample(tasks, 60):
            if chance.random() < 0.2:
                await asyncio.sleep(chance.choice([0, 0.1, 0.5]))
            victim.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        (state,) = limit.health()
        assert (state.in_use, state.waiting) == (0, 0)
        assert 1 <= state.limit <= 8
        if fleet is not None:
            fleet.down = not fleet.down
    line = limit._lines[ORIGIN, "m"]
    assert (line.permits.batch_in_use, line.sending) == (0, 0)
    if fleet is not None:
        assert fleet.held == set()
        assert sorted(fleet.released) == sorted({holder for _, _, holder in fleet.asked})


async def test_permits_of_unused_models_are_forgotten_beyond_a_thousand(clock):
    """Names of models that users make up do not fill the memory; permits in use stay."""
    limit = ConcurrencyLimit(limit=1)
    pipeline = Pipeline(ScriptedProvider(stream_of("a")), [limit], clock=clock)
    stream = await pipeline.send(STREAM)
    for number in range(1500):
        await pipeline.send(Chat(model=f"m{number}", messages="hi"))
    assert len(limit._lines) <= 1025
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


class OneFleet:
    """Permits that several limits share; `down` is a fleet that cannot be asked."""

    def __init__(self, share=0.5, *, down=False):
        self.share, self.down = share, down
        self.held, self.line, self.asked, self.released, self.alone = set(), [], [], [], []

    @property
    def reachable(self):
        return not self.down

    async def acquire(self, name, *, limit, holder):
        self.asked.append((name, limit, holder))
        await asyncio.sleep(0)
        if self.down:
            return None
        if holder not in self.line:
            self.line.append(holder)
        missing = max(0, self.line.index(holder) + 1 + len(self.held) - limit)
        if not missing:
            self.line.remove(holder)
            self.held.add(holder)
        return missing

    async def aclose(self):
        pass

    def hold(self, name, *, holder):
        assert name == f"requests in flight:{ORIGIN}::m"
        self.alone.append(holder)

    def release(self, name, *, holder):
        assert name == f"requests in flight:{ORIGIN}::m"
        self.released.append(holder)
        self.held.discard(holder)
        if holder in self.line:
            self.line.remove(holder)


async def test_a_fleet_shares_one_limit(clock):
    """Two processes together never have more under way than the limit, and every call gives back what it held, once."""
    fleet, provider, events = OneFleet(), Slow(), []
    pipelines = [Pipeline(provider, [ConcurrencyLimit(limit=3, fleet=fleet)], clock=clock) for _ in range(2)]
    pipelines[0].subscribe(lambda event: events.append(event) if isinstance(event, PermitGranted) else None)
    await asyncio.gather(*(pipeline.send(CHAT) for pipeline in pipelines for _ in range(12)))
    assert provider.most == 3
    assert {(name, limit) for name, limit, _ in fleet.asked} == {(f"requests in flight:{ORIGIN}::m", 3)}
    assert sorted(fleet.released) == sorted({holder for _, _, holder in fleet.asked})
    assert len(fleet.released) == 24
    assert fleet.held == set()
    assert 9 <= len(events) <= 12


@pytest.mark.parametrize(
    ("missing", "held", "limit", "chance", "pause"),
    [
        (1, None, 200, 0.0, 0.02),
        (1, None, 200, 1.0, 0.01),
        (5, None, 200, 0.5, 0.075),
        (99, None, 200, 0.0, 0.25),
        (2, 0.5, 10, 0.0, 0.05),
        (2, 0.01, 10, 0.0, 0.02),
        (2, 60.0, 10, 1.0, 0.125),
        (None, 60.0, 1, 0.0, 0.05),
        (None, 60.0, 1, 1.0, 0.25),
    ],
)
async def test_who_is_next_asks_the_fleet_soon_and_others_later(missing, held, limit, chance, pause):
    """After half the time in which the permits come back, within bounds, with up to half off by chance."""

    class Told(OneFleet):
        async def acquire(self, name, *, limit, holder):
            self.asked.append(holder)
            return missing if len(self.asked) == 1 else 0

    fleet, clock = Told(), FakeClock([chance])
    permit = FleetPermit(fleet, f"requests in flight:{ORIGIN}::m", limit)
    assert await permit.acquire(Call(CHAT, clock, ORIGIN), lambda alone: not alone, lambda: held) is True
    assert clock.slept == pytest.approx([pause])
    assert (permit.is_admitted, fleet.alone) == (True, [])


async def test_a_wait_for_the_fleet_that_is_too_long_is_refused_at_once(clock):
    """Told by the place in the line and the mean time a permit is held; who may just make it is let in."""
    fleet = OneFleet()
    one, other, late = (
        Pipeline(
            Slow(10.0), [Deadline(total=total), ConcurrencyLimit(limit=2, adaptive=False, fleet=fleet)], clock=clock
        )
        for total in (60.0, 60.0, 9.9)
    )
    for _ in range(5):
        await asyncio.gather(*(late.send(CHAT, timeout=60.0) for _ in range(2)))
    under_way = [asyncio.ensure_future(one.send(CHAT)) for _ in range(2)]
    await asyncio.sleep(0.01)
    in_line = [asyncio.ensure_future(other.send(CHAT)) for _ in range(2)]
    await asyncio.sleep(0.01)
    began = clock.monotonic()
    with pytest.raises(LimitReached) as caught:
        await late.send(CHAT)
    assert clock.monotonic() - began == 0.0
    assert str(caught.value).startswith(
        "a permit for 'm', which the fleet shares, takes about 10.0 s, and the call has 9.9 s left"
    )
    assert (caught.value.limit, caught.value.retry_after) == (2, pytest.approx(10.0))
    assert len(fleet.line) == 2
    await asyncio.gather(*under_way, *in_line)
    assert fleet.held == set()


async def test_the_queue_of_a_process_knows_how_long_the_fleet_takes(clock):
    """A permit of this process is taken while its call stands in the line of the fleet."""
    limit = ConcurrencyLimit(limit=1, adaptive=False, fleet=OneFleet())
    pipeline = Pipeline(Slow(1.0), [limit], clock=clock)
    for _ in range(10):
        await pipeline.send(CHAT)
    line = limit._lines[ORIGIN, "m"]
    for _ in range(200):
        line.record_asked(3.0)
    under_way = [asyncio.ensure_future(pipeline.send(CHAT)) for _ in range(3)]
    await asyncio.sleep(0.5)
    assert line.predicted_wait(batch=False) == pytest.approx(8.0, rel=0.1)
    await asyncio.gather(*under_way)
    assert line.predicted_wait(batch=False) == 0.0


async def test_health_tells_who_waits_for_the_fleet_and_whether_it_shares(clock):
    """Only what is sent is in use; without the fleet the limit is the share of this process."""
    fleet = OneFleet(share=0.25)
    limits = [ConcurrencyLimit(limit=8, adaptive=False, fleet=fleet) for _ in range(2)]
    calls = [
        asyncio.ensure_future(Pipeline(Slow(5.0), [limit], clock=clock).send(CHAT))
        for limit in limits
        for _ in range(8)
    ]
    await asyncio.sleep(1.0)
    assert [
        (state.in_use, state.waiting, state.limit, state.shared) for limit in limits for state in limit.health()
    ] == [
        (8, 0, 8, True),
        (0, 8, 8, True),
    ]
    assert (limits[1].in_use(ORIGIN, "m"), limits[1].waiting(ORIGIN, "m")) == (0, 8)
    assert (limits[1].in_use(ORIGIN, "x"), limits[1].waiting(ORIGIN, "x")) == (0, 0)
    fleet.down = True
    await asyncio.sleep(1.0)
    (state,) = limits[1].health()
    assert (state.in_use, state.waiting, state.limit, state.limit_max, state.shared) == (2, 6, 2, 8, False)
    await asyncio.gather(*calls)
    alone = ConcurrencyLimit(limit=8)
    await Pipeline(Slow(), [alone], clock=clock).send(CHAT)
    assert alone.health()[0].shared is None


async def test_what_was_sent_with_the_fleet_counts_towards_the_share_without_it(clock):
    """Who has more under way than its share sends nothing new until enough has ended, and what goes then is told."""
    fleet = OneFleet(share=0.5)
    limit = ConcurrencyLimit(limit=4, adaptive=False, fleet=fleet)
    provider = Slow(5.0)
    pipeline = Pipeline(provider, [limit], clock=clock)
    calls = [asyncio.ensure_future(pipeline.send(CHAT)) for _ in range(2)]
    await asyncio.sleep(1.0)
    fleet.down = True
    calls += [asyncio.ensure_future(pipeline.send(CHAT)) for _ in range(2)]
    await asyncio.sleep(3.0)
    assert (limit.in_use(ORIGIN, "m"), limit.waiting(ORIGIN, "m"), fleet.alone) == (2, 2, [])
    await asyncio.sleep(2.0)
    assert (limit.in_use(ORIGIN, "m"), len(fleet.alone)) == (2, 2)
    await asyncio.gather(*calls)
    assert set(fleet.alone) <= set(fleet.released)


async def test_without_the_fleet_a_process_keeps_to_its_share(clock):
    """While the fleet cannot be asked, half of ten; once it can, ten again."""
    fleet, provider = OneFleet(share=0.5, down=True), Slow()
    limit = ConcurrencyLimit(limit=10, fleet=fleet)
    pipeline = Pipeline(provider, [limit], clock=clock)
    await asyncio.gather(*(pipeline.send(CHAT) for _ in range(20)))
    assert provider.most == 5
    fleet.down = False
    await asyncio.gather(*(pipeline.send(CHAT) for _ in range(20)))
    assert provider.most == 10
    assert (limit.in_use(ORIGIN, "m"), len(fleet.released)) == (0, 40)


async def test_a_small_share_still_lets_one_through(clock):
    """A process of a large fleet is not silenced when the fleet is gone."""
    provider = Slow()
    limit = ConcurrencyLimit(limit=10, fleet=OneFleet(share=0.01, down=True))
    await asyncio.gather(*(Pipeline(provider, [limit], clock=clock).send(CHAT) for _ in range(3)))
    assert provider.most == 1


@pytest.mark.parametrize("down", [False, True])
async def test_the_deadline_bounds_the_wait_for_the_fleet(clock, down):
    """A call that the fleet keeps waiting ends in time and gives everything back."""
    fleet = OneFleet(share=0.1, down=down)
    other = ConcurrencyLimit(limit=2, fleet=fleet)
    limit = other if down else ConcurrencyLimit(limit=2, fleet=fleet)
    holders = 1 if down else 2
    long = Pipeline(Slow(100.0), [other], clock=clock)
    under_way = [asyncio.ensure_future(long.send(CHAT)) for _ in range(holders)]
    await asyncio.sleep(1.0)
    began = clock.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        await Pipeline(Slow(), [Deadline(total=5.0), limit], clock=clock).send(CHAT)
    assert clock.monotonic() - began == pytest.approx(5.0)
    assert caught.value.sent is False
    assert len(fleet.released) == 1
    await asyncio.gather(*under_way)
    assert (limit.in_use(ORIGIN, "m"), fleet.held, len(fleet.released)) == (0, set(), 1 + holders)


async def test_a_call_cancelled_while_it_asks_the_fleet_gives_back_what_it_may_have_got(clock):
    """The fleet may have said yes to a call that was gone by then."""
    fleet = OneFleet()
    limit = ConcurrencyLimit(limit=1, fleet=fleet)
    task = asyncio.ensure_future(Pipeline(Slow(), [limit], clock=clock).send(CHAT))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (len(fleet.asked), len(fleet.released), limit.in_use(ORIGIN, "m")) == (1, 1, 0)


async def test_a_stream_holds_the_permit_of_the_fleet_to_its_end(clock):
    """Also one that the garbage collector finds."""
    fleet = OneFleet()
    pipeline = Pipeline(ScriptedProvider(stream_of("a", "b")), [ConcurrencyLimit(limit=1, fleet=fleet)], clock=clock)
    stream = await pipeline.send(STREAM)
    assert len(fleet.held) == 1
    del stream
    gc.collect()
    assert (len(fleet.held), len(fleet.released)) == (0, 1)


async def test_a_forked_child_gives_back_nothing_of_its_parent(clock):
    """In the child the permits begin anew, and the end of a stream it inherited does not reach the fleet."""
    fleet = OneFleet()
    limit = ConcurrencyLimit(limit=1, fleet=fleet)
    pipeline = Pipeline(ScriptedProvider(stream_of("a", "b")), [limit], clock=clock)
    inherited = await pipeline.send(STREAM)
    limit._turns.begin_afresh()
    assert limit.health() == []
    fleet.held.clear()
    assert (await pipeline.send(CHAT)).text == "Hello."
    released = len(fleet.released)
    await inherited.aclose()
    assert len(fleet.released) == released
    assert limit.in_use(ORIGIN, "m") == 0
