"""CircuitBreaker: which outcomes open it, who is let through, and what is given back."""

import asyncio
import gc
import math
import threading
import traceback

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
    InsufficientBalance,
    InvalidResponse,
    LimitReached,
    ModelNotFound,
    Overloaded,
    PermissionDenied,
    RateLimited,
    ServerFailed,
    StatusError,
    StreamInterrupted,
)
from resilient_ai.core.events import CircuitClosed, CircuitHalfOpened, CircuitOpened, KeyRefused
from resilient_ai.core.health import Health
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware.circuit_breaker import BreakerState, CircuitBreaker
from resilient_ai.middleware.concurrency_limit import ConcurrencyLimit
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Routing
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, chat_result, run, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
STREAM = Stream(model="m", messages="hi")
CIRCUIT_EVENTS = (CircuitOpened, CircuitHalfOpened, CircuitClosed, KeyRefused)


def boom():
    return ServerFailed("boom", status=500)


@pytest.fixture
def clock():
    return FakeClock([0.5])


class Bench:
    """A breaker before a scripted provider, and what happened."""

    def __init__(self, clock, *script, outer=(), inner=(), **options):
        self.provider = ScriptedProvider(*script)
        self.breaker = CircuitBreaker(**options)
        self.pipeline = Pipeline(self.provider, [*outer, self.breaker, *inner], clock=clock)
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
        ({"minimum_throughput": 0}, "minimum_throughput must be a whole number >= 1, got 0"),
        ({"consecutive_failures": 0}, "consecutive_failures must be a whole number >= 1, got 0"),
        ({"sampling_duration": 0.0}, "sampling_duration must be from 0.01 to 86400, got 0.0"),
        ({"sampling_duration": 5e-324}, "sampling_duration must be from 0.01 to 86400, got 5e-324"),
        ({"break_duration": -1.0}, "break_duration must be a positive number"),
        ({"break_duration_max": 1.0}, "break_duration_max must be >= break_duration, got 1.0 < 2.0"),
        ({"probe_lease": float("inf")}, "probe_lease must be a positive number"),
        ({"ramp": -1.0}, "ramp must be from 0 to 3600, got -1.0"),
        ({"ramp": 3600.5}, "ramp must be from 0 to 3600, got 3600.5"),
        ({"ramp": float("nan")}, "ramp must be from 0 to 3600, got nan"),
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
    assert len(keys) <= 1024
    assert keys[0] == "m"


@pytest.mark.parametrize("error", [None, ServerFailed("boom", status=500)])
async def test_a_flood_of_names_within_a_moment_is_forgotten_too(clock, error):
    """No more than a thousand circuits are kept, closed ones go first, and of those the oldest."""
    bench = Bench(clock)
    await bench.open()
    bench.breaker.isolate("planned")
    await bench.send(operation=Chat(model="planned", messages="hi"))
    for number in range(3000):
        await bench.send(*([error] if error else []), operation=Chat(model=f"m{number}", messages="hi"))
    states = {state.key[1]: state.state for state in bench.breaker.health()}
    assert 768 < len(states) <= 1024
    assert (states["planned"], states["m"], states["m2999"]) == ("isolated", "open", "closed")
    assert "m0" not in states


async def test_where_all_circuits_are_open_the_oldest_are_forgotten(clock):
    """Otherwise names that all fail would fill the memory."""
    bench = Bench(clock, consecutive_failures=1)
    for number in range(1100):
        await bench.send(ServerFailed("boom", status=500), operation=Chat(model=f"m{number}", messages="hi"))
    assert [state.key[1] for state in bench.breaker.health()] == [f"m{number}" for number in range(256, 1100)]


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


