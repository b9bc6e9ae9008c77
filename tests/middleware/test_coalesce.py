"""Coalesce: identical calls under way share one send, and none of them takes the others down."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from resilient_ai.core.call import CallRecord
from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import (
    ConfigurationError,
    DeadlineExceeded,
    ServerFailed,
    StreamInterrupted,
    StreamMisused,
)
from resilient_ai.core.events import CallJoined
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import Cache, Coalesce, Deadline, Logging, Retry
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, answer_to, chat_result, run, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi", temperature=0)
STREAM = Stream(model="m", messages="hi", temperature=0)
OPERATIONS = [
    CHAT,
    STREAM,
    Complete(model="m", prompt="hi", temperature=0),
    Embed(model="m", texts=["a", "b", "a"]),
    Image(model="m", prompt="a tide", seed=1),
]


async def paid(call):
    """Answer after a second, like a provider with accounting."""
    await asyncio.sleep(1)
    call.record.costs.append((Decimal("0.002"), "provider", True))
    return answer_to(call.operation)


def pipeline(*script, clock=None, cached=True, **options):
    stack = [Deadline(), Coalesce(**options)]
    if cached:
        stack.append(Cache(MemoryStore()))
    return Pipeline(ScriptedProvider(*script), stack, clock=clock)


async def whole(result):
    return await result.result() if isinstance(result, StreamResult) else result


def asking(pipe, operation, count=20, **options):
    async def ask():
        return await whole(await pipe.send(operation, **options))

    return [asyncio.create_task(ask()) for _ in range(count)]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.kind)
async def test_twenty_identical_calls_are_one_send(operation, cached):
    """All get the answer, one of them with its cost, the others with what they saved."""
    pipe = pipeline(paid, cached=cached)
    answers = await asyncio.gather(*asking(pipe, operation))
    assert len(pipe.provider.calls) == 1
    first, *others = answers
    assert [answer.cache for answer in others] == ["joined"] * 19
    assert (first.cache, first.attempts) == ("miss" if cached else "off", 1)
    assert (first.cost.amount, first.saved) == (Decimal("0.002"), None)
    assert {(answer.attempts, answer.cost, answer.saved) for answer in others} == {
        (0, Cost(amount=Decimal(0), source="cache"), Decimal("0.002"))
    }
    ignored = {"cache", "cost", "attempts", "saved"}
    assert all(answer.model_dump(exclude=ignored) == first.model_dump(exclude=ignored) for answer in others)


async def test_who_joins_a_hit_is_told_what_it_would_have_cost():
    """As well as who found it, and how old it is; of a list that was known in part, both parts."""
    pipe = pipeline(paid, paid)
    await pipe.send(CHAT)
    hits = await asyncio.gather(*asking(pipe, CHAT, 2))
    assert [(hit.cache, hit.saved, hit.cache_age) for hit in hits] == [
        ("hit", Decimal("0.002"), hits[0].cache_age),
        ("joined", Decimal("0.002"), hits[0].cache_age),
    ]
    await pipe.send(Embed(model="m", texts="a"))
    pipe.provider.script = [paid]
    parts = await asyncio.gather(*asking(pipe, Embed(model="m", texts=["a", "b"]), 2))
    assert [(part.cache, part.saved) for part in parts] == [("miss", Decimal("0.002")), ("joined", Decimal("0.004"))]


@pytest.mark.parametrize("who", [0, 1, 19])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.kind)
async def test_one_that_is_cancelled_takes_nothing_from_the_others(operation, who):
    """Whoever leaves, the first included, nineteen answers come of one send, and one of them carries the cost."""
    pipe = pipeline(paid)
    tasks = asking(pipe, operation)
    await asyncio.sleep(0.5)
    tasks[who].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    answers = [result for result in results if not isinstance(result, BaseException)]
    assert (len(answers), len(pipe.provider.calls)) == (19, 1)
    assert isinstance(results[who], asyncio.CancelledError)
    assert sorted(answer.cache for answer in answers) == ["joined"] * 18 + ["miss"]
    assert sum(answer.cost.amount for answer in answers) == Decimal("0.002")
    assert (await whole(await pipe.send(operation))).cache == "hit"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.kind)
async def test_the_last_one_to_leave_cancels_the_send(operation, clock):
    """Once nobody waits any more the send is cancelled, and whoever leaves last waits until it is over."""
    over = []

    async def slow(_call):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.25)
            over.append(clock.monotonic())

    pipe = pipeline(slow, clock=clock)
    started = clock.monotonic()
    tasks = asking(pipe, operation, 3)
    for number, task in enumerate(tasks):
        await asyncio.sleep(1)
        assert over == []
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert clock.monotonic() - started == pytest.approx(number + 1 + (0.25 if number == 2 else 0))
    assert over == [pytest.approx(started + 3.25)]
    assert (await whole(await pipe.send(operation))).attempts == 1


async def test_whoever_leaves_last_may_be_cancelled_again(clock):
    """A second cancellation does not wait for the cleaning up, which goes on."""
    over = []

    async def stubborn(_call):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(5)
            over.append(True)

    (task,) = asking(pipeline(stubborn, clock=clock), CHAT, 1)
    for _ in range(2):
        await asyncio.sleep(1)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over == []
    await asyncio.sleep(10)
    assert over == [True]


async def test_everyone_gets_an_error_of_their_own(clock):
    """The failure of the one send reaches all, each as another object with the same facts and the same cause."""
    failure = ServerFailed("boom", status=500, request_id="r")
    failure.__cause__ = OSError("cable")
    pipe = pipeline(1.0, failure, clock=clock)
    errors = await asyncio.gather(*asking(pipe, CHAT, 3), return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    assert {(type(error), str(error), error.request_id, str(error.__cause__)) for error in errors} == {
        (ServerFailed, "boom", "r", "cable")
    }
    assert len(pipe.provider.calls) == 1


async def test_an_error_that_has_no_copy_is_shared(clock):
    """What cannot be copied is raised as it is."""

    class Odd(Exception):
        def __init__(self, one, *, two):
            super().__init__(one)

    odd = Odd(1, two=2)
    pipe = Pipeline(ScriptedProvider(1.0, odd), [Coalesce()], clock=clock)
    errors = await asyncio.gather(*asking(pipe, CHAT, 2), return_exceptions=True)
    assert errors == [odd, odd]


async def test_a_lone_caller_gets_the_error_itself(clock):
    """Nothing is copied where nothing is shared."""
    failure = ServerFailed("boom", status=500)
    with pytest.raises(ServerFailed) as caught:
        await pipeline(failure, clock=clock).send(CHAT)
    assert caught.value is failure


async def test_each_keeps_its_own_deadline(clock):
    """An impatient first caller gives up in time, and a patient one gets the answer of the same send."""
    pipe = pipeline(paid, clock=clock)
    (impatient,) = asking(pipe, CHAT, 1, timeout=0.5)
    (patient,) = asking(pipe, CHAT, 1, timeout=60)
    with pytest.raises(DeadlineExceeded) as caught:
        await impatient
    assert caught.value.sent
    assert ((await patient).cache, len(pipe.provider.calls)) == ("miss", 1)


async def test_what_is_inside_may_use_the_time_of_the_most_patient(clock):
    """The time that is left is that of whoever still waits, and none where one waits for ever."""
    seen = []

    async def watch(call, proceed):
        for _ in range(4):
            seen.append(call.remaining())
            await asyncio.sleep(1)
        return await proceed(call)

    stack = [Deadline(total=50), Coalesce(), watch]
    pipe = Pipeline(ScriptedProvider(), stack, clock=clock)
    asking(pipe, CHAT, 1, timeout=1.5)
    await asyncio.sleep(0.5)
    (patient,) = asking(pipe, CHAT, 1, timeout=20)
    await patient
    assert seen == pytest.approx([1.5, 19.5, 18.5, 17.5])
    forever = Pipeline(ScriptedProvider(), [Coalesce(), watch], clock=clock)
    await forever.send(CHAT)
    assert seen[4:] == [None] * 4


@pytest.mark.parametrize(
    ("operation", "options", "sends"),
    [
        (Chat(model="m", messages="hi"), {}, 2),
        (Chat(model="m", messages="hi"), {"cache": "on"}, 1),
        (CHAT, {"cache": "off"}, 2),
        (CHAT, {"cache": "refresh"}, 2),
        (CHAT, {"cache": "write"}, 1),
        (Chat(model="m", messages="hi", temperature=0, extra={"odd": object()}), {}, 2),
    ],
    ids=repr,
)
async def test_only_what_would_be_the_same_is_shared(operation, options, sends):
    """Answers that would differ are not shared unless the call names a mode, and one that wants to be left alone is."""
    pipe = pipeline(paid, paid)
    await asyncio.gather(*asking(pipe, operation, 2, **options))
    assert len(pipe.provider.calls) == sends


async def test_everything_is_shared_on_demand():
    """`always=True` shares answers that would differ."""
    pipe = pipeline(paid, always=True)
    await asyncio.gather(*asking(pipe, Chat(model="m", messages="hi"), 2))
    assert len(pipe.provider.calls) == 1
    with pytest.raises(ValueError, match="always must be of type bool"):
        Coalesce(always="yes")
    assert repr(Coalesce()) == "Coalesce(always=False, savings=None)"


@pytest.mark.parametrize(
    "other",
    [{"tags": {"tenant": "b"}}, {"priority": "batch"}, {"cache": "write"}],
    ids=repr,
)
async def test_calls_that_differ_in_what_matters_are_apart(other):
    """Another tenant, another priority, and another wish to the cache are other calls."""
    pipe = pipeline(paid, paid)
    await asyncio.gather(*asking(pipe, CHAT, 1), *asking(pipe, CHAT, 1, **other))
    assert len(pipe.provider.calls) == 2


async def test_a_chat_and_a_stream_are_apart(clock):
    """One is handed a whole answer and the other one that arrives, though they ask the same."""
    pipe = pipeline(paid, paid, clock=clock, cached=False)
    chat, stream = await asyncio.gather(pipe.send(CHAT), pipe.send(STREAM))
    assert (chat.text, (await stream.result()).text, len(pipe.provider.calls)) == ("Hello.", "Hello.", 2)


async def test_keys_of_the_service_are_apart(clock):
    """Who pays is part of what is shared, where one `Coalesce` stands in the stacks of several clients."""
    shared, providers = Coalesce(), [ScriptedProvider(1.0), ScriptedProvider(1.0)]
    for number, provider in enumerate(providers):
        provider.account = f"key {number}"
    pipes = [Pipeline(provider, [shared], clock=clock) for provider in providers]
    await asyncio.gather(*(pipe.send(CHAT) for pipe in pipes))
    assert [len(provider.calls) for provider in providers] == [1, 1]


def test_two_loops_at_once_are_apart():
    """What one loop has under way no other one waits for."""
    pipe = Pipeline(ScriptedProvider(), [Coalesce()])
    began, release = threading.Event(), threading.Event()

    async def held(call):
        began.set()
        await asyncio.to_thread(release.wait, 20)
        return chat_result()

    pipe.provider.script = [held]
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(asyncio.run, pipe.send(CHAT))
        assert began.wait(20)
        second = asyncio.run(pipe.send(CHAT))
        release.set()
    assert (second.cache, first.result(20).cache) == ("off", "off")


async def test_calls_after_one_another_are_apart(clock):
    """What is over is not joined; a stream can be joined until it has been read."""
    pipe = pipeline(cached=False, clock=clock)
    for operation in (CHAT, CHAT, STREAM, STREAM):
        await whole(await pipe.send(operation))
    assert len(pipe.provider.calls) == 4


async def test_joining_is_told():
    """A listener hears whose call is joined."""
    told = []
    pipe = pipeline(paid, cached=False)
    await asyncio.gather(*asking(pipe, CHAT, 2, listener=told.append))
    joined = [event for event in told if isinstance(event, CallJoined)]
    assert len(joined) == 1
    assert joined[0].leader == pipe.provider.calls[0].id != joined[0].call_id


async def test_vectors_are_not_shared_in_memory():
    """Who changes the numbers of its result changes nobody else's."""
    pipe = pipeline(paid)
    first, second = await asyncio.gather(*asking(pipe, Embed(model="m", texts="a"), 2))
    first.vectors.buffer[0] = 9.0
    assert second.vectors[0][0] != 9.0


