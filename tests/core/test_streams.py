"""Streamed answers: exactly one end, whatever happens."""

import asyncio
import gc
import logging
import weakref

import pytest

from resilient_ai.core.deltas import Finished, ReasoningDelta, TextDelta, ToolCallDelta
from resilient_ai.core.errors import (
    AttemptTimeout,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidResponse,
    ServerFailed,
    StreamInterrupted,
    StreamMisused,
)
from resilient_ai.core.messages import ToolCall
from resilient_ai.core.operations import Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.replay import Replay
from resilient_ai.core.results import Choice, TokenLogprob, Usage
from resilient_ai.core.streams import FINISH_GRACE, StreamResult, when_done
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, chat_result, stream_of

pytestmark = pytest.mark.anyio

DONE = [Finished(("stop",), Usage(output_tokens=2))]


class Watched:
    """A stream over a script, and everything its end told."""

    def __init__(self, *script, first=(TextDelta("Hel"),)):
        self.source = ScriptedSource(script)
        self.stream = StreamResult(self.source, model="m", first=first, clock=FakeClock())
        self.ends = []
        self.stream.on_end(self.ends.append)

    @property
    def how(self):
        return [end.how for end in self.ends]


async def test_a_drained_stream_ends_completed_once():
    """Reading to the end tells the callbacks once, keeps the connection, and gives the whole answer as often as asked."""
    watched = Watched([TextDelta("lo")], DONE)
    events = [event async for event in watched.stream]
    await watched.stream.aclose()
    answer = await watched.stream.result()
    assert events == [TextDelta("Hel"), TextDelta("lo"), *DONE]
    assert (watched.how, watched.source.aborted, watched.stream.ended) == (["completed"], 0, "completed")
    assert (answer.text, answer.finish_reason, (await watched.stream.result()).text) == ("Hello", "stop", "Hello")


async def test_leaving_and_closing_ends_closed_once():
    """A reader that breaks off and closes, even twice, ends the stream as closed and drops the connection once."""
    watched = Watched([TextDelta("lo")], DONE)
    async for _ in watched.stream:
        break
    await watched.stream.aclose()
    await watched.stream.aclose()
    assert (watched.how, watched.source.aborted) == (["closed"], 1)
    with pytest.raises(StreamMisused, match="there is no whole answer"):
        await watched.stream.result()


async def test_leaving_the_block_closes():
    """Leaving `async with` early frees the connection, and the end carries what made the reader leave."""
    watched = Watched([TextDelta("lo")], DONE)
    with pytest.raises(LookupError):
        async with watched.stream as stream:
            async for _ in stream:
                raise LookupError
    assert (watched.how, watched.source.aborted) == (["closed"], 1)
    assert isinstance(watched.ends[0].error, LookupError)


