"""Cache with leases: of several processes that miss the same, one sends and the others wait for what it keeps."""

import asyncio

import pytest

from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import ServerFailed
from resilient_ai.core.operations import Chat, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Choice
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import Batching, Cache, Deadline
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import ScriptedProvider, ScriptedSource, answer_to, chat_result, vector_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi", temperature=0)
STREAM = Stream(model="m", messages="hi", temperature=0)
EMBED = Embed(model="m", texts=["a", "b", "a"])
PICTURE = Image(model="m", prompt="a tide", seed=1)
OPERATIONS = pytest.mark.parametrize("operation", [CHAT, STREAM, EMBED, PICTURE], ids=lambda operation: operation.kind)


class Table:
    """Leases in a dictionary, as a server that all processes share would keep them."""

    timeout = 5.0

    def __init__(self, clock):
        self.clock = clock
        self.held = {}
        self.answers = True

    async def acquire_lease(self, key, *, holder, seconds):
        if not self.answers:
            return None
        owner, ends = self.held.get(key, (holder, 0.0))
        if owner != holder and self.clock.monotonic() < ends:
            return False
        self.held[key] = holder, self.clock.monotonic() + seconds
        return True

    async def release_lease(self, key, *, holder):
        if self.held.get(key, (None, 0))[0] == holder:
            del self.held[key]


class Broken(Table):
    """Leases that raise whatever they are asked."""

    async def acquire_lease(self, key, *, holder, seconds):
        raise OSError

    release_lease = acquire_lease


@pytest.fixture
def world(clock):
    """Makes the pipelines of several processes around one service, one store and one table of leases."""
    return World(clock)


class World:
    def __init__(self, clock, table=None):
        self.clock = clock
        self.store = MemoryStore(clock=clock)
        self.leases = table or Table(clock)
        self.provider = ScriptedProvider()

    def process(self, **options):
        cache = Cache(self.store, leases=self.leases, **({"jitter": 0.0, "early_refresh": 0.0} | options))
        return Pipeline(self.provider, [cache, Batching(size=1)], clock=self.clock)


async def send(pipe, operation, **options):
    result = await pipe.send(operation, **options)
    return await result.result() if isinstance(result, StreamResult) else result


async def slow(call):
    """Answer after a second."""
    await asyncio.sleep(1)
    return answer_to(call.operation)


async def settle():
    """Let what goes on behind calls come to its end."""
    await asyncio.sleep(1)


@OPERATIONS
async def test_four_processes_send_once(world, operation):
    """One sends, the others find what it kept, and no lease is left."""
    world.provider.script = [5.0]
    processes = [world.process() for _ in range(4)]
    answers = await asyncio.gather(*(send(process, operation) for process in processes))
    assert sorted(answer.cache for answer in answers) == ["hit", "hit", "hit", "miss"]
    assert len(world.provider.calls) == (2 if operation is EMBED else 1)
    await settle()
    assert world.leases.held == {}
    if operation is EMBED:
        assert all(list(answer.vectors) == [vector_of(text) for text in "aba"] for answer in answers)


@OPERATIONS
async def test_a_long_answer_keeps_its_lease(world, operation):
    """It is prolonged for as long as the answer takes."""
    world.provider.script = [100.0]
    first = asyncio.create_task(send(world.process(lease_time=3.0), operation))
    await asyncio.sleep(1)
    answer = await send(world.process(), operation)
    assert (answer.cache, (await first).cache) == ("hit", "miss")


@OPERATIONS
async def test_the_turn_of_a_process_that_died_passes_on(world, operation):
    """After the time of the lease another one sends."""
    keys = []
    taking = world.leases.acquire_lease

    async def note(key, *, holder, seconds):
        keys.append(key)
        return await taking(key, holder=holder, seconds=seconds)

    world.leases.acquire_lease = note
    await send(world.process(), operation, cache="read")  # asks for no lease, as it keeps nothing
    assert keys == []
    await send(world.process(), operation)
    await settle()
    world.leases.held[keys[0]] = "somebody who is gone", world.clock.monotonic() + 30
    await world.store.clear()
    started = world.clock.monotonic()
    assert (await send(world.process(), operation)).cache == "miss"
    assert 30 <= world.clock.monotonic() - started < 31


