"""CostAccounting: one row per send, closed once however it ends, and what the call is charged."""

import asyncio
import gc
from decimal import Decimal

import pytest

from resilient_ai.core.call import Call, CallRecord
from resilient_ai.core.deltas import Finished, ReasoningDelta, TextDelta, ToolCallDelta
from resilient_ai.core.errors import (
    AttemptTimeout,
    BudgetExceeded,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidInput,
    InvalidResponse,
    RateLimited,
    ServerFailed,
    StreamInterrupted,
)
from resilient_ai.core.events import PriceDrifted, SendSettled
from resilient_ai.core.health import PriceState
from resilient_ai.core.messages import assistant, user
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost, EmbedResult, Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware.cache import Cache
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.middleware.hedge import Hedge
from resilient_ai.middleware.logging import Logging
from resilient_ai.middleware.retry import Retry
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import PIXEL, FakeClock, ScriptedProvider, ScriptedSource, chat_result, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
STREAM = Stream(model="m", messages="hello tides")  # 11 characters: 3 tokens


class Book:
    """A ledger in two lists."""

    def __init__(self):
        self.rows, self.ends, self.shut = [], [], False

    def opened(self, row):
        self.rows.append(row)

    def closed(self, row):
        self.ends.append(row)

    async def aclose(self):
        self.shut = True


