"""Hedge: when a second request goes beside a slow one, which of the two is taken, and what becomes of the other."""

import asyncio
import gc
import random

import pytest

from resilient_ai.core.call import Call
from resilient_ai.core.errors import (
    AuthenticationFailed,
    CircuitOpen,
    DeadlineExceeded,
    Overloaded,
    ServerFailed,
)
from resilient_ai.core.events import HedgeSent, SendSettled
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware._extra_sends import ExtraSends
from resilient_ai.middleware.circuit_breaker import CircuitBreaker
from resilient_ai.middleware.concurrency_limit import ConcurrencyLimit
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.hedge import Hedge
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.timeout import Timeout
from resilient_ai.testing import FakeClock, ScriptedProvider, answer_to, chat_result, run, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
STREAM = Stream(model="m", messages="hi")
# Everything is hedged at once, so that a test is about what follows.
EAGER = Hedge(samples=1, extra=1.0, delay_min=1.0)


def boom(status=500):
    return ServerFailed("boom", status=status)


class Server:
    """Takes one step of its plan for each request: seconds, then a result, an error, or a sensible answer."""

    origin = ScriptedProvider.origin

    def __init__(self):
        self.plan = []
        self.calls = []
        self.cancelled = []
        self.active = 0
        self.streams = []

    async def __call__(self, call):
        number = len(self.calls)
        self.calls.append(call)
        call.send_started()
        seconds, outcome = self.plan.pop(0) if self.plan else (0.1, None)
        self.active += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        finally:
            self.active -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        answer = answer_to(call.operation) if outcome is None else outcome
        if call.operation.kind == "stream":
            self.streams.append(answer)
        return answer

    async def aclose(self):
        pass


class Bench:
    """A Retry that hedges before a server with a plan, in a whole stack or alone."""

    def __init__(self, hedge=EAGER, *, whole=True, clock=None, **options):
        self.server = Server()
        self.settled, self.hedges = [], []
        self.retry = Retry(**({"hedge": hedge, "wait_initial": 1e-9} | options))
        self.limit, self.breaker = ConcurrencyLimit(), CircuitBreaker()
        inner = [self.breaker, self.limit, CostAccounting(on_settled=self.settled.append), Timeout()]
        self.pipeline = Pipeline(
            self.server, [Deadline(), self.retry, *(inner if whole else [])], clock=clock or FakeClock([0.5])
        )
        self.pipeline.subscribe(lambda event: self.hedges.append(event) if isinstance(event, HedgeSent) else None)

    async def send(self, *plan, operation=CHAT, **options):
        """Send once with these next steps of the plan; return the result or the error."""
        self.server.plan.extend(plan)
        try:
            return await self.pipeline.send(operation, **options)
        except Exception as error:  # noqa: BLE001 - the outcome is what the test is about
            return error

    async def warm(self, operation=CHAT, count=1):
        """Have as many quick answers as the hedge needs, and forget them."""
        for _ in range(count):
            outcome = await self.send(operation=operation)
            if operation.kind == "stream":
                await outcome.result()
        self.server.calls.clear()
        self.server.streams.clear()
        self.settled.clear()

    @property
    def permits(self):
        return self.limit.in_use(self.server.origin, "m"), self.limit.waiting(self.server.origin, "m")

    @property
    def states(self):
        return [(event.state, event.error) for event in self.settled]


def test_defaults():
    """Of the slowest twentieth, after fifty answers and a second, at most a twentieth more."""
    assert repr(Hedge()) == "Hedge(quantile=0.95, samples=50, delay_min=1.0, extra=0.05)"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"quantile": 0.0}, "quantile must be above 0 and below 1, got 0.0"),
        ({"quantile": 1.0}, "quantile must be above 0 and below 1, got 1.0"),
        ({"quantile": float("nan")}, "quantile must be above 0 and below 1, got nan"),
        ({"samples": 0}, "samples must be a whole number from 1 to 200, got 0"),
        ({"samples": 201}, "samples must be a whole number from 1 to 200, got 201"),
        ({"delay_min": 0.0}, "delay_min must be a positive number of seconds, got 0.0"),
        ({"delay_min": float("inf")}, "delay_min must be a positive number of seconds, got inf"),
        ({"extra": 0.0}, "extra must be above 0 and at most 1, got 0.0"),
        ({"extra": 1.01}, "extra must be above 0 and at most 1, got 1.01"),
    ],
)
def test_senseless_options_are_refused(options, sentence):
    """The sentence names the option and what was given."""
    with pytest.raises(ValueError, match=sentence):
        Hedge(**options)


