"""Faults around limits and waits that no other test holds; those that need no socket run in virtual time."""

import asyncio
import time

import pytest

from resilient_ai import NoModelAvailable, Overloaded, RateLimited
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import CircuitBreaker, ConcurrencyLimit, Deadline, Retry, Routing, Timeout
from resilient_ai.testing import FakeClock, ScriptedProvider, chat_result, run

from .servers import client_of, http

CHAT = Chat(model="m", messages="hi")
DATE = "date: Wed, 21 Oct 2026 07:28:00 GMT"


def busy(retry_after=None):
    return RateLimited("'m' answered 429", status=429, retry_after=retry_after)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["retry-after: 0"], 0.0),
        (["retry-after: 1.5"], 1.5),
        (["retry-after: 120"], 120.0),
        (["retry-after: -5"], None),
        (["retry-after: abc"], None),
        (["retry-after: NaN"], None),
        (["retry-after: inf"], None),
        (["retry-after: 1e9"], None),
        (["retry-after: 1000000000"], 86_400.0),
        (["retry-after: 3", "retry-after: 7"], 7.0),
        (["retry-after: abc", "retry-after: 7"], 7.0),
        (["retry-after-ms: 250"], 0.25),
        ([DATE, "retry-after: Wed, 21 Oct 2026 07:28:30 GMT"], 30.0),
        ([DATE, "retry-after: Wednesday, 21-Oct-26 07:28:30 GMT"], 30.0),
        ([DATE, "retry-after: Wed Oct 21 07:28:30 2026"], 30.0),
        ([DATE, "retry-after: Wed, 21 Oct 2026 07:00:00 GMT"], None),
        ([], None),
    ],
)
async def test_retry_after_in_every_form(headers, seconds):
    """Seconds, decimals and dates by the server's own clock count, the largest of several; nonsense is as if it were not there."""
    async with client_of(http(b"", "429 Too Many Requests", *headers)) as (ai, _):
        with pytest.raises(RateLimited) as caught:
            await ai.chat("m", "hi")

    assert caught.value.retry_after == seconds


@pytest.mark.anyio
async def test_a_wait_longer_than_the_call_has():
    """A server's wait that does not fit the deadline is an error now, which names the wait."""
    answer = http(b"", "503 Service Unavailable", "retry-after: 30")
    async with client_of(answer, Deadline(total=5.0), Retry()) as (ai, server):
        started = time.monotonic()
        with pytest.raises(Overloaded) as caught:
            await ai.chat("m", "hi")

    assert caught.value.retry_after == 30.0
    assert len(server.requests) == 1
    assert time.monotonic() - started < 2


async def sent_at(pipeline, count):
    """Send so many calls at once; return how they ended."""
    return await asyncio.gather(*(pipeline.send(CHAT) for _ in range(count)), return_exceptions=True)


def test_a_fleet_that_was_told_the_same_wait():
    """Calls that were all told to come back in five seconds come back spread, and none of them early."""
    times = []

    async def answer(call):
        times.append(call.clock.monotonic())
        if call.attempt == 1:
            raise busy(5.0)
        return chat_result()

    async def main():
        chances = [number / 100 for number in range(100)]
        clock = FakeClock(chances * 3)
        started = clock.monotonic()
        outcomes = await sent_at(Pipeline(ScriptedProvider(*[answer] * 200), [Retry()], clock=clock), 100)
        return outcomes, started

    outcomes, started = run(main())
    returns = sorted(at - started for at in times)[100:]

    assert not any(isinstance(one, Exception) for one in outcomes)
    assert returns[0] >= 5.0
    assert returns[-1] <= 6.0
    assert returns[-1] - returns[0] > 0.3
    assert len(set(returns)) > 50


def test_a_storm_of_429():
    """While a model refuses everybody its circuit stays closed, and once it takes calls again they are all answered."""

    async def answer(call):
        if call.clock.monotonic() < 1_003.0:
            raise busy()
        return chat_result()

    async def main():
        clock = FakeClock(number / 50 for number in range(1, 50))
        breaker = CircuitBreaker()
        stack = [Deadline(total=60.0), Retry(attempts=8), breaker, ConcurrencyLimit(limit=20), Timeout()]
        pipeline = Pipeline(ScriptedProvider(*[answer] * 10_000), stack, clock=clock)
        await asyncio.gather(*(pipeline.send(CHAT) for _ in range(20)), return_exceptions=True)
        await asyncio.sleep(10)
        answers = await sent_at(pipeline, 100)
        return answers, pipeline.health()

    answers, health = run(main())

    assert {type(one).__name__ for one in answers} == {"ChatResult"}
    assert health.ok
    assert {limit.in_use for limit in health.limits} == {0}


def test_a_busy_model_far_below_its_limit():
    """A 429 for a single call leads to the next model once its tries are used up."""

    async def answer(call):
        if call.model == "busy":
            raise busy()
        return chat_result(model=call.model)

    async def main():
        pipeline = Pipeline(ScriptedProvider(*[answer] * 9), [Routing(), Retry(attempts=2)], clock=FakeClock())
        return await pipeline.send(Chat(model=["busy", "free"], messages="hi"))

    assert run(main()).served_by == "free"


def test_every_model_is_busy():
    """Where all refuse, the error names the refusal of each."""

    async def answer(_call):
        raise busy()

    async def main():
        pipeline = Pipeline(ScriptedProvider(*[answer] * 9), [Routing(), Retry(attempts=1)], clock=FakeClock())
        return await pipeline.send(Chat(model=["a", "b"], messages="hi"))

    with pytest.raises(NoModelAvailable) as caught:
        run(main())

    assert [type(error) for error in caught.value.refused.values()] == [RateLimited, RateLimited]