@OPERATIONS
async def test_an_answer_that_came_in_between_is_found(world, operation):
    """With the lease in hand the cache is looked into once more."""
    pipe, other = world.process(), world.process()
    taking = world.leases.acquire_lease

    async def slow(key, *, holder, seconds):
        world.leases.acquire_lease = taking
        await send(other, operation)
        await settle()
        return await taking(key, holder=holder, seconds=seconds)

    world.leases.acquire_lease = slow
    assert (await send(pipe, operation)).cache == "hit"
    await settle()
    assert world.leases.held == {}


@pytest.mark.parametrize(
    "outcome",
    [
        ServerFailed("boom", status=500),
        chat_result(choices=(Choice(text="cut", finish_reason="length"),)),
    ],
    ids=["failed", "not kept"],
)
async def test_where_nothing_was_kept_the_next_one_sends(world, outcome):
    """The lease is given back at once."""
    world.provider.script = [5.0, outcome]
    first = asyncio.create_task(send(world.process(), CHAT))
    await asyncio.sleep(1)
    started = world.clock.monotonic()
    assert (await send(world.process(), CHAT)).cache == "miss"
    assert world.clock.monotonic() - started < 5
    await asyncio.wait([first])
    assert (first.exception() is None) == (not isinstance(outcome, Exception))


@OPERATIONS
@pytest.mark.parametrize("when", ["sending", "waiting"])
async def test_whoever_is_cancelled_leaves_no_lease(world, operation, when):
    """Neither the one that sends nor one that waits."""
    world.provider.script = [100.0]
    first = asyncio.create_task(send(world.process(), operation))
    await asyncio.sleep(1)
    second = asyncio.create_task(send(world.process(), operation))
    await asyncio.sleep(1)
    leaves, stays = (first, second) if when == "sending" else (second, first)
    leaves.cancel()
    answer = await stays
    await settle()
    assert (answer.cache, leaves.cancelled(), world.leases.held) == ("miss", True, {})


@pytest.mark.parametrize("how", ["closed", "dropped"])
async def test_a_stream_that_is_left_gives_its_lease_back(world, how):
    """It is held to the end of the stream and not longer."""
    stream = await world.process().send(STREAM)
    assert len(world.leases.held) == 1
    if how == "closed":
        await stream.aclose()
    world.provider.calls.clear()
    del stream
    await settle()
    assert world.leases.held == {}


@OPERATIONS
@pytest.mark.parametrize("table", ["silent", "broken"])
async def test_without_an_answer_about_leases_everyone_sends(clock, operation, table):
    """Nobody waits for somebody that cannot be known."""
    world = World(clock, Broken(clock) if table == "broken" else None)
    world.leases.answers = False
    world.provider.script = [slow] * 4
    answers = await asyncio.gather(*(send(world.process(), operation) for _ in range(2)))
    assert [answer.cache for answer in answers] == ["miss", "miss"]


@pytest.mark.parametrize("operation", [CHAT, Embed(model="m", texts="a")], ids=["chat", "embed"])
async def test_a_renewal_is_left_to_one_process(world, operation):
    """A stale entry that several find is fetched anew once."""
    processes = [world.process(ttl=60, stale_while_revalidate=30) for _ in range(3)]
    await send(processes[0], operation)
    await asyncio.sleep(80)
    world.provider.calls.clear()
    world.provider.script = [2.0]
    answers = [await send(process, operation) for process in processes]
    await asyncio.sleep(5)
    assert ([answer.cache for answer in answers], len(world.provider.calls)) == (["stale"] * 3, 1)
    assert world.leases.held == {}


async def test_lists_that_overlap_share_what_is_there(world):
    """Another list is another lease; what the first one kept meanwhile is not sent again."""
    world.provider.script = [5.0]
    first = asyncio.create_task(send(world.process(), Embed(model="m", texts=["a", "b"])))
    await asyncio.sleep(6)
    result = await send(world.process(), Embed(model="m", texts=["b", "c"]))
    assert (result.hits, await first is not None) == (1, True)


async def test_a_lease_that_ends_while_it_is_renewed_is_not_taken_again(world):
    """Giving back waits for a renewal that is under way, and is the last word."""
    taking = world.leases.acquire_lease
    asked = 0

    async def slow(key, *, holder, seconds):
        nonlocal asked
        asked += 1
        if asked > 1:
            await asyncio.sleep(2)
        return await taking(key, holder=holder, seconds=seconds)

    world.leases.acquire_lease = slow
    world.provider.script = [2.0]
    await send(world.process(lease_time=3.0), CHAT)  # the renewal begins after one second and takes two
    await asyncio.sleep(10)
    assert (world.leases.held, asked) == ({}, 2)


