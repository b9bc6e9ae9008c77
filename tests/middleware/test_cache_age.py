"""Cache: how old an answer may be, what happens at its end, and what a call may ask for."""

import asyncio
import os

import pytest

from resilient_ai.core.cache_control import CacheControl
from resilient_ai.core.deltas import Finished, ReasoningDelta, TextDelta
from resilient_ai.core.errors import BadRequest, CircuitOpen, DeadlineExceeded, InvalidInput, ServerFailed
from resilient_ai.core.events import CacheLookedUp, CacheRefreshed
from resilient_ai.core.operations import Chat, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Choice
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import Cache, Deadline
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, chat_result, vector_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi", temperature=0)
STREAM = Stream(model="m", messages="hi", temperature=0)
EMBED = Embed(model="m", texts=["a", "b"])
PICTURE = Image(model="m", prompt="a tide", seed=1)
OPERATIONS = [CHAT, STREAM, EMBED, PICTURE]
ids = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.kind)


def pipeline(*script, clock, stack=(), **options):
    store = MemoryStore(clock=clock)
    cache = Cache(store, **({"jitter": 0.0, "early_refresh": 0.0} | options))
    return Pipeline(ScriptedProvider(*script), [*stack, cache], clock=clock)


async def whole(result):
    if not isinstance(result, StreamResult):
        return result
    answer = await result.result()
    await asyncio.sleep(0)  # the entry is written behind the end of a stream
    return answer


async def send(pipe, operation, **options):
    return await whole(await pipe.send(operation, **options))


@ids
async def test_a_hit_tells_its_age(operation, clock):
    """The answer says how long ago it was made."""
    pipe = pipeline(clock=clock)
    assert (await send(pipe, operation)).cache_age is None
    await asyncio.sleep(7)
    hit = await send(pipe, operation)
    assert (hit.cache, hit.cache_age) == ("hit", pytest.approx(7))


@ids
async def test_an_entry_ends_with_its_time(operation, clock):
    """After `ttl` seconds the service is asked again."""
    pipe = pipeline(clock=clock, ttl=60)
    outcomes = []
    for _ in range(4):
        outcomes.append((await send(pipe, operation)).cache)
        await asyncio.sleep(25)
    assert outcomes == ["miss", "hit", "hit", "miss"]


@ids
async def test_a_call_may_set_its_own_time_and_age(operation, clock):
    """`ttl` is that of what is kept now, `max_age` refuses what is older, and neither changes what others find."""
    pipe = pipeline(clock=clock, ttl=60)
    await send(pipe, operation, cache=CacheControl(ttl=1000))
    await asyncio.sleep(500)
    assert (await send(pipe, operation)).cache == "hit"
    assert (await send(pipe, operation, cache=CacheControl(max_age=501))).cache == "hit"
    assert (await send(pipe, operation, cache=CacheControl(max_age=499))).cache == "miss"
    await asyncio.sleep(61)
    assert (await send(pipe, operation)).cache == "miss"


@ids
async def test_modes(operation, clock):
    """Each mode reads or not, and keeps or not."""
    pipe = pipeline(clock=clock)
    seen = []
    for mode in ("read", "read", "write", "read", "off", "refresh", "on", "write"):
        answer = await send(pipe, operation, cache=mode)
        seen.append((mode, answer.cache, answer.attempts))
    assert seen == [
        ("read", "miss", 1),
        ("read", "miss", 1),
        ("write", "off", 1),
        ("read", "hit", 0),
        ("off", "off", 1),
        ("refresh", "off", 1),
        ("on", "hit", 0),
        ("write", "off", 1),
    ]


@pytest.mark.parametrize(("mode", "outcomes"), [("read", ["miss", "miss"]), ("write", ["off", "off"])])
async def test_a_client_may_have_a_mode_of_its_own(mode, outcomes, clock):
    """It is that of all calls that say nothing."""
    pipe = pipeline(clock=clock, mode=mode)
    assert [(await send(pipe, CHAT)).cache for _ in range(2)] == outcomes
    assert (await send(pipe, CHAT, cache="on")).cache == ("hit" if mode == "write" else "miss")


@ids
async def test_a_stale_entry_is_answered_at_once_and_fetched_anew(operation, clock):
    """The caller waits for nothing; the next one gets the new answer."""
    told = []
    pipe = pipeline(clock=clock, ttl=60, stale_while_revalidate=30)
    await send(pipe, operation)
    await asyncio.sleep(80)
    started = clock.monotonic()
    pipe.provider.script = [5.0]
    stale = await send(pipe, operation, listener=told.append)
    assert (stale.cache, stale.cache_age, clock.monotonic() - started) == ("stale", pytest.approx(80), pytest.approx(0))
    assert (stale.attempts, stale.cost.amount) == (0, 0)
    await asyncio.sleep(6)
    fresh = await send(pipe, operation)
    assert (fresh.cache, fresh.cache_age, len(pipe.provider.calls)) == ("hit", pytest.approx(1), 2)
    looked, renewed = [event for event in told if isinstance(event, CacheLookedUp | CacheRefreshed)]
    assert (looked.outcome, looked.age, renewed.error) == ("stale", pytest.approx(80), None)
    assert renewed.call_id == looked.call_id
    assert pipe.provider.calls[1].priority == "batch"


