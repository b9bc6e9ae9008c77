"""RateLimit: who waits how long, what is settled, and that nothing is ever lost."""

import asyncio
import gc
import os

import pytest

from resilient_ai.core.errors import (
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    LimitReached,
    RateLimited,
    ServerFailed,
)
from resilient_ai.core.events import PermitGranted
from resilient_ai.core.messages import user
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Usage
from resilient_ai.middleware import Batching, Cache, ConcurrencyLimit, Deadline, RateLimit, Retry, Routing
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import PIXEL, ScriptedProvider, chat_result, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
ORIGIN = ScriptedProvider.origin


class Noting(ScriptedProvider):
    """Writes down when each request was sent, and what was tagged."""

    def __init__(self, *script):
        super().__init__(*script)
        self.sent = []

    async def __call__(self, call):
        self.sent.append((round(call.clock.monotonic() - 1000.0, 3), call.tags.get("n")))
        return await super().__call__(call)

    @property
    def times(self):
        return [at for at, _ in self.sent]


class LocalFleet:
    """A fleet that answers as it is told and writes down what it is asked."""

    def __init__(self, *answers, share=0.5):
        self.answers, self.share, self.asked, self.settled = list(answers), share, [], []
        self.reachable = True

    async def aclose(self):
        pass

    def hold(self, name, *, holder):
        pass

    async def reserve(self, name, *, amount, rate, burst):
        self.asked.append((name, amount, rate, burst))
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def settle(self, name, *, amount, rate, burst):
        self.settled.append((name, amount, rate, burst))


def pipeline_of(limit, clock, *script, outer=()):
    provider = Noting(*script)
    return Pipeline(provider, [*outer, limit], clock=clock), provider


def available(limit, unit="requests"):
    return next(state.available for state in limit.health() if state.unit == unit)


