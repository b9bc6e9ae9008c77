"""CircuitBreaker: which outcomes open it, who is let through, and what is given back."""

import asyncio
import gc
import threading

import pytest

from resilient_ai.core.call import Call
from resilient_ai.core.deltas import TextDelta
from resilient_ai.core.errors import (
    AttemptTimeout,
    AuthenticationFailed,
    BadRequest,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidResponse,
    LimitReached,
    ModelNotFound,
    Overloaded,
    RateLimited,
    ServerFailed,
    StatusError,
    StreamInterrupted,
)
from resilient_ai.core.events import CircuitClosed, CircuitHalfOpened, CircuitOpened
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware.circuit_breaker import BreakerState, CircuitBreaker
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Routing
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, run, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
STREAM = Stream(model="m", messages="hi")
CIRCUIT_EVENTS = (CircuitOpened, CircuitHalfOpened, CircuitClosed)


def boom():
    return ServerFailed("boom", status=500)


@pytest.fixture
def clock():
    return FakeClock([0.5])


class Bench:
    """A breaker before a scripted provider, and what happened."""

    def __init__(self, clock, *script, outer=(), **options):
        self.provider = ScriptedProvider(*script)
        self.breaker = CircuitBreaker(**options)
        self.pipeline = Pipeline(self.provider, [*outer, self.breaker], clock=clock)
        self.events = []
        self.pipeline.subscribe(lambda event: self.events.append(event) if isinstance(event, CIRCUIT_EVENTS) else None)

    async def send(self, *script, operation=CHAT):
        """Send once, with these next steps of the script; return the result or the error."""
        self.provider.script.extend(script)
        try:
            return await self.pipeline.send(operation)
        except Exception as error:  # noqa: BLE001 - the outcome is what the test is about
            return error

    async def open(self):
        for _ in range(5):
            await self.send(boom())
        assert self.state == "open"

    @property
    def state(self):
        return self.breaker.health()[0].state

    @property
    def names(self):
        return [type(event).__name__ for event in self.events]


def test_defaults():
    """Five in a row, or half of ten in thirty seconds; breaks of two to ten seconds."""
    assert repr(CircuitBreaker()) == (
        "CircuitBreaker(failure_ratio=0.5, minimum_throughput=10, consecutive_failures=5, sampling_duration=30.0, "
        "break_duration=2.0, break_duration_max=10.0, probe_lease=65.0, ramp=10.0)"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"failure_ratio": 0.0}, "failure_ratio must be above 0 and at most 1, got 0.0"),
        ({"failure_ratio": 1.1}, "failure_ratio must be above 0 and at most 1, got 1.1"),
        ({"minimum_throughput": 0}, "minimum_throughput must be >= 1, got 0"),
        ({"consecutive_failures": 0}, "consecutive_failures must be >= 1, got 0"),
        ({"sampling_duration": 0.0}, "sampling_duration must be a positive number"),
        ({"break_duration": -1.0}, "break_duration must be a positive number"),
        ({"break_duration_max": 1.0}, "break_duration_max must be >= break_duration, got 1.0 < 2.0"),
        ({"probe_lease": float("inf")}, "probe_lease must be a positive number"),
    ],
)
def test_senseless_options_are_refused(options, sentence):
    """The sentence names the option and what was given."""
    with pytest.raises(ValueError, match=sentence):
        CircuitBreaker(**options)


@pytest.mark.parametrize("outer", [Retry(), Routing()])
def test_an_order_that_cannot_work_is_refused(outer):
    """The breaker stands inside of Retry, Routing and Cache."""
    with pytest.raises(ConfigurationError, match="CircuitBreaker must stand after"):
        Pipeline(ScriptedProvider(), [CircuitBreaker(), outer])