async def test_one_stream_goes_of_a_hundred(clock):
    """The probe is judged at its first token, and whoever came before that was refused."""
    bench = Bench(clock)
    for _ in range(5):
        await bench.send(boom(), operation=STREAM)
    await asyncio.sleep(2.0)
    bench.provider.script.extend([1.0, stream_of("a", "b", pause=60.0)])
    outcomes = await asyncio.gather(*(bench.send(operation=STREAM) for _ in range(100)))
    streams = [outcome for outcome in outcomes if isinstance(outcome, StreamResult)]
    assert (len(streams), sum(isinstance(outcome, CircuitOpen) for outcome in outcomes)) == (1, 99)
    assert (bench.state, streams[0].ended, len(bench.provider.calls)) == ("closed", None, 6)
    assert (await streams[0].result()).text == "ab"


async def test_a_circuit_that_closed_takes_calls_bit_by_bit(clock):
    """Of a hundred calls at once seven go where chance lets no more; those held back are told to come in a second."""
    bench = Bench(FakeClock([0.9]))
    await bench.open()
    await asyncio.sleep(3.0)
    await bench.send()
    slow = [asyncio.ensure_future(bench.send(operation=Chat(model="m", messages="slow"))) for _ in range(100)]
    bench.provider.script.extend([1.0] * 100)
    outcomes = await asyncio.gather(*slow)
    refused = [outcome for outcome in outcomes if isinstance(outcome, CircuitOpen)]
    assert len(refused) == 93
    assert {error.retry_after for error in refused} == {1.0}
    await asyncio.sleep(10.0)
    outcomes = await asyncio.gather(*(bench.send() for _ in range(100)))
    assert not any(isinstance(outcome, CircuitOpen) for outcome in outcomes)
    assert bench.names == ["CircuitOpened", "CircuitHalfOpened", "CircuitClosed"]


async def test_who_waited_in_line_is_not_sent_to_a_circuit_that_opened(clock):
    """Of a hundred calls in the queue of one permit five find the failure out, and the others leave without being sent."""
    bench = Bench(clock, inner=[ConcurrencyLimit(limit=1, adaptive=False)])

    async def fail(call):
        await asyncio.sleep(1.0)
        raise boom()

    bench.provider.script.extend([fail] * 100)
    outcomes = await asyncio.gather(*(bench.send() for _ in range(100)))
    assert len(bench.provider.calls) == 5
    assert [type(outcome) for outcome in outcomes] == [ServerFailed] * 5 + [CircuitOpen] * 95
    assert all(outcome.sent is False for outcome in outcomes[5:])
    assert bench.breaker.health()[0].failures == 5
    assert [state.in_use + state.waiting for state in bench.pipeline.stack[1].health()] == [0]


async def test_a_call_that_waited_until_the_circuit_was_ready_again_is_its_probe(clock):
    """Looked at again after the break, it gets a new ticket, and closes the circuit."""
    bench = Bench(clock, inner=[ConcurrencyLimit(limit=1, adaptive=False)])
    await bench.open()
    await asyncio.sleep(2.0)
    await bench.send()
    await asyncio.sleep(20.0)
    held = asyncio.ensure_future(bench.send(10.0, operation=Chat(model="m", messages="long")))
    await asyncio.sleep(1.0)
    waiting = asyncio.ensure_future(bench.send())
    await asyncio.sleep(1.0)
    circuit = bench.breaker._circuits.of(bench.provider.calls[0], clock.monotonic())
    for _ in range(5):
        ticket = circuit.breaker.try_acquire(clock.monotonic())
        circuit.breaker.record_failure(ticket, clock.monotonic(), clock.random)
    assert bench.state == "open"
    assert (await waiting).text == (await held).text == "Hello."
    assert bench.state == "closed"
    assert bench.names[-2:] == ["CircuitHalfOpened", "CircuitClosed"]


async def test_a_probe_that_waits_in_line_keeps_its_lease(clock):
    """It goes when its permit is there, and nobody else meanwhile."""
    bench = Bench(clock, inner=[ConcurrencyLimit(limit=1, adaptive=False)])
    await bench.open()
    other = asyncio.ensure_future(bench.send(30.0, operation=Embed(model="m", texts="a")))
    await asyncio.sleep(2.0)
    probe = asyncio.ensure_future(bench.send())
    await asyncio.sleep(10.0)
    assert (probe.done(), bench.state) == (False, "half_open")
    assert isinstance(await bench.send(), CircuitOpen)
    assert (await probe).text == "Hello."
    assert (bench.state, other.done()) == ("closed", True)