@ids
async def test_many_stale_answers_are_fetched_anew_once(operation, clock):
    """While one renewal is under way no other one begins."""
    pipe = pipeline(clock=clock, ttl=60, stale_while_revalidate=30)
    await send(pipe, operation)
    await asyncio.sleep(80)
    pipe.provider.script = [2.0]
    answers = [await send(pipe, operation) for _ in range(5)]
    await asyncio.sleep(3)
    assert ([answer.cache for answer in answers], len(pipe.provider.calls)) == (["stale"] * 5, 2)


@ids
async def test_a_renewal_that_fails_is_told_and_nothing_else(operation, clock):
    """The stale entry stays for as long as it may."""
    told = []
    pipe = pipeline(clock=clock, ttl=60, stale_while_revalidate=30)
    await send(pipe, operation)
    await asyncio.sleep(80)
    pipe.provider.script = [ServerFailed("boom", status=500)]
    await send(pipe, operation, listener=told.append)
    await asyncio.sleep(1)
    assert [type(event.error) for event in told if isinstance(event, CacheRefreshed)] == [ServerFailed]
    assert (await send(pipe, operation)).cache == "stale"
    await asyncio.sleep(30)
    assert (await pipe.stack[0].stats()).refreshed == (2 if operation is EMBED else 1)


@ids
async def test_a_renewal_has_as_much_time_as_the_call_had(operation, clock):
    """A service that hangs is not asked for ever behind the back of the caller."""
    told = []
    pipe = pipeline(clock=clock, stack=[Deadline(total=10)], ttl=60, stale_while_revalidate=30)
    await send(pipe, operation)
    await asyncio.sleep(70)
    pipe.provider.script = [3600.0]
    await send(pipe, operation, listener=told.append)
    await asyncio.sleep(9)
    assert not [event for event in told if isinstance(event, CacheRefreshed)]
    await asyncio.sleep(2)
    (renewed,) = [event for event in told if isinstance(event, CacheRefreshed)]
    assert isinstance(renewed.error, DeadlineExceeded)


async def test_closing_ends_renewals(clock):
    """What nobody waits for does not keep a client from closing."""
    pipe = pipeline(clock=clock, ttl=60, stale_while_revalidate=30)
    await send(pipe, CHAT)
    await asyncio.sleep(80)
    pipe.provider.script = [3600.0]
    await send(pipe, CHAT)
    await asyncio.sleep(1)
    started = clock.monotonic()
    await pipe.aclose()
    assert clock.monotonic() == started


FAULTS = [ServerFailed("boom", status=500), CircuitOpen(model="m", retry_after=9.0)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda error: type(error).__name__)
@ids
async def test_an_old_answer_is_better_than_an_error(operation, fault, clock):
    """Where asking again fails, an entry answers for `stale_if_error` seconds after its time."""
    pipe = pipeline(clock=clock, ttl=60, stale_if_error=30)
    first = await send(pipe, operation)
    await asyncio.sleep(80)
    pipe.provider.script = [fault]
    stale = await send(pipe, operation)
    assert (stale.cache, stale.cache_age, stale.attempts) == ("stale", pytest.approx(80), 1)
    apart = {"cache", "cache_age", "attempts", "cost", "saved", "usage", "hits"}
    assert stale.model_dump(exclude=apart) == first.model_dump(exclude=apart)
    assert (await send(pipe, operation)).cache == "miss"
    await asyncio.sleep(91)
    pipe.provider.script = [fault]
    with pytest.raises(type(fault)):
        await send(pipe, operation)


@ids
async def test_an_old_answer_is_given_before_the_time_is_over(operation, clock):
    """A service that hangs costs nine tenths of the time of the call, and not the answer."""
    pipe = pipeline(clock=clock, stack=[Deadline(total=10)], ttl=60, stale_if_error=3600)
    await send(pipe, operation)
    await asyncio.sleep(80)
    pipe.provider.script = [3600.0]
    started = clock.monotonic()
    assert (await send(pipe, operation)).cache == "stale"
    assert clock.monotonic() - started == pytest.approx(9)


