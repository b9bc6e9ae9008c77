"""Budgets: what is reserved before a send, what it is settled with, and that no hard limit is ever exceeded."""

import asyncio
import gc
import os
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_UP, Context, Decimal, localcontext

import pytest

from resilient_ai.core.budgets import Admission, units
from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import (
    AttemptTimeout,
    BookUnavailable,
    BudgetExceeded,
    BudgetUnavailable,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    InvalidInput,
    PriceUnknown,
    RateLimited,
    ServerFailed,
    StreamInterrupted,
)
from resilient_ai.core.events import BudgetRefused, BudgetThresholdReached
from resilient_ai.core.health import BudgetState
from resilient_ai.core.ledger import SendClosed, SendOpened
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost, Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import (
    Batching,
    Budget,
    Budgets,
    Cache,
    CircuitBreaker,
    ConcurrencyLimit,
    CostAccounting,
    Hedge,
    Retry,
    Routing,
    Timeout,
    _budget_tally,
)
from resilient_ai.stores import MemoryBudgets, MemoryStore, SQLiteLedger
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, chat_result, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
SHORT = Chat(model="m", messages="hi", max_tokens=5)
STREAM = Stream(model="m", messages="hi")
WORST = Decimal("0.0025")
LIMIT = "0.003 USD"


class Prices:
    """Everything costs the same, and a model called "unknown" nobody knows what."""

    def __init__(self, cost=WORST):
        self.cost = cost

    def chat_cost(self, model, **amounts):
        return None if model == "unknown" else self.cost

    embedding_cost = image_cost = chat_cost


class Unasked:
    """A book that cannot be asked, or raises something else; writes down what is settled."""

    def __init__(self, error=None):
        self.error = error or BookUnavailable("the disk is gone")
        self.settled, self.closed = [], False

    async def charge(self, charges):
        raise self.error

    spent = charge

    def settle(self, charges):
        self.settled += [charge.amount for charge in charges]

    async def aclose(self):
        self.closed = True


class Noting(MemoryBudgets):
    """Writes down what is charged and settled."""

    def __init__(self):
        super().__init__()
        self.charged, self.given = [], []

    async def charge(self, charges):
        self.charged += charges
        return await super().charge(charges)

    def settle(self, charges):
        self.given += charges
        super().settle(charges)


class Slow(MemoryBudgets):
    """Looks at once what is spent, and answers when it may."""

    def __init__(self):
        super().__init__()
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def spent(self, charges):
        found = await super().spent(charges)
        self.asked.set()
        await self.answers.wait()
        return found


class Losing(MemoryBudgets):
    """Loses its counters where it is told to, as a Redis that is emptied."""

    life = 10

    async def charge(self, charges):
        admission = await super().charge(charges)
        return replace(admission, lives=(self.life,) * len(admission.lives))

    def settle(self, charges):
        super().settle([replace(one, amount=one.in_life(self.life), life=None) for one in charges])

    def lose(self):
        self._counters.clear()
        self.life += 1


class Knowing(MemoryBudgets):
    """A book that is a ledger as well, and knows the values of tags."""

    def __init__(self, ledger):
        super().__init__()
        self.by = ledger.by


@pytest.fixture
def in_child():
    """Run a function in a forked child; whether its exit code is 0 says whether all is well there."""

    def run(function):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if function() else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return run


@pytest.fixture
def few_counters(monkeypatch):
    """Have a process know few counters, and return how many."""
    monkeypatch.setattr(_budget_tally, "_MOST_COUNTERS", 16)
    return 16


def costing(dollars, **fields):
    return chat_result(cost=Cost(amount=Decimal(dollars), source="provider"), **fields)


def budgeted(
    *script, budgets=(Budget(limit=LIMIT, per="day"),), prices=None, book=None, clock=None, outer=(), **options
):
    """A pipeline with these budgets, accounted for; the middleware and its book are attributes."""
    book, prices = book or MemoryBudgets(), prices or Prices()
    layer = Budgets(budgets=budgets, book=book, prices=prices, **options)
    pipe = Pipeline(ScriptedProvider(*script), [*outer, layer, CostAccounting()], clock=clock or FakeClock())
    pipe.budgets, pipe.book = layer, book
    return pipe


async def spent(pipe, **tags):
    """Return what is spent of each budget, in dollars."""
    return [state.spent for state in await pipe.budgets.state(tags, clock=pipe.clock)]


def streaming(*steps):
    return StreamResult(ScriptedSource(steps), model="m", first=[TextDelta("Hello")], clock=FakeClock())


async def outcomes(*calls):
    found = await asyncio.gather(*calls, return_exceptions=True)
    return Counter(type(one).__name__ for one in found)


def at(clock, text):
    """Let it be this date now."""
    clock.offset = datetime.fromisoformat(f"{text}+00:00").timestamp() - clock.monotonic()


# What is admitted


async def test_of_twenty_calls_at_once_one_is_admitted():
    """A budget of 0.003 USD has room for one call of 0.0025 USD, and for the others nothing is sent."""
    pipe = budgeted(0.5, costing("0.0025"))
    assert await outcomes(*(pipe.send(CHAT) for _ in range(20))) == {"ChatResult": 1, "BudgetExceeded": 19}
    assert len(pipe.provider.calls) == 1
    assert await spent(pipe) == [WORST]


async def test_a_refusal_says_what_is_left_and_until_when(clock):
    """In numbers and in a sentence; it was not sent and costs nothing."""
    at(clock, "2026-11-30T18:00:00")
    pipe = budgeted(costing("0.0025"), clock=clock, budgets=[Budget(limit=LIMIT, per="day", scope={"tenant": "a"})])
    await pipe.send(CHAT, tags={"tenant": "a"})
    with pytest.raises(BudgetExceeded) as caught:
        await pipe.send(SHORT, tags={"tenant": "a"})
    error = caught.value
    assert (error.spent, error.limit, error.left) == (Decimal("0.0025"), Decimal("0.003"), Decimal("0.0005"))
    assert error.reserved == 0
    assert (error.budget, error.retry_after, error.sent) == ("0.003 USD per day tenant=a", 21_600.0, False)
    assert str(error) == (
        "the budget '0.003 USD per day tenant=a' has 0.0005 of 0.003 USD left until 2026-12-01 00:00:00 UTC,"
        " and the call could cost 0.0025 USD; the request was not sent"
    )
    assert len(pipe.provider.calls) == 1


@pytest.mark.parametrize(
    ("budget", "says", "retry_after"),
    [
        (
            Budget(limit="0.002", per="day"),
            "0.0025 USD, which never fits into the 0.002 USD of the budget '0.002",
            None,
        ),
        (Budget(limit="0.004", per="total"), "0.0015 of 0.004 USD left, and", None),
        (
            Budget(limit="0.004", per="hour", rolling=True),
            "until its window has moved on far enough, at 2026-11-30 19:01:00 UTC at the earliest, and",
            3_659.0,
        ),
        (Budget(limit="0.004", per="month", name="team"), "the budget 'team' has 0.0015", 21_599.0),
    ],
    ids=["never fits", "total", "rolling", "named"],
)
async def test_when_it_may_be_tried_again(clock, budget, says, retry_after):
    """At the end of the window, or when it moves on; never where that would not help."""
    at(clock, "2026-11-30T18:00:01")
    pipe = budgeted(costing("0.0025"), clock=clock, budgets=[budget])
    with pytest.raises(BudgetExceeded) as caught:
        for _ in range(2):
            await pipe.send(CHAT)
    assert says in str(caught.value)
    assert caught.value.retry_after == (None if retry_after is None else pytest.approx(retry_after))


async def test_a_window_that_rolls_says_when_enough_has_left_it(clock):
    """Not when it moves on next: until then it would refuse the same call again and again."""
    at(clock, "2026-11-30T18:00:00")
    script = [costing(f"0.00{cost}") for cost in ("02", "10", "03", "20")]
    pipe = budgeted(*script, clock=clock, budgets=[Budget(limit="0.004", per="minute", rolling=True)])
    pipe.budgets.prices.cost = Decimal("0.0020")
    for _ in script:
        await pipe.send(SHORT)
        await clock.sleep(5)
    waits = []
    for worst in ("0.0006", "0.0010", "0.0018", "0.0030"):
        pipe.budgets.prices.cost = Decimal(worst)
        with pytest.raises(BudgetExceeded) as caught:
            await pipe.send(SHORT)
        waits.append(caught.value.retry_after)
    assert waits == [41.0, 46.0, 51.0, 56.0]
    pipe.budgets.prices.cost = Decimal("0.0018")
    await clock.sleep(50)
    with pytest.raises(BudgetExceeded):
        await pipe.send(SHORT)
    await clock.sleep(1)
    await pipe.send(SHORT)


