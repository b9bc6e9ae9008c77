"""Retry: what is tried again, when, and what the caller sees of it."""

import asyncio
import gc
import logging
import math
import weakref

import pytest

from resilient_ai.core.deltas import TextDelta
from resilient_ai.core.errors import (
    AttemptTimeout,
    AuthenticationFailed,
    BadRequest,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    InvalidResponse,
    LimitReached,
    Overloaded,
    RateLimited,
    ServerFailed,
    StatusError,
    StreamInterrupted,
    status_error_type,
)
from resilient_ai.core.events import RetryScheduled, RetrySuppressed
from resilient_ai.core.health import SendBudgetState
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline, WorstCase
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware.batching import Batching
from resilient_ai.middleware.circuit_breaker import CircuitBreaker
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Routing
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, chat_result, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")


def boom(status=500, **fields):
    return ServerFailed("boom", status=status, **fields)


async def send(clock, script, operation=CHAT, outer=(), **options):
    """Send through a stack of one Retry; return the provider and the outcome."""
    provider = ScriptedProvider(*script)
    pipeline = Pipeline(provider, [*outer, Retry(**options)], clock=clock)
    try:
        return provider, await pipeline.send(operation)
    except Exception as error:  # noqa: BLE001 - the outcome is what the test is about
        return provider, error


def test_defaults():
    """Three attempts, half a second, eight seconds."""
    assert repr(Retry()) == (
        "Retry(attempts=3, wait_initial=0.5, wait_max=8.0, budget=100.0, costly=('image',), hedge=None)"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"attempts": 0}, "attempts must be a whole number >= 1, got 0"),
        ({"wait_initial": 0.0}, "wait_initial must be a positive number of seconds, got 0.0"),
        ({"wait_max": float("nan")}, "wait_max must be a positive number of seconds, got nan"),
        ({"wait_initial": 2.0, "wait_max": 1.0}, "wait_max must be >= wait_initial, got 1.0 < 2.0"),
        ({"budget": -0.5}, "budget must be from 0 to 1000, got -0.5"),
        ({"budget": 1000.5}, "budget must be from 0 to 1000, got 1000.5"),
        ({"budget": float("nan")}, "budget must be from 0 to 1000, got nan"),
        (
            {"costly": ("image", "video")},
            r"costly must name kinds of operation \(chat, stream, complete, embed, image\), got \['video'\]",
        ),
    ],
)
def test_senseless_options_are_refused(options, sentence):
    """The sentence names the option and what was given."""
    with pytest.raises(ValueError, match=sentence):
        Retry(**options)


@pytest.mark.parametrize("outer", [Routing(), Batching()])
def test_an_order_that_cannot_work_is_refused(outer):
    """Retry stands inside of Routing and Batching."""
    with pytest.raises(ConfigurationError, match="Retry must stand after"):
        Pipeline(ScriptedProvider(), [Retry(), outer])


async def test_a_success_is_returned_as_it_is(clock):
    """A call that succeeds at once waits for nothing."""
    answer = chat_result("yes")
    provider, result = await send(clock, [answer])
    assert (len(provider.calls), clock.slept, result.text) == (1, [], "yes")
    assert provider.calls[0].attempt == 1


async def test_wait_doubles_up_to_the_cap(clock):
    """Each wait is twice the one before, until wait_max, when chance is at its highest."""
    provider, result = await send(clock, [boom()] * 4, attempts=5, wait_max=2.0)
    assert clock.slept == pytest.approx([0.5, 1.0, 2.0, 2.0])
    assert result.attempts == 5
    assert [call.attempt for call in provider.calls] == [1, 2, 3, 4, 5]
    assert len({call.id for call in provider.calls}) == 1


async def test_chance_decides_how_much_of_a_wait_is_waited():
    """Full jitter: the same failures wait differently."""
    clock = FakeClock([0.0, 0.5])
    await send(clock, [boom()] * 2)
    assert clock.slept == pytest.approx([0.0, 0.5])


async def test_the_last_failure_is_raised_itself(clock):
    """The caller gets the error of the last attempt, not a wrapper, and without the others as its context."""
    errors = [boom(), boom(502), boom(504)]
    provider, outcome = await send(clock, errors)
    assert outcome is errors[2]
    assert (outcome.__context__, outcome.__cause__, len(provider.calls)) == (None, None, 3)
    assert not hasattr(outcome, "__notes__")