def in_child(claim):
    """Whether `claim` holds in a forked child."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if claim() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


async def drained(pipeline, count, **options):
    return await asyncio.gather(
        *(pipeline.send(CHAT, tags={"n": str(n)}, **options) for n in range(count)), return_exceptions=True
    )


def test_defaults():
    """No limit by itself, per minute, a tenth at once, alone."""
    limit = RateLimit(requests=1)
    assert (limit.tokens, limit.per, limit.burst, limit.fleet) == (None, 60.0, 0.1, None)
    assert repr(RateLimit(tokens=5)) == "RateLimit(requests=None, tokens=5, per=60.0, burst=0.1, fleet=None)"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "requests and tokens: give at least one of the two"),
        ({"requests": 0}, "requests must be a whole number >= 1, got 0"),
        ({"tokens": 0}, "tokens must be a whole number >= 1, got 0"),
        ({"requests": 1, "per": 0.0}, "per must be a positive number of seconds, got 0.0"),
        ({"requests": 1, "per": float("inf")}, "per must be a positive number of seconds, got inf"),
        ({"requests": 1, "burst": 0.0}, "burst must be above 0 and at most 1, got 0.0"),
        ({"requests": 1, "burst": 1.5}, "burst must be above 0 and at most 1, got 1.5"),
    ],
)
def test_senseless_options_are_refused(options, sentence):
    """The sentence names the option and what was given."""
    with pytest.raises(ValueError, match=sentence):
        RateLimit(**options)


@pytest.mark.parametrize("outer", [Retry(), Routing(), Batching(), Cache(MemoryStore())])
def test_an_order_that_cannot_work_is_refused(outer):
    """The limit stands inside of Retry, Routing, Batching and Cache."""
    with pytest.raises(ConfigurationError, match="RateLimit must stand after"):
        Pipeline(ScriptedProvider(), [RateLimit(requests=1), outer])


async def test_a_burst_goes_at_once_and_the_rest_at_the_rate_in_order(clock):
    """Of eight calls against 60 a minute with three at once, the others follow one by one each second."""
    limit = RateLimit(requests=60, burst=0.05)
    pipeline, provider = pipeline_of(limit, clock)
    await drained(pipeline, 8)
    assert provider.sent == [(at, str(n)) for n, at in enumerate([0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0])]


async def test_within_any_minute_no_more_go_than_the_limit_and_its_burst(clock):
    """Three hundred calls at once against 100 a minute: 110 in the first minute, 100 in each after it."""
    pipeline, provider = pipeline_of(RateLimit(requests=100), clock)
    await drained(pipeline, 300)
    assert max(sum(at <= other <= at + 60 for other in provider.times) for at in provider.times) == 110
    assert provider.times[-1] == pytest.approx(60 * (300 - 10) / 100, abs=0.01)


async def test_a_wait_is_told_and_its_absence_is_not(clock):
    """Who had to wait says how long."""
    events = []
    pipeline, _ = pipeline_of(RateLimit(requests=60, burst=0.01), clock)
    pipeline.subscribe(lambda event: events.append(event) if isinstance(event, PermitGranted) else None)
    await drained(pipeline, 3)
    assert [event.waited for event in events] == pytest.approx([1.0, 2.0])


async def test_models_have_buckets_of_their_own(clock):
    """A model that is used up does not hold another one up."""
    pipeline, provider = pipeline_of(RateLimit(requests=1), clock)
    await asyncio.gather(*(pipeline.send(Chat(model=f"m{n}", messages="hi")) for n in range(5)))
    assert provider.times == [0.0] * 5


async def test_a_wait_that_does_not_fit_is_refused_at_once(clock):
    """It says how long it would have been, and leaves no trace."""
    limit = RateLimit(requests=6, burst=0.1)
    pipeline, provider = pipeline_of(limit, clock, outer=[Deadline(total=5.0)])
    outcomes = await drained(pipeline, 2)
    assert isinstance(outcomes[1], LimitReached)
    assert (outcomes[1].limit, outcomes[1].retry_after, outcomes[1].sent) == (6, pytest.approx(10.0), False)
    assert str(outcomes[1]) == (
        "6 requests per 60 s may go to 'm': the call would have to wait 10.0 s and has 5.0 s left"
    )
    assert clock.slept == []
    assert available(limit) == pytest.approx(0.0)
    await pipeline.send(CHAT, timeout=11.0)
    assert provider.times == [0.0, 10.0]


@pytest.mark.parametrize(
    ("operation", "guess"),
    [
        (Chat(model="m", messages="x" * 400, max_tokens=50), 150),
        (Chat(model="m", messages="x" * 400, max_tokens=50, n=3), 250),
        (Chat(model="m", messages="x" * 401), 1101),
        (Chat(model="m", messages=user("x" * 40, PIXEL), max_tokens=1), 1011),
        (Complete(model="m", prompt="x" * 40, max_tokens=5), 15),
        (Embed(model="m", texts=["x" * 40, "x" * 60]), 25),
        (Image(model="m", prompt="x" * 400), 0),
    ],
)
async def test_tokens_are_guessed_before_the_send(clock, operation, guess):
    """A quarter of the characters, and `max_tokens` or a thousand for each answer; a picture in the prompt is a thousand."""
    limit = RateLimit(tokens=100_000)
    seen = []

    async def look(call):
        seen.append(10_000 - available(limit, "tokens"))
        raise ServerFailed("boom", status=500)

    pipeline, _ = pipeline_of(limit, clock, look)
    with pytest.raises(ServerFailed):
        await pipeline.send(operation)
    assert seen == [pytest.approx(guess)]


async def test_the_true_number_takes_the_place_of_the_guess(clock):
    """An answer of 13 tokens gives back what had been reserved beyond it."""
    limit = RateLimit(tokens=60_000)
    pipeline, _ = pipeline_of(limit, clock)
    await pipeline.send(Chat(model="m", messages="x" * 400, max_tokens=5_000))
    assert available(limit, "tokens") == pytest.approx(6_000 - 13)


async def test_embeddings_have_input_tokens_alone(clock):
    """Their usage is whole without output tokens."""
    limit = RateLimit(tokens=60_000)
    pipeline, _ = pipeline_of(limit, clock)
    await pipeline.send(Embed(model="m", texts=["x" * 4_000]))
    assert available(limit, "tokens") == pytest.approx(6_000 - 1)


@pytest.mark.parametrize("usage", [None, Usage(), Usage(input_tokens=5), Usage(output_tokens=5)])
async def test_what_the_service_does_not_tell_stays_a_guess(clock, usage):
    """Half a number is no number."""
    limit = RateLimit(tokens=60_000)
    pipeline, _ = pipeline_of(limit, clock, chat_result(usage=usage))
    await pipeline.send(Chat(model="m", messages="x" * 40, max_tokens=90))
    assert available(limit, "tokens") == pytest.approx(6_000 - 100)


async def test_a_debt_delays_later_calls(clock):
    """An answer of 7000 tokens where 1100 were guessed: the next call waits for what is missing."""
    limit = RateLimit(tokens=60_000)
    pipeline, provider = pipeline_of(limit, clock, chat_result(usage=Usage(input_tokens=100, output_tokens=6_900)))
    operation = Chat(model="m", messages="x" * 400)
    await pipeline.send(operation)
    assert available(limit, "tokens") == pytest.approx(-1_000)
    await pipeline.send(operation)
    assert provider.times == [0.0, pytest.approx(2.1)]


@pytest.mark.parametrize("told", [10**6, 10**9, pytest.param(10**400, id="10**400")])
async def test_an_absurd_number_of_tokens_is_a_debt_of_one_limit(clock, told):
    """A single wrong figure of the service stops a model for no longer than `per`."""
    limit = RateLimit(tokens=60_000)
    pipeline, provider = pipeline_of(limit, clock, chat_result(usage=Usage(input_tokens=told, output_tokens=1)))
    operation = Chat(model="m", messages="x" * 40, max_tokens=5_990)
    await pipeline.send(operation)
    assert available(limit, "tokens") == pytest.approx(-60_000)
    await pipeline.send(Chat(model="m", messages="x" * 40, max_tokens=50))
    assert provider.times == [0.0, pytest.approx(60.06)]


async def test_an_absurd_number_of_tokens_is_a_debt_of_one_limit_for_a_fleet(clock):
    """What the fleet is told is bounded too."""
    fleet = LocalFleet(0.0)
    usage = Usage(input_tokens=10**9, output_tokens=1)
    pipeline, _ = pipeline_of(RateLimit(tokens=60_000, fleet=fleet), clock, chat_result(usage=usage))
    await pipeline.send(Chat(model="m", messages="x" * 40, max_tokens=90))
    assert [amount for _, amount, _, _ in fleet.settled] == [60_000]


async def test_an_absurd_number_of_tokens_is_a_debt_of_the_share_where_the_fleet_is_away(clock):
    """A process that is alone has half the rate, and pays for `per` all the same."""
    limit = RateLimit(tokens=60_000, fleet=LocalFleet(share=0.5))
    usage = Usage(input_tokens=10**9, output_tokens=1)
    pipeline, _ = pipeline_of(limit, clock, chat_result(usage=usage))
    await pipeline.send(Chat(model="m", messages="x" * 40, max_tokens=2_990))
    assert available(limit, "tokens") == pytest.approx(-30_000)


async def test_a_call_larger_than_the_bucket_goes_and_later_ones_pay(clock):
    """Neither refused nor starved: 30000 tokens of a bucket of 6000, then 24 s and a little of nothing."""
    pipeline, provider = pipeline_of(RateLimit(tokens=60_000), clock, 0.0, ServerFailed("boom", status=500))
    with pytest.raises(ServerFailed):
        await pipeline.send(Chat(model="m", messages="x" * 40, max_tokens=29_990))
    await pipeline.send(Chat(model="m", messages="x" * 40, max_tokens=90))
    assert provider.times == [0.0, pytest.approx(24.1)]


async def test_both_limits_hold_and_a_call_goes_when_both_let_it(clock):
    """Requests that wait for tokens do not go all at once afterwards."""
    limit = RateLimit(requests=60, tokens=6_000, burst=0.01)
    pipeline, provider = pipeline_of(limit, clock, *[chat_result(usage=None)] * 4)
    sizes = [1_000, 10, 10, 10]
    await asyncio.gather(*(pipeline.send(Chat(model="m", messages="hi", max_tokens=size - 1)) for size in sizes))
    assert provider.times == pytest.approx([0.0, 9.5, 10.5, 11.5])
    assert [(state.unit, state.limit, state.per) for state in limit.health()] == [
        ("requests", 60, 60.0),
        ("tokens", 6_000, 60.0),
    ]


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (ConnectionFailed("refused", phase="connect"), 6.0),
        (CircuitOpen(model="m", retry_after=1.0), 6.0),
        (ConnectionFailed("reset", phase="receive"), 5.0),
        (RateLimited("slow down", status=429), 5.0),
        (RuntimeError("ours"), 5.0),
    ],
)
async def test_what_was_never_sent_is_given_back(clock, error, left):
    """A request that left counts, whatever came of it."""
    limit = RateLimit(requests=60, tokens=60_000)
    pipeline, _ = pipeline_of(limit, clock, error)
    with pytest.raises(type(error)):
        await pipeline.send(CHAT)
    assert available(limit) == left
    assert (available(limit, "tokens") == 6_000) == (left == 6.0)


async def test_a_cancelled_wait_gives_its_place_back(clock):
    """Those who wait keep their times, and who comes after them is not held up by one who left."""
    limit = RateLimit(requests=60, burst=0.01)
    pipeline, provider = pipeline_of(limit, clock)
    tasks = [asyncio.ensure_future(pipeline.send(CHAT)) for _ in range(4)]
    await asyncio.sleep(0.5)
    assert limit.health()[0].waiting == 3
    tasks[3].cancel()
    tasks[2].cancel()
    await asyncio.wait(tasks[2:])
    tasks.append(asyncio.ensure_future(pipeline.send(CHAT)))
    await asyncio.wait(tasks)
    assert provider.times == pytest.approx([0.0, 1.0, 2.0])
    assert limit.health()[0].waiting == 0


async def test_a_circuit_that_opened_meanwhile_is_seen_after_the_wait(clock):
    """Whoever let the call wait asks again before it goes, and gives its place back where it may not."""
    limit = RateLimit(requests=60, burst=0.01)
    asked = []

    def refuse():
        asked.append(clock.monotonic() - 1000.0)
        raise CircuitOpen(model="m", retry_after=3.0)

    async def breaker(call, proceed):
        return await proceed(call.replace(recheck=refuse))

    pipeline, provider = pipeline_of(limit, clock, outer=[breaker])
    outcomes = await drained(pipeline, 2)
    assert isinstance(outcomes[1], CircuitOpen)
    assert (provider.times, asked) == ([0.0], pytest.approx([1.0]))
    assert available(limit) == 1.0


async def test_a_circuit_that_is_closed_lets_the_call_go_after_the_wait(clock):
    """It is asked once, and only by who waited."""
    asked = []

    async def breaker(call, proceed):
        return await proceed(call.replace(recheck=lambda: asked.append(1)))

    pipeline, provider = pipeline_of(RateLimit(requests=60, burst=0.01), clock, outer=[breaker])
    await drained(pipeline, 2)
    assert (provider.times, asked) == ([0.0, 1.0], [1])


@pytest.mark.parametrize("end", ["read", "closed", "abandoned", "broken"])
async def test_a_stream_is_settled_at_its_end(clock, end):
    """A stream that was read to its end tells its tokens; another one leaves the guess."""
    limit = RateLimit(tokens=60_000)
    script = [ConnectionFailed("cut", phase="receive")] if end == "broken" else []
    answer = stream_of("a", "b", "c")
    if end == "broken":
        answer._source._script = script
    pipeline, _ = pipeline_of(limit, clock, answer)
    del answer
    stream = await pipeline.send(Stream(model="m", messages="x" * 40, max_tokens=90))
    assert available(limit, "tokens") == pytest.approx(5_900)
    if end == "read":
        await stream.result()
    elif end == "closed":
        await stream.aclose()
    elif end == "broken":
        with pytest.raises(Exception, match="the stream broke"):
            await stream.result()
    del stream
    gc.collect()
    assert available(limit, "tokens") == pytest.approx(6_000 - 13 if end == "read" else 5_900)


async def test_batch_leaves_a_fifth_of_the_bucket(clock):
    """Of ten at once, batch takes eight; interactive calls find the rest, and then wait for nobody of batch."""
    limit = RateLimit(requests=60, burst=1 / 6)
    pipeline, provider = pipeline_of(limit, clock)
    batch = [asyncio.ensure_future(pipeline.send(CHAT, priority="batch", tags={"n": f"b{n}"})) for n in range(12)]
    await asyncio.sleep(0)
    await asyncio.sleep(0.5)
    assert len(provider.sent) == 8
    assert limit.health()[0].waiting == 4
    await asyncio.gather(*(pipeline.send(CHAT, tags={"n": "i"}) for _ in range(3)))
    await asyncio.gather(*batch)
    assert [n for _, n in provider.sent] == [*(f"b{n}" for n in range(8)), "i", "i", "i", "b8", "b9", "b10", "b11"]
    assert provider.times[8:] == pytest.approx([0.5, 0.5, 1.0, 4.0, 5.0, 6.0, 7.0])


async def test_batch_that_does_not_fit_its_time_is_refused(clock):
    """The first of the line says so at once, and the next one has its turn."""
    limit = RateLimit(requests=6, burst=0.1)
    pipeline, provider = pipeline_of(limit, clock, outer=[Deadline(total=5.0)])
    outcomes = await drained(pipeline, 3, priority="batch")
    assert [type(outcome).__name__ for outcome in outcomes] == ["ChatResult", "LimitReached", "LimitReached"]
    assert provider.times == [0.0]
    assert limit.health()[0].waiting == 0


@pytest.mark.parametrize("fleet", [None, LocalFleet()])
async def test_buckets_at_rest_are_forgotten_beyond_a_thousand_models(clock, fleet):
    """Names of models that users make up do not fill the memory."""
    limit = RateLimit(requests=600, burst=0.1, fleet=fleet)
    pipeline, _ = pipeline_of(limit, clock)
    await pipeline.send(CHAT)
    for number in range(2_500):
        await asyncio.sleep(0.01)
        await pipeline.send(Chat(model=f"m{number}", messages="hi"))
    assert len(limit.health()) <= 1_024
    assert (ORIGIN, "m") not in {state.key for state in limit.health()}


async def test_a_bucket_in_debt_is_not_forgotten(clock):
    """Otherwise a flood of names would pay it."""
    limit = RateLimit(tokens=60, burst=0.1)
    pipeline, _ = pipeline_of(limit, clock)
    await pipeline.send(Chat(model="m", messages="hi", max_tokens=1))
    for number in range(1_100):
        await pipeline.send(Image(model=f"m{number}", prompt="hi"))
    assert len(limit.health()) < 1_100
    assert (ORIGIN, "m") in {state.key for state in limit.health()}


async def test_a_flood_of_names_within_a_moment_is_forgotten_too(clock):
    """Of buckets that are not full either, a quarter goes; one that somebody waits for and one in debt stay."""
    limit = RateLimit(requests=60, burst=0.05)
    pipeline, _ = pipeline_of(limit, clock)
    waiting = [asyncio.ensure_future(pipeline.send(CHAT)) for _ in range(4)]
    await asyncio.sleep(0.5)
    for number in range(3_000):
        await pipeline.send(Chat(model=f"m{number}", messages="hi"))
    keys = [state.key[1] for state in limit.health()]
    assert 768 < len(keys) <= 1_024
    assert (keys[0], keys[-1], limit.health()[0].waiting) == ("m", "m2999", 1)
    await asyncio.wait(waiting)


async def test_an_abandoned_wait_found_by_the_collector_amid_a_turn_gives_back(clock):
    """A task may be destroyed while this very thread takes a reservation."""
    limit = RateLimit(requests=60, burst=0.01)
    pipeline, _ = pipeline_of(limit, clock)
    await pipeline.send(CHAT)
    waiting = pipeline.send(CHAT)
    waiting.send(None)
    assert limit.health()[0].waiting == 1
    with limit._turns:
        waiting.close()
    assert (limit.health()[0].waiting, available(limit)) == (0, 0.0)


async def test_a_forked_child_begins_with_full_buckets(clock):
    """What the parent's calls took is the parent's."""
    limit = RateLimit(requests=60)
    pipeline, _ = pipeline_of(limit, clock)
    await pipeline.send(CHAT)
    assert in_child(lambda: limit.health() == [])
    assert available(limit) == 5.0


async def test_a_fleet_decides_for_all(clock):
    """Its waits are waited for, and it is told the true number."""
    fleet = LocalFleet(0.0, 2.0)
    pipeline, provider = pipeline_of(RateLimit(requests=60, tokens=60_000, fleet=fleet), clock)
    await pipeline.send(Chat(model="m", messages="x" * 40, max_tokens=90))
    assert provider.times == [2.0]
    requests, tokens = f"requests:{ORIGIN}::m", f"tokens:{ORIGIN}::m"
    assert fleet.asked == [(requests, 1.0, 1.0, 6.0), (tokens, 100.0, 1000.0, 6000.0)]
    assert fleet.settled == [(tokens, -87.0, 1000.0, 6000.0)]


async def test_without_the_fleet_this_process_keeps_to_its_share(clock):
    """Half of the rate and half of the burst; what was taken already goes back to the fleet."""
    fleet = LocalFleet(0.0, None)
    limit = RateLimit(requests=60, tokens=600_000, fleet=fleet)
    pipeline, provider = pipeline_of(limit, clock)
    await drained(pipeline, 6)
    assert provider.times == pytest.approx([0.0, 0.0, 0.0, 2.0, 4.0, 6.0])
    assert fleet.settled == [(f"requests:{ORIGIN}::m", -1.0, 1.0, 6.0)]
    assert [(state.limit, state.shared) for state in limit.health()] == [(60, True), (600_000, True)]
    fleet.reachable = False
    assert [(state.limit, state.shared) for state in limit.health()] == [(30.0, False), (300_000.0, False)]


async def test_what_does_not_fit_or_is_cancelled_goes_back_to_the_fleet(clock):
    """Refused, cancelled amid the wait, cancelled while asking: each returns what it took."""
    fleet = LocalFleet(9.0, 2.0, 0.0, asyncio.CancelledError())
    name = f"requests:{ORIGIN}::m"
    pipeline, provider = pipeline_of(RateLimit(requests=60, fleet=fleet), clock, outer=[Deadline(total=5.0)])
    with pytest.raises(LimitReached):
        await pipeline.send(CHAT)
    assert fleet.settled == [(name, -1.0, 1.0, 6.0)]
    task = asyncio.ensure_future(pipeline.send(CHAT))
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.wait([task])
    assert fleet.settled == [(name, -1.0, 1.0, 6.0)] * 2
    both, _ = pipeline_of(RateLimit(requests=60, tokens=60, fleet=fleet), clock)
    with pytest.raises(asyncio.CancelledError):
        await both.send(CHAT)
    assert fleet.settled == [(name, -1.0, 1.0, 6.0)] * 3
    assert provider.sent == []


async def test_batch_asks_the_fleet_again_until_there_is_room(clock):
    """It asks for four fifths of the bucket, and holds no place while it waits."""
    fleet = LocalFleet(2.0, 0.0)
    pipeline, provider = pipeline_of(RateLimit(requests=60, fleet=fleet), clock)
    await pipeline.send(CHAT, priority="batch")
    name = f"requests:{ORIGIN}::m"
    assert fleet.asked == [(name, 1.0, 1.0, pytest.approx(4.8))] * 2
    assert fleet.settled == [(name, -1.0, 1.0, 6.0)]
    assert provider.times == [2.0]


async def test_what_another_batch_has_sent_is_not_this_ones(clock):
    """A batch that is cancelled before it was sent gives its reservation back, whatever its neighbours have sent."""
    limit = RateLimit(requests=60, burst=1.0)
    stack = [Batching(size=1, in_flight=4), limit, ConcurrencyLimit(limit=1, adaptive=False)]
    provider = ScriptedProvider(0.01, ServerFailed("boom", status=500))
    texts = ["a", "b", "c", "d"]
    with pytest.raises(ServerFailed):
        await Pipeline(provider, stack, clock=clock).send(Embed(model="m", texts=texts))
    await asyncio.sleep(0)
    assert limit.health()[0].available == pytest.approx(60 - len(provider.calls), abs=0.1)
    assert len(provider.calls) < len(texts)