def test_the_options_at_their_bounds_are_taken():
    """Two hundred samples, and as many hedges as calls."""
    assert (Hedge(samples=200).samples, Hedge(extra=1.0).extra) == (200, 1.0)


# When


async def test_nothing_is_hedged_unless_it_is_asked_for():
    """By default a slow answer is waited for."""
    bench = Bench(None)
    await bench.warm(count=100)
    assert (await bench.send((200.0, None))).text == "Hello."
    assert (len(bench.server.calls), bench.hedges) == (1, [])


@pytest.mark.parametrize(("known", "sends"), [(49, 1), (50, 2)])
async def test_a_model_must_be_known_before_it_is_hedged(known, sends):
    """With fifty answers it is, with forty-nine it is not."""
    bench = Bench(Hedge(extra=1.0))
    await bench.warm(count=known)
    await bench.send((20.0, None))
    assert len(bench.server.calls) == sends


@pytest.mark.parametrize(
    ("latencies", "delay"), [([0.1] * 10, 1.0), ([3.0] * 9 + [7.0], 3.0), ([3.0] * 8 + [7.0] * 2, 7.0)]
)
async def test_a_second_request_goes_after_most_answers_would_have_come(latencies, delay):
    """After the quantile, and never before the least delay; the event and the server agree."""
    bench = Bench(Hedge(quantile=0.9, samples=10, extra=0.1))
    for seconds in latencies:
        await bench.send((seconds, None))
    clock = bench.pipeline.clock
    began = clock.monotonic()
    assert (await bench.send((100.0, None), (0.5, chat_result("second")))).text == "second"
    assert clock.monotonic() - began == pytest.approx(delay + 0.5)
    call = bench.server.calls[-1]
    assert bench.hedges == [HedgeSent(call_id=call.id, model="m", after=pytest.approx(delay))]


async def test_the_slow_answer_is_taken_where_it_comes_before_the_delay():
    """Just quicker than the delay, it is the only request."""
    bench = Bench()
    await bench.warm()
    assert (await bench.send((0.999, chat_result("first")))).text == "first"
    assert (len(bench.server.calls), bench.settled[0].elapsed) == (1, pytest.approx(0.999))


@pytest.mark.parametrize("operation", [CHAT, STREAM, Complete(model="m", prompt="hi"), Embed(model="m", texts="a")])
async def test_what_is_hedged(operation):
    """Chats, completions, embeddings, and streams before their first token."""
    bench = Bench()
    await bench.warm(operation)
    await bench.send((50.0, None), operation=operation)
    await asyncio.sleep(0.0)
    assert (len(bench.server.calls), bench.server.cancelled) == (2, [0])


async def test_an_image_is_never_hedged():
    """It costs too much, whichever kinds else are costly."""
    bench = Bench()
    operation = Image(model="m", prompt="a cat")
    await bench.warm(operation)
    await bench.send((50.0, None), operation=operation)
    assert len(bench.server.calls) == 1
    assert isinstance(await bench.send((50.0, boom()), operation=operation), ServerFailed)
    assert len(bench.server.calls) == 2


async def test_kinds_and_models_are_known_apart():
    """What chats of one model take says nothing about its streams or about another model."""
    bench = Bench()
    await bench.warm()
    for operation in (STREAM, Embed(model="m", texts="a"), Chat(model="n", messages="hi")):
        await bench.send((50.0, None), operation=operation)
    assert len(bench.server.calls) == 3


@pytest.mark.parametrize(("seconds", "sends"), [(29.5, 1), (30.5, 2)])
async def test_nothing_is_hedged_while_the_model_has_trouble(seconds, sends):
    """For thirty seconds after a failure."""
    bench = Bench()
    await bench.warm()
    await bench.send((0.1, boom()), (0.1, None))
    await bench.send((0.1, Overloaded("full", status=503)), (0.1, None))
    await asyncio.sleep(seconds)
    bench.server.calls.clear()
    await bench.send((10.0, None))
    assert len(bench.server.calls) == sends


async def test_a_request_that_fails_beside_another_is_trouble_as_well():
    """Though the call is answered, the model has failed."""
    bench = Bench()
    await bench.warm()
    assert (await bench.send((5.0, None), (0.1, boom()))).text == "Hello."
    bench.server.calls.clear()
    await bench.send((10.0, None))
    assert len(bench.server.calls) == 1