async def test_an_order_that_cannot_work_is_refused():
    """A deadline inside would be that of the first caller, and a cache outside would keep the answer once for each."""
    for stack, message in (
        ([Coalesce(), Deadline()], "Coalesce must stand after Deadline"),
        ([Coalesce(), Logging()], "Coalesce must stand after Logging"),
        ([Cache(MemoryStore()), Coalesce()], "Cache must stand after Coalesce"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Pipeline(ScriptedProvider(), stack)


async def test_a_failed_send_is_tried_again_once_for_all(clock):
    """Retries inside are those of the one send, and are told to the first caller."""
    stack = [Coalesce(), Retry(attempts=2, wait_initial=1.0)]
    pipe = Pipeline(ScriptedProvider(ServerFailed("boom", status=500)), stack, clock=clock)
    answers = await asyncio.gather(*asking(pipe, CHAT, 5))
    assert ([answer.attempts for answer in answers], len(pipe.provider.calls)) == ([2, 0, 0, 0, 0], 2)


def test_two_loops_wait_for_nothing_of_one_another():
    """A flight whose loop has ended is no flight for another one."""
    pipe = Pipeline(ScriptedProvider(3600.0), [Coalesce()])

    async def leave():
        asking(pipe, CHAT, 1)
        await asyncio.sleep(0)

    asyncio.run(leave())
    pipe.provider.script.clear()
    assert asyncio.run(pipe.send(CHAT)).text == "Hello."


def test_a_coroutine_that_is_closed_leaves():
    """The interpreter may close a call that waits; the send is cancelled without anybody waiting for it."""

    async def main():
        pipe = Pipeline(ScriptedProvider(3600.0), [Coalesce()])
        waiting = pipe.send(CHAT)
        waiting.send(None)
        await asyncio.sleep(0)
        waiting.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return len(asyncio.all_tasks()), pipe.stack[0]._flights

    assert asyncio.run(main()) == (1, {})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_in_the_middle_leaves_nothing():
    """Neither the loop is kept, nor what was under way in it."""

    class Endless:
        origin = "https://endless.test"

        async def __call__(self, call):
            await asyncio.sleep(3600)

        async def aclose(self):
            pass

    pipe, ended = Pipeline(Endless(), [Coalesce(), noting := Noting()]), []
    noting.ended = ended
    loop = asyncio.new_event_loop()

    async def begin():
        waiting = [asyncio.create_task(pipe.send(CHAT)) for _ in range(2)]
        await asyncio.sleep(0.01)
        return waiting

    waiting = loop.run_until_complete(begin())
    assert len(pipe.stack[0]._flights) == 1
    loop.close()
    kept = weakref.ref(loop)
    del waiting, loop
    gc.collect()
    gc.collect()
    assert (len(pipe.stack[0]._flights), ended, kept()) == (0, ["GeneratorExit"], None)


class Noting:
    """Takes note of how a send ends."""

    async def __call__(self, call, proceed):
        try:
            return await proceed(call)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise


# Streams


def script(*steps):
    return StreamResult(ScriptedSource(steps), model="m", first=[TextDelta("a")])


async def texts(stream):
    return "".join([event.text async for event in stream if isinstance(event, TextDelta)])


async def test_one_stream_for_early_late_fast_and_slow_readers(clock):
    """Everyone reads all of it from its beginning, and the fastest one sets the pace."""
    pipe = pipeline(script(1.0, [TextDelta("b")], 1.0, [TextDelta("c"), Finished(("stop",))]), clock=clock)
    early, slow = await pipe.send(STREAM), await pipe.send(STREAM)
    assert (await anext(early)).text == "a"
    assert (await anext(early)).text == "b"
    late = await pipe.send(STREAM)
    started = clock.monotonic()
    assert await texts(late) == "abc"
    assert clock.monotonic() - started == pytest.approx(1.0)
    assert (await texts(early), await texts(slow)) == ("c", "abc")
    assert [(await stream.result()).cache for stream in (early, slow, late)] == ["joined", "joined", "miss"]
    assert len(pipe.provider.calls) == 1
    assert (await whole(await pipe.send(STREAM))).cache == "hit"


async def test_a_reader_that_leaves_or_is_cancelled_takes_nothing_from_the_others(clock):
    """Also in the middle of waiting for the next piece."""
    pipe = pipeline(script(5.0, [TextDelta("b")], [Finished(("stop",))]), clock=clock)
    leaves, cancelled, stays = [await pipe.send(STREAM) for _ in range(3)]
    await anext(leaves)
    await leaves.aclose()
    task = asyncio.create_task(texts(cancelled))
    await asyncio.sleep(1)
    task.cancel()
    assert await texts(stays) == "ab"
    assert (leaves.ended, cancelled.ended, stays.ended) == ("closed", "closed", "completed")
    assert (await stays.result()).cache == "miss"


@pytest.mark.parametrize("how", ["closed", "cancelled", "collected"])
async def test_the_last_reader_to_leave_ends_the_stream(clock, how):
    """The connection is dropped once nobody reads, and nothing is kept."""
    source = ScriptedSource([3600.0])
    pipe = pipeline(StreamResult(source, model="m", first=[TextDelta("a")], clock=clock), clock=clock)
    first, second = await pipe.send(STREAM), await pipe.send(STREAM)
    await first.aclose()
    assert source.aborted == 0
    if how == "closed":
        await second.aclose()
    elif how == "cancelled":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await texts(second)
    del second
    pipe.provider.calls.clear()
    gc.collect()
    await asyncio.sleep(1)
    assert source.aborted == 1
    assert (await whole(await pipe.send(STREAM))).attempts == 1


async def test_a_stream_that_breaks_breaks_for_each(clock):
    """Every reader gets the interruption with what had arrived, as an error of its own."""
    pipe = pipeline(script(1.0, [TextDelta("b")], ServerFailed("cut", status=500)), clock=clock)
    streams = [await pipe.send(STREAM) for _ in range(2)]
    errors = await asyncio.gather(*map(texts, streams), return_exceptions=True)
    assert [(type(error), error.partial.text) for error in errors] == [(StreamInterrupted, "ab")] * 2
    assert errors[0] is not errors[1]
    assert [stream.ended for stream in streams] == ["failed", "failed"]


async def test_all_who_wait_for_the_first_piece_may_leave(clock):
    """Where nobody is left when the stream begins, it is dropped."""
    source = ScriptedSource([3600.0])

    async def begins(_call):
        await asyncio.sleep(1)
        return StreamResult(source, model="m", first=[TextDelta("a")], clock=clock)

    pipe = pipeline(begins, clock=clock)
    tasks = asking(pipe, STREAM, 2)
    await asyncio.sleep(1)  # the stream is there, and nobody has taken it yet
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(1)
    assert source.aborted == 1


async def test_a_deadline_of_one_reader_is_not_that_of_another(clock):
    """A reader whose time is over gets that error, and the other one reads on."""
    pipe = pipeline(script(5.0, [TextDelta("b"), Finished(("stop",))]), clock=clock)
    hurried, patient = await pipe.send(STREAM, timeout=2), await pipe.send(STREAM, timeout=60)
    results = await asyncio.gather(texts(hurried), texts(patient), return_exceptions=True)
    assert (type(results[0]), results[1]) == (DeadlineExceeded, "ab")


async def test_a_record_takes_over_that_of_the_call_sent_in_its_place():
    """Everything that was written down about it, and nothing of its own."""
    other = CallRecord(sends=2, cache="stale", age=3.0, saved=Decimal(1), refused={"m": "down"})
    record = CallRecord(sends=9)
    record.adopt(other)
    assert record == other
    assert chat_result().cache_age is None
    stamped = record.stamp(chat_result())
    assert (stamped.cache_age, stamped.saved, stamped.cost.amount) == (3.0, Decimal(1), 0)


async def test_a_stream_that_was_over_at_once_is_whole_for_all(clock):
    """One piece that holds everything reaches each reader."""
    pipe = Pipeline(ScriptedProvider(0.5, stream_of("whole")), [Coalesce()], clock=clock)
    answers = await asyncio.gather(*asking(pipe, STREAM, 3))
    assert [answer.text for answer in answers] == ["whole"] * 3


async def test_streams_that_want_another_repair_are_apart(clock):
    """One that is to be restarted is not handed to a reader who did not ask for that."""
    pipe = Pipeline(ScriptedProvider(0.5), [Coalesce()], clock=clock)
    streams = [Stream(model="m", messages="hi", temperature=0, on_interrupt=how) for how in ("raise", "restart", None)]
    await asyncio.gather(*(task for stream in streams for task in asking(pipe, stream, 2)))
    assert len(pipe.provider.calls) == 3


def test_a_shared_stream_that_is_cut_from_outside_is_not_whole():
    """Somebody who ends all tasks there are, as programs do at their end, leaves no half answer that looks whole."""

    async def main():
        pipe = Pipeline(ScriptedProvider(script(5.0, [TextDelta("b")])), [Coalesce()], clock=FakeClock())
        stream = await pipe.send(STREAM)
        me = asyncio.create_task(stream.result())
        await asyncio.sleep(1)
        for task in asyncio.all_tasks() - {asyncio.current_task(), me}:
            task.cancel()
        with pytest.raises(StreamMisused, match="closed before its end"):
            await me

    run(main())


async def test_who_leaves_last_knows_what_was_sent(clock):
    """The record of a call whose deadline passed tells of its request, as without sharing."""
    records = []

    async def note(call, proceed):
        records.append(call.record)
        return await proceed(call)

    pipe = Pipeline(ScriptedProvider(3600.0), [Deadline(total=5), note, Coalesce()], clock=clock)
    with pytest.raises(DeadlineExceeded):
        await pipe.send(CHAT)
    assert [record.sends for record in records] == [1]