async def test_what_is_reserved_in_a_window_that_rolls_may_be_free_before_it_leaves(clock):
    """So what is settled says when there may be room at the earliest."""
    at(clock, "2026-11-30T18:00:00")
    pipe = budgeted(
        costing("0.0010"),
        streaming(3600.0),
        clock=clock,
        budgets=[Budget(limit="0.003", per="minute", rolling=True)],
    )
    pipe.budgets.prices.cost = Decimal("0.0010")
    await pipe.send(SHORT)
    await clock.sleep(10)
    stream = await pipe.send(STREAM)
    for worst, wait in (("0.0020", 1.0), ("0.0025", 51.0)):
        pipe.budgets.prices.cost = Decimal(worst)
        with pytest.raises(BudgetExceeded) as caught:
            await pipe.send(SHORT)
        assert caught.value.retry_after == wait
    await stream.aclose()


async def test_a_book_that_does_not_tell_slices_says_when_the_window_moves_on(clock):
    """Which is the earliest moment at which there can be more room."""

    class Silent(MemoryBudgets):
        async def charge(self, charges):
            return replace(await super().charge(charges), parts=None)

    at(clock, "2026-11-30T18:00:01")
    budget = Budget(limit="0.004", per="hour", rolling=True)
    pipe = budgeted(costing("0.0025"), clock=clock, budgets=[budget], book=Silent())
    with pytest.raises(BudgetExceeded, match="until its window moves on at 2026-11-30 18:01:00 UTC at the") as caught:
        for _ in range(2):
            await pipe.send(CHAT)
    assert caught.value.retry_after == 59.0


@pytest.mark.parametrize(
    ("budget", "until", "retry_after"),
    [
        (Budget(limit="0.004", per="month"), "2026-12-01T00:00:00", 21_600.0),
        (Budget(limit="0.004", per="hour", rolling=True), None, 3_660.0),
        (Budget(limit="0.004", per="total"), None, None),
    ],
    ids=["calendar", "rolling", "total"],
)
async def test_a_refusal_is_told(clock, budget, until, retry_after):
    """To whoever listens, with the numbers of the error; a soft budget beside it refuses nothing and tells nothing."""
    at(clock, "2026-11-30T18:00:00")
    pipe = budgeted(costing("0.0025"), clock=clock, budgets=[budget, Budget(limit="0.001", per="day", hard=False)])
    told = []
    pipe.subscribe(lambda event: told.append(event) if isinstance(event, BudgetRefused) else None)
    await pipe.send(CHAT)
    assert told == []
    with pytest.raises(BudgetExceeded) as caught:
        await pipe.send(CHAT)
    (event,) = told
    assert (event.model, event.budget, event.limit) == ("m", budget.title, Decimal("0.004"))
    assert (event.spent, event.reserved) == (caught.value.spent, caught.value.reserved) == (WORST, 0)
    assert event.until == (None if until is None else datetime.fromisoformat(f"{until}+00:00").timestamp())
    assert event.retry_after == caught.value.retry_after == retry_after


@pytest.mark.parametrize(
    ("before", "left", "shares", "retry_after"),
    [
        (
            "0.0004",
            "0.0001 of 0.003 USD left",
            "0.0004 USD are spent and 0.0025 USD reserved by requests under way, and may become free when they end",
            1.0,
        ),
        (
            "0.0005000001",
            "0 of 0.003 USD left until 2026-12-01 00:00:00 UTC",
            "0.0005000001 USD are spent and 0.0024999999 USD reserved by requests under way",
            21_600.0,
        ),
    ],
    ids=["enough", "not enough"],
)
async def test_what_requests_under_way_have_reserved_may_become_free(clock, before, left, shares, retry_after):
    """Where that is enough it may be tried again in a moment, and else in the next window."""
    at(clock, "2026-11-30T18:00:00")
    pipe = budgeted(costing(before), streaming(3600.0), clock=clock)
    await pipe.send(SHORT)
    pipe.budgets.prices.cost = min(WORST, Decimal("0.003") - Decimal(before))
    stream = await pipe.send(STREAM)
    pipe.budgets.prices.cost = WORST
    with pytest.raises(BudgetExceeded) as caught:
        await pipe.send(SHORT)
    await stream.aclose()
    assert str(caught.value) == (
        f"the budget '0.003 USD per day' has {left}: {shares}; the call could cost 0.0025 USD; the request was not sent"
    )
    assert caught.value.retry_after == pytest.approx(retry_after)
    assert caught.value.spent - caught.value.reserved == Decimal(before)


@pytest.mark.parametrize(
    ("operation", "advised"),
    [
        (CHAT, True),
        (SHORT, False),
        (Chat(model="m", messages="hi", extra={"max_tokens": 5}), False),
        (Chat(model="m", messages="hi", extra={"max_completion_tokens": 5}), False),
        (Embed(model="m", texts="hi"), False),
    ],
)
async def test_a_refusal_advises_to_bound_the_answer(operation, advised):
    """Where the call does not: the longest answer there is rarely fits into a small budget."""
    pipe = budgeted(budgets=[Budget(limit="0.002", per="day")])
    with pytest.raises(BudgetExceeded, match="which never fits") as caught:
        await pipe.send(operation)
    assert str(caught.value).endswith("a smaller `max_tokens` reserves less") == advised


async def test_all_budgets_of_a_call_or_none():
    """Where the team's budget is full, that of the user is not charged, and the error names the one that takes longest."""
    budgets = [
        Budget(limit="0.003", per="day", scope={"team": "t"}),
        Budget(limit="1", per="day", scope={"user": "*"}),
        Budget(limit="0.003", per="month"),
    ]
    pipe = budgeted(costing("0.0025"), budgets=budgets)
    await pipe.send(CHAT, tags={"team": "t", "user": "u"})
    with pytest.raises(BudgetExceeded) as caught:
        await pipe.send(CHAT, tags={"team": "t", "user": "v"})
    assert caught.value.budget == "0.003 USD per month"
    assert await spent(pipe, team="t", user="v") == [WORST, 0, WORST]


@pytest.mark.parametrize(
    ("scope", "tags", "counts"),
    [
        ({}, {}, True),
        ({"tenant": "a"}, {"tenant": "a"}, True),
        ({"tenant": "a"}, {"tenant": "b"}, False),
        ({"tenant": "a"}, {}, False),
        ({"tenant": "a", "user": "u"}, {"tenant": "a", "user": "v"}, False),
        ({"tenant": "a", "user": "u"}, {"tenant": "a", "user": "u", "feature": "f"}, True),
        ({"tenant": "*"}, {"tenant": "anybody"}, True),
        ({"tenant": "*"}, {"user": "u"}, False),
        ({"tenant": "*"}, {"tenant": ""}, False),
        ({"model": "m"}, {}, True),
        ({"model": "m"}, {"model": "other"}, True),
        ({"model": "other"}, {"model": "other"}, False),
        ({"kind": "chat"}, {}, True),
        ({"kind": "stream"}, {}, False),
        ({"kind": "complete"}, {}, False),
        ({"kind": "*", "model": "*"}, {}, True),
    ],
)
async def test_which_calls_count(scope, tags, counts):
    """Those with all tags of the scope; model and kind are those of the call, whatever its tags say."""
    book = Noting()
    pipe = budgeted(budgets=[Budget(limit=1, per="day", scope=scope)], book=book)
    await pipe.send(CHAT, tags=tags)
    assert bool(book.charged) == counts


@pytest.mark.parametrize(
    ("kind", "spent_of"),
    [
        ("chat", {"kind=chat": "0.0025"}),
        ("stream", {"kind=stream": "0.0025"}),
        ("*", {"kind=chat": "0.0025"}),
    ],
)
async def test_a_streamed_chat_is_a_chat(kind, spent_of):
    """A budget of chats counts it, one for each kind counts it as a chat, and one of streams counts nothing else."""
    budgets = [Budget(limit=LIMIT, per="day", scope={"kind": kind})]
    pipe = budgeted(streaming([Finished(("stop",), model="m")]), costing("0.0005"), budgets=budgets)
    await (await pipe.send(STREAM)).result()
    with pytest.raises(BudgetExceeded, match="kind="):
        await pipe.send(STREAM)
    if kind == "stream":
        await pipe.send(CHAT)
    else:
        with pytest.raises(BudgetExceeded, match="kind=chat"):
            await pipe.send(CHAT)
    states = await pipe.budgets.state(clock=pipe.clock)
    assert {state.key[2]: state.spent for state in states} == {name: Decimal(cost) for name, cost in spent_of.items()}