async def test_a_model_that_fails_is_left_alone(clock):
    """After five failures calls fail at once, with the time until a probe may go."""
    bench = Bench(clock)
    await bench.open()
    error = await bench.send()
    assert isinstance(error, CircuitOpen)
    assert (error.model, error.retry_after) == ("m", pytest.approx(2.0))
    assert len(bench.provider.calls) == 5
    assert bench.names == ["CircuitOpened"]
    assert bench.events[0].retry_after == pytest.approx(2.0)


async def test_each_rejection_is_an_error_of_its_own(clock):
    """No instance is raised twice, whose traceback would grow."""
    bench = Bench(clock)
    await bench.open()
    first, second = await bench.send(), await bench.send()
    assert first is not second


async def test_a_model_that_is_back_is_asked_again(clock):
    """After the break one call goes as a probe, and its success closes the circuit."""
    bench = Bench(clock)
    await bench.open()
    await asyncio.sleep(2.0)
    assert (await bench.send()).text == "Hello."
    assert bench.state == "closed"
    assert bench.names == ["CircuitOpened", "CircuitHalfOpened", "CircuitClosed"]


@pytest.mark.parametrize(
    "error",
    [
        boom(),
        ServerFailed("bad gateway", status=502),
        StatusError("late", status=408),
        ConnectionFailed("refused", phase="connect"),
        AttemptTimeout(timer="first_token", elapsed=60.0),
        InvalidResponse("html"),
        StreamInterrupted("broke", partial=None),
    ],
)
async def test_failures_of_the_server_open_it(clock, error):
    """No answer, none in time, an unreadable one, 408 and 5xx count."""
    bench = Bench(clock)
    for _ in range(5):
        assert await bench.send(error) is error
    assert bench.state == "open"


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("busy", status=429),
        BadRequest("no", status=400),
        AuthenticationFailed("no", status=401),
        ModelNotFound("no", status=404),
        LimitReached("full", limit=1),
        DeadlineExceeded(timeout=1.0, elapsed=1.0, sent=True),
        KeyError("bug"),
    ],
)
async def test_what_is_no_failure_of_the_server_leaves_it_closed(clock, error):
    """Refusals, our own rejections and other people's bugs never open it, nor clear what failed before."""
    bench = Bench(clock)
    for _ in range(4):
        await bench.send(boom())
    for _ in range(3):
        assert await bench.send(error) is error
    assert bench.state == "closed"
    await bench.send(boom())
    assert bench.state == "open"


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (BadRequest("no", status=400), "closed"),
        (ModelNotFound("no", status=404), "closed"),
        (RateLimited("busy", status=429), "open"),
        (boom(), "open"),
        (LimitReached("full", limit=1), "half_open"),
        (DeadlineExceeded(timeout=1.0, elapsed=1.0, sent=True), "half_open"),
        (KeyError("bug"), "half_open"),
    ],
)
async def test_what_a_probe_decides(clock, error, state):
    """A refusal closes, a failure or a 429 opens, and what says nothing gives the probe to the next call."""
    bench = Bench(clock)
    await bench.open()
    await asyncio.sleep(2.0)
    await bench.send(error)
    assert bench.state == state
    if state == "half_open":
        await bench.send()
        assert bench.state == "closed"


async def test_an_unavailable_server_sets_the_break(clock):
    """Never shorter than the Retry-After of a 503."""
    bench = Bench(clock)
    for _ in range(5):
        await bench.send(Overloaded("full", status=503, retry_after=45.0))
    assert (await bench.send()).retry_after == pytest.approx(45.0)


async def test_one_probe_goes_of_a_hundred(clock):
    """All others are refused while it is under way."""
    bench = Bench(clock)
    await bench.open()
    await asyncio.sleep(2.0)
    bench.provider.script.append(1.0)
    outcomes = await asyncio.gather(*(bench.send() for _ in range(100)))
    assert sum(isinstance(outcome, CircuitOpen) for outcome in outcomes) == 99
    assert len(bench.provider.calls) == 6


