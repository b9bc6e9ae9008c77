"""Deadline: the time of a whole call."""

import asyncio

import pytest

from resilient_ai.core.call import Call
from resilient_ai.core.deltas import TextDelta
from resilient_ai.core.errors import DeadlineExceeded, ServerFailed
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.testing import ScriptedProvider, ScriptedSource, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")


async def send(clock, script, operation=CHAT, timeout=None, inner=(), **options):
    provider = ScriptedProvider(*script)
    result = await Pipeline(provider, [Deadline(**options), *inner], clock=clock).send(operation, timeout=timeout)
    return provider, result


def test_defaults():
    """Ten minutes."""
    assert repr(Deadline()) == "Deadline(total=600.0)"
    with pytest.raises(ValueError, match=r"total must be a positive number of seconds, got 0"):
        Deadline(total=0)


@pytest.mark.parametrize(
    ("tier", "options", "timeout", "seconds"),
    [
        (None, {}, None, 600.0),
        (None, {"total": 30.0}, None, 30.0),
        (None, {"total": 30.0}, 50.0, 50.0),
        ("flex", {}, None, 900.0),
        ("flex", {"total": 1000.0}, None, 1000.0),
        ("flex", {}, 5.0, 5.0),
    ],
)
async def test_a_call_that_takes_too_long_is_stopped(clock, tier, options, timeout, seconds):
    """The error carries what was given, what was taken, and whether it may be billed."""
    began = clock.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        await send(clock, [10_000.0], Chat(model="m", messages="hi", service_tier=tier), timeout, **options)
    error = caught.value
    assert (error.timeout, error.sent) == (pytest.approx(seconds), True)
    assert error.elapsed == pytest.approx(seconds)
    assert clock.monotonic() - began == pytest.approx(seconds)


async def test_the_error_names_the_seconds_as_they_were_given(clock):
    """However long the machine has been up: a point in time far from zero would round them."""
    await clock.sleep(33_460.123_456_789)
    with pytest.raises(DeadlineExceeded) as caught:
        await send(clock, [10_000.0], timeout=0.001)
    assert caught.value.timeout == 0.001


async def test_everything_below_knows_the_deadline(clock):
    """The call carries the point in time and what is left to it."""
    seen = []

    async def look(call):
        seen.append((call.deadline - call.started, call.remaining()))
        return chat_result()

    await send(clock, [3.0, look], total=10.0)
    assert seen == [(10.0, 7.0)]


async def test_the_waits_of_a_retry_are_within_the_deadline(clock):
    """Tries and waits together have the given time."""
    with pytest.raises(ServerFailed):
        await send(
            clock,
            [4.0, ServerFailed("a", status=500), 5.0, ServerFailed("b", status=500)],
            inner=[Retry(wait_initial=0.5)],
            total=10.0,
        )
    assert clock.slept == pytest.approx([0.5])


async def test_nothing_sent_is_nothing_owed(clock):
    """Stopped in a queue before the first request, the error says that nothing left."""

    async def queue(call, proceed):
        await asyncio.sleep(100.0)
        return await proceed(call)

    with pytest.raises(DeadlineExceeded) as caught:
        await send(clock, [], inner=[queue], total=10.0)
    assert caught.value.sent is False


async def test_a_call_that_comes_too_late_is_not_begun(clock):
    """A deadline that has passed already refuses the call before anything is sent."""

    async def dawdle(call, proceed):
        await asyncio.sleep(20.0)
        return await proceed(call)

    provider = ScriptedProvider()
    with pytest.raises(DeadlineExceeded) as caught:
        await Pipeline(provider, [dawdle, Deadline(total=10.0)], clock=clock).send(CHAT)
    assert (provider.calls, caught.value.sent, caught.value.elapsed) == ([], False, 20.0)


@pytest.mark.parametrize(("outer", "inner"), [(10.0, 50.0), (50.0, 10.0), (10.0, 10.0)])
async def test_the_nearer_of_two_deadlines_wins(clock, outer, inner):
    """However they are nested, the call ends with the first."""
    with pytest.raises(DeadlineExceeded) as caught:
        await send(clock, [1000.0], inner=[Deadline(total=inner)], total=outer)
    assert caught.value.timeout == 10.0


async def test_a_deadline_that_a_call_brings_along_is_kept(clock):
    """A deadline set by the user's own middleware is enforced where it is nearer."""

    async def hurry(call, proceed):
        return await proceed(call.replace(deadline=call.started + 5.0))

    provider = ScriptedProvider(1000.0)
    with pytest.raises(DeadlineExceeded) as caught:
        await Pipeline(provider, [hurry, Deadline(total=10.0)], clock=clock).send(CHAT)
    assert caught.value.timeout == 5.0
    assert provider.calls[0].deadline == provider.calls[0].started + 5.0


async def test_the_timeout_of_somebody_else_is_not_ours(clock):
    """A TimeoutError from below passes through as it is."""
    error = TimeoutError("from a library")
    with pytest.raises(TimeoutError) as caught:
        await send(clock, [error])
    assert caught.value is error


async def test_the_callers_own_timeout_stays_the_callers(clock):
    """An asyncio.timeout around the call is not labelled as the call's deadline."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await send(clock, [1000.0])


async def test_cancellation_passes_through(clock):
    """Cancelled from outside, the call is cancelled."""
    task = asyncio.ensure_future(send(clock, [1000.0]))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_body_of_a_stream_is_within_the_deadline(clock):
    """A stream is stopped at the deadline of its call, with what had arrived."""
    script = [step for _ in range(100) for step in (4.0, [TextDelta("!")])]
    stream = StreamResult(ScriptedSource(script), model="m", first=[TextDelta("Hi")], clock=clock)
    _, answer = await send(clock, [2.0, stream], Stream(model="m", messages="hi"), total=10.0)
    with pytest.raises(DeadlineExceeded) as caught:
        await answer.result()
    assert caught.value.partial.text == "Hi!"
    assert (caught.value.sent, caught.value.elapsed) == (True, pytest.approx(10.0))


async def test_the_wall_clock_may_jump(clock):
    """The deadline is measured by the clock that never runs backwards."""

    async def jump(call):
        clock.offset -= 86_400.0
        return chat_result("yes")

    _, result = await send(clock, [5.0, jump], total=10.0)
    assert result.text == "yes"


async def test_a_call_made_by_hand_needs_no_pipeline(clock):
    """The middleware is a plain callable."""

    async def leaf(call):
        return call.remaining()

    call = Call(CHAT, clock, started=clock.monotonic())
    assert await Deadline(total=10.0)(call, leaf) == 10.0