class Prices:
    """A dollar for each token of input, two for each of output, a tenth for each picture; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def chat_cost(self, model, **amounts):
        self.asked.append((model, amounts))
        return Decimal(amounts["input_tokens"] + 2 * amounts["output_tokens"])

    def embedding_cost(self, model, *, input_tokens, service_tier=None):
        return Decimal(input_tokens) * (3 if service_tier == "priority" else 1)

    def image_cost(self, model, **amounts):
        self.asked.append((model, amounts))
        return Decimal("0.1") * amounts["images"]


class Raising:
    """A ledger, price book and callback that raises at everything."""

    def _raise(self, *args, **options):
        raise KeyError("secret")

    opened = closed = aclose = chat_cost = embedding_cost = image_cost = __call__ = _raise


def accounted(*script, prices=None, clock=None, **options):
    book = Book()
    return Pipeline(ScriptedProvider(*script), [CostAccounting(book, prices, **options)], clock=clock), book


def streaming(*steps, first="Hello"):
    return StreamResult(ScriptedSource(steps), model="m", first=[TextDelta(first)], clock=FakeClock())


def only(book):
    """Return the end of the only row, which was opened once and closed once."""
    assert [row.send_id for row in book.rows] == [end.send_id for end in book.ends]
    (end,) = book.ends
    return end


async def test_the_row_is_opened_before_bytes_leave(clock):
    """The ledger has the row, with everything that names the send, before the provider is asked."""
    seen = []

    async def look(call):
        seen.extend(book.rows)
        return chat_result()

    pipe, book = accounted(look, clock=clock)
    before = clock.wall()
    await pipe.send(CHAT, tags={"tenant": "t"})
    (row,) = seen
    assert (row.kind, row.model, row.attempt, row.at, dict(row.tags)) == ("chat", "m", 1, before, {"tenant": "t"})
    assert row.call_id == pipe.provider.calls[0].id


async def test_the_services_own_figure_comes_first(clock):
    """A cost that came with the answer is taken as it is; what the price table says stands beside it."""
    told = chat_result(cost=Cost(amount=Decimal("0.0000097"), source="provider"))
    pipe, book = accounted(2.5, told, prices=Prices(), clock=clock)
    result = await pipe.send(CHAT)
    end = only(book)
    assert (end.state, end.cost, end.list_cost, end.usage, end.error, end.elapsed, end.used) == (
        "settled", Decimal("0.0000097"), 16, told.usage, None, pytest.approx(2.5), True,
    )  # fmt: skip
    assert result.cost == told.cost


@pytest.mark.parametrize(
    ("operation", "cost"),
    [
        (CHAT, 16),
        (Complete(model="m", prompt="hi"), 16),
        (Embed(model="m", texts=["a", "b"]), 2),
        (Embed(model="m", texts=["a", "b"], service_tier="priority"), 6),
        (Image(model="m", prompt="p", n=3, size="640x480", steps=9), Decimal("0.3")),
        (Image(model="m", prompt="p"), Decimal("0.1")),
    ],
    ids=repr,
)
async def test_the_price_table_comes_second(operation, cost):
    """Without a figure of the service the tokens or pictures are priced, and the row says it is an estimate."""
    pipe, book = accounted(prices=Prices())
    result = await pipe.send(operation)
    assert (only(book).state, only(book).cost, only(book).list_cost) == ("estimated", cost, cost)
    assert result.cost == Cost(amount=Decimal(cost), source="table")


async def test_prices_are_asked_with_all_that_matters():
    """Cached and written tokens and tier, size and steps reach the price table, and the tier that served the row."""
    prices = Prices()
    usage = Usage(input_tokens=10, output_tokens=3, cached_tokens=4, cache_write_tokens=5)
    pipe, book = accounted(chat_result(usage=usage, service_tier="flex"), chat_result(usage=usage), prices=prices)
    await pipe.send(Chat(model="m", messages="hi", service_tier="priority"))
    await pipe.send(Chat(model="m", messages="hi", service_tier="priority"))
    await pipe.send(Image(model="m", prompt="p", size="640x480", steps=9))
    tokens = {"input_tokens": 10, "output_tokens": 3, "cached_tokens": 4, "cache_write_tokens": 5}
    assert prices.asked == [
        ("m", tokens | {"service_tier": "flex"}),
        ("m", tokens | {"service_tier": "priority"}),
        ("m", {"images": 1, "width": 640, "height": 480, "steps": 9}),
    ]
    assert [end.service_tier for end in book.ends] == ["flex", None, None]


@pytest.mark.parametrize(
    ("operation", "answer", "prices"),
    [
        (CHAT, chat_result(), None),
        (CHAT, chat_result(usage=None), Prices()),
        (CHAT, chat_result(usage=Usage(input_tokens=3)), Prices()),
        (Embed(model="m", texts="a"), EmbedResult(model="m", vectors=Vectors.pack([[1.0]])), Prices()),
        (CHAT, chat_result(), Raising()),
    ],
    ids=["no prices", "no usage", "half a usage", "no embedding usage", "prices raise"],
)
async def test_unknown_is_none(operation, answer, prices):
    """What cannot be known is None in the row and in the result, never zero."""
    pipe, book = accounted(answer, prices=prices)
    result = await pipe.send(operation)
    end = only(book)
    assert (end.state, end.cost, end.list_cost, end.usage, result.cost) == ("unknown", None, None, answer.usage, None)


def in_answer(error):
    error.in_answer = True
    return error


@pytest.mark.parametrize(
    ("error", "state", "cost", "charged"),
    [
        (in_answer(ServerFailed("boom", status=500)), "unknown", None, [(None, "provider", False)]),
        (in_answer(RateLimited("slow down", status=429)), "settled", 0, [(Decimal(0), "provider", False)]),
        (RateLimited("slow down", status=429), "settled", 0, [(Decimal(0), "provider", False)]),
        (ServerFailed("boom", status=500), "settled", 0, [(Decimal(0), "provider", False)]),
        (AttemptTimeout(timer="attempt", elapsed=2), "unknown", None, [(None, "provider", False)]),
        (AttemptTimeout(timer="connect", elapsed=2, sent=False), "never_sent", None, []),
        (ConnectionFailed("reset", phase="receive"), "unknown", None, [(None, "provider", False)]),
        (ConnectionFailed("refused", phase="connect"), "never_sent", None, []),
        (InvalidResponse("no JSON"), "unknown", None, [(None, "provider", False)]),
        (BudgetExceeded("over", spent=1, limit=1), "never_sent", None, []),
        (DeadlineExceeded(timeout=1, elapsed=1, sent=True), "unknown", None, [(None, "provider", False)]),
        (DeadlineExceeded(timeout=1, elapsed=1, sent=False), "never_sent", None, []),
        (KeyError("a fault of ours"), "unknown", None, [(None, "provider", False)]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_every_error_closes_the_row(error, state, cost, charged):
    """A refused request is free, one that may have been worked on is unknown, one that never left costs nothing."""
    pipe, book = accounted(error)
    with pytest.raises(type(error)):
        await pipe.send(CHAT)
    end = only(book)
    assert (end.state, end.cost, end.list_cost, end.used, end.error) == (state, cost, None, False, type(error).__name__)
    assert pipe.provider.calls[0].record.costs == charged


async def test_an_error_before_the_request_leaves_costs_nothing():
    """What is found wrong before anything is sent is not charged."""

    async def refuse(call, proceed):
        raise InvalidInput("wrong", field="f")

    book = Book()
    with pytest.raises(InvalidInput):
        await Pipeline(ScriptedProvider(), [CostAccounting(book), refuse]).send(CHAT)
    assert (only(book).state, only(book).cost) == ("never_sent", None)


@pytest.mark.parametrize(("operation", "waits"), [(CHAT, 3600.0), (STREAM, 3600.0)])
async def test_a_cancelled_send_is_unknown(operation, waits, clock):
    """Cancelled while the answer is awaited, the row is closed at once; nobody knows what was billed."""
    pipe, book = accounted(waits, clock=clock)
    task = asyncio.create_task(pipe.send(operation))
    await asyncio.sleep(1)
    assert book.ends == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    end = only(book)
    assert (end.state, end.cost, end.error, end.elapsed) == ("unknown", None, "CancelledError", pytest.approx(1.0))


async def test_cancelled_before_the_request_left():
    """Cancelled while it waits for a connection, nothing was sent."""

    async def queue(call, proceed):
        await asyncio.sleep(3600)

    book = Book()
    pipe = Pipeline(ScriptedProvider(), [CostAccounting(book), queue])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await pipe.send(CHAT)
    assert only(book).state == "never_sent"


async def test_a_call_that_is_dropped_unfinished_is_closed():
    """A coroutine that is thrown away while it waits closes its row."""
    pipe, book = accounted(3600.0)
    call = pipe.send(CHAT)
    call.send(None)
    call.close()
    assert (only(book).state, only(book).error) == ("unknown", "GeneratorExit")


async def test_a_whole_stream_has_the_services_figure():
    """The cost that came with the end of the stream settles the row and shows in the result."""
    cost = Cost(amount=Decimal("0.5"), source="provider")
    finished = Finished(("stop",), Usage(input_tokens=1, output_tokens=2), cost=cost)
    pipe, book = accounted(streaming([finished]), prices=Prices())
    stream = await pipe.send(STREAM)
    assert book.ends == []
    assert (await stream.result()).cost == cost
    assert (only(book).state, only(book).cost, only(book).usage) == ("settled", Decimal("0.5"), finished.usage)


async def test_a_whole_stream_is_priced_by_its_usage():
    """Reported tokens are priced by the table."""
    pipe, book = accounted(stream_of("Hel", "lo"), prices=Prices())
    result = await (await pipe.send(STREAM)).result()
    assert (only(book).state, only(book).cost, result.cost.source) == ("estimated", 14, "table")


async def test_a_whole_stream_without_usage_is_not_guessed_at():
    """The cost of an answer that the caller gets is None rather than a guess."""
    pipe, book = accounted(streaming([Finished(("stop",))]), prices=Prices())
    assert (await (await pipe.send(STREAM)).result()).cost is None
    assert (only(book).state, only(book).cost) == ("unknown", None)


async def test_a_whole_stream_without_an_end_of_its_own_is_not_guessed_at():
    """A provider of somebody else's may end a stream without a closing event."""

    class Endless(ScriptedSource):
        def conclude(self):
            return ()

    stream = StreamResult(Endless([]), model="m", first=[TextDelta("Hello")], clock=FakeClock())
    pipe, book = accounted(stream, prices=Prices())
    assert (await (await pipe.send(STREAM)).result()).cost is None
    assert (only(book).state, only(book).used) == ("unknown", True)


