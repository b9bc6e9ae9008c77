"""Chaos: faults, waits and breaks by a plan that depends on seed and number alone."""

import asyncio
import collections
import gc
import logging
import random

import pytest

from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import (
    AttemptTimeout,
    ConfigurationError,
    ConnectionFailed,
    InvalidResponse,
    Overloaded,
    ProviderError,
    RateLimited,
    ResilientAIError,
    ServerFailed,
    StreamInterrupted,
)
from resilient_ai.core.events import SendStarted
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import CircuitBreaker, ConcurrencyLimit, CostAccounting, Deadline, Retry, Timeout
from resilient_ai.middleware.chaos import FAULTS, Chaos, ChaosPlan
from resilient_ai.presets import default_stack
from resilient_ai.settings import Settings
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, answer_to, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
STREAM = Stream(model="m", messages="hi")
ALL = range(1, 10_001)


def chaos(**options):
    return Chaos(**{"fault_rate": 0.0, **options})


def plans(numbers=range(1, 201), **options):
    each = Chaos(**options)
    return [each.plan(number) for number in numbers]


class Book:
    """A ledger in two lists."""

    def __init__(self):
        self.rows, self.ends = [], []

    def opened(self, row):
        self.rows.append(row)

    def closed(self, row):
        self.ends.append(row)

    async def flush(self):
        pass

    async def aclose(self):
        pass


def test_defaults():
    """One request in twenty fails, and nothing else happens."""
    assert repr(Chaos()) == (
        f"Chaos(seed=0, fault_rate=0.05, faults={FAULTS!r}, latency_rate=0.0, latency=(0.1, 2.0), hang_rate=0.0, "
        "interrupt_rate=0.0)"
    )