@ids
async def test_an_old_answer_hides_no_mistake_of_the_caller(operation, clock):
    """What is wrong with a request is told."""
    pipe = pipeline(clock=clock, ttl=60, stale_if_error=30)
    await send(pipe, operation)
    await asyncio.sleep(80)
    pipe.provider.script = [BadRequest("no such field", status=400)]
    with pytest.raises(BadRequest):
        await send(pipe, operation)


async def test_old_vectors_answer_only_for_all_that_is_missing(clock):
    """A list with a text that was never known fails with the service; nothing is made up."""
    pipe = pipeline(clock=clock, ttl=60, stale_if_error=30)
    await send(pipe, EMBED)
    await asyncio.sleep(80)
    pipe.provider.script = [ServerFailed("boom", status=500)]
    with pytest.raises(ServerFailed):
        await send(pipe, Embed(model="m", texts=["a", "new"]))


async def test_a_call_may_ask_for_old_answers(clock):
    """What the stack does not keep longer, a call cannot find; what it keeps, a call may refuse."""
    pipe = pipeline(clock=clock, ttl=60, stale_while_revalidate=30)
    await send(pipe, CHAT)
    await asyncio.sleep(80)
    assert (await send(pipe, CHAT, cache=CacheControl(stale_while_revalidate=10))).cache == "miss"


async def test_an_end_comes_early_by_chance():
    """Up to a tenth of its time, so that what was kept together does not end together."""
    for chance, outcome in ((0.0, "hit"), (0.999, "miss")):
        clock = FakeClock([chance])
        pipe = pipeline(clock=clock, ttl=100, jitter=0.1)
        await send(pipe, CHAT)
        await asyncio.sleep(95)
        assert (await send(pipe, CHAT)).cache == outcome


@pytest.mark.parametrize(("chance", "calls"), [(0.3, 1), (0.99, 2)])
@ids
async def test_a_hot_entry_is_fetched_anew_before_its_end(operation, chance, calls):
    """One of many calls finds it due while it is still fresh, and nobody waits at its end."""
    clock = FakeClock([chance])
    pipe = pipeline(2.0, clock=clock, ttl=100, early_refresh=1.0)
    await send(pipe, operation)
    await asyncio.sleep(95)
    assert (await send(pipe, operation)).cache == "hit"
    await asyncio.sleep(1)
    assert len(pipe.provider.calls) == calls


async def test_an_answer_that_was_cut_short_is_kept_on_demand(clock):
    """`keep_truncated=True` keeps what `max_tokens` cut, a tool call that breaks off included."""
    cut = chat_result(choices=(Choice(text="The tide", finish_reason="length"),))
    pipe = pipeline(cut, clock=clock, keep_truncated=True)
    assert [(await send(pipe, CHAT)).cache for _ in range(2)] == ["miss", "hit"]


@pytest.mark.parametrize("cache", ["of", 3, CacheControl])
async def test_what_is_no_wish_is_refused(cache, clock):
    """A misspelt mode is told before anything is sent."""
    pipe = pipeline(clock=clock)
    with pytest.raises(InvalidInput, match="cache: must be one of"):
        await pipe.send(CHAT, cache=cache)


def test_a_forked_child_waits_for_nothing_of_its_parent():
    """What the parent was fetching anew or writing is not under way in the child."""
    state = Cache(MemoryStore())._state
    state.refreshing["key"] = asyncio.new_event_loop()
    state.refreshing["key"].close()
    state.unwritten["key"] = b"entry"
    state.begin()
    assert (list(state.refreshing), state.unwritten) == (["key"], {"key": b"entry"})
    state.process = -1  # as if this were another process
    state.begin()
    assert (state.refreshing, state.unwritten, state.process) == ({}, {}, os.getpid())


# Streams at their pace


def streamed(*steps):
    return StreamResult(ScriptedSource(steps), model="m", first=[ReasoningDelta("hmm")])


async def timed(stream, clock):
    started, seen = clock.monotonic(), []
    async for event in stream:
        text = event.text if isinstance(event, TextDelta | ReasoningDelta) else type(event)
        seen.append((round(clock.monotonic() - started, 3), text))
    return seen


@pytest.mark.parametrize("replay", ["recorded", "at_once"])
async def test_a_stream_is_replayed_at_its_pace_or_at_once(clock, replay):
    """With `replay="recorded"` the pieces come as they came, joined where they came close together."""
    steps = (
        0.5,
        [TextDelta("The "), TextDelta("tide")],
        0.01,
        [TextDelta(" is")],
        1.0,
        [TextDelta(" high")],
        [Finished(("stop",))],
    )
    pipe = pipeline(streamed(*steps), clock=clock, replay=replay)
    await send(pipe, STREAM)
    replayed = await pipe.send(STREAM)
    pieces = await timed(replayed, clock)
    if replay == "at_once":
        assert pieces == [(0.0, "hmm"), (0.0, "The tide is high"), (0.0, Finished)]
    else:
        assert pieces == [(0.0, "hmm"), (0.5, "The tide is"), (1.51, " high"), (1.51, Finished)]
    answer = await replayed.result()
    assert (answer.text, answer.reasoning, answer.cache) == ("The tide is high", "hmm", "hit")
    assert (await send(pipe, CHAT)).text == "The tide is high"