async def test_a_cancelled_reader_closes():
    """A reader that is cancelled while it waits ends the stream as closed, with the cancellation as its error."""
    watched = Watched(50.0, DONE)
    reader = asyncio.create_task(watched.stream.result())
    await asyncio.sleep(1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert (watched.how, watched.source.aborted) == (["closed"], 1)
    assert isinstance(watched.ends[0].error, asyncio.CancelledError)


@pytest.mark.parametrize("read", [False, True])
async def test_a_dropped_stream_is_abandoned_at_once(read):
    """A stream that nobody closes ends when its last name goes, without waiting for the collector of cycles."""
    watched = Watched([TextDelta("lo")], DONE)
    if read:
        await anext(watched.stream)
        await anext(watched.stream)
    gone = weakref.ref(watched.stream)
    gc.disable()
    try:
        del watched.stream
        assert gone() is None
    finally:
        gc.enable()
    gc.collect()
    assert (watched.how, watched.source.aborted) == (["abandoned"], 1)
    assert watched.ends[0].transcript.result().text == ("Hello" if read else "Hel")


async def test_a_stream_through_a_pipeline_forms_no_cycle():
    """A stream that came through a pipeline with limits and callbacks is freed by its reference count alone."""

    async def holding(call, proceed):
        stream = await proceed(call)
        stream.limit_idle(5, TimeoutError)
        stream.limit_until(call.started + 5, TimeoutError)
        stream.on_end(lambda end: ends.append((call.id, end.how)))
        return stream

    ends = []
    pipe = Pipeline(ScriptedProvider(), [holding], clock=FakeClock())
    stream = await pipe.send(Stream(model="m", messages="hi"))
    gone = weakref.ref(stream)
    gc.disable()
    try:
        del stream
        assert gone() is None
    finally:
        gc.enable()
    assert [how for _, how in ends] == ["abandoned"]


def test_a_stream_that_was_never_built_is_dropped_in_silence():
    """An object whose construction failed has nothing to end."""
    with pytest.raises(TypeError):
        StreamResult(ScriptedSource([]), model="m", first=5)
    gc.collect()


async def test_closing_from_another_task_tells_the_reader():
    """A reader that waits while another task closes the stream learns of it, and what comes late is not counted."""
    watched = Watched(50.0, [TextDelta("late")], DONE)
    reader = asyncio.create_task(watched.stream.result())
    await asyncio.sleep(1)
    await watched.stream.aclose()
    with pytest.raises(StreamMisused, match="closed while it was being read"):
        await reader
    assert (watched.how, watched.stream.transcript.result().text) == (["closed"], "Hel")


async def test_an_error_after_a_close_is_the_close():
    """A connection that breaks because another task closed the stream is not reported as a broken stream."""
    watched = Watched(50.0, ServerFailed("cut", status=500))
    reader = asyncio.create_task(watched.stream.result())
    await asyncio.sleep(1)
    await watched.stream.aclose()
    with pytest.raises(StreamMisused, match="closed while it was being read") as caught:
        await reader
    assert isinstance(caught.value.__cause__, ServerFailed)
    assert (watched.how, watched.stream.ended) == (["closed"], "closed")


@pytest.mark.parametrize("first", [(), (TextDelta("Hel"),)])
async def test_a_break_carries_what_had_arrived(first):
    """A provider's failure becomes `StreamInterrupted` with the partial answer and the failure as its cause, every time."""
    cut = InvalidResponse("cut")
    watched = Watched([TextDelta("lo")], cut, first=first)
    for _ in range(2):
        with pytest.raises(StreamInterrupted) as caught:
            await watched.stream.result()
        assert caught.value.__cause__ is cut
    assert caught.value.partial.text == ("Hello" if first else "lo")
    assert caught.value.partial.finish_reason is None
    assert (caught.value.retryable, caught.value.model) == (False, "m")
    assert (watched.how, watched.ends[0].error, watched.source.aborted) == (["failed"], caught.value, 1)
    with pytest.raises(StreamMisused, match="has failed"):
        aiter(watched.stream)


async def test_a_break_of_a_stream_inside_is_not_told_twice():
    """A source that is a stream itself has found the words already; the partial answer is that of the reader."""
    inside = StreamInterrupted("cut", partial=None, model="other")
    watched = Watched(inside)
    with pytest.raises(StreamInterrupted) as caught:
        await watched.stream.result()
    assert caught.value is inside
    assert (str(inside), inside.partial.text, inside.__cause__) == ("cut", "Hel", None)


async def test_dropping_ends_a_stream_without_waiting():
    """A middleware ends a stream as it says, once, and what had arrived can still be taken."""
    watched = Watched([TextDelta("lo")], DONE)
    reason = LookupError()
    watched.stream.drop("abandoned", reason)
    watched.stream.drop()
    assert (watched.how, watched.ends[0].error, watched.source.aborted) == (["abandoned"], reason, 1)
    assert (watched.stream.take(), watched.stream.take()) == ([TextDelta("Hel")], [])


async def test_dropping_says_closed_by_default():
    """A stream that is not wanted any more is closed."""
    watched = Watched(DONE)
    watched.stream.drop()
    assert (watched.how, watched.ends[0].error) == (["closed"], None)


async def test_the_model_is_the_one_that_is_asked_now():
    """Where another model takes over, the stream and its answer name that one."""
    watched = Watched(DONE)
    watched.stream.transcript.model = "other"
    assert (watched.stream.model, (await watched.stream.result()).served_by) == ("other", "other")


async def test_a_body_that_just_ends_is_a_break():
    """A body without a finish reason is not a whole answer."""
    with pytest.raises(StreamInterrupted, match="without a finish reason"):
        await Watched([TextDelta("lo")]).stream.result()


async def test_a_foreign_error_keeps_its_type_and_has_no_loop_of_causes():
    """An error that is none of the service's passes unchanged, and is not its own cause."""
    bug = LookupError("bug")
    watched = Watched(bug)
    with pytest.raises(LookupError) as caught:
        await watched.stream.result()
    assert caught.value is bug
    assert bug.__cause__ is None
    assert watched.how == ["failed"]


async def test_a_timeout_of_the_source_is_not_taken_for_a_limit():
    """A `TimeoutError` of the source is a failure, neither the end of the body nor a limit that was reached."""
    for limited in (False, True):
        watched = Watched(TimeoutError("its own"))
        if limited:
            watched.stream.limit_idle(5.0, LookupError)
        with pytest.raises(TimeoutError, match="its own"):
            await watched.stream.result()
        assert watched.how == ["failed"]


async def test_the_idle_limit_runs_between_content(clock):
    """No content for longer than the idle limit breaks the stream; shorter pauses do not add up."""
    watched = Watched(4.0, [TextDelta("lo")], 4.0, [TextDelta("!")], 6.0, DONE)
    watched.stream.limit_idle(5.0, lambda: AttemptTimeout(timer="idle", elapsed=5.0))
    started = clock.monotonic()
    with pytest.raises(StreamInterrupted) as caught:
        await watched.stream.result()
    assert caught.value.partial.text == "Hello!"
    assert isinstance(caught.value.__cause__, AttemptTimeout)
    assert clock.monotonic() - started == pytest.approx(13.0)


async def test_the_nearest_of_several_limits_counts(clock):
    """Of several points in time and the idle limit, the nearest stops the stream; our own rejection carries the partial."""
    watched = Watched(50.0, DONE)
    now = clock.monotonic()
    watched.stream.limit_idle(20.0, TimeoutError)
    watched.stream.limit_until(now + 10, lambda: DeadlineExceeded(timeout=10, elapsed=10, sent=True))
    watched.stream.limit_until(now + 30, TimeoutError)
    with pytest.raises(DeadlineExceeded) as caught:
        await watched.stream.result()
    assert caught.value.partial.text == "Hel"
    assert caught.value.__cause__ is None
    assert clock.monotonic() - now == pytest.approx(10.0)
    assert watched.how == ["failed"]


async def test_a_limit_that_has_passed_fails_without_reading(clock):
    """Content that is ready does not carry a stream beyond its limit."""
    watched = Watched([TextDelta("lo")], DONE)
    watched.stream.limit_until(clock.monotonic() + 1, lambda: DeadlineExceeded(timeout=1, elapsed=2, sent=True))
    await asyncio.sleep(2)
    with pytest.raises(DeadlineExceeded):
        await watched.stream.result()


class Finishing(ScriptedSource):
    """A source whose finish reason has been seen, while usage may still come."""

    finishing = True

    def conclude(self):
        return [Finished(("stop",))]


@pytest.mark.parametrize(("limit", "waited"), [(None, FINISH_GRACE), (0.5, 0.5), (100.0, FINISH_GRACE), (0.0, 0.0)])
async def test_a_whole_answer_waits_shortly_for_its_usage(clock, limit, waited):
    """Once the finish reason is there, neither a silent server nor a deadline spoils the answer."""
    started = clock.monotonic()
    stream = StreamResult(Finishing([3600.0]), model="m", first=[TextDelta("Hi")], clock=clock)
    stream.limit_idle(1.0, TimeoutError)
    if limit is not None:
        stream.limit_until(started + limit, TimeoutError)
    answer = await stream.result()
    assert (answer.text, answer.finish_reason, stream.ended) == ("Hi", "stop", "completed")
    assert clock.monotonic() - started == pytest.approx(waited)


async def test_an_answer_that_came_in_one_piece_is_complete_from_the_start():
    """Where the first events hold the end, nothing more is read from the source."""
    stream = StreamResult(ScriptedSource([LookupError()]), model="m", first=[TextDelta("Hi"), *DONE])
    ends = []
    stream.on_end(ends.append)
    assert [end.how for end in ends] == ["completed"]
    assert [event async for event in stream] == [TextDelta("Hi"), *DONE]
    assert (await stream.result()).text == "Hi"


async def test_a_source_that_concludes_with_nothing_has_completed():
    """A source that closes without events and without complaint gives a stream with an end."""

    class Silent(ScriptedSource):
        def conclude(self):
            return ()

    stream = StreamResult(Silent([]), model="m", first=[TextDelta("Hi")])
    assert ((await stream.result()).text, stream.ended) == ("Hi", "completed")


async def test_a_callback_that_raises_keeps_no_other_from_running(caplog):
    """What one holder does wrong is logged by name, and everybody else lets go; the reader sees nothing."""
    watched = Watched(DONE, first=())
    seen = []

    def broken(end):
        seen.append("broken")
        raise LookupError("secret")

    watched.stream.on_end(broken)
    watched.stream.on_end(seen.append)
    with caplog.at_level(logging.WARNING, logger="resilient_ai"):
        await watched.stream.result()
        watched.stream.on_end(broken)
    assert seen == ["broken", watched.ends[0], "broken"]
    assert [record.getMessage() for record in caplog.records] == [
        "a callback at the end of a stream raised LookupError"
    ] * 2


async def test_callbacks_run_even_where_dropping_the_connection_fails():
    """A source that cannot drop its connection keeps nobody from letting go."""
    watched = Watched(DONE)

    def broken():
        raise OSError

    watched.source.abort = broken
    with pytest.raises(OSError):
        await watched.stream.aclose()
    assert watched.how == ["closed"]


async def test_a_callback_after_the_end_runs_at_once():
    """Whoever comes after the end is told immediately, of the same end."""
    watched = Watched(DONE)
    await watched.stream.result()
    late = []
    watched.stream.on_end(late.append)
    assert late == watched.ends


async def test_reading_an_ended_stream_again_is_misuse():
    """Iterating a second time is refused, for there are no more events."""
    watched = Watched(DONE)
    assert len([event async for event in watched.stream]) == 2
    with pytest.raises(StreamMisused, match="has completed and holds no more events"):
        aiter(watched.stream)
    assert await watched.stream.next_events() == []


async def test_breaking_off_loses_no_event():
    """Iteration, batches and the result may be mixed: each event is given out once, in order."""
    watched = Watched([TextDelta("l"), TextDelta("o")], [TextDelta("!")], DONE)
    async for event in watched.stream:
        assert event == TextDelta("Hel")
        break
    assert await watched.stream.next_events() == [TextDelta("l"), TextDelta("o")]
    async for event in watched.stream:
        assert event == TextDelta("!")
        break
    assert (await watched.stream.result()).text == "Hello!"


async def test_what_was_read_before_a_close_can_still_be_taken():
    """Events that had arrived when the stream was closed are given out; then it is over."""
    watched = Watched([TextDelta("l"), TextDelta("o")], DONE)
    await anext(watched.stream)
    await anext(watched.stream)
    await watched.stream.aclose()
    assert [event async for event in watched.stream] == [TextDelta("o")]


async def test_two_readers_at_once_are_refused_without_harm():
    """The second of two concurrent readers is refused, and the first reads on undisturbed."""
    watched = Watched(5.0, DONE)
    first = asyncio.create_task(watched.stream.result())
    await asyncio.sleep(1)
    with pytest.raises(StreamMisused, match="already being read"):
        await watched.stream.next_events()
    assert (await first).text == "Hel"
    assert watched.how == ["completed"]


async def test_the_stamp_completes_the_answer():
    """What the pipeline knows of the call is put on the final answer."""
    stream = stream_of("Hi")
    stream.stamp_with(lambda answer: answer.model_copy(update={"attempts": 7}))
    assert (await stream.result()).attempts == 7


async def test_the_default_clock_is_the_machine_s():
    """A stream without a clock reads and limits by the machine's."""
    stream = StreamResult(ScriptedSource([DONE]), model="m", first=[TextDelta("Hi")])
    stream.limit_idle(5.0, TimeoutError)
    assert (await stream.result()).text == "Hi"


async def test_repr_shows_no_content():
    """The text of an answer stays out of logs."""
    stream = stream_of("secret")
    assert repr(stream) == "StreamResult(model='m', ended=None)"
    await stream.aclose()
    assert repr(stream) == "StreamResult(model='m', ended='closed')"


async def test_a_replay_gives_the_same_answer_again():
    """An answer that is replayed as a stream comes out as it went in."""
    logprobs = (TokenLogprob(token="Hi", logprob=-0.5),)
    answer = chat_result(
        model="m",
        served_by="m",
        request_id="r",
        choices=(
            Choice(index=0, text="Hi", reasoning="hm", finish_reason="stop", logprobs=logprobs),
            Choice(index=1, tool_calls=(ToolCall(id="a", name="f"),), finish_reason="tool_calls"),
            Choice(index=2),
        ),
    )
    source = Replay(answer)
    stream = StreamResult(source, model="m", clock=FakeClock())
    events = [event async for event in stream]
    assert events[:3] == [ReasoningDelta("hm"), TextDelta("Hi", 0, logprobs), ToolCallDelta(0, "a", "f", "{}", 1)]
    assert await stream.result() == answer
    source.abort()
    assert source.conclude() == ()


async def test_when_done_waits_for_streams_alone():
    """`when_done` calls at the end of a stream, and at once for any other result."""
    told = []
    stream = stream_of("Hi")
    when_done(stream, told.append)
    assert told == []
    await stream.aclose()
    when_done(chat_result(), told.append)
    assert [end and end.how for end in told] == ["closed", None]


def test_the_finish_reason_of_nothing_is_unknown():
    """The closing event speaks of the first choice, if there is one."""
    assert (Finished(()).finish_reason, Finished(("stop", None)).finish_reason) == (None, "stop")


class Breaking(ScriptedSource):
    """A source that has its finish reason, and then breaks or not."""

    finishing = True

    def conclude(self):
        return [Finished(("stop",))]


@pytest.mark.parametrize(
    "script", [[ConnectionFailed("reset", phase="receive")], [InvalidResponse("damaged usage")], []]
)
async def test_what_breaks_behind_the_finish_reason_takes_nothing_from_the_answer(clock, script):
    """The answer is whole by then; only its usage may be missing."""
    stream = StreamResult(Breaking(script), model="m", first=[TextDelta("whole")], clock=clock)
    answer = await stream.result()
    assert (answer.text, answer.finish_reason, answer.usage, stream.ended) == ("whole", "stop", None, "completed")