@pytest.mark.parametrize("name", ["fault_rate", "latency_rate", "hang_rate", "interrupt_rate"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_rate_is_a_share(name, value):
    """Every rate lies from 0 to 1."""
    with pytest.raises(ValueError, match=f"{name} must be from 0 to 1, got {value!r}"):
        Chaos(**{name: value})


@pytest.mark.parametrize("faults", [(), ("flood",), ("reset", "flood")])
def test_faults_have_names(faults):
    """A fault that does not exist is refused, and so is none at all."""
    with pytest.raises(ValueError, match=r"faults must be one or more of refused, connect_timeout, .*, got"):
        Chaos(faults=faults)


@pytest.mark.parametrize("latency", [(-1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_latency_is_a_range_of_seconds(latency):
    """Least and most, neither below zero nor without end."""
    with pytest.raises(ValueError, match="latency must be least and most seconds from 0, got"):
        Chaos(latency=latency)


@pytest.mark.parametrize("outer", [Retry(), CircuitBreaker(), ConcurrencyLimit(), CostAccounting(), Timeout()])
def test_it_stands_innermost(outer):
    """Whatever shall see the failures stands outside of it."""
    with pytest.raises(ConfigurationError, match=f"Chaos must stand after {type(outer).__name__}"):
        Pipeline(ScriptedProvider(), [Chaos(), outer])

    assert Pipeline(ScriptedProvider(), [outer, Chaos()]).stack


def test_it_shouts(caplog):
    """One warning says that it is there, with its settings."""
    with caplog.at_level(logging.WARNING, logger="resilient_ai"):
        Chaos(seed=3)

    (line,) = caplog.messages
    assert line.startswith("chaos is on, so requests fail on purpose: Chaos(seed=3, fault_rate=0.05")


def test_the_same_seed_plans_the_same():
    """Two objects with one seed agree on every request, in any order of asking."""
    options = {"seed": 5, "fault_rate": 0.3, "latency_rate": 0.3, "hang_rate": 0.1, "interrupt_rate": 0.3}

    assert plans(**options) == plans(range(200, 0, -1), **options)[::-1]


def test_another_seed_plans_otherwise():
    """Seeds do not repeat each other."""
    assert plans(seed=1, fault_rate=0.5) != plans(seed=2, fault_rate=0.5)


def test_one_rate_leaves_the_draws_of_the_others():
    """Faults and breaks strike the same requests whether or not there is latency as well."""
    alone = plans(fault_rate=0.2, interrupt_rate=0.2)
    both = plans(fault_rate=0.2, interrupt_rate=0.2, latency_rate=0.5)

    assert [(plan.fault, plan.cut_after) for plan in alone] == [(plan.fault, plan.cut_after) for plan in both]


def test_rates_are_what_they_say():
    """Of 10,000 requests each rate strikes its share, every fault about as often, times and events within their bounds."""
    all_plans = plans(ALL, fault_rate=0.2, latency_rate=0.1, latency=(1.0, 3.0), hang_rate=0.05, interrupt_rate=0.4)
    faults = collections.Counter(plan.fault for plan in all_plans if plan.fault)
    delays = [plan.delay for plan in all_plans if plan.delay]
    cuts = [plan.cut_after for plan in all_plans if plan.cut_after]

    assert sum(plan.hangs for plan in all_plans) == pytest.approx(500, abs=90)
    assert faults.total() == pytest.approx(1900, abs=160)  # a request that hangs does not fail otherwise
    assert set(faults) == set(FAULTS)
    assert max(faults.values()) - min(faults.values()) < 100
    assert len(delays) == pytest.approx(1000, abs=120)
    assert (min(delays) >= 1.0, max(delays) <= 3.0) == (True, True)
    assert len(cuts) == pytest.approx(4000, abs=200)
    assert (min(cuts), max(cuts)) == (1, 20)


@pytest.mark.parametrize(("rate", "struck"), [(0.0, 0), (1.0, 1000)])
def test_never_and_always(rate, struck):
    """A rate of 0 strikes nobody and one of 1 everybody."""
    assert sum(plan.fault is not None for plan in plans(range(1000), fault_rate=rate)) == struck


@pytest.mark.parametrize(
    ("fault", "kind", "facts"),
    [
        ("refused", ConnectionFailed, {"phase": "connect", "sent": False}),
        ("connect_timeout", AttemptTimeout, {"timer": "connect", "sent": False}),
        ("reset", ConnectionFailed, {"phase": "receive", "sent": True}),
        ("invalid_response", InvalidResponse, {"sent": True}),
        ("status_429", RateLimited, {"status": 429, "retry_after": 1.0}),
        ("status_500", ServerFailed, {"status": 500, "retry_after": None}),
        ("status_502", ServerFailed, {"status": 502}),
        ("status_503", Overloaded, {"status": 503, "retry_after": 1.0}),
    ],
)
async def test_each_fault_is_the_real_error(clock, fault, kind, facts):
    """Class, phase and whether it was sent are those of the real thing, new each time; the provider is not asked."""
    provider, told = ScriptedProvider(), []
    pipeline = Pipeline(provider, [chaos(fault_rate=1.0, faults=(fault,), seed=4)], clock=clock)
    caught = []
    for _ in range(2):
        with pytest.raises(kind) as error:
            await pipeline.send(CHAT, listener=told.append)
        caught.append(error.value)

    assert {name: getattr(caught[0], name) for name in facts} == facts
    assert (caught[0].model, caught[0].retryable) == ("m", True)
    assert caught[0] is not caught[1]
    assert caught[1].__notes__ == ["made on purpose: Chaos(seed=4), request 2"]
    assert provider.calls == []
    assert [type(event) for event in told] == [SendStarted, SendStarted]


def test_every_fault_has_a_case():
    """No name is left out of the test above."""
    (cases,) = [mark for mark in test_each_fault_is_the_real_error.pytestmark if mark.name == "parametrize"]

    assert [case[0] for case in cases.args[1]] == list(FAULTS)


@pytest.mark.parametrize(
    ("fault", "state"),
    [("refused", "never_sent"), ("connect_timeout", "never_sent"), ("reset", "unknown"), ("status_500", "settled")],
)
async def test_the_ledger_takes_them_for_real(clock, fault, state):
    """A row says of a failure that was made what it says of a real one."""
    book = Book()
    stack = [CostAccounting(book), chaos(fault_rate=1.0, faults=(fault,))]
    with pytest.raises(ProviderError):
        await Pipeline(ScriptedProvider(), stack, clock=clock).send(CHAT)

    assert [row.state for row in book.ends] == [state]


async def test_what_happens_is_what_was_planned(clock):
    """The outcomes of a run are the plans for its numbers, so that a failing one can be replayed."""
    each = Chaos(seed=11, fault_rate=0.5)
    pipeline = Pipeline(ScriptedProvider(), [each], clock=clock)
    failed = []
    for _ in range(50):
        try:
            await pipeline.send(CHAT)
            failed.append(False)
        except ProviderError:
            failed.append(True)

    assert failed == [each.plan(number).fault is not None for number in range(1, 51)]


async def test_latency_is_waited_through_the_clock(clock):
    """A late request leaves after the planned time and is answered."""
    each = chaos(latency_rate=1.0, latency=(2.0, 4.0))
    await Pipeline(ScriptedProvider(), [each], clock=clock).send(CHAT)

    assert clock.slept == [each.plan(1).delay]
    assert 2.0 <= clock.slept[0] <= 4.0


async def test_a_late_request_may_fail_as_well(clock):
    """The wait comes before the fault."""
    with pytest.raises(ConnectionFailed):
        await Pipeline(
            ScriptedProvider(), [chaos(latency_rate=1.0, fault_rate=1.0, faults=("reset",))], clock=clock
        ).send(CHAT)

    assert len(clock.slept) == 1


async def test_a_timer_ends_what_hangs(clock):
    """The timer of the attempt fires, and the send counts as sent."""
    provider = ScriptedProvider()
    pipeline = Pipeline(provider, [Timeout(attempt=30.0), chaos(hang_rate=1.0)], clock=clock)
    started, told = clock.monotonic(), []
    with pytest.raises(AttemptTimeout) as caught:
        await pipeline.send(CHAT, listener=told.append)

    assert (caught.value.timer, caught.value.sent) == ("attempt", True)
    assert clock.monotonic() - started == pytest.approx(30.0)
    assert (len(told), provider.calls) == (1, [])


async def test_what_hangs_without_a_timer_ends_with_a_reset(clock):
    """After an hour the peer is gone, so that nothing hangs for ever."""
    started = clock.monotonic()
    with pytest.raises(ConnectionFailed) as caught:
        await Pipeline(ScriptedProvider(), [chaos(hang_rate=1.0)], clock=clock).send(CHAT)

    assert caught.value.phase == "receive"
    assert clock.monotonic() - started == pytest.approx(3600.0)


async def test_a_stream_breaks_after_its_events(clock):
    """So many events arrive as planned, then it is interrupted, and the connection inside is dropped once."""
    each = chaos(interrupt_rate=1.0, seed=2)
    source = ScriptedSource([[TextDelta(f"{number} ")] for number in range(1, 30)])
    inner = StreamResult(source, model="m", first=[TextDelta("0 ")], clock=clock)
    stream = await Pipeline(ScriptedProvider(inner), [each], clock=clock).send(STREAM)
    seen = []
    with pytest.raises(StreamInterrupted) as caught:
        while True:
            seen.append((await anext(stream)).text)

    assert len(seen) == each.plan(1).cut_after
    assert caught.value.partial.text == "".join(seen)
    assert caught.value.__cause__.__notes__ == ["made on purpose: Chaos(seed=2), request 1"]
    assert (stream.ended, inner.ended, source.aborted) == ("failed", "closed", 1)


async def test_events_that_came_together_are_cut_apart(clock):
    """No event more than planned is handed over, however they arrived."""
    each = chaos(interrupt_rate=1.0)
    events = [TextDelta(f"{number} ") for number in range(40)]
    inner = StreamResult(ScriptedSource([]), model="m", first=[*events, Finished(("stop",))], clock=clock)
    stream = await Pipeline(ScriptedProvider(inner), [each], clock=clock).send(STREAM)
    with pytest.raises(StreamInterrupted) as caught:
        await stream.result()

    assert len(caught.value.partial.text.split()) == each.plan(1).cut_after


async def test_a_stream_of_fewer_events_is_whole(clock):
    """What ends before it would break has its end, its usage and its answer."""
    number = next(number for number in ALL if chaos(interrupt_rate=1.0).plan(number).cut_after > 5)
    pipeline = Pipeline(ScriptedProvider(), [each := chaos(interrupt_rate=1.0)], clock=clock)
    for _ in range(number - 1):
        await pipeline.send(CHAT)
    answer = await (await pipeline.send(STREAM)).result()

    assert each.plan(number).cut_after > 5
    assert (answer.text, answer.usage) == ("Hello.", Usage(input_tokens=10, output_tokens=2))


@pytest.mark.parametrize("cause", [ConnectionFailed("gone", phase="receive"), RuntimeError("a bug")])
async def test_a_stream_that_breaks_by_itself_keeps_its_cause(clock, cause):
    """A real break before the planned one is told as it is, once."""
    each = next(one for seed in ALL if (one := chaos(interrupt_rate=1.0, seed=seed)).plan(1).cut_after > 5)
    inner = StreamResult(ScriptedSource([cause]), model="m", first=[TextDelta("Hel")], clock=clock)
    stream = await Pipeline(ScriptedProvider(inner), [each], clock=clock).send(STREAM)
    with pytest.raises((StreamInterrupted, RuntimeError)) as caught:
        await stream.result()

    assert caught.value is cause or caught.value.__cause__ is cause
    assert str(caught.value).count("broke") <= 1


async def test_a_stream_that_just_ends_is_interrupted(clock):
    """A body without a finish reason is no whole answer inside of chaos either."""
    each = next(one for seed in ALL if (one := chaos(interrupt_rate=1.0, seed=seed)).plan(1).cut_after > 5)
    inner = StreamResult(ScriptedSource([]), model="m", first=[TextDelta("Hel")], clock=clock)
    stream = await Pipeline(ScriptedProvider(inner), [each], clock=clock).send(STREAM)
    with pytest.raises(StreamInterrupted, match="without a finish reason"):
        await stream.result()


async def test_a_source_that_ends_without_a_word_ends_the_stream(clock):
    """A provider whose streams conclude in silence is not made to fail."""

    class Silent(ScriptedSource):
        def conclude(self):
            return ()

    each = next(one for seed in ALL if (one := chaos(interrupt_rate=1.0, seed=seed)).plan(1).cut_after > 5)
    inner = StreamResult(Silent([]), model="m", first=[TextDelta("Hel")], clock=clock)
    stream = await Pipeline(ScriptedProvider(inner), [each], clock=clock).send(STREAM)

    assert (await stream.result()).text == "Hel"


@pytest.mark.parametrize("leave", ["close", "drop"])
async def test_leaving_a_stream_that_would_break_drops_its_connection(clock, leave):
    """Closed or forgotten, the stream inside ends as well."""
    source = ScriptedSource([[TextDelta("lo")]] * 30)
    inner = StreamResult(source, model="m", first=[TextDelta("Hel")], clock=clock)
    stream = await Pipeline(ScriptedProvider(inner), [chaos(interrupt_rate=1.0)], clock=clock).send(STREAM)
    if leave == "close":
        await stream.aclose()
        await stream.aclose()
    del stream

    assert (source.aborted, inner.ended) == (1, "closed")


async def test_a_break_is_for_streams_alone(clock):
    """Any other answer arrives whole."""
    pipeline = Pipeline(ScriptedProvider(), [chaos(interrupt_rate=1.0)], clock=clock)

    assert (await pipeline.send(CHAT)).text == "Hello."


async def test_only_spares_the_others(clock):
    """Calls that the predicate leaves out pass and take no number."""
    each = chaos(fault_rate=1.0, only=lambda call: call.tags.get("tenant") == "red")
    pipeline = Pipeline(ScriptedProvider(), [each], clock=clock)
    for _ in range(5):
        assert (await pipeline.send(CHAT, tags={"tenant": "blue"})).text == "Hello."
    with pytest.raises(ProviderError) as caught:
        await pipeline.send(CHAT, tags={"tenant": "red"})

    assert caught.value.__notes__ == ["made on purpose: Chaos(seed=0), request 1"]


def test_a_plan_says_nothing_by_default():
    """Nothing happens to a request without a plan of its own."""
    assert ChaosPlan() == chaos().plan(1)


async def slow_answer(call):
    await asyncio.sleep(0.2)
    if call.operation.kind == "stream":
        return stream_of(*(f"{number} " for number in range(25)), pause=0.05)
    return answer_to(call.operation)


async def one_call(pipeline, chance):
    """Make one call of a random kind, left early at times; return the name of how it ended."""
    await asyncio.sleep(chance.uniform(0, 120))
    kind = chance.choice([CHAT, STREAM, Embed(model="m", texts=["a", "b"])])
    try:
        async with asyncio.timeout(chance.choice([1.0, 400.0, 400.0])):
            result = await pipeline.send(kind)
            if kind is STREAM:
                async with result:
                    async for _ in result:
                        if chance.random() < 0.01:
                            break
    except (ResilientAIError, TimeoutError) as error:
        return type(error).__name__
    return "answered"


async def test_a_storm_leaves_everything_in_order(tmp_path):
    """After a thousand calls through the whole stack no permit is held, each send has one closed row, and all works again."""
    book = Book()
    settings = Settings(home=tmp_path, cache="off", coalesce="off", ledger="off", concurrency=20, attempt_timeout=30)
    stack = [part for part in default_stack(settings) if not isinstance(part, CostAccounting | Timeout)]
    rates = {"fault_rate": 0.15, "latency_rate": 0.2, "hang_rate": 0.02, "interrupt_rate": 0.2}
    storm = Chaos(seed=1, only=lambda call: "calm" not in call.tags, **rates)
    provider = ScriptedProvider()
    provider.script = [slow_answer] * 5000
    sends = []
    chance = random.Random(8)
    stack += [CostAccounting(book), Timeout(attempt=30.0, first_token=30.0), storm]
    async with Pipeline(provider, stack, clock=FakeClock()) as pipeline:
        pipeline.subscribe(lambda event: sends.append(event) if isinstance(event, SendStarted) else None)
        endings = collections.Counter(
            await asyncio.gather(*(one_call(pipeline, random.Random(chance.random())) for _ in range(1000)))
        )
        gc.collect()
        assert {(limit.in_use, limit.waiting) for limit in pipeline.health().limits} == {(0, 0)}
        opened = [row.send_id for row in book.rows]
        assert sorted(opened) == sorted(row.send_id for row in book.ends)
        assert len(set(opened)) == len(opened)
        assert len(book.rows) >= len(sends) > 900
        assert endings["answered"] > 600
        assert len(endings) > 2

        await asyncio.sleep(60)  # longer than any break
        for _ in range(10):
            assert (await pipeline.send(CHAT, tags={"calm": "yes"})).text == "Hello."
        assert {one.state for one in pipeline.health().breakers if one.key[2] == "chat"} == {"closed"}


async def test_a_deadline_covers_what_hangs(clock):
    """A call that hangs at every try still ends within its time."""
    stack = [Deadline(total=50.0), Retry(), Timeout(attempt=20.0), chaos(hang_rate=1.0)]
    started = clock.monotonic()
    with pytest.raises(ResilientAIError):
        await Pipeline(ScriptedProvider(), stack, clock=clock).send(CHAT)

    assert clock.monotonic() - started <= 50.0