async def test_one_attempt_retries_nothing(clock):
    """With attempts=1 the first failure is the last."""
    provider, outcome = await send(clock, [boom()], attempts=1)
    assert (type(outcome), len(provider.calls), clock.slept) == (ServerFailed, 1, [])


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("no", status=400),
        AuthenticationFailed("no", status=401),
        StatusError("teapot", status=418),
        StreamInterrupted("broke", partial=None),
        ConnectionFailed("bad certificate", phase="tls", retryable=False),
        CircuitOpen(model="m", retry_after=6.1),
        TimeoutError(),
        KeyError("bug"),
    ],
)
async def test_what_does_not_pass_by_itself_is_not_retried(clock, error):
    """Only errors that call themselves retryable are tried again."""
    provider, outcome = await send(clock, [error])
    assert (outcome, len(provider.calls), clock.slept) == (error, 1, [])


@pytest.mark.parametrize(
    "error",
    [
        boom(),
        StatusError("late", status=408),
        RateLimited("busy", status=429),
        Overloaded("full", status=503),
        ConnectionFailed("reset", phase="receive"),
        AttemptTimeout(timer="first_token", elapsed=60.0),
        InvalidResponse("html"),
    ],
)
async def test_what_may_pass_by_itself_is_retried(clock, error):
    """Failures that may be gone next time are tried again, and the answer is returned."""
    provider, result = await send(clock, [error])
    assert (len(provider.calls), result.text) == (2, "Hello.")


async def test_a_failure_on_a_later_attempt_that_does_not_pass_ends_it(clock):
    """A bad request on the second attempt is raised at once."""
    refusal = BadRequest("no", status=400)
    provider, outcome = await send(clock, [boom(), refusal], attempts=5)
    assert (outcome, len(provider.calls)) == (refusal, 2)


async def test_a_429_waits_twice_as_long_with_a_longer_bound(clock):
    """A busy model gets more time than one that failed."""
    await send(clock, [RateLimited("busy", status=429)] * 7, attempts=8)
    assert clock.slept == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0])


async def test_a_longer_wait_max_holds_for_429_as_well(clock):
    """A bound above thirty seconds is not lowered by a 429."""
    await send(clock, [RateLimited("busy", status=429)], wait_initial=50.0, wait_max=100.0)
    assert clock.slept == pytest.approx([100.0])


async def test_a_servers_wait_is_kept_and_spread(clock):
    """Nobody returns before the server's time, and up to a tenth later."""
    await send(clock, [Overloaded("full", status=503, retry_after=5.0)])
    assert clock.slept == pytest.approx([5.5])


async def test_an_unreadable_answer_is_asked_for_once_more_only(clock):
    """Two unreadable answers in one call are enough, whatever else failed between them."""
    provider, outcome = await send(clock, [InvalidResponse("1"), boom(), InvalidResponse("2")], attempts=9)
    assert (len(provider.calls), str(outcome)) == (3, "2")


async def test_a_wait_beyond_the_deadline_fails_now(clock):
    """The error at hand is raised at once, with a note of the wait that did not fit."""
    error = RateLimited("busy", status=429, retry_after=20.0)
    provider, outcome = await send(clock, [error], outer=[Deadline(total=10.0)])
    assert (outcome, clock.slept, len(provider.calls)) == (error, [], 1)
    assert outcome.__notes__ == ["not tried again: the wait of 21.00 s does not fit the 10.00 s left to the call"]


async def test_a_wait_that_fits_the_deadline_is_waited(clock):
    """A deadline further away changes nothing."""
    _, result = await send(clock, [RateLimited("busy", status=429, retry_after=5.0)], outer=[Deadline(total=10.0)])
    assert (result.text, clock.slept) == ("Hello.", [5.5])


async def test_a_server_that_asks_for_minutes_is_not_waited_for(clock):
    """More than a minute is the caller's decision, who finds it on the error."""
    provider, outcome = await send(clock, [Overloaded("full", status=503, retry_after=61.0)])
    assert (outcome.retry_after, clock.slept, len(provider.calls)) == (61.0, [], 1)
    assert outcome.__notes__ == ["not tried again: the server asked to wait 61 s, which is longer than 60 s"]