async def test_budgets_of_chats_and_of_streams_count_apart():
    """A stream counts against both; the limit of one for each kind does not hold for streams alone."""
    budgets = [
        Budget(limit="1", per="day", scope={"kind": "chat"}),
        Budget(limit="2", per="day", scope={"kind": "stream"}),
        Budget(limit="0.003", per="day", scope={"kind": "*"}, hard=False),
    ]
    pipe = budgeted(costing("0.0005"), streaming([Finished(("stop",), model="m")]), budgets=budgets)
    await pipe.send(CHAT)
    await (await pipe.send(STREAM)).result()

    async def found(**tags):
        return {(str(one.limit), one.key[2]): one.spent for one in await pipe.budgets.state(tags, clock=pipe.clock)}

    chats = {("1", "kind=chat"): Decimal("0.0030"), ("0.003", "kind=chat"): Decimal("0.0030")}
    streams = {("2", "kind=stream"): WORST}
    assert await found() == await found(kind="stream") == chats | streams
    assert await found(kind="chat") == chats
    assert await found(kind="embed") == {("0.003", "kind=embed"): 0}
    with pytest.raises(InvalidInput, match="kind: one of chat, stream, complete, embed, image, got 'banana'"):
        await found(kind="banana")
    with pytest.raises(InvalidInput, match="'tenant': half of a surrogate pair is no text"):
        await found(tenant="a\ud800")


async def test_each_value_of_a_tag_has_a_budget_of_its_own():
    """One tenant who has spent everything takes nothing from the others, and the book is told whose sends count."""
    book = Noting()
    pipe = budgeted(
        *[costing("0.0025")] * 2, budgets=[Budget(limit=LIMIT, per="day", scope={"tenant": "*"})], book=book
    )
    for tenant in "ab":
        await pipe.send(CHAT, tags={"tenant": tenant})
        with pytest.raises(BudgetExceeded, match=f"tenant={tenant}"):
            await pipe.send(CHAT, tags={"tenant": tenant})
    assert await spent(pipe) == [WORST, WORST]
    assert [charge.scope for charge in book.charged[::2]] == [{"tenant": "a"}, {"tenant": "b"}]
    assert len({charge.key for charge in book.charged}) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "1 b=2"}, {"a": "1", "b": "2"}),
        ({"a": "x" * 300 + "1"}, {"a": "x" * 300 + "2"}),
        ({"a": "é"}, {"a": "e\u0301"}),
    ],
)
async def test_no_two_scopes_share_a_counter(one, other):
    """Whatever their values are."""
    book = Noting()
    pipe = budgeted(budgets=[Budget(limit=1, per="day", scope=dict.fromkeys(one, "*"))], book=book)
    wider = budgeted(budgets=[Budget(limit=1, per="day", scope=dict.fromkeys(other, "*"))], book=book)
    await pipe.send(CHAT, tags=one)
    await wider.send(CHAT, tags=other)
    assert len({charge.key for charge in book.charged}) == 2
    assert all(len(charge.key) < 400 for charge in book.charged)


async def test_budgets_of_one_scope_share_a_counter():
    """A soft budget below a hard one, and a special one among those of all tenants: each send counts once, the least allows."""
    book, events = Noting(), []
    budgets = [
        Budget(limit="0.002", per="day", scope={"tenant": "a"}, hard=False, thresholds=(1,)),
        Budget(limit="0.003", per="day", scope={"tenant": "a"}, thresholds=()),
        Budget(limit="1", per="day", scope={"tenant": "*"}, thresholds=()),
    ]
    pipe = budgeted(costing("0.0025"), budgets=budgets, book=book)
    pipe.subscribe(events.append)
    await pipe.send(CHAT, tags={"tenant": "a"})
    with pytest.raises(BudgetExceeded, match=r"0\.003 USD per day"):
        await pipe.send(CHAT, tags={"tenant": "a"})
    assert len(book.charged) == 2
    assert [event.budget for event in events if isinstance(event, BudgetThresholdReached)] == [
        "0.002 USD per day tenant=a"
    ]
    assert {state.limit: state.spent for state in await pipe.budgets.state()} == {
        Decimal("0.002"): WORST,
        Decimal("0.003"): WORST,
        Decimal(1): WORST,
    }


async def test_of_a_thousand_budgets_a_call_meets_its_own():
    """One for each tenant, with a limit of its own."""
    budgets = [Budget(limit=n + 1, per="day", scope={"tenant": str(n)}) for n in range(1_000)]
    book = Noting()
    pipe = budgeted(budgets=budgets, book=book)
    await pipe.send(CHAT, tags={"tenant": "421"})
    assert [charge.limit for charge in book.charged] == [units(Decimal(422))]


# What it is settled with


@pytest.mark.parametrize(
    ("answer", "cost"),
    [
        (costing("0.0001"), "0.0001"),
        (costing("0.009"), "0.009"),
        (costing("0"), "0"),
        (chat_result(usage=Usage(input_tokens=1, output_tokens=1)), "0.0025"),
        (ConnectionFailed("refused", phase="connect"), "0"),
        (ConnectionFailed("reset", phase="receive"), "0.0025"),
        (AttemptTimeout(timer="attempt", elapsed=9.0), "0.0025"),
        (RateLimited("busy", status=429), "0"),
        (ServerFailed("boom", status=500), "0"),
        (CircuitOpen(model="m", retry_after=1.0), "0"),
        (KeyError("a bug"), "0.0025"),
    ],
    ids=repr,
)
async def test_the_truth_takes_the_place_of_the_worst_case(answer, cost):
    """The service's figure, also above it; nothing for what was refused or never sent; the worst case for what nobody knows."""
    pipe = budgeted(answer)
    await outcomes(pipe.send(CHAT))
    assert await spent(pipe) == [Decimal(cost)]


@pytest.mark.parametrize(
    ("how", "cost"), [("completed", "0.0001"), ("closed", "0.0025"), ("failed", "0.0025"), ("abandoned", "0.0025")]
)
async def test_a_stream_is_settled_when_it_ends(how, cost):
    """However it ends, and not before."""
    told = Finished(
        ("stop",), Usage(input_tokens=1, output_tokens=1), cost=Cost(amount=Decimal("0.0001"), source="provider")
    )
    steps = {"completed": [[told]], "failed": [ConnectionFailed("cut", phase="receive")]}.get(how, [3600.0])
    pipe = budgeted(streaming(*steps))
    stream = await pipe.send(STREAM)
    assert await spent(pipe) == [WORST]
    if how == "closed":
        await stream.aclose()
    elif how == "failed":
        with pytest.raises(StreamInterrupted):
            await stream.result()
    elif how == "completed":
        await stream.result()
    pipe.provider.calls.clear()
    del stream
    gc.collect()
    assert await spent(pipe) == [Decimal(cost)]


@pytest.mark.parametrize("departed", [False, True])
async def test_a_cancelled_call_keeps_what_it_may_have_cost(departed):
    """The worst case where bytes have left, else nothing."""

    class Hanging(ScriptedProvider):
        async def __call__(self, call):
            call.send_started(leaving=departed)
            await asyncio.sleep(3600)

    pipe = budgeted()
    pipe = Pipeline(Hanging(), pipe.stack, clock=FakeClock())
    layer = pipe.stack[0]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await pipe.send(CHAT)
    (state,) = layer.health()
    assert state.spent == (WORST if departed else 0)


@pytest.mark.parametrize(
    ("answer", "cost"),
    [
        (costing("0.0001"), "0.0025"),
        (ConnectionFailed("refused", phase="connect"), "0"),
        (ServerFailed("boom", status=500), "0.0025"),
        (KeyError("a bug"), "0.0025"),
    ],
    ids=repr,
)
async def test_without_accounting_what_was_sent_costs_its_worst_case(answer, cost):
    """Nobody told what it cost."""
    layer = Budgets(budgets=[Budget(limit=1, per="day")], book=MemoryBudgets(), prices=Prices())
    pipe = Pipeline(ScriptedProvider(answer), [layer], clock=FakeClock())
    await outcomes(pipe.send(CHAT))
    assert [state.spent for state in layer.health()] == [Decimal(cost)]


async def test_a_stream_without_accounting_costs_its_worst_case():
    """It was sent, and that is all that is known."""
    layer = Budgets(budgets=[Budget(limit=1, per="day")], book=MemoryBudgets(), prices=Prices())
    pipe = Pipeline(ScriptedProvider(), [layer], clock=FakeClock())
    await (await pipe.send(STREAM)).result()
    assert [state.spent for state in layer.health()] == [WORST]


