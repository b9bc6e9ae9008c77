"""What was not sent is written down once: answers and vectors that were kept, and calls that joined another."""

import asyncio
import logging
from decimal import Decimal

import pytest

from resilient_ai.core.deltas import TextDelta
from resilient_ai.core.errors import ServerFailed, StreamInterrupted
from resilient_ai.core.ledger import CallSpared
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost, EmbedResult
from resilient_ai.core.streams import StreamResult
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware import Cache, Coalesce, CostAccounting
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import ScriptedProvider, ScriptedSource, answer_to, chat_result, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi", temperature=0)
STREAM = Stream(model="m", messages="hi", temperature=0)
OPERATIONS = [
    CHAT,
    STREAM,
    Complete(model="m", prompt="hi", temperature=0),
    Embed(model="m", texts=["a", "b"]),
    Image(model="m", prompt="a tide", seed=1),
]
each = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.kind)


class Savings:
    """A book of savings in a list."""

    def __init__(self):
        self.rows = []

    def spared(self, row):
        self.rows.append(row)

    @property
    def told(self):
        return [(row.outcome, row.hits, row.saved) for row in self.rows]


async def paid(call):
    """Answer after a second, like a provider with accounting."""
    await asyncio.sleep(1)
    call.record.costs.append((Decimal("0.002"), "provider", True))
    return answer_to(call.operation)


def pipeline(*script, clock=None, coalesce=True, **options):
    book = Savings()
    stack = [Coalesce(savings=book)] if coalesce else []
    stack.append(Cache(MemoryStore(clock=clock), savings=book, **options))
    return Pipeline(ScriptedProvider(*script), stack, clock=clock), book


async def whole(result):
    return await result.result() if isinstance(result, StreamResult) else result


async def ask(pipe, operation, **options):
    return await whole(await pipe.send(operation, **options))


@each
async def test_a_hit_is_written_down_once(operation, clock):
    """With the call, its time, its tags and what it would have cost; the miss before it is not."""
    pipe, book = pipeline(paid, clock=clock)
    await ask(pipe, operation)
    assert book.rows == []
    before = clock.wall()
    await ask(pipe, operation, tags={"feature": "f"})
    (row,) = book.rows
    assert row == CallSpared(
        call_id=row.call_id, at=before, kind=operation.kind, model="m", outcome="hit",
        hits=2 if operation.kind == "embed" else 1, saved=Decimal("0.002"), tags=row.tags,
    )  # fmt: skip
    assert row.tags["feature"] == "f"


async def test_the_part_of_a_list_that_was_known_is_written_down(clock):
    """Of three texts, one of them twice, two are known; the third is sent."""
    pipe, book = pipeline(paid, paid, clock=clock)
    await ask(pipe, Embed(model="m", texts=["a", "b"]))
    await ask(pipe, Embed(model="m", texts=["b", "c", "a", "b"]))
    assert book.told == [("hit", 2, Decimal("0.002"))]


async def test_a_list_whose_rest_fails_has_spared_nothing(clock):
    """The caller gets nothing of it, and will ask again."""
    pipe, book = pipeline(paid, ServerFailed("boom", status=500), clock=clock)
    await ask(pipe, Embed(model="m", texts=["a"]))
    with pytest.raises(ServerFailed):
        await ask(pipe, Embed(model="m", texts=["a", "b"]))
    assert book.rows == []


async def test_vectors_that_do_not_fit_the_new_ones_have_spared_nothing(clock):
    """Where the model has changed the known texts are sent as well."""
    pipe, book = pipeline(paid, clock=clock)
    await ask(pipe, Embed(model="m", texts=["a"]))
    pipe.provider.script = [EmbedResult(model="m", served_by="m", vectors=Vectors.pack([[1.0, 2.0]]))]
    result = await ask(pipe, Embed(model="m", texts=["a", "b"]))
    assert (len(result.vectors), len(pipe.provider.calls), book.rows) == (2, 3, [])


@each
async def test_an_old_answer_is_stale(operation, clock):
    """While a new one is fetched behind it, which is no call of anybody and spares nothing."""
    pipe, book = pipeline(paid, paid, clock=clock, ttl=10.0, jitter=0.0, early_refresh=0.0, stale_while_revalidate=60.0)
    await ask(pipe, operation)
    await asyncio.sleep(20)
    await ask(pipe, operation)
    await asyncio.sleep(5)
    hits = 2 if operation.kind == "embed" else 1
    assert (book.told, len(pipe.provider.calls)) == ([("stale", hits, Decimal("0.002"))], 2)


@each
async def test_an_old_answer_in_place_of_an_error_is_stale(operation, clock):
    """What was spared is the answer, although a request was sent in vain."""
    pipe, book = pipeline(
        paid, ServerFailed("boom", status=500), clock=clock, ttl=10.0, jitter=0.0, stale_if_error=60.0
    )
    await ask(pipe, operation)
    await asyncio.sleep(20)
    await ask(pipe, operation)
    vectors = operation.kind == "embed"
    assert book.told == [("stale", 2 if vectors else 1, None if vectors else Decimal("0.002"))]