async def test_our_own_rejections_are_no_trouble():
    """What was not sent has not failed."""
    bench = Bench(whole=False)
    await bench.warm()
    await bench.send((0.1, CircuitOpen(model="m", retry_after=9.0)))
    bench.server.calls.clear()
    await bench.send((10.0, None))
    assert len(bench.server.calls) == 2


# How many


async def test_a_hedge_is_paid_from_the_budget_of_extra_sends():
    """With that spent, or nothing in it, no second request goes."""
    bench = Bench(budget=1.0)
    await bench.warm(count=3)
    await bench.send((10.0, None))
    assert len(bench.server.calls) == 2
    await bench.send((10.0, None))
    assert len(bench.server.calls) == 3
    assert [state.left < 1.0 for state in bench.retry.health()] == [True]


@pytest.mark.parametrize(("attempts", "sends"), [(1, 1), (2, 2), (3, 3)])
async def test_a_hedge_counts_as_an_attempt(attempts, sends):
    """Where both requests fail, one attempt is left of three and none of two; one attempt is never hedged."""
    bench = Bench(attempts=attempts)
    await bench.warm()
    outcome = await bench.send((5.0, boom()), (5.0, boom()), (5.0, boom()), (5.0, boom()))
    assert (type(outcome), len(bench.server.calls)) == (ServerFailed, sends)
    assert {call.attempt for call in bench.server.calls} == set(range(1, max(2, sends)))


async def test_a_ceiling_of_sends_counts_hedges():
    """Of two sends the second is the hedge or the retry, not both."""

    async def ceiling(call, proceed):
        return await proceed(call.replace(sends_left=2))

    bench = Bench()
    bench.pipeline = Pipeline(bench.server, [ceiling, bench.retry], clock=FakeClock([0.5]))
    await bench.warm()
    outcome = await bench.send((5.0, boom()), (5.0, boom()), (5.0, None))
    assert (type(outcome), len(bench.server.calls)) == (ServerFailed, 2)
    assert outcome.__notes__ == ["not tried again: the call may send no more than 2 to this model"]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_slow_twentieth_is_cut_short_for_a_twentieth_more(seed):
    """Of 5,000 calls of which 2 % are slow, 90 of 100 slow ones are cut short, and hedges are at most 5 % at any time.

    Those that stay slow are hedged by a request that is slow itself, or come before the model is known.
    """

    async def simulate(hedge):
        bench, chance, took = Bench(hedge, whole=False), random.Random(seed), []
        clock = bench.pipeline.clock
        shares = []
        for number in range(1, 5_001):
            bench.server.plan = [
                (chance.uniform(20.0, 60.0) if chance.random() < 0.02 else chance.uniform(0.2, 0.8), None)
                for _ in range(2)
            ]
            began = clock.monotonic()
            await bench.send()
            took.append(clock.monotonic() - began)
            shares.append((len(bench.server.calls) - number) / number)
        return sorted(took), max(shares)

    slow, none = run(simulate(None))
    quick, extra = run(simulate(Hedge()))
    assert none == 0.0
    assert extra <= 0.05
    assert slow[4_950] > 20.0
    assert quick[4_990] < 3.0
    assert quick[4_995] < slow[4_995]


def test_hedges_are_at_most_their_share_where_everything_is_slow():
    """A model that becomes slow altogether is not asked twice as often."""

    async def simulate():
        bench = Bench(Hedge(), whole=False)
        await bench.warm(count=50)
        for number in range(1, 1_001):
            await bench.send((30.0, None), (30.0, None))
            assert len(bench.hedges) <= 0.05 * (50 + number)
        return len(bench.hedges)

    assert run(simulate()) <= 52


# Who wins


async def test_the_quicker_of_the_two_is_taken_and_the_other_one_ended():
    """The loser is cancelled, gives its permit back and has a row that says that nobody knows what it cost."""
    bench = Bench()
    await bench.warm()
    answer = await bench.send((50.0, None), (0.5, chat_result("second")))
    assert answer.text == "second"
    await asyncio.sleep(0.0)
    assert (bench.server.cancelled, bench.server.active, bench.permits) == ([0], 0, (0, 0))
    assert bench.states == [("unknown", None), ("unknown", "CancelledError")]
    assert len(bench.server.calls) == 2
    assert len({call.idempotency_key for call in bench.server.calls}) == 1
    state = bench.breaker.health()[0]
    assert (state.failures, state.throughput) == (0, 2)