async def test_what_ends_between_budget_and_account_gives_everything_back():
    """Something of the user's own that raises, or answers by itself, before a request was begun."""
    answers = [KeyError("a bug"), chat_result("made up"), stream_of("made", "up")]

    async def between(call, proceed):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    layer = Budgets(budgets=[Budget(limit=LIMIT, per="day")], book=MemoryBudgets(), prices=Prices())
    pipe = Pipeline(ScriptedProvider(), [layer, between, CostAccounting()], clock=FakeClock())
    with pytest.raises(KeyError):
        await pipe.send(CHAT)
    assert (await pipe.send(CHAT)).text == "made up"
    assert (await (await pipe.send(STREAM)).result()).text == "madeup"
    assert [state.spent for state in layer.health()] == [0]


async def test_a_second_send_below_is_charged_as_well():
    """Something of the user's own that sends twice pays twice."""

    async def twice(call, proceed):
        await proceed(call)
        return await proceed(call)

    layer = Budgets(budgets=[Budget(limit=1, per="day")], book=MemoryBudgets(), prices=Prices())
    script = [costing("0.001"), costing("0.0007")]
    pipe = Pipeline(ScriptedProvider(*script), [layer, twice, CostAccounting()], clock=FakeClock())
    await pipe.send(CHAT)
    assert [state.spent for state in layer.health()] == [Decimal("0.0017")]


async def test_whoever_else_counts_is_told_too():
    """What a middleware outside wants to know of a send reaches it, also where a book fails."""
    rows = []

    async def outside(call, proceed):
        return await proceed(call.replace(on_send_closed=(rows.append,)))

    pipe = budgeted(costing("0.0001"), outer=[outside])
    await pipe.send(CHAT)
    assert [row.cost for row in rows] == [Decimal("0.0001")]


def tell(call, row):
    """Do what `CostAccounting` does at the end of a send."""
    for told in call.on_send_closed:
        told(row)


async def test_a_cost_that_is_no_number_is_unknown():
    """The worst case is kept, whoever accounts for the send."""

    async def absurd(call, proceed):
        tell(call, SendClosed(send_id="s", state="settled", cost=Decimal("NaN")))
        return await proceed(call)

    layer = Budgets(budgets=[Budget(limit=1, per="day")], book=MemoryBudgets(), prices=Prices())
    pipe = Pipeline(ScriptedProvider(), [layer, absurd], clock=FakeClock())
    await pipe.send(CHAT)
    assert [state.spent for state in layer.health()] == [WORST]


async def test_a_book_that_fails_to_settle_keeps_nobody_from_an_answer(caplog):
    """It is logged by name, without its words."""

    class Broken(MemoryBudgets):
        def settle(self, charges):
            raise KeyError("secret")

    pipe = budgeted(costing("0.0001"), book=Broken())
    assert (await pipe.send(CHAT)).text == "Hello."
    assert "the settle of Broken raised KeyError" in caplog.text
    assert "secret" not in caplog.text


def test_a_forked_child_leaves_what_the_parent_has_reserved_alone(in_child):
    """Its copy of a stream ends with it, and gives nothing back."""
    pipe = budgeted()
    book = pipe.book

    async def main():
        stream = await pipe.send(STREAM)
        call = pipe.provider.calls[0]

        def child():
            before = sum(counter[0] for slices in book._counters.values() for counter in slices.values())
            tell(call, SendClosed(send_id="s", state="never_sent"))
            states = pipe.budgets._tally._counters.values()
            assert all(counter.spending.settled == counter.spending.spent > 0 for counter in states)
            return before == sum(counter[0] for slices in book._counters.values() for counter in slices.values()) > 0

        assert in_child(child) == 0
        await stream.result()

    asyncio.run(main())


async def test_what_a_parent_has_reserved_counts_as_spent_in_its_child():
    """As what any other process has reserved: nobody in the child will settle it."""
    pipe = budgeted(streaming(3600.0))
    stream = await pipe.send(STREAM)
    tally = pipe.budgets._tally
    (counter,) = tally._counters.values()
    assert counter.spending.settled == 0
    tally.turns.begin_afresh()
    assert counter.spending.settled == units(WORST)
    await stream.aclose()


# Retries, hedges, batches, fallbacks


async def test_every_try_is_charged():
    """Three tries are three sends, and each is reserved and settled by itself."""
    book = Noting()
    script = [AttemptTimeout(timer="attempt", elapsed=9.0), ServerFailed("boom", status=500), costing("0.0001")]
    pipe = budgeted(*script, book=book, outer=[Retry(attempts=3)], budgets=[Budget(limit="0.0051", per="day")])
    assert (await pipe.send(CHAT)).attempts == 3
    assert [charge.amount for charge in book.charged] == [units(WORST)] * 3
    assert await spent(pipe) == [Decimal("0.0026")]


async def test_a_try_that_does_not_fit_ends_the_call():
    """It is not tried again, no circuit counts it, and another model, which may be cheaper, is sent nothing either."""
    layers = [Routing(models=["m", "n"]), Retry(attempts=3), CircuitBreaker()]
    pipe = budgeted(AttemptTimeout(timer="attempt", elapsed=9.0), outer=layers)
    with pytest.raises(BudgetExceeded):
        await pipe.send(Chat(model="auto", messages="hi"))
    assert len(pipe.provider.calls) == 1
    assert [(breaker.key[1], breaker.failures) for breaker in pipe.health().breakers] == [("m", 1), ("n", 0)]


async def test_both_requests_of_a_hedge_are_charged():
    """The one that was cancelled may have cost its worst case."""
    retry = Retry(attempts=3, hedge=Hedge(samples=1, delay_min=0.1, quantile=0.5, extra=1.0))
    pipe = budgeted(costing("0.0001"), outer=[retry], budgets=[Budget(limit=1, per="day")])
    await pipe.send(CHAT)

    async def slow(call):
        await asyncio.sleep(5)

    pipe.provider.script[:] = [slow, costing("0.0002")]
    await pipe.send(CHAT)
    assert len(pipe.provider.calls) == 3
    assert await spent(pipe) == [Decimal("0.0001") + Decimal("0.0002") + WORST]


async def test_every_batch_is_charged():
    """Of ten texts in batches of two the first ones fit."""
    pipe = budgeted(outer=[Batching(size=2, in_flight=1)], budgets=[Budget(limit="0.008", per="day")])
    with pytest.raises(BudgetExceeded):
        await pipe.send(Embed(model="m", texts=[str(n) for n in range(10)]))
    assert len(pipe.provider.calls) == 3


async def test_an_answer_from_the_cache_costs_nothing():
    """It counts against no budget, also one that is full."""
    pipe = budgeted(costing("0.003"), outer=[Cache(MemoryStore())])
    operation = Chat(model="m", messages="hi", temperature=0)
    await pipe.send(operation)
    assert (await pipe.send(operation)).cache == "hit"
    assert await spent(pipe) == [Decimal("0.003")]


# Prices nobody knows


async def test_a_model_without_a_price_is_refused_where_the_budget_is_hard():
    """Never taken for free."""
    pipe = budgeted()
    with pytest.raises(PriceUnknown, match="no price of 'unknown' for a chat is known") as caught:
        await pipe.send(Chat(model="unknown", messages="hi"))
    assert str(caught.value).endswith(
        "Give it a price in a `price_file`, or say what a request counts with: `budget_unpriced` of the settings, `unpriced` of"
        " Budgets"
    )
    assert (caught.value.model, caught.value.sent, pipe.provider.calls) == ("unknown", False, [])


async def test_a_soft_budget_counts_what_it_turns_out_to_have_cost():
    """Before that it counts nothing, and of what stays unknown neither."""
    budgets = [Budget(limit=1, per="day", hard=False)]
    pipe = budgeted(costing("0.5"), AttemptTimeout(timer="attempt", elapsed=9.0), budgets=budgets)
    operation = Chat(model="unknown", messages="hi")
    await pipe.send(operation)
    assert await spent(pipe) == [Decimal("0.5")]
    await outcomes(pipe.send(operation))
    assert await spent(pipe) == [Decimal("0.5")]


async def test_a_worst_price_may_be_told():
    """A model without a price then counts with that, until it is settled."""
    pipe = budgeted(2.0, costing("0.0001"), unpriced=Decimal("0.002"))
    operation = Chat(model="unknown", messages="hi")
    assert await outcomes(pipe.send(operation), pipe.send(operation)) == {"ChatResult": 1, "BudgetExceeded": 1}
    assert await spent(pipe) == [Decimal("0.0001")]


async def test_a_price_list_that_raises_knows_no_price(caplog):
    """It is logged by name, without its words."""

    class Broken(Prices):
        def chat_cost(self, model, **amounts):
            raise KeyError("secret")

    with pytest.raises(PriceUnknown):
        await budgeted(prices=Broken()).send(CHAT)
    assert "raised KeyError" in caplog.text
    assert "secret" not in caplog.text