async def test_a_cancelled_probe_is_given_back(clock):
    """The next call is the probe at once."""
    bench = Bench(clock)
    await bench.open()
    await asyncio.sleep(2.0)
    task = asyncio.ensure_future(bench.send(1000.0))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await bench.send()
    assert bench.state == "closed"


async def test_a_probe_that_hangs_does_not_keep_it_half_open(clock):
    """After the lease another call goes."""
    bench = Bench(clock, outer=[Deadline(total=5000.0)])
    await bench.open()
    await asyncio.sleep(2.0)
    task = asyncio.ensure_future(bench.send(1000.0, boom()))
    await asyncio.sleep(64.0)
    bench.provider.script.insert(0, 0.0)
    assert isinstance(await bench.send(), CircuitOpen)
    await asyncio.sleep(1.0)
    bench.provider.script.clear()
    await bench.send()
    assert bench.state == "closed"
    await task
    assert bench.state == "closed"


async def test_cancellations_never_open_it(clock):
    """A hundred callers who leave say nothing about the server."""
    bench = Bench(clock)
    for _ in range(100):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await bench.send(1.0)
    assert bench.breaker.health()[0] == BreakerState(
        key=(bench.provider.origin, "m", "chat"), state="closed", failures=0, throughput=0, retry_after=0.0
    )


async def test_a_stream_closes_it_with_its_first_token(clock):
    """The probe of a stream is judged when the stream is handed over, not minutes later."""
    bench = Bench(clock)
    for _ in range(5):
        await bench.send(boom(), operation=STREAM)
    await asyncio.sleep(2.0)
    stream = await bench.send(stream_of("a", "b"), operation=STREAM)
    assert bench.state == "closed"
    assert (await stream.result()).text == "ab"
    assert bench.breaker.health()[0].throughput == 0


def broken(clock):
    source = ScriptedSource([ConnectionFailed("reset", phase="receive")])
    return StreamResult(source, model="m", first=[TextDelta("Hel")], clock=clock)


async def test_streams_that_break_open_it(clock):
    """A break after the first token is a failure as well."""
    bench = Bench(clock)
    for _ in range(5):
        stream = await bench.send(broken(clock), operation=STREAM)
        with pytest.raises(StreamInterrupted):
            await stream.result()
    assert bench.state == "open"
    assert bench.names == ["CircuitOpened"]
    snapshot = bench.breaker.health()[0]
    assert (snapshot.failures, snapshot.throughput) == (5, 10)


async def test_a_stream_that_the_reader_leaves_says_nothing(clock):
    """Closed, abandoned or left with an error of another stream, it is no failure."""
    bench = Bench(clock)
    for _ in range(20):
        stream = await bench.send(stream_of("a", "b"), operation=STREAM)
        with pytest.raises(StreamInterrupted):
            async with stream:
                raise StreamInterrupted("of another", partial=None)
        await bench.send(stream_of("a", "b"), operation=STREAM)
    snapshot = bench.breaker.health()[0]
    assert (snapshot.failures, snapshot.throughput, snapshot.state) == (0, 40, "closed")


async def test_a_stream_of_before_the_break_does_not_count_after_it(clock):
    """A late failure of an older period opens nothing."""
    bench = Bench(clock, consecutive_failures=1)
    old = await bench.send(broken(clock), operation=STREAM)
    await bench.send(boom(), operation=STREAM)
    await asyncio.sleep(2.0)
    await bench.send(operation=STREAM)
    with pytest.raises(StreamInterrupted):
        await old.result()
    assert bench.state == "closed"


async def test_models_and_kinds_have_circuits_of_their_own(clock):
    """A chat model that is down says nothing about another model or about embeddings."""
    bench = Bench(clock)
    await bench.open()
    assert (await bench.send(operation=Chat(model="other", messages="hi"))).text == "Hello."
    assert (await bench.send(operation=Embed(model="m", texts="a"))).dimensions == 4
    assert {(state.key[1:], state.state) for state in bench.breaker.health()} == {
        (("m", "chat"), "open"),
        (("other", "chat"), "closed"),
        (("m", "embed"), "closed"),
    }