@pytest.mark.parametrize("how", ["closed", "failed", "abandoned", "cancelled"])
async def test_a_broken_stream_is_counted_by_its_characters(how):
    """However a stream breaks off, its row is closed once, with 3 tokens of prompt and 2 of answer at 1 and 2 dollars.

    Only whoever closed it by itself has got what there was; else it was for nothing.
    """
    steps = [ServerFailed("boom", status=500)] if how == "failed" else [3600.0]
    pipe, book = accounted(streaming(*steps), prices=Prices())
    stream = await pipe.send(STREAM)
    record = pipe.provider.calls[0].record
    if how == "closed":
        await stream.aclose()
    elif how == "failed":
        with pytest.raises(StreamInterrupted):
            await stream.result()
    elif how == "cancelled":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await stream.result()
    assert pipe.provider.calls.pop() is not None
    del stream
    gc.collect()
    end = only(book)
    assert (end.state, end.cost, end.usage) == ("estimated", 7, Usage(input_tokens=3, output_tokens=2))
    assert end.error == {"failed": "StreamInterrupted", "cancelled": "CancelledError"}.get(how)
    assert (record.costs, end.used) == ([(Decimal(7), "estimate", how == "closed")], how == "closed")


async def test_everything_that_came_is_counted():
    """Reasoning, text and calls of tools count for the answer, all texts of the conversation for the prompt.

    A piece is at least one token, however short, and one for every four characters where it is long.
    """
    pieces = [TextDelta("a"), TextDelta("b"), TextDelta("c")]
    first = [ReasoningDelta("12345678"), *pieces, ToolCallDelta(0, "1", "time", "90123456")]
    stream = StreamResult(ScriptedSource([]), model="m", first=first)
    pipe, book = accounted(stream, prices=Prices())
    messages = [user("1234"), assistant("5678"), {"role": "tool", "content": "9", "tool_call_id": "1"}]
    messages.insert(2, {"role": "assistant", "tool_calls": [{"id": "1", "name": "t", "arguments": "{}"}]})
    messages.append({"role": "user", "content": [{"type": "text", "text": "tides"}]})
    await (await pipe.send(Stream(model="m", messages=messages))).aclose()
    assert only(book).usage == Usage(input_tokens=4, output_tokens=2 + 3 + 3)