async def test_a_429_of_a_probe_lengthens_the_break_as_the_server_asks(clock):
    """While half-open a busy model is left alone for its Retry-After."""
    bench = Bench(clock)
    await bench.open()
    await asyncio.sleep(2.0)
    error = await bench.send(RateLimited("busy", status=429, retry_after=20.0))
    assert (bench.state, error.circuit_open_for) == ("open", 20.0)
    assert bench.names == ["CircuitOpened", "CircuitHalfOpened", "CircuitOpened"]


async def test_the_error_that_opens_a_circuit_says_for_how_long(clock):
    """Earlier ones say nothing, and later ones of the same period what is left."""
    bench = Bench(clock)

    async def late(call):
        await asyncio.sleep(1.0)
        raise ServerFailed("late", status=502)

    slow = asyncio.ensure_future(bench.send(late))
    await asyncio.sleep(0.0)
    errors = [await bench.send(boom()) for _ in range(5)]
    assert [error.circuit_open_for for error in errors] == [None] * 4 + [pytest.approx(2.0)]
    assert (await slow).circuit_open_for == pytest.approx(1.0)


# Isolated by hand


async def test_an_isolated_model_is_left_alone_until_it_is_reset(clock):
    """Also where it was never called before; every kind of operation, and no other model."""
    bench = Bench(clock)
    await bench.send()
    bench.breaker.isolate("m")
    for operation in (CHAT, STREAM, Embed(model="m", texts="a")):
        error = await bench.send(operation=operation)
        assert isinstance(error, CircuitOpen)
        assert error.retry_after == math.inf
    await asyncio.sleep(100_000.0)
    assert isinstance(await bench.send(), CircuitOpen)
    assert (await bench.send(operation=Chat(model="other", messages="hi"))).text == "Hello."
    assert {state.state for state in bench.breaker.health() if state.key[1] == "m"} == {"isolated"}
    bench.breaker.reset("other")
    assert isinstance(await bench.send(), CircuitOpen)
    bench.breaker.reset("m")
    assert (await bench.send()).text == "Hello."
    assert (await bench.send(operation=Embed(model="m", texts="a"))).dimensions == 4
    assert bench.events == []


async def test_a_reset_closes_what_has_opened(clock):
    """One model or all, at once and without a ramp; a model that was isolated before its first call as well."""
    bench = Bench(clock)
    await bench.open()
    bench.breaker.isolate("never-called")
    bench.breaker.reset("m")
    assert bench.state == "closed"
    await bench.open()
    bench.breaker.reset()
    outcomes = await asyncio.gather(*(bench.send() for _ in range(50)))
    assert not any(isinstance(outcome, CircuitOpen) for outcome in outcomes)
    assert (await bench.send(operation=Chat(model="never-called", messages="hi"))).text == "Hello."


# Refused keys


def refused(status=401):
    kinds = {401: AuthenticationFailed, 402: InsufficientBalance, 403: PermissionDenied}
    return kinds[status]("refused", status=status, code="no", request_id="r1", model="m")


OTHER = Chat(model="other", messages="hi")


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refused_key_is_left_alone(clock, status):
    """The first caller gets the refusal itself, the others a copy that says that nothing was sent, each one of its own."""
    bench = Bench(clock)
    error = refused(status)
    assert await bench.send(error) is error
    first, second = await bench.send(), await bench.send()
    assert len({id(known) for known in (error, first, second)}) == 3
    for copy in (first, second):
        assert (type(copy), copy.status, copy.code, copy.request_id) == (type(error), status, "no", "r1")
        assert (copy.sent, copy.retryable, copy.retry_after) == (False, False, 2.0)
        assert str(copy) == "not sent, as the key was refused a moment ago and is tried again in 2.0 s: refused"
        assert len(traceback.extract_tb(copy.__traceback__)) < 10
    assert (error.sent, str(error), len(bench.provider.calls)) == (True, "refused", 1)
    assert bench.events == [
        KeyRefused(call_id=bench.provider.calls[0].id, model="m", status=status, retry_after=2.0),
    ]