async def test_how_long_an_answer_may_be_comes_from_the_model():
    """Where the call does not bound it; else a number that may be told."""

    class PerToken(Prices):
        def chat_cost(self, model, **amounts):
            return Decimal(amounts["output_tokens"]) / 1_000_000

    class Abilities:
        def output_limit(self, model):
            return 700 if model == "m" else None

    book = Noting()
    pipe = budgeted(
        book=book, prices=PerToken(), abilities=Abilities(), answer_tokens=900, budgets=[Budget(limit=1, per="day")]
    )
    for operation in (CHAT, Chat(model="n", messages="hi"), Chat(model="m", messages="hi", max_tokens=5)):
        await pipe.send(operation)
    assert [charge.amount for charge in book.charged] == [units(Decimal(n) / 1_000_000) for n in (700, 900, 5)]


# A book that cannot be asked


@pytest.mark.parametrize("error", [BookUnavailable("gone"), KeyError("secret")])
async def test_a_book_that_cannot_be_asked_refuses(error):
    """Nobody knows whether there is anything left, which is not the same as having spent it."""
    pipe = budgeted(book=Unasked(error))
    with pytest.raises(BudgetUnavailable, match="the book of budgets cannot be asked") as caught:
        await pipe.send(CHAT)
    assert not isinstance(caught.value, BudgetExceeded)
    assert (caught.value.budget, caught.value.__cause__, pipe.provider.calls) == ("0.003 USD per day", error, [])


@pytest.mark.parametrize(
    ("answer", "settled"),
    [
        (costing("0.0001"), [units(Decimal("0.0001"))]),
        (AttemptTimeout(timer="attempt", elapsed=9.0), [units(WORST)]),
        (ConnectionFailed("refused", phase="connect"), []),
    ],
    ids=repr,
)
@pytest.mark.parametrize("options", [{"unreachable": "allow"}, {"budgets": [Budget(limit=1, per="day", hard=False)]}])
async def test_calls_that_may_go_all_the_same_are_counted_later(options, answer, settled):
    """As they were told to, or as no hard budget is about them: the book gets what they cost, or can have cost."""
    book = Unasked()
    pipe = budgeted(answer, book=book, **options)
    await outcomes(pipe.send(CHAT))
    assert (len(pipe.provider.calls), book.settled) == (1, settled)


async def test_a_book_that_refuses_what_would_fit_is_believed():
    """It may count something that it does not tell."""

    class Strict(MemoryBudgets):
        async def charge(self, charges):
            return Admission(admitted=False, spent=(0,) * len(charges))

    with pytest.raises(BudgetExceeded):
        await budgeted(book=Strict()).send(CHAT)


# Windows


@pytest.mark.parametrize(
    ("per", "before", "after"),
    [
        ("minute", "2026-11-30T18:00:59", "2026-11-30T18:01:00"),
        ("hour", "2026-11-30T18:59:59", "2026-11-30T19:00:00"),
        ("day", "2026-11-30T23:59:59", "2026-12-01T00:00:00"),
        ("week", "2026-11-29T23:59:59", "2026-11-30T00:00:00"),
        ("month", "2028-02-29T23:59:59", "2028-03-01T00:00:00"),
        ("month", "2026-12-31T23:59:59", "2027-01-01T00:00:00"),
    ],
)
async def test_a_window_ends_with_the_calendar(clock, per, before, after):
    """In the last second of it nothing is left, in the next one everything."""
    pipe = budgeted(*[costing("0.0025")] * 2, clock=clock, budgets=[Budget(limit=LIMIT, per=per)])
    at(clock, before)
    assert await outcomes(pipe.send(CHAT), pipe.send(CHAT)) == {"ChatResult": 1, "BudgetExceeded": 1}
    at(clock, after)
    assert await outcomes(pipe.send(CHAT), pipe.send(CHAT)) == {"ChatResult": 1, "BudgetExceeded": 1}


async def test_a_budget_in_total_never_begins_anew(clock):
    """Not after years."""
    pipe = budgeted(costing("0.0025"), clock=clock, budgets=[Budget(limit=LIMIT, per="total")])
    await pipe.send(CHAT)
    clock.offset += 10 * 365 * 86_400
    with pytest.raises(BudgetExceeded):
        await pipe.send(CHAT)


async def test_a_window_that_rolls_counts_the_last_hour(clock):
    """What was spent comes free an hour later, by the minute."""
    at(clock, "2026-11-30T18:00:30")
    pipe = budgeted(costing("0.0025"), clock=clock, budgets=[Budget(limit=LIMIT, per="hour", rolling=True)])
    await pipe.send(CHAT)
    for later in ("2026-11-30T18:59:59", "2026-11-30T19:00:59"):
        at(clock, later)
        with pytest.raises(BudgetExceeded):
            await pipe.send(CHAT)
    at(clock, "2026-11-30T19:01:00")
    await pipe.send(CHAT)


@pytest.mark.parametrize("rolling", [False, True])
async def test_a_clock_that_is_set_back_gives_nothing_twice(clock, rolling):
    """The window that has begun goes on, and the one before is not opened again."""
    pipe = budgeted(*[costing("0.0025")] * 2, clock=clock, budgets=[Budget(limit=LIMIT, per="hour", rolling=rolling)])
    at(clock, "2026-11-30T19:00:00")
    await pipe.send(CHAT)
    at(clock, "2026-11-30T18:10:00")
    with pytest.raises(BudgetExceeded):
        await pipe.send(CHAT)


async def test_what_was_reserved_in_a_window_is_settled_in_it(clock):
    """A stream over midnight belongs to the day on which it began."""
    at(clock, "2026-11-30T23:59:59")
    told = Finished(
        ("stop",), Usage(input_tokens=1, output_tokens=1), cost=Cost(amount=Decimal("0.001"), source="provider")
    )
    pipe = budgeted(streaming(60.0, [told]), clock=clock)
    await (await pipe.send(STREAM)).result()
    assert await spent(pipe) == [0]
    assert len(pipe.book._counters) == 1


# What it tells


async def test_each_threshold_is_told_once_in_a_window(clock):
    """By a hard budget as by a soft one, with what is spent and when the window ends; the next window tells it again."""
    at(clock, "2026-11-30T12:00:00")
    events = []
    budget = Budget(limit="0.01", per="day", hard=False, scope={"tenant": "*"}, thresholds=(0.25, 0.5, 2))
    pipe = budgeted(*[costing("0.0025")] * 9, clock=clock, budgets=[budget])
    pipe.subscribe(lambda event: events.append(event) if isinstance(event, BudgetThresholdReached) else None)
    for _ in range(5):
        await pipe.send(CHAT, tags={"tenant": "a"})
    until = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert [(event.budget, event.threshold, event.spent, event.limit, event.until) for event in events] == [
        ("0.01 USD per day tenant=a", 0.25, Decimal("0.0025"), Decimal("0.01"), until),
        ("0.01 USD per day tenant=a", 0.5, Decimal("0.005"), Decimal("0.01"), until),
    ]
    at(clock, "2026-12-01T00:00:00")
    await pipe.send(CHAT, tags={"tenant": "a"})
    assert [event.threshold for event in events] == [0.25, 0.5, 0.25]
    await pipe.send(CHAT, tags={"tenant": "b"})
    assert events[-1].budget == "0.01 USD per day tenant=b"


async def test_a_threshold_is_told_where_the_truth_is_dearer():
    """It may be passed when a send is settled, too."""
    events = []
    pipe = budgeted(costing("0.0031"), budgets=[Budget(limit=LIMIT, per="total", thresholds=(1.0,))])
    pipe.subscribe(lambda event: events.append(event) if isinstance(event, BudgetThresholdReached) else None)
    await pipe.send(CHAT)
    assert [(event.threshold, event.spent, event.until) for event in events] == [(1.0, Decimal("0.0031"), None)]


async def test_a_threshold_is_about_what_is_settled():
    """What requests under way have reserved passes none, although it is many times the truth."""
    events = []
    budget = Budget(limit="0.001", per="day", hard=False)
    pipe = budgeted(*[costing("0.0001")] * 13, prices=Prices(Decimal("0.0052")), budgets=[budget])
    pipe.subscribe(lambda event: events.append(event) if isinstance(event, BudgetThresholdReached) else None)
    for _ in range(3):
        await pipe.send(CHAT)
    assert events == []
    pipe.provider.script[:0] = [streaming(3600.0)]
    stream = await pipe.send(STREAM)
    for _ in range(10):
        await pipe.send(CHAT)
    assert [(event.threshold, event.spent) for event in events] == [
        (0.5, Decimal("0.0005")),
        (0.8, Decimal("0.0008")),
        (1.0, Decimal("0.001")),
    ]
    assert await spent(pipe) == [Decimal("0.0065")]
    await stream.aclose()