@each
async def test_those_who_join_are_written_down(operation, clock):
    """Twenty callers: nineteen rows, each with its own call, and with a price that was known at the end only."""
    pipe, book = pipeline(paid, clock=clock)
    answers = await asyncio.gather(*(ask(pipe, operation) for _ in range(20)))
    assert sum(answer.cache == "joined" for answer in answers) == 19
    assert book.told == [("joined", 2 if operation.kind == "embed" else 1, Decimal("0.002"))] * 19
    assert len({row.call_id for row in book.rows}) == 19


async def test_the_price_of_a_stream_that_was_shared_is_known_at_its_end(clock):
    """Whoever read all of it saved what it cost; whoever stopped before has an answer of unknown price."""

    async def accounted(call):
        call.send_started()
        return stream_of("a", "b", "c", pause=1.0)

    book = Savings()
    prices = Prices()
    pipe = Pipeline(ScriptedProvider(accounted), [Coalesce(savings=book), CostAccounting(None, prices)], clock=clock)

    async def some():
        async with await pipe.send(STREAM) as stream:
            await anext(stream)

    await asyncio.gather(ask(pipe, STREAM), ask(pipe, STREAM), some())
    assert book.told == [("joined", 1, None), ("joined", 1, Decimal("0.002"))]


class Prices:
    def chat_cost(self, model, **amounts):
        return Decimal("0.002")

    embedding_cost = image_cost = chat_cost


@pytest.mark.parametrize("operation", [CHAT, STREAM], ids=lambda operation: operation.kind)
async def test_who_joins_a_failure_has_spared_nothing(operation, clock):
    """An error is no answer, whether it comes before the answer or in the middle of it."""
    book = Savings()
    broken = StreamResult(ScriptedSource([ServerFailed("boom", status=500)]), model="m", first=[TextDelta("a")])
    step = broken if operation.kind == "stream" else ServerFailed("boom", status=500)
    pipe = Pipeline(ScriptedProvider(step), [Coalesce(savings=book)], clock=clock)
    outcomes = await asyncio.gather(*(ask(pipe, operation) for _ in range(3)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {
        StreamInterrupted if operation.kind == "stream" else ServerFailed
    }
    assert book.rows == []


async def test_who_joins_and_leaves_has_spared_nothing(clock):
    """A caller that is cancelled gets no answer, also where it was the first; those who stay are told of."""
    pipe, book = pipeline(paid, clock=clock)
    tasks = [asyncio.create_task(ask(pipe, CHAT)) for _ in range(4)]
    await asyncio.sleep(0.5)
    tasks[0].cancel()
    tasks[2].cancel()
    await asyncio.wait(tasks)
    assert book.told == [("joined", 1, Decimal("0.002"))]


async def test_who_joins_a_hit_is_written_down_as_well(clock):
    """One call found the answer, the others joined it: one row for each of them."""
    pipe, book = pipeline(paid, clock=clock)
    await ask(pipe, CHAT)
    await asyncio.gather(*(ask(pipe, CHAT) for _ in range(3)))
    assert sorted(book.told) == [("hit", 1, Decimal("0.002"))] + [("joined", 1, Decimal("0.002"))] * 2


@each
async def test_a_book_that_raises_fails_no_call(operation, clock, caplog):
    """It is logged by name, without what it says."""

    class Raising:
        def spared(self, row):
            raise KeyError("secret")

    book = Raising()
    pipe = Pipeline(ScriptedProvider(paid), [Coalesce(savings=book), Cache(MemoryStore(), savings=book)], clock=clock)
    with caplog.at_level(logging.WARNING, "resilient_ai"):
        answers = await asyncio.gather(*(ask(pipe, operation) for _ in range(2)))
        hit = await ask(pipe, operation)
    assert [answer.cache for answer in (*answers, hit)] == ["miss", "joined", "hit"]
    assert [record.message for record in caplog.records] == [
        "Raising raised KeyError; what a call has saved is not in it"
    ] * 2
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "build", [lambda book: Cache(MemoryStore(), savings=book), lambda book: Coalesce(savings=book)]
)
def test_something_else_than_a_book_is_refused(build):
    """A path in place of a ledger is found when the stack is built."""
    with pytest.raises(ValueError, match="savings must be None or an object with spared"):
        build("ledger.sqlite")


async def test_what_was_wasted_on_the_way_is_not_saved_again(clock):
    """An answer that cost a dollar after a failure that cost two is kept as worth a dollar."""

    async def twice(call):
        call.record.costs += [(Decimal(2), "provider", False), (Decimal(1), "provider", True)]
        return chat_result(cost=Cost(amount=Decimal(1), source="provider"))

    pipe, book = pipeline(twice, clock=clock, coalesce=False)
    await ask(pipe, CHAT)
    await ask(pipe, CHAT)
    assert book.told == [("hit", 1, Decimal(1))]