async def test_what_the_loser_may_have_cost_is_on_the_record():
    """The row of the loser is settled as wasted, apart from the answer's."""
    bench = Bench()
    await bench.warm()
    seen = []
    bench.pipeline.subscribe(lambda event: seen.append(event) if isinstance(event, SendSettled) else None)
    await bench.send((50.0, None), (0.5, None))
    await asyncio.sleep(0.0)
    record = bench.server.calls[0].record
    assert record.sends == 2
    assert sorted(used for _, _, used in record.costs) == [False, True]
    assert len(seen) == 2


async def test_the_first_may_still_win():
    """The hedge is then the one that is cancelled."""
    bench = Bench()
    await bench.warm()
    assert (await bench.send((1.5, chat_result("first")), (50.0, None))).text == "first"
    await asyncio.sleep(0.0)
    assert (bench.server.cancelled, bench.server.active, bench.permits) == ([1], 0, (0, 0))


async def test_both_at_once_are_the_first():
    """Two answers in the same moment: the first request's is taken, the other is no error."""
    bench = Bench()
    await bench.warm()
    assert (await bench.send((2.0, chat_result("first")), (1.0, chat_result("second")))).text == "first"
    await asyncio.sleep(0.0)
    assert (bench.server.cancelled, bench.permits) == ([], (0, 0))


async def test_where_both_fail_the_first_ones_error_counts():
    """It alone is what the call fails with, whichever failed first."""
    first, second = AuthenticationFailed("first", status=401), boom()
    bench = Bench(attempts=2)
    await bench.warm()
    assert await bench.send((5.0, first), (0.1, second)) is first
    bench = Bench(attempts=2)
    await bench.warm()
    assert await bench.send((1.5, first), (5.0, second)) is first


async def test_where_the_second_fails_the_first_is_waited_for():
    """A failed hedge changes nothing but the time for which nothing is hedged."""
    bench = Bench()
    await bench.warm()
    assert (await bench.send((5.0, chat_result("first")), (0.1, boom()))).text == "first"
    assert (len(bench.server.calls), bench.server.cancelled) == (2, [])


async def test_where_the_first_fails_the_second_is_waited_for():
    """The answer that is still on its way is the retry."""
    bench = Bench()
    await bench.warm()
    assert (await bench.send((1.5, boom()), (5.0, chat_result("second")))).text == "second"
    assert len(bench.server.calls) == 2


async def test_a_first_request_that_fails_before_the_delay_is_tried_again():
    """Failing is not being slow: the retry has its turn."""
    bench = Bench()
    await bench.warm()
    assert (await bench.send((0.5, boom()), (0.1, None))).text == "Hello."
    assert ([call.attempt for call in bench.server.calls], bench.hedges) == ([1, 2], [])


async def test_what_is_raised_as_cancelled_below_passes_through():
    """A request that was cancelled from inside ends the call as cancelled."""
    bench = Bench(whole=False)
    await bench.warm()
    with pytest.raises(asyncio.CancelledError):
        await bench.send((0.5, asyncio.CancelledError()))
    assert bench.server.active == 0


# Leaving early