async def test_a_worst_case_that_is_kept_passes_a_threshold():
    """A send of unknown cost counts with it."""
    events = []
    pipe = budgeted(AttemptTimeout(timer="attempt", elapsed=9.0))
    pipe.subscribe(lambda event: events.append(event) if isinstance(event, BudgetThresholdReached) else None)
    await outcomes(pipe.send(CHAT))
    assert [event.threshold for event in events] == [0.5, 0.8]


async def test_what_can_never_fit_stands_against_a_call_from_the_start():
    """Nothing needs to have been asked for that."""
    pipe = budgeted(budgets=[Budget(limit="0.002", per="day")])
    assert pipe.budgets.stands_against(pipe.call(CHAT)) == (
        f"it could cost up to {WORST:f} USD, more than the whole budget '0.002 USD per day'"
    )


async def test_what_stands_against_a_call():
    """As far as this process has seen, in a few words, and without charging anything."""
    budgets = [Budget(limit=LIMIT, per="total", scope={"tenant": "a"}), Budget(limit="0.001", per="total", hard=False)]
    pipe = budgeted(costing("0.0025"), budgets=budgets)
    mine, other = (pipe.call(CHAT, tags={"tenant": tenant}) for tenant in "ab")
    assert pipe.budgets.stands_against(mine) is None
    await pipe.send(CHAT, tags={"tenant": "a"})
    assert pipe.budgets.stands_against(mine) == "the budget '0.003 USD in total tenant=a' has 0.0005 USD left"
    assert pipe.budgets.stands_against(other) is None
    priceless = pipe.call(Chat(model="unknown", messages="hi"), tags={"tenant": "a"})
    assert pipe.budgets.stands_against(priceless) == "no price of it for a chat is known, which a hard budget needs"
    assert await spent(pipe, tenant="a") == [WORST, WORST]


@pytest.mark.parametrize("asked", [{}, {"tenant": "a"}])
@pytest.mark.parametrize("scope", [{}, {"tenant": "a"}, {"model": "*"}, {"model": "*", "kind": "*"}, {"tenant": "*"}])
async def test_what_was_asked_for_stands_against_a_call(tmp_path, clock, scope, asked):
    """What others have spent is known once it was asked for; of one tenant of many where that one was."""
    ledger = SQLiteLedger(tmp_path / "ledger.sqlite")
    book, budget = Knowing(ledger), Budget(limit=LIMIT, per="day", scope=scope)

    def process():
        layer = Budgets(budgets=[budget], book=book, prices=Prices())
        return Pipeline(ScriptedProvider(costing("0.0025")), [layer, CostAccounting(ledger=ledger)], clock=clock), layer

    other, _ = process()
    await other.send(CHAT, tags={"tenant": "a"})
    call = other.call(CHAT, tags={"tenant": "a"})
    assert process()[1].stands_against(call) is None
    _, layer = process()
    assert [state.spent for state in await layer.state(asked, clock=clock)] == [WORST]
    is_kept = scope != {"tenant": "*"} or bool(asked)
    assert [state.spent for state in layer.health()] == ([WORST] if is_kept else [])
    assert (layer.stands_against(call) is not None) is is_kept
    await ledger.aclose()


async def test_nothing_that_was_asked_for_is_kept_of_those_who_spent_nothing():
    """A value that nobody has used does not become one that this process has seen."""
    pipe = budgeted(budgets=[Budget(limit=LIMIT, per="day", scope={"team": "*"})])
    assert await spent(pipe, team="nobody") == [0]
    assert pipe.budgets.health() == []
    assert await spent(pipe) == []


async def test_an_answer_that_a_request_has_overtaken_is_not_kept(clock):
    """The request knows what it has reserved, of which the answer may have been too early to know."""
    book = Slow()
    pipe = budgeted(costing("0.0025"), book=book, clock=clock)
    asking = asyncio.create_task(pipe.budgets.state(clock=clock))
    await book.asked.wait()
    await pipe.send(CHAT)
    book.answers.set()
    assert [state.spent for state in await asking] == [0]
    assert [state.spent for state in pipe.budgets.health()] == [WORST]
    assert pipe.budgets.stands_against(pipe.call(CHAT)) is not None


async def test_a_window_that_is_over_stands_against_nobody(clock):
    """What is known is of yesterday."""
    at(clock, "2026-11-30T12:00:00")
    pipe = budgeted(costing("0.0025"), clock=clock)
    await pipe.send(CHAT)
    assert pipe.budgets.stands_against(pipe.call(CHAT)) is not None
    at(clock, "2026-12-01T00:00:00")
    assert pipe.budgets.stands_against(pipe.call(CHAT)) is None


async def test_health_shows_what_this_process_has_seen(clock):
    """Each budget that was used, with what is spent, its limit and the end of its window; nothing of a window that is over."""
    at(clock, "2026-11-30T12:00:00")
    budgets = [
        Budget(limit=1, per="day", scope={"tenant": "*"}),
        Budget(limit=2, per="hour", rolling=True, hard=False, name="all"),
        Budget(limit=3, per="day", scope={"tenant": "z"}),
    ]
    pipe = budgeted(costing("0.0025"), clock=clock, budgets=budgets)
    assert pipe.health().budgets == ()
    await pipe.send(CHAT, tags={"tenant": "a"})
    until = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert set(pipe.health().budgets) == {
        BudgetState(
            key=("budget", "1 USD per day", "tenant=a"),
            spent=WORST,
            limit=Decimal(1),
            hard=True,
            until=until,
            shown_as="1 USD per day tenant=*",
        ),
        BudgetState(key=("budget", "all", ""), spent=WORST, limit=Decimal(2), hard=False, rolling=True, shown_as="all"),
    }
    assert [(state.name, state.left) for state in pipe.health().budgets] == [
        ("1 USD per day tenant=a", 1 - WORST),
        ("all", 2 - WORST),
    ]
    at(clock, "2026-12-01T12:00:00")
    assert [state.spent for state in pipe.health().budgets] == [0, 0]
    assert "budget   1 USD per day tenant=a  spent=0, limit=1, hard=True" in str(pipe.health())


def test_health_is_told_when_the_loop_is_gone():
    """A clock that has stopped with its loop leaves what was seen last."""
    pipe = budgeted(costing("0.0025"))
    asyncio.run(pipe.send(CHAT))
    assert [state.spent for state in pipe.health().budgets] == [WORST]


async def test_the_state_of_all_budgets_comes_from_the_book():
    """Also what others have spent, of budgets that nobody has used here, and of values that are named."""
    budgets = [
        Budget(limit=1, per="total", scope={"tenant": "a"}),
        Budget(limit=2, per="total", scope={"tenant": "*", "model": "m"}),
        Budget(limit=3, per="total"),
    ]
    book = MemoryBudgets()
    pipe, other = (budgeted(costing("0.0025"), budgets=budgets, book=book) for _ in range(2))

    async def limits(**tags):
        return {(int(state.limit), state.key[2]): state.spent for state in await pipe.budgets.state(tags)}

    assert await limits() == {(1, "tenant=a"): 0, (3, ""): 0}
    await other.send(CHAT, tags={"tenant": "a"})
    assert await limits() == {(1, "tenant=a"): WORST, (3, ""): WORST}
    assert await limits(tenant="a", model="m") == {
        (1, "tenant=a"): WORST,
        (2, "model=m tenant=a"): WORST,
        (3, ""): WORST,
    }
    assert await limits(tenant="b") == {(2, "model=m tenant=b"): 0, (3, ""): WORST}
    await pipe.send(CHAT, tags={"tenant": "b"})
    assert (2, "model=m tenant=b") in await limits()
    assert await limits(model="n") == {(3, ""): 2 * WORST}
    assert await limits(tenant="a") == {(1, "tenant=a"): WORST, (2, "model=m tenant=a"): WORST, (3, ""): 2 * WORST}
    assert await limits(tenant="b", user="u") == {(2, "model=m tenant=b"): WORST, (3, ""): 2 * WORST}
    with pytest.raises(BookUnavailable):
        await budgeted(book=Unasked()).budgets.state()