@pytest.mark.parametrize(
    ("error", "sends"),
    [
        (AttemptTimeout(timer="attempt", elapsed=300.0), 1),
        (ConnectionFailed("reset", phase="receive"), 1),
        (InvalidResponse("cut"), 1),
        (ConnectionFailed("refused", phase="connect"), 2),
        (AttemptTimeout(timer="connect", elapsed=5.0, sent=False), 2),
        (boom(), 1),
        (Overloaded("full", status=503), 2),
        (RateLimited("busy", status=429), 2),
    ],
)
async def test_a_picture_that_may_have_been_drawn_is_not_paid_for_twice(clock, error, sends):
    """Images are repeated only where the request never left or the service said no."""
    provider, _ = await send(clock, [error], Image(model="m", prompt="a cat"))
    assert len(provider.calls) == sends


async def test_retry_on_decides_in_place_of_the_rules(clock):
    """The caller's own predicate may retry anything, an image and several unreadable answers included."""
    provider, _ = await send(clock, [KeyError("a"), KeyError("b")], retry_on=lambda error: isinstance(error, KeyError))
    assert len(provider.calls) == 3
    provider, outcome = await send(clock, [boom()], retry_on=lambda error: False)
    assert (len(provider.calls), type(outcome)) == (1, ServerFailed)
    script = [InvalidResponse("1"), InvalidResponse("2")]
    provider, _ = await send(clock, script, Image(model="m", prompt="x"), retry_on=lambda error: True)
    assert len(provider.calls) == 3


async def test_retry_on_is_asked_once_for_each_failure(clock):
    """A predicate that counts counts right."""
    asked = []
    await send(clock, [boom(), boom(502)], retry_on=lambda error: asked.append(error.status) or True)
    assert asked == [500, 502]


async def test_an_open_circuit_is_waited_for_as_long_as_it_says(clock):
    """Who chooses to retry a rejection waits for what it names."""
    await send(clock, [CircuitOpen(model="m", retry_after=4.0)], retry_on=lambda error: True)
    assert clock.slept == pytest.approx([4.4])


async def test_every_retry_is_told(clock):
    """Listeners and on_retry get the same fact before each wait."""
    events, told = [], []
    provider = ScriptedProvider(boom(), RateLimited("busy", status=429, retry_after=3.0))
    pipeline = Pipeline(provider, [Retry(on_retry=told.append)], clock=clock)
    await pipeline.send(CHAT, listener=events.append)
    events = [event for event in events if isinstance(event, RetryScheduled)]
    assert [(event.attempt, event.retry_after, type(event.error)) for event in events] == [
        (1, None, ServerFailed),
        (2, 3.0, RateLimited),
    ]
    assert [event.wait for event in events] == clock.slept
    assert (events[0].model, events[0].call_id) == ("m", provider.calls[0].id)
    assert told == events


async def test_a_faulty_on_retry_changes_nothing(clock, caplog):
    """What the observer raises is logged by the name of its class."""

    def on_retry(event):
        raise ValueError("secret")

    with caplog.at_level(logging.WARNING, "resilient_ai"):
        _, result = await send(clock, [boom()], on_retry=on_retry)
    assert result.text == "Hello."
    assert caplog.messages == ["on_retry raised ValueError"]