@pytest.mark.parametrize(("status", "is_sent"), [(401, False), (402, False), (403, True)])
async def test_how_far_a_refusal_reaches(clock, status, is_sent):
    """A key that is wrong or has no balance is refused for every model, one that lacks a permission for this model only."""
    bench = Bench(clock)
    await bench.send(refused(status))
    outcome = await bench.send(operation=OTHER)
    assert (getattr(outcome, "text", None) == "Hello.") == is_sent
    assert isinstance(await bench.send(operation=Embed(model="m", texts="a")), StatusError)
    assert len(bench.provider.calls) == 1 + is_sent
    await bench.send(operation=OTHER)
    assert isinstance(await bench.send(), StatusError)


async def test_a_refusal_is_looked_into_at_growing_intervals(clock):
    """Two, four, eight, ten and ten seconds, one call each."""
    bench = Bench(clock)
    await bench.send(refused())
    began, sent = clock.monotonic(), []
    while clock.monotonic() < began + 40.0:
        before = len(bench.provider.calls)
        assert isinstance(await bench.send(refused()), AuthenticationFailed)
        if len(bench.provider.calls) == before:
            bench.provider.script.clear()
        else:
            sent.append(round(clock.monotonic() - began, 6))
        await asyncio.sleep(0.5)
    assert sent == [2.0, 6.0, 14.0, 24.0, 34.0]
    assert [event.retry_after for event in bench.events] == [2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


async def test_a_success_forgets_the_refusal(clock):
    """Once a call gets through all others go at once, and the next refusal begins with two seconds."""
    bench = Bench(clock)
    await bench.send(refused())
    await asyncio.sleep(2.0)
    await bench.send(refused())
    await asyncio.sleep(4.0)
    assert (await bench.send()).text == "Hello."
    outcomes = await asyncio.gather(*(bench.send() for _ in range(100)))
    assert all(outcome.text == "Hello." for outcome in outcomes)
    await bench.send(refused())
    assert bench.events[-1].retry_after == 2.0


async def test_one_probe_of_a_refused_key_goes_of_a_hundred(clock):
    """The others get the refusal while it is under way; one that hangs loses its turn after five seconds."""
    bench = Bench(clock)
    await bench.send(refused())
    await asyncio.sleep(2.0)
    bench.provider.script.extend([100.0])
    tasks = [asyncio.ensure_future(bench.send()) for _ in range(100)]
    await asyncio.sleep(4.9)
    assert (len(bench.provider.calls), sum(task.done() for task in tasks)) == (2, 99)
    assert isinstance(await bench.send(), AuthenticationFailed)
    await asyncio.sleep(0.2)
    assert (await bench.send()).text == "Hello."
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_cancelled_probe_of_a_refused_key_gives_its_turn_back(clock, status):
    """The next call goes at once, as after a failure that says nothing about the key."""
    bench = Bench(clock)
    await bench.send(refused(status))
    await asyncio.sleep(2.0)
    task = asyncio.ensure_future(bench.send(1000.0))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(await bench.send(boom()), ServerFailed)
    assert (await bench.send()).text == "Hello."
    assert len(bench.provider.calls) == 4


async def test_a_probe_that_meets_an_open_circuit_gives_its_turn_back(clock):
    """Key and model may both be in trouble, and neither keeps the other from coming back."""
    bench = Bench(clock)
    await bench.open()
    await bench.send(refused(), operation=OTHER)
    await bench.send(operation=OTHER)
    await asyncio.sleep(0.5)
    bench.breaker.isolate("m")
    await asyncio.sleep(2.0)
    assert isinstance(await bench.send(), CircuitOpen)
    assert (await bench.send(operation=OTHER)).text == "Hello."


async def test_a_probe_of_key_and_model_that_one_of_them_refuses_gives_back_both(clock):
    """A key that may be asked again and a model that may not: the turn of the key goes to a call to another model."""
    bench = Bench(clock)
    await bench.send(refused(403))
    await asyncio.sleep(1.5)
    await bench.send(refused(403), operation=OTHER)
    await bench.send(refused(401), operation=Chat(model="third", messages="hi"))
    await asyncio.sleep(0.5)
    await bench.send(refused(403))  # the key is refused still, so nothing was sent
    bench.provider.script.clear()
    await asyncio.sleep(1.5)
    bench.breaker._refusals.record(bench.provider.calls[0], refused(403), clock.monotonic())
    assert isinstance(await bench.send(), PermissionDenied)
    assert (await bench.send(operation=Chat(model="third", messages="hi"))).text == "Hello."


async def test_a_thousand_callers_with_a_refused_key_are_few_sends(clock):
    """In five minutes a thousand callers, each once a second, send about one in ten seconds."""
    bench = Bench(clock)

    class Refusing(ScriptedProvider):
        async def __call__(self, call):
            self.calls.append(call)
            await asyncio.sleep(0.05)
            raise refused(402)

    provider, breaker = Refusing(), CircuitBreaker()
    bench.pipeline = Pipeline(provider, [breaker], clock=clock)
    await bench.send()

    async def caller():
        for _ in range(30):
            assert isinstance(await bench.send(), InsufficientBalance)
            await asyncio.sleep(10.0)

    await asyncio.gather(*(caller() for _ in range(1000)))
    assert len(provider.calls) <= 33
    assert breaker._refusals._known.popitem()[1].error.__traceback__ is None


async def test_a_thousand_calls_under_way_with_a_key_that_is_refused_lengthen_nothing(clock):
    """Refusals of those who had asked before are one refusal."""
    bench = Bench(clock)

    async def slow(call):
        await asyncio.sleep(1.0)
        raise refused()

    bench.provider.script.extend([slow] * 1000)
    await asyncio.gather(*(bench.send() for _ in range(1000)))
    assert {event.retry_after for event in bench.events} == {2.0}
    assert bench.breaker.health()[-1].retry_after == 2.0


async def test_two_accounts_on_one_stack_are_apart(clock):
    """The key of one is refused, that of the other is not; circuits are of the model and shared."""
    breaker = CircuitBreaker()
    benches = [Bench(clock), Bench(clock)]
    for account, bench in zip("ab", benches, strict=True):
        bench.provider.account = account
        bench.pipeline = Pipeline(bench.provider, [breaker], clock=clock)
    await benches[0].send(refused())
    assert isinstance(await benches[0].send(), AuthenticationFailed)
    assert (await benches[1].send()).text == "Hello."
    assert isinstance(await benches[0].send(), AuthenticationFailed)
    assert [len(bench.provider.calls) for bench in benches] == [1, 1]


async def test_calls_in_line_with_a_key_that_is_refused_are_not_sent(clock):
    """Looked at again, they get copies, and those are taken for no further refusals and no answers."""
    bench = Bench(clock, inner=[ConcurrencyLimit(limit=1, adaptive=False)])

    async def slow(call):
        await asyncio.sleep(1.0)
        raise refused()

    outcomes = await asyncio.gather(*(bench.send(slow) for _ in range(100)))
    assert len(bench.provider.calls) == 1
    assert [outcome.sent for outcome in outcomes] == [True] + [False] * 99
    assert all(str(outcome).count("not sent") == 1 for outcome in outcomes[1:])
    assert len(bench.events) == 1
    assert bench.breaker.health()[0].throughput == 1
    bench.provider.script.clear()
    await asyncio.sleep(2.0)
    assert (await bench.send()).text == "Hello."


async def test_a_probe_in_line_with_a_refused_key_keeps_its_turn(clock):
    """Having waited it goes, though the key is refused to all others meanwhile."""
    bench = Bench(clock, inner=[ConcurrencyLimit(limit=1, adaptive=False)])
    stream = await bench.send(operation=STREAM)
    asyncio.get_running_loop().call_later(3.0, stream.drop)
    bench.breaker._refusals.record(bench.provider.calls[0], refused(), clock.monotonic())
    await asyncio.sleep(2.0)
    task = asyncio.ensure_future(bench.send(operation=Chat(model="m", messages="b")))
    await asyncio.sleep(0.5)
    assert isinstance(await bench.send(), AuthenticationFailed)
    assert (await task).text == "Hello."
    assert (await bench.send()).text == "Hello."


async def test_a_refusal_of_another_account_does_not_count_those_in_line_twice(clock):
    """While a circuit comes back, looking again takes no second place of those that may go."""
    bench = Bench(FakeClock([0.9]), inner=[ConcurrencyLimit(limit=1, adaptive=False)])
    await bench.open()
    await asyncio.sleep(3.0)
    await bench.send()
    call = bench.provider.calls[0].replace(account="another")
    bench.breaker._refusals.record(call, refused(), clock.monotonic())
    bench.provider.script.extend([0.5] * 7)
    outcomes = await asyncio.gather(*(bench.send() for _ in range(7)))
    assert [getattr(outcome, "text", outcome) for outcome in outcomes] == ["Hello."] * 7


async def test_a_probe_of_the_circuit_that_meets_a_refusal_shuts_the_key(clock):
    """A 401 shows that the server works, and that nobody need ask with this key."""
    bench = Bench(clock)
    await bench.open()
    await asyncio.sleep(2.0)
    await bench.send(refused())
    assert bench.names == ["CircuitOpened", "CircuitHalfOpened", "CircuitClosed", "KeyRefused"]
    assert isinstance(await bench.send(), AuthenticationFailed)
    assert len(bench.provider.calls) == 6


async def test_health_tells_of_refused_keys(clock):
    """A refusal is a breaker without a kind: open while it holds, half-open when it may be looked into."""
    bench = Bench(clock)
    await bench.send(refused(401))
    await asyncio.sleep(0.5)
    key = BreakerState(key=(bench.provider.origin, "", ""), state="open", failures=1, throughput=1, retry_after=1.5)
    assert bench.breaker.health()[1:] == (key,)
    assert not bench.pipeline.health().ok
    await asyncio.sleep(1.5)
    assert [(state.state, state.retry_after) for state in bench.breaker.health()[1:]] == [("half_open", 0.0)]
    bench.breaker.reset("m")
    assert len(bench.breaker.health()) == 2
    bench.breaker.reset()
    assert len(bench.breaker.health()) == 1
    assert (await bench.send(refused(403))).sent
    assert bench.breaker.health()[1].key == (bench.provider.origin, "m", "")


async def test_a_forked_child_begins_without_circuits_and_refusals(clock):
    """What the parent's calls found out is forgotten, what was isolated by hand is not."""
    bench = Bench(clock)
    await bench.open()
    await bench.send(refused(), operation=OTHER)
    bench.breaker.isolate("by-hand")
    bench.breaker._turns.begin_afresh()
    assert [state.key for state in bench.breaker.health()] == [("", "by-hand", "")]
    assert (await bench.send()).text == "Hello."
    assert (await bench.send(operation=Chat(model="by-hand", messages="hi"))).retry_after == math.inf


@pytest.mark.parametrize("answer", [BadRequest("no", status=400), RateLimited("busy", status=429)])
async def test_who_is_told_what_is_wrong_has_got_past_the_door(clock, answer):
    """After an answer that is about the request and not about the key, nobody is held back any more."""
    bench = Bench(clock)
    await bench.send(AuthenticationFailed("no", status=401))
    await asyncio.sleep(2.0)
    await bench.send(answer)
    sent = [await bench.send() for _ in range(3)]
    assert [outcome.text for outcome in sent] == ["Hello."] * 3


async def test_refusals_do_not_pile_up(clock):
    """Of models that nobody may use at most a thousand are remembered, the last ones among them."""
    breaker = CircuitBreaker()
    provider = ScriptedProvider(*[PermissionDenied("no", status=403) for _ in range(1100)])
    pipeline = Pipeline(provider, [breaker], clock=clock)
    for number in range(1100):
        with pytest.raises(PermissionDenied):
            await pipeline.send(Chat(model=f"made-up/{number}", messages="hi"))
    refused = [state.key[1] for state in breaker.health() if state.key[2] == ""]
    assert 768 <= len(refused) <= 1024
    assert refused[-1] == "made-up/1099"


async def test_what_was_isolated_is_seen_before_it_is_asked(clock):
    """A model taken out of use by hand shows at once, and the client is not well."""
    bench = Bench(clock)
    bench.breaker.isolate("m")
    health = Health.of(bench.breaker.health())
    assert [(state.key[1], state.state) for state in health.breakers] == [("m", "isolated")]
    assert not health.ok
    await bench.send()
    assert [state.key for state in bench.breaker.health()] == [(bench.provider.origin, "m", "chat")]


async def test_a_break_that_is_over_is_no_illness(clock):
    """A circuit that would let a call through refuses nobody, also while nobody comes."""
    bench = Bench(clock)
    await bench.open()
    assert not Health.of(bench.breaker.health()).ok
    await asyncio.sleep(2.5)
    assert Health.of(bench.breaker.health()).ok


@pytest.mark.parametrize(("timeout", "state"), [(1.0, "open"), (0.99, "closed")])
async def test_a_model_that_hangs_is_noticed_by_calls_with_little_time(clock, timeout, state):
    """A request that the deadline cut off after a second or more is a failure of the service; a shorter one says nothing."""
    breaker = CircuitBreaker()
    pipeline = Pipeline(ScriptedProvider(*[1000.0] * 5), [Deadline(), breaker], clock=clock)
    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            await pipeline.send(CHAT, timeout=timeout)
    assert [known.state for known in breaker.health()] == [state]


async def test_a_model_whose_answers_take_long_does_not_hang(clock):
    """Where answers are known to take longer than the caller had time, the deadline says nothing about the service."""
    breaker = CircuitBreaker()
    pipeline = Pipeline(ScriptedProvider(), [Deadline(), breaker], clock=clock)
    pipeline.provider.script = [step for _ in range(20) for step in (10.0, chat_result())] + [1000.0] * 5
    for _ in range(20):
        await pipeline.send(CHAT)
    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            await pipeline.send(CHAT, timeout=5.0)
    assert breaker.health()[0].state == "closed"
    pipeline.provider.script = [1000.0] * 5
    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            await pipeline.send(CHAT, timeout=10.0)
    assert breaker.health()[0].state == "open"


async def test_time_in_a_queue_is_no_hanging(clock):
    """What a call waited for its permit is not the service's."""
    breaker = CircuitBreaker(consecutive_failures=1)
    stack = [Deadline(), breaker, ConcurrencyLimit(limit=1, adaptive=False)]
    pipeline = Pipeline(ScriptedProvider(2.5, chat_result(), 1000.0), stack, clock=clock)
    first = asyncio.create_task(pipeline.send(CHAT))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):
        await pipeline.send(CHAT, timeout=3.0)
    assert (await first).text == "Hello."
    assert breaker.health()[0].state == "closed"


async def test_a_deadline_that_passes_in_a_queue_is_no_hanging(clock):
    """A call that was never sent says nothing about the service, however long it has waited for its permit."""
    breaker = CircuitBreaker(consecutive_failures=1)
    stack = [Deadline(), breaker, ConcurrencyLimit(limit=1, adaptive=False)]
    pipeline = Pipeline(ScriptedProvider(60.0, chat_result()), stack, clock=clock)
    first = asyncio.create_task(pipeline.send(CHAT))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded) as caught:
        await pipeline.send(CHAT, timeout=5.0)
    assert (caught.value.sent, breaker.health()[0].state) == (False, "closed")
    assert (await first).text == "Hello."