@pytest.mark.parametrize("is_book", [True, False])
async def test_the_values_of_a_tag_come_from_the_ledger(tmp_path, clock, is_book):
    """Where it is the book, or is handed in beside one: also those that only others have used, the dearest first."""
    ledger = SQLiteLedger(tmp_path / "ledger.sqlite")
    book = Knowing(ledger) if is_book else MemoryBudgets()
    budgets = [Budget(limit=1, per="day", scope={"tenant": "*"}), Budget(limit=2, per="day", scope={"team": "*"})]
    layer = Budgets(budgets=budgets, book=book, prices=Prices())
    script = [costing("0.0001"), costing("0.0003"), costing("0.0002")]
    pipe = Pipeline(ScriptedProvider(*script), [layer, CostAccounting(ledger=ledger)], clock=clock)
    for tags in ({"tenant": "a", "team": "t"}, {"tenant": "b*"}, {"user": "u"}):
        await pipe.send(CHAT, tags=tags)
    fresh = Budgets(budgets=budgets, book=book, prices=Prices())
    given = {} if is_book else {"costs": ledger}

    async def found(of, tags=None):
        return [(state.key[2], state.spent) for state in await of.state(tags, clock=clock, **given)]

    seen = [("tenant=b*", Decimal("0.0003")), ("tenant=a", Decimal("0.0001"))]
    assert await found(fresh) == seen
    assert await found(layer) == [*seen, ("team=t", Decimal("0.0001"))]
    assert await found(fresh, {"user": "u"}) == []
    assert await found(fresh, {"tenant": "c"}) == [("tenant=c", 0)]
    await ledger.aclose()


@pytest.mark.parametrize("kind", ["chat", "*"])
async def test_streamed_chats_of_the_ledger_are_chats(tmp_path, clock, kind):
    """The ledger keeps them apart; whoever has only streamed is known all the same, the dearest first, unknown costs last."""
    ledger = SQLiteLedger(tmp_path / "ledger.sqlite")
    for number, (of, tenant, cost) in enumerate(
        [
            ("chat", "a", "0.1"),
            ("stream", "a", "0.2"),
            ("stream", "b", "0.25"),
            ("embed", "c", "1"),
            ("stream", "d", None),
        ]
    ):
        tags = {"tenant": tenant}
        ledger.opened(
            SendOpened(send_id=str(number), call_id="c", at=clock.wall(), kind=of, model="m", attempt=1, tags=tags)
        )
        amount = None if cost is None else Decimal(cost)
        state = "unknown" if cost is None else "settled"
        ledger.closed(SendClosed(send_id=str(number), state=state, cost=amount))
    budget = Budget(limit=9, per="day", scope={"kind": kind, "tenant": "*"})
    layer = Budgets(budgets=[budget], book=Knowing(ledger), prices=Prices())
    found = [state.key[2] for state in await layer.state(clock=clock)]
    chats = ["kind=chat tenant=a", "kind=chat tenant=b", "kind=chat tenant=d"]
    assert found == (["kind=embed tenant=c", *chats] if kind == "*" else chats)
    await ledger.aclose()


async def test_values_of_the_model_are_known_whatever_tags_are_given(tmp_path, clock):
    """Every call has one: with a tenant, those that this tenant has used."""
    ledger = SQLiteLedger(tmp_path / "ledger.sqlite")
    scope = {"tenant": "*", "model": "*", "kind": "chat"}
    layer = Budgets(budgets=[Budget(limit=1, per="day", scope=scope)], book=Knowing(ledger), prices=Prices())
    pipe = Pipeline(ScriptedProvider(), [layer, CostAccounting(ledger=ledger)], clock=clock)
    for model, tenant in ("ma", "nb"):
        await pipe.send(Chat(model=model, messages="hi"), tags={"tenant": tenant})
    assert [state.key[2] for state in await layer.state({"tenant": "a"}, clock=clock)] == ["kind=chat model=m tenant=a"]
    assert await layer.state({"model": "m"}, clock=clock) == ()
    assert await layer.state({"tenant": "a", "kind": "embed"}, clock=clock) == ()
    await ledger.aclose()


async def test_many_tenants_are_not_kept_for_ever(few_counters):
    """Beyond some thousand counters those that have spent least are forgotten here, and the book still knows them."""
    budgets = [Budget(limit=1, per="total", scope={"tenant": "*"})]
    pipe = budgeted(budgets=budgets, prices=Prices(Decimal("0.1")))
    await pipe.send(CHAT, tags={"tenant": "dear"})
    for number in range(100):
        pipe.budgets.stands_against(pipe.call(CHAT, tags={"tenant": str(number)}))
    assert len(pipe.budgets._tally._counters) <= few_counters
    assert [state.key[2] for state in pipe.health().budgets] == ["tenant=dear"]


async def test_a_threshold_is_told_once_also_of_a_counter_that_was_forgotten(few_counters, clock):
    """Nor is a counter forgotten of which something is reserved; the next window tells again."""
    at(clock, "2026-11-30T12:00:00")
    told = Counter()
    budget = Budget(limit=LIMIT, per="day", scope={"tenant": "*"}, hard=False, thresholds=(0.5,))
    pipe = budgeted(streaming(3600.0), *[costing("0.0025")] * 301, clock=clock, budgets=[budget])
    pipe.subscribe(lambda event: told.update([event.budget]) if isinstance(event, BudgetThresholdReached) else None)
    stream = await pipe.send(STREAM, tags={"tenant": "slow"})
    for _ in range(2):
        for number in range(100):
            await pipe.send(CHAT, tags={"tenant": str(number)})
    tally = pipe.budgets._tally
    assert (len(told), set(told.values()), len(tally._counters) <= few_counters) == (100, {1}, True)
    await stream.aclose()
    await pipe.send(CHAT, tags={"tenant": "slow"})
    assert told["0.003 USD per day tenant=slow"] == 1
    at(clock, "2026-12-01T12:00:00")
    for number in range(100):
        await pipe.send(CHAT, tags={"tenant": str(number)})
    assert set(told.values()) == {1, 2}
    assert told["0.003 USD per day tenant=7"] == 2
    assert len(tally._told) <= 100


async def test_what_is_remembered_of_forgotten_counters_is_bounded(few_counters, monkeypatch):
    """Of the latest."""
    monkeypatch.setattr(_budget_tally, "_MOST_TOLD", 10)
    budget = Budget(limit=LIMIT, per="total", scope={"tenant": "*"}, hard=False, thresholds=(0.5,))
    pipe = budgeted(*[costing("0.0025")] * 100, budgets=[budget])
    for number in range(100):
        await pipe.send(CHAT, tags={"tenant": str(number)})
    assert 0 < len(pipe.budgets._tally._told) <= 10


async def test_to_ask_what_is_spent_makes_nobody_forget(few_counters, tmp_path, clock):
    """Those that only others have used are looked at and not kept."""
    ledger = SQLiteLedger(tmp_path / "ledger.sqlite")
    budgets = [Budget(limit=1, per="day", scope={"tenant": "*"})]
    pipe = Pipeline(ScriptedProvider(), [CostAccounting(ledger=ledger)], clock=clock)
    for number in range(40):
        await pipe.send(CHAT, tags={"tenant": str(number)})
    layer = Budgets(budgets=budgets, book=Knowing(ledger), prices=Prices())
    mine = Pipeline(ScriptedProvider(), [layer, CostAccounting(ledger=ledger)], clock=clock)
    await mine.send(CHAT, tags={"tenant": "7"})
    assert len(await layer.state(clock=clock)) == 40
    assert [counter.text for counter in layer._tally._counters.values()] == ["tenant=7"]
    await ledger.aclose()


async def test_a_book_that_lost_its_counters(caplog):
    """What is under way is settled with its whole cost where nothing of it is held, and there is one word in the log."""
    book = Losing()
    budget = Budget(limit="0.025 USD", per="total")
    script = [streaming(3600.0) for _ in range(9)] + [costing("0.0025")] * 10
    pipe = budgeted(*script, budgets=[budget], book=book)
    streams = [await pipe.send(STREAM) for _ in range(9)]
    calls = pipe.provider.calls[:]
    book.lose()
    for _ in range(9):
        await pipe.send(CHAT)
    assert pipe.budgets.health()[0].spent == 9 * WORST
    for call in calls:
        tell(call, SendClosed(send_id="s", state="settled", cost=Decimal("0.0001")))
    assert await spent(pipe) == [9 * WORST + 9 * Decimal("0.0001")] == [pipe.budgets.health()[0].spent]
    assert await outcomes(pipe.send(CHAT)) == {"BudgetExceeded": 1}
    assert caplog.text.count("has lost what was spent of '0.025 USD in total' in this window, and begun anew") == 1
    for stream in streams:
        await stream.aclose()


async def test_a_cost_that_is_what_was_reserved_is_settled_too():
    """As the counter may have been lost; a book that tells no lives hears of a difference alone."""
    pipe = budgeted(costing(WORST), book=Noting())
    await pipe.send(CHAT)
    assert [(one.amount, one.held, one.whole) for one in pipe.book.given] == [(0, units(WORST), units(WORST))]