async def test_a_lease_that_was_lost_is_not_taken_again(world):
    """Whoever has it by now keeps it, and nothing goes on after the call."""
    world.provider.script = [15.0]
    before = asyncio.all_tasks()
    pipe = world.process(lease_time=3.0)
    asking = asyncio.create_task(send(pipe, CHAT))
    await asyncio.sleep(1)
    (key,) = world.leases.held
    world.leases.held[key] = "another", world.clock.monotonic() + 20
    await asking
    await asyncio.sleep(3600)
    assert world.leases.held[key][0] == "another"
    assert asyncio.all_tasks() == before
    assert (await send(world.process(), CHAT)).cache == "hit"


async def test_a_reader_that_stops_holds_up_nobody(world):
    """A stream that nobody reads keeps its lease for no longer than that lasts."""
    stream = await world.process(lease_time=6.0).send(STREAM)
    await anext(stream)
    started = world.clock.monotonic()
    assert (await send(world.process(), CHAT)).cache == "miss"
    assert world.clock.monotonic() - started < 20
    await stream.aclose()


async def test_a_stream_that_is_read_keeps_its_lease(world):
    """However long that takes."""
    pieces = [step for _ in range(20) for step in (2.0, [TextDelta("x")])]
    source = ScriptedSource([*pieces, [Finished(("stop",))]])
    world.provider.script = [StreamResult(source, model="m", first=[TextDelta("x")], clock=world.clock)]
    first = asyncio.create_task(send(world.process(lease_time=6.0), STREAM))
    await asyncio.sleep(1)
    assert ((await send(world.process(), CHAT)).cache, (await first).text) == ("hit", "x" * 21)


async def test_nobody_waits_for_another_until_the_own_time_is_over(world):
    """With half of it left the call is sent."""
    world.provider.script = [1000.0]
    first = asyncio.create_task(send(world.process(), CHAT))
    await asyncio.sleep(1)
    pipe = Pipeline(world.provider, [Deadline(total=60), *world.process().stack], clock=world.clock)
    started = world.clock.monotonic()
    assert (await send(pipe, CHAT)).cache == "miss"
    assert world.clock.monotonic() - started == pytest.approx(30, abs=1)
    first.cancel()


@OPERATIONS
async def test_leases_that_hang_are_not_waited_for(world, operation):
    """Neither by the call, nor at the end."""

    async def hang(key, **options):
        await asyncio.sleep(3600)

    world.leases.acquire_lease = world.leases.release_lease = hang
    del type(world.leases).timeout
    try:
        pipe = world.process()
        started = world.clock.monotonic()
        assert (await send(pipe, operation)).cache == "miss"
        await pipe.aclose()
        assert world.clock.monotonic() - started < 0.2
    finally:
        Table.timeout = 5.0


async def test_what_another_process_kept_before_it_failed_is_not_sent_again(world):
    """Whoever waited for it sends only the rest."""
    texts = ["a", "b", "c", "d"]
    world.provider.script = [slow, slow, ServerFailed("boom", status=500)]
    stack = [Cache(world.store, leases=world.leases), Batching(size=1, in_flight=1)]
    failing = Pipeline(world.provider, stack, clock=world.clock)
    first = asyncio.create_task(send(failing, Embed(model="m", texts=texts)))
    await asyncio.sleep(0.5)
    result = await send(world.process(), Embed(model="m", texts=texts))
    assert (result.hits, list(result.vectors)) == (2, [vector_of(text) for text in texts])
    with pytest.raises(ServerFailed):
        await first


@pytest.mark.parametrize("operation", [CHAT, STREAM], ids=["chat", "stream"])
async def test_closing_gives_leases_back(world, operation):
    """Also where nothing was kept and the client is closed at once."""
    world.provider.script = (
        [chat_result(choices=(Choice(text="cut", finish_reason="length"),))] if operation is CHAT else []
    )
    pipe = world.process()
    result = await pipe.send(operation)
    if isinstance(result, StreamResult):
        await result.aclose()
    await pipe.aclose()
    assert world.leases.held == {}