async def test_a_prompt_with_a_picture_cannot_be_counted():
    """A broken stream over a picture is unknown."""
    pipe, book = accounted(streaming(3600.0), prices=Prices())
    await (await pipe.send(Stream(model="m", messages=[user("what?", PIXEL)]))).aclose()
    assert (only(book).state, only(book).cost, only(book).usage) == ("unknown", None, None)


async def test_a_broken_stream_without_prices_is_unknown():
    """Counted tokens without a price are no cost, and are not passed off as usage."""
    pipe, book = accounted(streaming(3600.0))
    await (await pipe.send(STREAM)).aclose()
    assert (only(book).state, only(book).cost, only(book).usage) == ("unknown", None, None)


@pytest.mark.parametrize("kind", ["complete", "embed"])
async def test_streams_of_other_operations_are_closed_too(kind):
    """A provider of somebody else's that streams a completion has its row closed as well."""
    operation = Complete(model="m", prompt="four") if kind == "complete" else Embed(model="m", texts="four")
    pipe, book = accounted(streaming(3600.0), prices=Prices())
    await (await pipe.send(operation)).aclose()
    assert only(book).state == ("estimated" if kind == "complete" else "unknown")


async def test_a_result_of_an_unknown_kind_is_unknown():
    """Something that is neither a result nor a stream has a row, and a cost that nobody knows."""
    pipe, book = accounted("something else", prices=Prices())
    assert await pipe.send(CHAT) == "something else"
    assert only(book).state == "unknown"
    assert pipe.provider.calls[0].record.cost() is None


async def test_a_result_that_cannot_be_priced_is_unknown():
    """An operation answered by tokens it should not have has no price."""
    pipe, book = accounted(chat_result(), prices=Prices())
    await pipe.send(Image(model="m", prompt="p"))
    assert only(book).state == "unknown"


async def test_every_try_has_a_row(clock):
    """Three tries are three rows, and the call costs what all of them cost."""
    book = Book()
    provider = ScriptedProvider(ServerFailed("boom", status=500), AttemptTimeout(timer="attempt", elapsed=1))
    pipe = Pipeline(provider, [Retry(attempts=3), CostAccounting(book, Prices())], clock=clock)
    heard = []
    result = await pipe.send(CHAT, listener=heard.append)
    assert [end.state for end in book.ends] == ["settled", "unknown", "estimated"]
    assert [event.state for event in heard if isinstance(event, SendSettled)] == [end.state for end in book.ends]
    assert [row.attempt for row in book.rows] == [1, 2, 3]
    assert len({row.send_id for row in book.rows}) == 3
    assert (result.cost.amount, result.cost.complete, result.cost.source) == (16, False, "mixed")


