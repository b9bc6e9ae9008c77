"""Timeout: the timers of one attempt."""

import asyncio

import pytest

from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import AttemptTimeout, ConnectionFailed, DeadlineExceeded, StreamInterrupted
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.timeout import Timeout
from resilient_ai.testing import ScriptedProvider, ScriptedSource, chat_result, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
STREAM = Stream(model="m", messages="hi")
DONE = [Finished(("stop",))]


def stream(clock, *script):
    return StreamResult(ScriptedSource(script), model="m", first=[TextDelta("Hel")], clock=clock)


async def send(clock, script, operation=CHAT, outer=(), **options):
    provider = ScriptedProvider(*script)
    return await Pipeline(provider, [*outer, Timeout(**options)], clock=clock).send(operation)


def test_defaults():
    """A minute to the first token and between two, five for everything."""
    assert repr(Timeout()) == "Timeout(first_token=60.0, idle=60.0, attempt=300.0)"


@pytest.mark.parametrize("name", ["first_token", "idle", "attempt"])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
def test_senseless_options_are_refused(name, value):
    """Every timer is a positive finite number of seconds."""
    with pytest.raises(ValueError, match=f"{name} must be a positive number of seconds, got {value!r}"):
        Timeout(**{name: value})


@pytest.mark.parametrize(
    ("operation", "options", "timer", "elapsed"),
    [
        (CHAT, {}, "attempt", 300.0),
        (Embed(model="m", texts="a"), {"attempt": 7.0}, "attempt", 7.0),
        (STREAM, {}, "first_token", 60.0),
        (STREAM, {"attempt": 20.0}, "attempt", 20.0),
        (Chat(model="m", messages="hi", service_tier="flex"), {}, "attempt", 620.0),
        (Stream(model="m", messages="hi", service_tier="flex"), {"attempt": 900.0}, "first_token", 620.0),
        (Chat(model="m", messages="hi", service_tier="priority"), {}, "attempt", 300.0),
    ],
)
async def test_an_attempt_that_hangs_is_stopped(clock, operation, options, timer, elapsed):
    """The error says which timer fired and when, and that the request may be billed."""
    began = clock.monotonic()
    with pytest.raises(AttemptTimeout) as caught:
        await send(clock, [10_000.0], operation, **options)
    error = caught.value
    assert (error.timer, error.elapsed, error.sent, error.model, error.retryable) == (timer, elapsed, True, "m", True)
    assert clock.monotonic() - began == pytest.approx(elapsed)


async def test_an_attempt_that_hangs_is_tried_again(clock):
    """Inside of Retry each attempt has the whole time."""
    result = await send(clock, [5.0, 4.0, chat_result("yes")], outer=[Retry()], attempt=8.0)
    assert (result.text, result.attempts) == ("yes", 2)


async def test_what_is_in_time_is_untouched(clock):
    """An answer before the timer is returned, and the timer is gone."""
    result = await send(clock, [7.9], attempt=8.0)
    await asyncio.sleep(100.0)
    assert result.text == "Hello."


async def test_the_timeout_of_somebody_else_is_not_ours(clock):
    """A TimeoutError from below passes through as it is."""
    error = TimeoutError("from a library")
    with pytest.raises(TimeoutError) as caught:
        await send(clock, [1.0, error])
    assert caught.value is error


async def test_somebody_elses_timeout_error_is_not_the_attempts(clock):
    """A TimeoutError from below that no timer of ours made passes unchanged."""
    with pytest.raises(TimeoutError, match="theirs"):
        await send(clock, [TimeoutError("theirs")])


async def test_the_callers_cancellation_is_not_a_timeout(clock):
    """Cancelled from outside, the call is cancelled."""
    task = asyncio.ensure_future(send(clock, [1000.0]))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_nearer_deadline_is_measured_alone(clock):
    """Where the deadline of the call comes first, its error is raised, by one timer."""
    timers = []

    class Counting(type(clock)):
        def timeout(self, seconds):
            timers.append(seconds)
            return super().timeout(seconds)

    with pytest.raises(DeadlineExceeded):
        await send(Counting(), [1000.0], outer=[Deadline(total=5.0)], attempt=60.0)
    assert timers == [5.0]


async def test_a_stream_that_falls_silent_is_stopped(clock):
    """The idle timer runs between two content events, and the partial answer is kept."""
    answer = await send(clock, [stream(clock, [TextDelta("lo")], 1000.0)], STREAM, idle=10.0)
    began = clock.monotonic()
    with pytest.raises(StreamInterrupted, match="the idle timer fired after 10 s") as caught:
        await answer.result()
    assert caught.value.partial.text == "Hello"
    assert clock.monotonic() - began == pytest.approx(10.0)


async def test_the_reader_may_take_its_time(clock):
    """The idle timer does not run while nobody waits for the stream."""
    answer = await send(clock, [stream(clock, [TextDelta("lo")], DONE)], STREAM, idle=10.0)
    await asyncio.sleep(100.0)
    assert (await answer.result()).text == "Hello"


async def test_a_stream_that_never_ends_is_stopped(clock):
    """The attempt timer covers the whole stream, the time to the first token included."""
    script = [step for _ in range(100) for step in (5.0, [TextDelta(".")])]
    answer = await send(clock, [3.0, stream(clock, *script)], STREAM, attempt=30.0)
    began = clock.monotonic()
    with pytest.raises(StreamInterrupted, match="the attempt timer fired after 30 s"):
        await answer.result()
    assert clock.monotonic() - began == pytest.approx(27.0)


async def test_the_deadline_of_a_stream_wins_where_it_is_nearer(clock):
    """Without a use for the attempt timer only the deadline limits the stream."""
    script = [step for _ in range(100) for step in (5.0, [TextDelta(".")])]
    answer = await send(clock, [stream(clock, *script)], STREAM, outer=[Deadline(total=12.0)])
    with pytest.raises(DeadlineExceeded):
        await answer.result()


async def test_a_failure_of_the_provider_passes_through(clock):
    """Errors from below are not touched."""
    error = ConnectionFailed("reset", phase="receive")
    with pytest.raises(ConnectionFailed) as caught:
        await send(clock, [error], STREAM)
    assert caught.value is error


async def test_a_whole_stream_is_untouched(clock):
    """A stream in time is read to its end."""
    answer = await send(clock, [stream_of("Hel", "lo", pause=9.0)], STREAM, idle=10.0)
    assert (await answer.result()).text == "Hello"