@pytest.mark.parametrize("after", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("operation", [CHAT, STREAM])
async def test_a_caller_who_leaves_ends_both(after, operation):
    """Before, during and after the delay: no request, no permit and no task is left."""
    bench = Bench()
    await bench.warm(operation)
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(bench.send((50.0, None), (50.0, None), operation=operation))
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (bench.server.active, bench.permits) == (0, (0, 0))
    assert asyncio.all_tasks() == before
    assert all(state == ("unknown", "CancelledError") for state in bench.states)
    assert len(bench.states) == len(bench.server.calls)


async def test_a_caller_who_leaves_twice_ends_both():
    """A second cancellation while the first is being carried out leaves nothing either."""
    bench = Bench(whole=False)
    await bench.warm()

    async def stubborn(call):
        try:
            await asyncio.sleep(50.0)
        finally:
            await asyncio.sleep(3.0)

    bench.pipeline = Pipeline(ScriptedProvider(stubborn, stubborn), [bench.retry], clock=FakeClock([0.5]))
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(bench.send())
    await asyncio.sleep(2.0)
    task.cancel()
    await asyncio.sleep(1.0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(10.0)
    assert asyncio.all_tasks() == before


async def test_the_deadline_ends_both():
    """At its time the call ends, and so do its requests."""
    bench = Bench()
    await bench.warm()
    began = bench.pipeline.clock.monotonic()
    error = await bench.send((50.0, None), (50.0, None), timeout=10.0)
    assert isinstance(error, DeadlineExceeded)
    assert error.sent
    assert bench.pipeline.clock.monotonic() - began == pytest.approx(10.0)
    assert (sorted(bench.server.cancelled), bench.server.active, bench.permits) == ([0, 1], 0, (0, 0))


# Streams


async def test_a_stream_is_hedged_before_its_first_token_only():
    """Slow tokens after the first bring no second request, and the loser never delivers."""
    bench = Bench()
    await bench.warm(STREAM)
    stream = await bench.send((0.2, stream_of("a", "b", pause=40.0)), operation=STREAM)
    assert (await stream.result()).text == "ab"
    assert len(bench.server.calls) == 1
    stream = await bench.send((50.0, None), (0.5, stream_of("c", "d", pause=1.0)), operation=STREAM)
    assert (await stream.result()).text == "cd"
    assert (bench.server.cancelled, bench.server.active, bench.permits) == ([1], 0, (0, 0))


async def test_the_stream_of_the_loser_is_closed():
    """Where both have their first token in the same moment, one stream goes on and the other is dropped with its permit."""
    bench = Bench()
    await bench.warm(STREAM)
    kept, lost = stream_of("a", "b"), stream_of("c", "d")
    stream = await bench.send((2.0, kept), (1.0, lost), operation=STREAM)
    await asyncio.sleep(0.0)
    assert (stream is kept, lost.ended, lost._source.aborted, kept.ended) == (True, "closed", 1, None)
    assert bench.permits == (1, 0)
    assert (await stream.result()).text == "ab"
    assert bench.permits == (0, 0)
    assert len(bench.states) == 2
    assert [used for _, _, used in bench.server.calls[0].record.costs] == [False, True]


async def test_a_stream_that_comes_after_all_is_dropped():
    """A request that answers its cancellation with a stream leaves no connection open."""
    late = stream_of("c", "d")

    async def unhurried(call):
        try:
            await asyncio.sleep(50.0)
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
            return late
        return None

    bench = Bench(whole=False)
    await bench.warm(STREAM)
    provider = ScriptedProvider(unhurried, stream_of("a", "b"))
    bench.pipeline = Pipeline(provider, [bench.retry], clock=FakeClock([0.5]))
    stream = await bench.send(operation=STREAM)
    await asyncio.sleep(0.0)
    await asyncio.sleep(0.0)
    assert (late.ended, late._source.aborted) == ("closed", 1)
    assert (await stream.result()).text == "ab"


async def test_nothing_of_a_race_is_kept_alive():
    """After it no task, and no stream that was dropped, waits for the garbage collector."""
    bench = Bench(whole=False)
    await bench.warm(STREAM)
    before = asyncio.all_tasks()
    gc.collect()
    gc.disable()
    try:
        stream = await bench.send((50.0, None), (0.5, stream_of("a", "b")), operation=STREAM)
        ended = []
        stream.on_end(lambda end: ended.append(end.how))
        bench.server.streams.clear()
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        del stream
        assert ended == ["abandoned"]
        assert asyncio.all_tasks() == before
    finally:
        gc.enable()


async def test_without_a_hedge_nothing_is_known_and_nothing_paid():
    """What has no options has no delay, and no second request may go."""
    extra, call = ExtraSends(5.0, None), Call(CHAT, FakeClock())
    extra.took(call, 1.0)
    extra.failed(call)
    assert (extra.hedge_delay(call), extra.try_hedge(call), extra.states()) == (None, False, ())


async def test_a_forked_child_knows_no_latencies():
    """What the parent knew is forgotten with its budgets."""
    bench = Bench()
    await bench.warm()
    bench.retry._extra._turns.begin_afresh()
    await bench.send((10.0, None))
    assert len(bench.server.calls) == 1


async def test_beyond_a_thousand_models_those_of_which_least_is_known_are_forgotten():
    """Names of models that users make up do not fill the memory, and take nothing from the models that are used."""
    bench = Bench(whole=False)
    await bench.warm(count=2)
    for number in range(1100):
        await bench.send(operation=Chat(model=f"m{number}", messages="hi"))
    kept = [model for _, model, _ in bench.retry._extra._hedges]
    assert kept == ["m", *(f"m{number}" for number in range(256, 1100))]