async def test_an_answer_that_was_not_streamed_has_no_pace(clock):
    """It is replayed at once, whatever the cache says."""
    pipe = pipeline(clock=clock, replay="recorded")
    await send(pipe, CHAT)
    assert await timed(await pipe.send(STREAM), clock) == [(0.0, "Hello."), (0.0, Finished)]


async def test_lists_that_overlap_are_fetched_anew_once(clock):
    """A text that many stale lists share is asked for once."""
    pipe = pipeline(clock=clock, ttl=60, stale_while_revalidate=600)
    lists = [Embed(model="m", texts=["popular", f"own {number}"]) for number in range(5)]
    for operation in lists:
        await send(pipe, operation)
    await asyncio.sleep(80)
    pipe.provider.calls.clear()
    pipe.provider.script = [2.0]
    for operation in lists:
        await send(pipe, operation)
    await asyncio.sleep(5)
    assert sorted(text for call in pipe.provider.calls for text in call.operation.texts) == [
        *(f"own {number}" for number in range(5)),
        "popular",
    ]


async def test_a_limit_of_a_call_holds_against_what_the_stack_allows(clock):
    """`max_age` refuses a stale answer as well."""
    pipe = pipeline(clock=clock, ttl=60, stale_while_revalidate=3600)
    for operation in (CHAT, EMBED, PICTURE):
        await send(pipe, operation)
    await asyncio.sleep(80)
    for operation in (CHAT, EMBED, PICTURE):
        assert (await send(pipe, operation, cache=CacheControl(max_age=79))).cache == "miss"


async def test_figures_count_each_entry_once(clock):
    """Stale ones as what they are, and spares as answers after all."""
    pipe = pipeline(clock=clock, ttl=60, stale_while_revalidate=30, stale_if_error=3600)
    cache = pipe.stack[0]

    async def counted():
        stats = await cache.stats()
        return stats.hits, stats.stale, stats.misses, stats.kept

    await send(pipe, Embed(model="m", texts=["old"]))
    await asyncio.sleep(80)
    await send(pipe, Embed(model="m", texts=["new"]))
    assert await counted() == (0, 0, 2, 2)
    pipe.provider.script = [3600.0]
    await send(pipe, Embed(model="m", texts=["old", "new"]))
    assert await counted() == (2, 1, 2, 2)
    await asyncio.sleep(50)  # "old" is a spare by now
    pipe.provider.script = [ServerFailed("boom", status=500)]
    assert (await send(pipe, Embed(model="m", texts=["old", "new"]))).cache == "stale"
    assert await counted() == (4, 2, 2, 2)
    await cache.forget()
    pipe.provider.script = []
    assert (await send(pipe, CHAT)).cache == "miss"
    await asyncio.sleep(100)
    pipe.provider.script = [ServerFailed("boom", status=500)]
    assert (await send(pipe, CHAT)).cache == "stale"
    assert await counted() == (5, 3, 3, 3)


async def test_the_answer_of_a_fallback_is_kept_for_a_while(clock):
    """Five minutes at most: the first model shall serve again when it can."""

    async def fallback(_call):
        return chat_result("Hello.", served_by="other")

    pipe = pipeline(fallback, clock=clock)
    route = Chat(model=["m", "other"], messages="hi", temperature=0)
    outcomes = []
    for _ in range(3):
        outcomes.append((await send(pipe, route)).cache)
        await asyncio.sleep(200)
    assert outcomes == ["miss", "hit", "miss"]


async def test_vectors_of_a_renewal_replace_the_old_ones(clock):
    """Only those that are due are asked for, and they keep their order."""
    pipe = pipeline(clock=clock, ttl=60, stale_while_revalidate=30)
    await send(pipe, Embed(model="m", texts="a"))
    await asyncio.sleep(50)
    await send(pipe, Embed(model="m", texts="b"))
    await asyncio.sleep(20)
    result = await send(pipe, EMBED)
    await asyncio.sleep(1)
    assert (result.cache, result.hits, list(result.vectors)) == ("stale", 2, [vector_of("a"), vector_of("b")])
    assert [call.operation.texts for call in pipe.provider.calls] == [("a",), ("b",), ("a",)]
    assert (await send(pipe, EMBED)).cache == "hit"