async def test_a_listener_may_look_at_the_breaker(clock):
    """Events are told outside of any lock."""
    bench = Bench(clock)
    seen = []
    bench.pipeline.subscribe(lambda event: seen.append(bench.state) if isinstance(event, CIRCUIT_EVENTS) else None)
    await bench.open()
    await asyncio.sleep(2.0)
    await bench.send()
    assert seen == ["open", "half_open", "closed"]


async def test_breakers_at_rest_are_forgotten_beyond_a_thousand(clock):
    """Names of models that users make up do not fill the memory; what is remembered stays."""
    bench = Bench(clock)
    await bench.open()
    for number in range(1500):
        await bench.send(ModelNotFound("no", status=404), operation=Chat(model=f"m{number}", messages="hi"))
        await asyncio.sleep(0.1)
    keys = [state.key[1] for state in bench.breaker.health()]
    assert len(keys) <= 1025
    assert keys[0] == "m"


def test_a_total_outage_costs_few_sends():
    """Of 12,000 calls in two minutes of outage nearly none is sent, and the model is found back within ten seconds."""

    async def outage():
        clock = FakeClock([0.5])
        began = clock.monotonic()

        class Provider(ScriptedProvider):
            async def __call__(self, call):
                self.calls.append(call)
                await asyncio.sleep(0.05)
                if clock.monotonic() - began < 120.0:
                    raise boom()
                return began

        provider, breaker = Provider(), CircuitBreaker()
        pipeline = Pipeline(provider, [breaker], clock=clock)
        first_success = None
        for _ in range(14_000):
            task = asyncio.ensure_future(pipeline.send(CHAT))
            await asyncio.sleep(0.01)
            task.add_done_callback(lambda task: task.exception())
            if first_success is None and clock.monotonic() - began > 120.0 and breaker.health()[0].state == "closed":
                first_success = clock.monotonic() - began - 120.0
                break
        await asyncio.sleep(1.0)
        return len(provider.calls), first_success

    sends, first_success = run(outage())
    assert sends < 40
    assert first_success <= 10.1


def test_threads_share_a_breaker():
    """Eight loops at once ask a circuit that is open: whatever reaches the provider is a probe, one at a time."""
    breaker = CircuitBreaker(consecutive_failures=1, break_duration=0.0005, break_duration_max=0.0005)
    lock, under_way, most, opened = threading.Lock(), [0], [0], []

    class Provider(ScriptedProvider):
        async def __call__(self, call):
            with lock:
                under_way[0] += 1
                most[0] = max(most[0], under_way[0])
            await asyncio.sleep(0)
            with lock:
                under_way[0] -= 1
            raise boom()

    async def hammer(count):
        pipeline = Pipeline(Provider(), [breaker])
        pipeline.subscribe(lambda event: opened.append(event) if isinstance(event, CircuitOpened) else None)
        for _ in range(count):
            with pytest.raises((ServerFailed, CircuitOpen)):
                await pipeline.send(CHAT)

    asyncio.run(hammer(1))
    threads = [threading.Thread(target=lambda: asyncio.run(hammer(300))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert len(opened) > 1


async def test_a_task_that_is_destroyed_gives_its_probe_back(clock):
    """A coroutine that the garbage collector destroys, even amid a turn of the breaker, leaves no probe behind."""
    bench = Bench(clock)
    await bench.open()
    await asyncio.sleep(2.0)

    async def never(call):
        await asyncio.get_running_loop().create_future()

    coroutine = bench.breaker(Call(CHAT, clock, bench.provider.origin), never)
    coroutine.send(None)
    assert bench.breaker.health()[0].retry_after > 0
    with bench.breaker._turns:
        del coroutine
        gc.collect()
    assert bench.breaker.health()[0].retry_after == 0.0