@pytest.mark.parametrize("script", [[1000.0], [boom(), 1000.0], [boom()]])
async def test_cancellation_is_never_retried(clock, script):
    """Cancelled in the first attempt, in a later one or in a wait, the call ends at once as cancelled."""
    provider = ScriptedProvider(*script)
    pipeline = Pipeline(provider, [Retry(wait_initial=100.0, wait_max=100.0)], clock=clock)
    task = asyncio.ensure_future(pipeline.send(CHAT))
    await asyncio.sleep(50.0 if len(script) < 2 else 150.0)
    sent = len(provider.calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(5000.0)
    assert len(provider.calls) == sent


async def test_cancellation_that_is_raised_below_passes_through(clock):
    """A CancelledError from below is the caller's business, not a failure."""
    provider = ScriptedProvider(boom(), asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await Pipeline(provider, [Retry()], clock=clock).send(CHAT)
    assert len(provider.calls) == 2


async def test_calls_at_once_do_not_share_their_tries(clock):
    """A thousand calls through one object: each has its own attempts and its own answer."""
    failed = set()

    async def fail_once_each(call):
        await asyncio.sleep(0.001)
        if call.id not in failed:
            failed.add(call.id)
            raise boom()
        return chat_result(call.operation.messages[0].content)

    class Provider(ScriptedProvider):
        async def __call__(self, call):
            self.calls.append(call)
            return await fail_once_each(call)

    provider = Provider()
    pipeline = Pipeline(provider, [Retry(budget=1000)], clock=clock)
    results = await asyncio.gather(*(pipeline.send(Chat(model="m", messages=f"{n}")) for n in range(1000)))
    assert [result.text for result in results] == [f"{n}" for n in range(1000)]
    assert len(provider.calls) == 2000


async def test_a_stream_is_retried_until_it_is_handed_over(clock):
    """A failure before the first content is retried; a break after it is the reader's."""
    source = ScriptedSource([ConnectionFailed("reset", phase="receive")])
    broken = StreamResult(source, model="m", first=[TextDelta("Hel")], clock=clock)
    provider, stream = await send(clock, [boom(), broken], Stream(model="m", messages="hi"))
    with pytest.raises(StreamInterrupted):
        await stream.result()
    assert len(provider.calls) == 2


@pytest.mark.parametrize("outer", [[], [Deadline(), Routing()]])
async def test_a_stream_of_a_later_attempt_is_freed_without_the_garbage_collector(clock, outer):
    """Nothing of the retry keeps an abandoned stream alive, though the failure before it still lives."""
    failures = [boom(), boom()]

    async def streamed(_call):
        return stream_of("a", "b")

    gc.collect()
    gc.disable()
    try:
        outcome = await send(clock, [*failures, streamed], Stream(model="m", messages="hi"), outer)
        stream, ended = outcome[1], []
        stream.on_end(lambda end: ended.append(end.how))
        seen = weakref.ref(stream)
        del stream, outcome
        assert (seen(), ended) == (None, ["abandoned"])
    finally:
        gc.enable()
    assert [failure.__traceback__ for failure in failures] == [None, None]


# The budget of extra sends


class Bench:
    """A Retry before a scripted provider, and what it told."""

    def __init__(self, clock, *inner, outer=(), **options):
        self.provider = ScriptedProvider()
        self.retry = Retry(**options)
        self.pipeline = Pipeline(self.provider, [*outer, self.retry, *inner], clock=clock)
        self.suppressed = []
        self.pipeline.subscribe(
            lambda event: self.suppressed.append(event) if isinstance(event, RetrySuppressed) else None
        )

    async def send(self, *script, operation=CHAT):
        """Send once, with these next steps of the script; return the result or the error."""
        self.provider.script.extend(script)
        try:
            return await self.pipeline.send(operation)
        except Exception as error:  # noqa: BLE001 - the outcome is what the test is about
            return error

    @property
    def left(self):
        return [(state.key[1], pytest.approx(state.left, abs=1e-6)) for state in self.retry.health()]


async def test_with_its_budget_spent_a_call_fails_with_its_own_first_error(clock):
    """Nothing is waited for, and a note, an event and nothing else tell why."""
    bench = Bench(clock, budget=2.0)
    await bench.send(boom(), boom(), boom())
    slept = list(clock.slept)
    error = boom(503)
    assert await bench.send(error) is error
    assert error.__notes__ == ["not tried again: the budget of extra sends to this model is spent"]
    assert (len(bench.provider.calls), clock.slept) == (4, slept)
    call = bench.provider.calls[-1]
    assert bench.suppressed == [RetrySuppressed(call_id=call.id, model="m", reason="budget", error=error)]


async def test_a_budget_of_nothing_sends_nothing_extra(clock):
    """Zero is never enough, also after many answers."""
    bench = Bench(clock, budget=0)
    for _ in range(20):
        await bench.send()
    assert isinstance(await bench.send(boom()), ServerFailed)
    assert len(bench.provider.calls) == 21
    await bench.send()
    assert bench.retry.health() == ()


async def test_a_timeout_costs_two(clock):
    """It has held a place at the server for long; a connection that failed has not."""
    bench = Bench(clock, budget=10.0, wait_initial=1e-9)
    await bench.send(AttemptTimeout(timer="attempt", elapsed=60.0))
    assert bench.left == [("m", 8.1)]
    await bench.send(ConnectionFailed("reset", phase="receive"))
    assert bench.left == [("m", 7.2)]
    bench = Bench(clock, budget=1.9)
    assert isinstance(await bench.send(AttemptTimeout(timer="attempt", elapsed=60.0)), AttemptTimeout)
    assert [event.reason for event in bench.suppressed] == ["budget"]
    assert isinstance(await bench.send(boom()), type(chat_result()))


async def test_answers_and_seconds_earn_extra_sends(clock):
    """A tenth for an answer, a twentieth for a second; once it is full again nothing is kept."""
    bench = Bench(clock, budget=2.0, wait_initial=1e-9)
    await bench.send(boom(), boom(), boom())
    assert bench.left == [("m", 0.0)]
    await bench.send()
    assert bench.left == [("m", 0.1)]
    await asyncio.sleep(10.0)
    assert bench.left == [("m", 0.6)]
    assert bench.retry.health()[0] == SendBudgetState(
        key=(bench.provider.origin, "m"), left=pytest.approx(0.6, abs=1e-6), capacity=2.0
    )
    assert isinstance(await bench.send(boom()), ServerFailed)
    await asyncio.sleep(8.0)
    assert (await bench.send(boom())).text == "Hello."
    await asyncio.sleep(40.0)
    await bench.send()
    assert bench.retry.health() == ()
    assert bench.pipeline.health().send_budgets == ()


async def test_every_model_and_origin_has_a_budget_of_its_own(clock):
    """An outage of one leaves the retries of another alone; kinds of operation share."""
    bench = Bench(clock, budget=1.0, wait_initial=1e-9)
    other = ScriptedProvider()
    other.origin = "https://other.test"
    await bench.send(boom(), boom())
    assert isinstance(await bench.send(boom(), operation=Embed(model="m", texts="a")), ServerFailed)
    assert (await bench.send(boom(), operation=Chat(model="n", messages="hi"))).text == "Hello."
    other.script.append(boom())
    assert (await Pipeline(other, [bench.retry], clock=clock).send(CHAT)).text == "Hello."
    assert (await bench.send(operation=Chat(model="third", messages="hi"))).text == "Hello."
    assert [state.key for state in bench.retry.health()] == [
        (bench.provider.origin, "m"),
        (bench.provider.origin, "n"),
        (other.origin, "m"),
    ]


async def test_budgets_that_are_full_are_forgotten_beyond_a_thousand(clock):
    """Names of models that users make up do not fill the memory."""
    bench = Bench(clock, attempts=2, wait_initial=1e-9)
    for number in range(1024):
        await bench.send(boom(), boom(), operation=Chat(model=f"m{number}", messages="hi"))
    assert len(bench.retry.health()) == 1024
    await asyncio.sleep(1000.0)
    await bench.send(boom(), boom(), operation=CHAT)
    assert len(bench.retry.health()) == 1024 - 256 + 1
    assert bench.left[-1] == ("m", 99.0)


async def test_of_a_flood_of_names_the_budgets_that_have_spent_least_are_forgotten(clock):
    """A model whose budget is used up gets no new one because others are asked for."""
    bench = Bench(clock, attempts=2, wait_initial=1e-9)
    for _ in range(20):
        await bench.send(boom(), boom(), operation=CHAT)
    for number in range(3000):
        await bench.send(boom(), boom(), operation=Chat(model=f"m{number}", messages="hi"))
    assert 768 < len(bench.left) <= 1024
    assert bench.left[0] == ("m", pytest.approx(80.0, abs=0.1))
    assert bench.left[-1] == ("m2999", pytest.approx(99.0))


async def test_a_forked_child_begins_with_a_full_budget(clock):
    """What the parent has spent is the parent's."""
    bench = Bench(clock, budget=1.0)
    await bench.send(boom(), boom())
    bench.retry._extra._turns.begin_afresh()
    assert bench.retry.health() == ()
    assert (await bench.send(boom())).text == "Hello."


async def test_a_burst_of_failures_is_still_mended(clock):
    """Of a hundred calls that break at once all are sent again; of two hundred a hundred are."""
    bench = Bench(clock)
    bench.provider.script.extend([boom()] * 100)
    outcomes = await asyncio.gather(*(bench.send() for _ in range(100)))
    assert all(outcome.text == "Hello." for outcome in outcomes)
    bench = Bench(clock)
    bench.provider.script.extend([boom()] * 200)
    outcomes = await asyncio.gather(*(bench.send() for _ in range(200)))
    assert sum(isinstance(outcome, ServerFailed) for outcome in outcomes) == 100


# The ceiling of sends per call


def ceiling(sends, **fields):
    async def outer(call, proceed):
        return await proceed(call.replace(sends_left=sends, **fields))

    return outer


@pytest.mark.parametrize(("sends", "sent"), [(1, 1), (2, 2), (3, 3), (9, 3), (None, 3)])
async def test_a_call_sends_no_more_than_it_may(clock, sends, sent):
    """Where the ceiling is below the attempts, a note and an event say so."""
    bench = Bench(clock, outer=[ceiling(sends)])
    error = await bench.send(*[boom() for _ in range(sent)])
    assert len(bench.provider.calls) == sent
    if sent < 3:
        assert error.__notes__ == [f"not tried again: the call may send no more than {sent} to this model"]
        assert [(event.reason, event.error) for event in bench.suppressed] == [("ceiling", error)]
    else:
        assert (bench.suppressed, hasattr(error, "__notes__")) == ([], False)


# Circuits


@pytest.mark.parametrize(("chance", "sends"), [(0.5, 2), (0.6, 1)])
async def test_a_circuit_that_has_opened_is_waited_for_while_that_fits(chance, sends):
    """The failure that opened it is tried again where its break is a tenth of the time left, and raised at once where it is more."""
    clock = FakeClock([chance])
    bench = Bench(clock, CircuitBreaker(consecutive_failures=1), outer=[Deadline(total=20.0)])
    outcome = await bench.send(boom())
    assert len(bench.provider.calls) == sends
    if sends == 2:
        assert (outcome.text, clock.slept) == ("Hello.", [pytest.approx(2.0 + 0.5 * 0.2)])
    else:
        assert isinstance(outcome, ServerFailed)
        assert (outcome.circuit_open_for, clock.slept) == (pytest.approx(2.08), [])
        assert outcome.__notes__ == ["not tried again: the circuit has opened for 2.1 s"]
        assert [event.reason for event in bench.suppressed] == ["circuit"]


async def test_a_circuit_that_has_opened_is_not_waited_for_while_another_model_may_be_asked(clock):
    """The next model answers sooner."""
    bench = Bench(FakeClock([0.0]), CircuitBreaker(consecutive_failures=1), outer=[ceiling(None, has_alternative=True)])
    error = await bench.send(boom())
    assert (type(error), len(bench.provider.calls)) == (ServerFailed, 1)
    assert isinstance(await bench.send(), CircuitOpen)
    assert [event.reason for event in bench.suppressed] == ["circuit"]


@pytest.mark.parametrize(("retry_after", "alternatives", "sends"), [(6.0, 0, 2), (6.01, 0, 1), (0.0, 1, 1)])
async def test_a_rejection_is_waited_for_up_to_six_seconds(clock, retry_after, alternatives, sends):
    """And not while another model may be asked; it costs nothing of the budget, as nothing was sent."""
    bench = Bench(clock, outer=[ceiling(None, has_alternative=bool(alternatives))], budget=0)
    outcome = await bench.send(CircuitOpen(model="m", retry_after=retry_after))
    assert len(bench.provider.calls) == sends
    assert isinstance(outcome, CircuitOpen) == (sends == 1)


async def test_rejections_until_the_end_are_raised_as_such(clock):
    """A call that was never sent has no failure to tell of."""
    bench = Bench(clock)
    last = CircuitOpen(model="m", retry_after=1.0)
    script = [CircuitOpen(model="m", retry_after=1.0), CircuitOpen(model="m", retry_after=1.0), last]
    assert await bench.send(*script) is last


async def test_the_last_failure_of_the_service_is_raised_rather_than_a_rejection(clock):
    """What the service did says more than that it is not asked any more; the rejection becomes a note."""
    bench = Bench(clock, attempts=4)
    script = [boom(), boom(502), CircuitOpen(model="m", retry_after=1.0), CircuitOpen(model="m", retry_after=5.0)]
    error = await bench.send(*script)
    assert error is script[1]
    assert error.__notes__ == [
        "not tried again: the circuit of 'm' is open and lets a call through in 5.0 s",
    ]
    assert (error.__cause__, error.__suppress_context__) == (None, True)


async def test_other_rejections_are_raised_as_they_are(clock):
    """A full queue or a deadline is the caller's news, whatever failed before."""
    full = LimitReached("full", limit=1)
    assert await Bench(clock).send(boom(), full) is full


async def test_a_rejection_after_a_fault_of_ours_is_raised_as_it_is(clock):
    """Only failures of the service take its place."""
    rejected = CircuitOpen(model="m", retry_after=5.0)
    bench = Bench(clock, retry_on=lambda error: isinstance(error, KeyError))
    assert await bench.send(KeyError("bug"), rejected) is rejected


async def test_an_isolated_circuit_is_not_waited_for(clock):
    """For ever is no time to wait, also where the caller would retry it."""
    bench = Bench(clock, retry_on=lambda error: True)
    error = await bench.send(CircuitOpen(model="m", retry_after=math.inf))
    assert (type(error), clock.slept, [event.reason for event in bench.suppressed]) == (CircuitOpen, [], ["wait"])


@pytest.mark.parametrize("hint", [20.0, 61.0])
async def test_a_wait_beyond_the_deadline_is_told(clock, hint):
    """The deadline is named before the server's own wait."""
    bench = Bench(clock, outer=[Deadline(total=10.0)])
    error = RateLimited("busy", status=429, retry_after=hint)
    assert await bench.send(error) is error
    assert [(event.reason, event.error) for event in bench.suppressed] == [("deadline", error)]


@pytest.mark.parametrize(("hint", "reasons"), [(60.0, []), (60.001, ["wait"])])
async def test_a_minute_is_the_longest_wait(clock, hint, reasons):
    """Just a minute is waited for."""
    bench = Bench(clock)
    await bench.send(Overloaded("full", status=503, retry_after=hint))
    assert [event.reason for event in bench.suppressed] == reasons


# What is costly

KINDS = {
    "chat": CHAT,
    "stream": Stream(model="m", messages="hi"),
    "complete": Complete(model="m", prompt="hi"),
    "embed": Embed(model="m", texts="hi"),
    "image": Image(model="m", prompt="hi"),
}
REPEATED = {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
STATUSES = [400, 401, 402, 403, 404, 405, 413, 418, 422, 451, 501, *sorted(REPEATED)]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("status", STATUSES)
async def test_which_statuses_are_tried_again(clock, kind, status):
    """A costly kind only where the service turned it away before it began; every other where it may pass."""
    error = status_error_type(status)("no", status=status)
    plain, costly = Bench(clock, costly=()), Bench(clock, costly=[kind])
    await plain.send(error, operation=KINDS[kind])
    await costly.send(error, operation=KINDS[kind])
    assert len(plain.provider.calls) == 1 + (status in REPEATED)
    assert len(costly.provider.calls) == 1 + (status in {425, 429, 503, 529})


def test_costly_may_be_any_collection():
    """It is kept as a tuple."""
    assert Retry(costly=["chat", "image"]).costly == ("chat", "image")
    assert Retry(costly=[]).costly == ()


# Names and figures


async def test_all_sends_of_a_call_carry_the_same_idempotency_key(clock):
    """The same for each try of a call or batch, another for another batch or call."""
    bench = Bench(clock, outer=[Batching(size=2, in_flight=1)])
    await bench.send(boom(), boom(), operation=Embed(model="m", texts=["a", "b", "c"]))
    keys = [call.idempotency_key for call in bench.provider.calls]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    await bench.send(boom(), operation=Embed(model="m", texts="a"))
    keys = [call.idempotency_key for call in bench.provider.calls]
    assert keys[4] == keys[5]
    assert len(set(keys)) == 3


async def test_another_model_is_asked_under_another_idempotency_key(clock):
    """The body differs, so that the server must not take it for a repeat."""
    bench = Bench(clock, outer=[Routing()], attempts=2)
    await bench.send(boom(), boom(), operation=Chat(model="a", fallbacks=("b",), messages="hi"))
    calls = bench.provider.calls
    assert [call.model for call in calls] == ["a", "a", "b"]
    assert calls[0].idempotency_key == calls[1].idempotency_key != calls[2].idempotency_key


def test_the_worst_case_is_all_attempts_and_the_longest_waits():
    """Three attempts of ten seconds, and two waits of a minute with their jitter."""
    assert Retry().worst_case(WorstCase(sends=2, seconds=10.0)) == WorstCase(sends=6, seconds=30.0 + 122.0)
    assert Retry(attempts=1).worst_case(WorstCase(seconds=10.0)) == WorstCase(sends=1, seconds=10.0)
    assert Retry().worst_case(WorstCase()) == WorstCase(sends=3, seconds=math.inf)