@pytest.mark.parametrize("outer", [Retry(), Cache(MemoryStore())], ids=["Retry", "Cache"])
async def test_accounting_stands_inside_of_what_repeats(outer):
    """A stack that would count several sends as one is refused, with the reason."""
    with pytest.raises(ConfigurationError, match="CostAccounting must stand after"):
        Pipeline(ScriptedProvider(), [CostAccounting(), outer])


async def test_listeners_and_the_callback_hear_of_every_send(clock):
    """The event says what the row says."""
    heard, called = [], []
    pipe, book = accounted(1.0, chat_result(), prices=Prices(), on_settled=called.append, clock=clock)
    await pipe.send(CHAT, listener=heard.append)
    (event,) = [event for event in heard if isinstance(event, SendSettled)]
    assert called == [event]
    end = only(book)
    assert (event.send_id, event.state, event.cost, event.elapsed) == (end.send_id, end.state, end.cost, end.elapsed)
    assert (event.model, event.error, event.usage) == ("m", None, end.usage)


@pytest.mark.parametrize("operation", [CHAT, STREAM])
async def test_accounting_never_fails_a_call(operation, caplog):
    """A ledger, a price book and a callback that raise are logged by name, without what they say."""
    raising = Raising()
    pipe = Pipeline(ScriptedProvider(), [CostAccounting(raising, raising, on_settled=raising)])
    result = await pipe.send(operation)
    answer = await result.result() if isinstance(result, StreamResult) else result
    assert answer.text == "Hello."
    assert len([record for record in caplog.records if "passed over Raising" in record.message]) == 4
    assert "secret" not in caplog.text


def counting(rows):
    """A middleware that is told of every row, as a budget is."""

    async def count(call, proceed):
        return await proceed(call.replace(on_send_closed=(rows.append,)))

    return count


@pytest.mark.parametrize("ledger", [Book(), None], ids=["ledger", "no ledger"])
@pytest.mark.parametrize(
    ("operation", "step"),
    [
        (CHAT, None),
        (CHAT, ServerFailed("boom", status=500)),
        (CHAT, AttemptTimeout(timer="attempt", elapsed=2)),
        (CHAT, ConnectionFailed("refused", phase="connect")),
        (STREAM, None),
        (STREAM, "closed"),
        (CHAT, "cancelled"),
        (STREAM, "cancelled"),
    ],
    ids=repr,
)
async def test_whoever_counts_is_told_once_of_every_send(ledger, operation, step):
    """In every way of ending, with a ledger and without one, the row is told to the call, and it is the ledger's row."""
    rows = []
    script = {"closed": streaming(3600.0), "cancelled": 3600.0}.get(step, step) if isinstance(step, str) else step
    provider = ScriptedProvider(*([] if script is None else [script]))
    pipe = Pipeline(provider, [counting(rows), CostAccounting(ledger, Prices())])
    task = asyncio.create_task(pipe.send(operation))
    await asyncio.sleep(1)
    if step == "cancelled":
        task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    if step == "closed":
        await result.aclose()
    elif isinstance(result, StreamResult):
        await result.result()
    assert len(rows) == 1
    if ledger is not None:
        assert rows == ledger.ends[-1:]
    assert (rows[0].cost is None) is (rows[0].state in {"unknown", "never_sent"})


async def test_whoever_counts_and_raises_changes_nothing(caplog):
    """It is logged by name, and the call has its answer and its row."""

    def miscount(row):
        raise KeyError("secret")

    async def count(call, proceed):
        return await proceed(call.replace(on_send_closed=(miscount,)))

    book = Book()
    assert (await Pipeline(ScriptedProvider(), [count, CostAccounting(book, Prices())]).send(CHAT)).cost.amount == 16
    assert only(book).state == "estimated"
    assert "miscount, which raised KeyError" in caplog.text
    assert "secret" not in caplog.text