async def test_an_empty_tag_is_none():
    """A call with one counts against no budget for each value, so there is none to be told of."""
    pipe = budgeted(budgets=[Budget(limit=1, per="day", scope={"tenant": "*"}), Budget(limit=2, per="day")])
    await pipe.send(CHAT, tags={"tenant": ""})
    assert [state.key[1] for state in await pipe.budgets.state({"tenant": ""})] == ["2 USD per day"]
    assert [state.key[1] for state in pipe.health().budgets] == ["2 USD per day"]


@pytest.mark.parametrize(
    ("limit", "units_of"), [("25.99 USD", 25_990_000_000_000), ("0.123456789012", 123_456_789_012)]
)
def test_a_limit_is_what_was_written_whatever_the_program_rounds_to(limit, units_of):
    """Its own decimals may have two digits."""
    with localcontext(Context(prec=2, rounding=ROUND_UP)):
        budget = Budget(limit=limit, per="day")
        assert (budget.units, budget.title) == (units_of, f"{limit.removesuffix(' USD')} USD per day")


@pytest.mark.parametrize(
    ("scope", "shown_as"),
    [
        ({}, "day"),
        ({"tenant": "*"}, "day tenant=*"),
        ({"tenant": "acme"}, "day tenant=acme"),
        ({"user": "*"}, "day user=*"),
        ({"user": "ada"}, "day user"),
        ({"model": "m", "kind": "chat", "session": "s", "team": "t"}, "day model=m kind=chat session team"),
        ({"feature": "f", "environment": "e"}, "day feature=f environment=e"),
    ],
)
def test_figures_show_the_scope_that_a_budget_names(scope, shown_as):
    """Keys of tags tell budgets apart, and the values of those that are nobody's name."""
    assert Budget(limit=1, per="day", scope=scope, name="day").shown_as == shown_as


async def test_a_refusal_tells_figures_no_value_that_a_caller_gave():
    """People read whose budget it was; figures and traces have the name of the budget."""
    pipe = budgeted(budgets=[Budget(limit="0.001", per="day", scope={"user": "*"}, name="each")])
    with pytest.raises(BudgetExceeded) as caught:
        await pipe.send(CHAT, tags={"user": "ada"})
    assert (caught.value.budget, caught.value.shown_as) == ("each user=ada", "each user=*")


# Its place and its options


async def test_closing_the_stack_closes_the_book():
    """As what it is made of."""
    book = Unasked()
    await budgeted(book=book).aclose()
    assert book.closed


@pytest.mark.parametrize(
    "outer", [Retry(), Routing(), Batching(), Cache(MemoryStore()), CircuitBreaker(), ConcurrencyLimit()]
)
def test_an_order_that_cannot_work_is_refused(outer):
    """Each with its reason."""
    layer = Budgets(budgets=[], book=MemoryBudgets(), prices=Prices())
    Pipeline(ScriptedProvider(), [outer, layer, Timeout()])
    with pytest.raises(ConfigurationError, match=f"Budgets must stand after {type(outer).__name__} in the stack"):
        Pipeline(ScriptedProvider(), [layer, outer])


def test_the_defaults():
    """Refuse what cannot be counted, and answers as long as the service gives them."""
    layer = Budgets(budgets=[], book=MemoryBudgets(), prices=Prices())
    assert (layer.budgets, layer.abilities, layer.unpriced) == ((), None, None)
    assert (layer.unreachable, layer.answer_tokens) == ("refuse", 16_384)
    budget = Budget(limit="25 USD", per="day")
    assert (budget.scope, budget.hard, budget.rolling, budget.thresholds, budget.name) == (
        {}, True, False, (0.5, 0.8, 1.0), "",
    )  # fmt: skip


def str_of(value):
    """Name a case; Python refuses to print a number of thousands of digits."""
    try:
        return repr(value)
    except ValueError:
        return "vast"


@pytest.mark.parametrize("limit", ["25 USD", "25", " 25usd ", "2_5 USD", 25, Decimal(25), Decimal("25.00")], ids=repr)
def test_ways_to_write_a_limit(limit):
    """With and without the currency, as a whole number or a decimal one."""
    budget = Budget(limit=limit, per="day")
    assert (budget.dollars, budget.units) == (25, 25 * 10**12)
    assert budget == Budget(limit=25, per="day")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"limit": 0.5}, "limit must not be a float, which is hardly ever exact: write '0.5 USD'"),
        ({"limit": "1,000 USD"}, "limit must be written without commas, such as '1000 USD', got '1,000 USD'"),
        (
            {"limit": "0.0000000000001 USD"},
            "limit must be at least 0.000000000001 USD, the least that is counted, got '0.0000000000001 USD'",
        ),
        ({"limit": "25 EUR"}, "limit must be US dollars above 0 and up to 9000000, such as '25 USD', got '25 EUR'"),
        ({"limit": "1.2.3"}, "limit must be"),
        ({"limit": "-3"}, "limit must be"),
        ({"limit": 0}, "limit must be"),
        ({"limit": True}, "limit must be"),
        ({"limit": None}, "limit must be"),
        ({"limit": Decimal("NaN")}, "limit must be"),
        ({"limit": Decimal("Infinity")}, "limit must be"),
        ({"limit": 9_000_001}, "limit must be"),
        ({"limit": 10**6_000}, "limit must be"),
        ({"limit": Decimal("1e-13")}, "limit must be"),
        ({"per": "fortnight"}, "per must be one of minute, hour, day, week, month, total, got 'fortnight'"),
        ({"scope": "tenant=a"}, "scope must be names of tags with their values"),
        ({"scope": {"tenant": ""}}, "scope must be names of tags with their values"),
        ({"scope": {"tenant": 7}}, "scope must be names of tags with their values"),
        (
            {"scope": {"tenant": "a*"}},
            "scope must name a value as it is, or '*' for each value, as there are no patterns, got 'a*' for 'tenant'",
        ),
        (
            {"limit": 1, "per": "day", "scope": {"tenant": "\ud800"}},
            r"scope must be text, which half of a surrogate pair is not, got '\ud800' for 'tenant'",
        ),
        (
            {"scope": {"kind": "chats"}},
            "scope must name a kind out of chat, stream, complete, embed, image or '*', got 'chats'",
        ),
        ({"hard": "no"}, "hard must be of type bool, got 'no'"),
        ({"rolling": 1}, "rolling must be of type bool, got 1"),
        ({"per": "total", "rolling": True}, "rolling must be False for a budget in total"),
        ({"thresholds": (0,)}, "thresholds must be parts of the limit"),
        ({"thresholds": (50,)}, "thresholds must be parts of the limit up to 2, such as 0.8 for 80 percent, got (50,)"),
        ({"thresholds": (float("nan"),)}, "thresholds must be parts of the limit"),
        ({"thresholds": "0.5"}, "thresholds must be parts of the limit"),
        ({"thresholds": (True,)}, "thresholds must be parts of the limit"),
        ({"name": None}, "name must be of type str, got None"),
    ],
    ids=str_of,
)
def test_a_budget_that_cannot_work_is_refused(options, sentence):
    """With a sentence that says what was given."""
    with pytest.raises(ValueError) as caught:
        Budget(**({"limit": 1, "per": "day"} | options))
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"budgets": Budget(limit=1, per="day")}, "budgets must be a list of Budget"),
        ({"budgets": ["25 USD"]}, "budgets must be a list of Budget"),
        ({"book": None}, "book must be given, got None"),
        ({"book": "redis://:secret@host"}, "book must be None or an object with charge()"),
        ({"prices": None}, "prices must be given, got None"),
        ({"prices": "list"}, "prices must be None or an object with chat_cost()"),
        ({"abilities": "all"}, "abilities must be None or an object with output_limit()"),
        (
            {"unpriced": 0.5},
            "unpriced must be None or US dollars above 0 as a Decimal, such as Decimal('0.01'), got a float",
        ),
        ({"unpriced": Decimal(-1)}, "unpriced must be None or US dollars"),
        ({"unpriced": Decimal("NaN")}, "unpriced must be None or US dollars"),
        ({"unpriced": 10**6_000}, "unpriced must be None or US dollars"),
        ({"unpriced": True}, "unpriced must be None or US dollars"),
        ({"unreachable": "wait"}, "unreachable must be 'refuse' or 'allow', got 'wait'"),
        ({"answer_tokens": 0}, "answer_tokens must be a whole number >= 1, got 0"),
    ],
    ids=str_of,
)
def test_options_that_cannot_work_are_refused(options, sentence):
    """With a sentence that says what was given, and no secret."""
    with pytest.raises(ValueError) as caught:
        Budgets(**({"budgets": [], "book": MemoryBudgets(), "prices": Prices()} | options))
    assert str(caught.value).startswith(sentence)
    assert "secret" not in str(caught.value)