async def test_of_two_answers_at_once_one_is_wasted(clock):
    """Where a hedge and the first request both bring an answer, the row, the call and the result agree on which was used."""
    book = Book()
    hedge = Hedge(samples=1, extra=1.0, delay_min=1.0)
    retry = Retry(hedge=hedge)

    async def late(call):
        await asyncio.sleep(2.0 - (call.clock.monotonic() - began))
        return chat_result(f"{len(provider.calls)}", usage=Usage(input_tokens=1, output_tokens=1))

    provider = ScriptedProvider()
    pipe = Pipeline(provider, [retry, CostAccounting(book, Prices())], clock=clock)
    for _ in range(5):
        await pipe.send(CHAT)
    book.ends.clear()
    began = clock.monotonic()
    provider.script = [late, late]
    result = await pipe.send(CHAT)
    assert sorted((end.state, end.used) for end in book.ends) == [("estimated", False), ("estimated", True)]
    assert (result.cost.amount, result.cost.wasted, result.cost.source) == (6, 3, "table")


@pytest.mark.parametrize(
    ("told", "ratio", "drifts"), [("16", 1.0, 0), ("16.1", 1.00625, 0), ("24", 1.5, 1), ("8", 0.5, 1)]
)
async def test_a_bill_that_differs_from_the_table_is_told(told, ratio, drifts, caplog):
    """Beyond one per cent there is an event with both figures and a warning; the ratio is part of the health in any case."""
    heard = []
    pipe, book = accounted(chat_result(cost=Cost(amount=Decimal(told), source="provider")), prices=Prices())
    await pipe.send(CHAT, listener=heard.append)
    events = [event for event in heard if isinstance(event, PriceDrifted)]
    assert [(event.send_id, event.cost, event.list_cost) for event in events] == [
        (only(book).send_id, Decimal(told), 16)
    ] * drifts
    assert pipe.health().prices == (
        PriceState(key=("https://scripted.test/v1", "m"), drift=pytest.approx(ratio), sends=1),
    )
    assert len(caplog.records) == drifts


async def test_a_model_is_warned_of_once_an_hour(clock, caplog):
    """However many of its sends differ; another model has a warning of its own."""
    pipe, _ = accounted(prices=Prices(), clock=clock)

    async def ask(model):
        pipe.provider.script = [chat_result(cost=Cost(amount=Decimal(32), source="provider"))]
        await pipe.send(Chat(model=model, messages="hi"))

    for _ in range(3):
        await ask("m")
    await ask("other")
    await asyncio.sleep(3600)
    await ask("m")
    assert [record.args[0] for record in caplog.records] == ["m", "other", "m"]
    assert caplog.records[0].message == "m is billed at 2 times what the price table says"


async def test_where_lines_are_written_a_price_has_one_of_them(clock, caplog):
    """Where `Logging` is in the stack the fact has its line, once an hour; every send is told to listeners."""
    caplog.set_level("DEBUG", logger="resilient_ai")
    heard = []
    told = [chat_result(cost=Cost(amount=Decimal(32), source="provider")) for _ in range(3)]
    pipe = Pipeline(ScriptedProvider(*told), [Logging(), CostAccounting(prices=Prices())], clock=clock)
    for wait in (0.0, 1.0, 3600.0):
        await asyncio.sleep(wait)
        await pipe.send(CHAT, listener=heard.append)
    drifts = [event for event in heard if isinstance(event, PriceDrifted)]
    assert [event.repeated for event in drifts] == [False, True, False]
    lines = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [(line.getMessage(), line.send_id) for line in lines] == [
        ("resilient_ai.price_drifted", drifts[0].send_id),
        ("resilient_ai.price_drifted", drifts[2].send_id),
    ]


async def test_where_one_figure_is_missing_nothing_is_compared():
    """A model without a list price, an answer without a figure of the service, and a refusal tell nothing of prices."""
    told = chat_result(cost=Cost(amount=Decimal(1), source="provider"))
    pipe, _ = accounted(told)
    await pipe.send(CHAT)
    priced, _ = accounted(chat_result(), RateLimited("slow down", status=429), prices=Prices())
    await priced.send(CHAT)
    with pytest.raises(RateLimited):
        await priced.send(CHAT)
    assert pipe.health().prices == priced.health().prices == ()


async def test_many_models_do_not_fill_the_memory():
    """Beyond a thousand models those of which the fewest sends are known are forgotten."""
    pipe, _ = accounted(prices=Prices())
    told = chat_result(cost=Cost(amount=Decimal(16), source="provider"))
    for number in range(1100):
        pipe.provider.script = [told, told]
        await pipe.send(Chat(model=f"m{number}", messages="hi"))
        await pipe.send(Chat(model="kept", messages="hi"))
    known = {state.key[1]: state.sends for state in pipe.health().prices}
    assert len(known) < 1024
    assert known["kept"] == 1100


async def test_prompts_of_broken_streams_are_counted_as_the_model_counts():
    """Answers that tell their tokens teach how many a prompt of some length has: here one for each character, and ten more."""
    pipe, book = accounted(prices=Prices())
    for length in (10, 20, 40):
        pipe.provider.script = [chat_result(usage=Usage(input_tokens=length + 10, output_tokens=1))]
        await pipe.send(Chat(model="m", messages="x" * length))
    pipe.provider.script = [streaming(3600.0)]
    await (await pipe.send(Stream(model="m", messages="x" * 30))).aclose()
    assert book.ends[-1].usage.input_tokens == 40


async def test_a_count_beyond_all_reason_fails_no_call(caplog):
    """Tokens of a provider of somebody else's that no float can hold are passed over, and nobody can say what they cost."""
    pipe, book = accounted(chat_result(usage=Usage(input_tokens=10**400, output_tokens=1)), prices=Prices())
    assert (await pipe.send(CHAT)).text == "Hello."
    assert (only(book).state, only(book).cost) == ("unknown", None)
    assert "passed over PromptSizes, which raised OverflowError" in caplog.text


@pytest.mark.parametrize(
    "messages",
    [[user("what?", PIXEL)], [user("x")] * 17],
    ids=["a picture", "a long conversation"],
)
async def test_what_teaches_nothing_of_prompts(messages):
    """A prompt with a picture has tokens that its text does not tell; one of many messages would cost time to look at."""
    pipe, book = accounted(prices=Prices())
    for _ in range(5):
        pipe.provider.script = [chat_result(usage=Usage(input_tokens=999, output_tokens=1))]
        await pipe.send(Chat(model="m", messages=messages))
    pipe.provider.script = [streaming(3600.0)]
    await (await pipe.send(STREAM)).aclose()
    assert book.ends[-1].usage.input_tokens == 3


async def test_without_anybody_to_tell_the_call_still_knows_its_cost():
    """Without ledger and listeners the cost reaches the result."""
    assert (await Pipeline(ScriptedProvider(), [CostAccounting(None, Prices())]).send(CHAT)).cost.amount == 16


async def test_closing_closes_the_ledger():
    """The ledger is closed with the stack; without one there is nothing to close."""
    pipe, book = accounted()
    await pipe.aclose()
    await CostAccounting().aclose()
    assert book.shut


def test_a_stream_that_outlives_its_loop_is_closed():
    """A row is closed even where the clock has stopped."""
    book = Book()

    async def main():
        call = Call(STREAM, FakeClock(), record=CallRecord())

        async def proceed(call):
            return streaming(3600.0)

        return await CostAccounting(book)(call, proceed)

    stream = asyncio.run(main())
    del stream
    gc.collect()
    assert (only(book).state, only(book).elapsed) == ("unknown", 0.0)


@pytest.mark.parametrize("when", ["opened", "closed"])
async def test_a_ledger_that_raises_a_cancellation_is_passed_over(when):
    """Nobody has cancelled the call."""

    def raises(row):
        raise asyncio.CancelledError

    book = Book()
    setattr(book, when, raises)
    assert (await Pipeline(ScriptedProvider(), [CostAccounting(book)]).send(CHAT)).text == "Hello."


class Odd:
    """A listener whose attribute of that name means something else."""

    def __call__(self, event):
        pass


class Truthy(Odd):
    writes_lines = "no"


class Broken(Odd):
    @property
    def writes_lines(self):
        raise RuntimeError


@pytest.mark.parametrize("kind", [Odd, Truthy, Broken])
async def test_a_listener_that_writes_no_lines_leaves_the_warning_to_us(kind, caplog):
    """Whatever it has by the name that `Logging` says so by."""
    answer = chat_result(cost=Cost(amount=Decimal(32), source="provider"))
    pipe = Pipeline(ScriptedProvider(answer), [CostAccounting(prices=Prices())])
    await pipe.send(CHAT, listener=kind())
    assert [record.message for record in caplog.records] == ["m is billed at 2 times what the price table says"]
