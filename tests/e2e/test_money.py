"""Costs, budgets, routes and prices through both clients, over sockets."""

import asyncio
import csv
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from resilient_ai import (
    AsyncClient,
    Budget,
    BudgetExceeded,
    BudgetRefused,
    BudgetThresholdReached,
    Chat,
    Client,
    ConfigurationError,
    InvalidInput,
    Settings,
    Stream,
)
from resilient_ai.middleware import Budgets, Routing
from resilient_ai.simulator import Fault

pytestmark = pytest.mark.anyio

LARGE = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
SMALL = "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo"
EMBEDDER = "BAAI/bge-m3"


class OneByOne:
    """Both clients as one to write tests for: what the blocking one returns can be awaited as well."""

    def __init__(self, ai):
        self._ai = ai

    def __getattr__(self, name):
        found = getattr(self._ai, name)
        if not callable(found):
            return OneByOne(found)
        return lambda *args, **options: asyncio.to_thread(found, *args, **options)


@pytest.fixture(params=[AsyncClient, Client], ids=["async", "blocking"])
async def money(request, sim, settings):
    """Make a client with some options; the blocking one is asked in threads."""
    made = []

    def make(**options):
        ai = request.param("k", base_url=sim.base_url, settings=settings, **options)
        made.append(ai)
        return ai if isinstance(ai, AsyncClient) else OneByOne(ai)

    yield make
    for ai in made:
        await (ai.aclose() if isinstance(ai, AsyncClient) else asyncio.to_thread(ai.close))


async def soon(found):
    """Return what either client gave."""
    return await found if asyncio.iscoroutine(found) else found


async def test_what_was_spent_can_be_asked_for(money, sim, tmp_path):
    """Sums are those of the server's bill; a hit is not spent but saved; a file holds a row for each request."""
    ai = money()
    await ai.chat(LARGE, "hi", temperature=0)
    again = await ai.chat(LARGE, "hi", temperature=0)
    await ai.embed(EMBEDDER, ["a", "b"])
    today = datetime.now(UTC).date()
    total = await ai.costs.total()
    assert (again.cache, total.sends, total.unknown) == ("hit", 2, 0)
    assert total.cost == sim.stats().bill
    assert [row.key for row in await ai.costs.by("model", day=True)] == [
        (EMBEDDER, today.isoformat()),
        (LARGE, today.isoformat()),
    ]
    assert [call.models for call in await ai.costs.calls()] == [(EMBEDDER,), (LARGE,)]
    assert [send.kind for send in await ai.costs.sends(model=LARGE)] == ["chat"]
    assert await ai.costs.wasted() == 0
    saved = await ai.costs.saved_by_cache()
    assert (saved.calls, saved.saved) == (1, again.saved)
    assert await ai.costs.export(tmp_path / "costs.csv") == 2
    rows = list(csv.DictReader((tmp_path / "costs.csv").read_text().splitlines()))
    assert sum(Decimal(row["cost"]) for row in rows) == total.cost


async def test_a_budget_admits_what_it_has_room_for(money, sim):
    """Of twenty calls at once one is sent; each of the others says what is left, and it is told what was spent."""
    sim.faults.rate(Fault.delay(0.3), 1.0)
    told = []
    soft = Budget(limit="0.000001 USD", per="day", hard=False, scope={"tenant": "b"}, thresholds=(1.0,))
    ai = money(budgets=[Budget(limit="0.003 USD", per="day", scope={"tenant": "a"}, name="of a"), soft])
    await soon(ai.subscribe(told.append))
    options = {"max_tokens": 7_500, "temperature": 0.5}
    view = ai.with_options(tags={"tenant": "a"})
    view = view if isinstance(ai, AsyncClient) else OneByOne(await view)
    answers = await asyncio.gather(*(view.chat(LARGE, "hi", **options) for _ in range(20)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BudgetExceeded)]
    assert (len(refused), sim.stats().requests) == (19, 1)
    assert {error.budget for error in refused} == {"of a tenant=a"}
    assert [event.budget for event in told if isinstance(event, BudgetRefused)] == ["of a tenant=a"] * 19
    assert all(error.left < Decimal("0.003") and 0 < error.retry_after <= 86_400 for error in refused)
    (state,) = await ai.budgets(tenant="a")
    assert (state.spent, state.limit) == (sim.stats().bill, Decimal("0.003"))
    assert await ai.budgets(tenant="c") == ()
    other = ai.with_options(tags={"tenant": "b"})
    other = other if isinstance(ai, AsyncClient) else OneByOne(await other)
    cost = (await other.chat(LARGE, "hi", **options)).cost.amount
    assert [(event.threshold, event.spent) for event in told if isinstance(event, BudgetThresholdReached)] == [
        (1.0, cost)
    ]


async def test_a_view_is_told_of_its_own_money(money):
    """Costs and budgets of a view with tags are those of calls with these tags."""
    ai = money(budgets=[Budget(limit=1, per="day", scope={"tenant": "*"})])
    views = {}
    for tenant in ("acme", "globex"):
        view = ai.with_options(tags={"tenant": tenant})
        views[tenant] = view if isinstance(ai, AsyncClient) else OneByOne(await view)
        await views[tenant].chat(LARGE, "hi " * len(tenant), temperature=0.5)
    whole, acme = await ai.costs.total(), await views["acme"].costs.total()
    assert (whole.sends, acme.sends) == (2, 1)
    assert whole.cost == acme.cost + (await views["globex"].costs.total()).cost
    assert [row.key for row in await views["acme"].costs.by("tenant")] == [("acme",)]
    assert [state.spent for state in await views["acme"].budgets()] == [acme.cost]
    for question in (views["acme"].costs.total, views["acme"].budgets):
        with pytest.raises(InvalidInput, match="tenant: this view is about 'acme' alone, got 'globex'"):
            await question(tenant="globex")
        with pytest.raises(InvalidInput, match=r"kind: one of chat, .*, got 'banana'"):
            await question(kind="banana")


async def test_a_budget_of_chats_holds_for_streams(money, sim):
    """Whoever streams does not pass it by, and its counter begins with what was streamed before."""
    small = {"max_tokens": 10, "temperature": 0.5}

    async def stream(ai):
        return await soon((await soon(ai.send(Stream(model=LARGE, messages="hi", **small)))).result())

    first = money()
    await stream(first)
    spent = (await first.costs.total()).cost
    assert spent == sim.stats().bill
    ai = money(budgets=[Budget(limit=spent, per="day", scope={"kind": "chat"})])
    for ask in (stream(ai), soon(ai.chat(LARGE, "hi", **small))):
        with pytest.raises(BudgetExceeded, match="kind=chat"):
            await ask
    assert sim.stats().requests == 1
    assert [row.key for row in await ai.costs.by("kind")] == [("stream",)]


async def test_a_budget_outlives_its_client(money):
    """What one client has spent today the next one cannot spend again."""
    budgets = [Budget(limit="0.0001", per="total")]
    first = money(budgets=budgets)
    await first.chat(LARGE, "hi " * 200, max_tokens=50)
    (before,) = await first.budgets()
    second = money(budgets=budgets)
    assert await second.budgets() == (before,)
    with pytest.raises(BudgetExceeded):
        await second.chat(LARGE, "hi " * 200, max_tokens=100)


async def test_a_budget_counts_what_was_spent_before_there_was_one(money):
    """The book of costs knows it."""
    without = money()
    spent = (await without.chat(LARGE, "hi", max_tokens=50)).cost.amount
    await without.ledger.flush()
    ai = money(budgets=[Budget(limit=1, per="month")])
    assert [state.spent for state in await ai.budgets()] == [spent]


async def test_a_route_is_explained_and_taken(money, sim):
    """The cheapest of those that "auto" stands for is asked, and the answer says what was considered."""
    ai = money(routing=Routing(models=[LARGE, SMALL, EMBEDDER], prefer="cheapest", explore=0))
    told = await soon(ai.explain(Chat(model="auto", messages="hi")))
    assert [(one.model, one.place) for one in told] == [(SMALL, 1), (LARGE, 2), (EMBEDDER, None)]
    assert sim.stats().requests == 0
    answer = await ai.chat("auto", "hi")
    assert (answer.served_by, [one.model for one in answer.considered]) == (SMALL, [one.model for one in told])


async def test_the_catalogue_is_brought_up_to_date(money):
    """Prices that are read from the server count from the next call on, for costs and for routes."""
    ai = money()
    changes = await ai.catalogue.refresh()
    assert changes.failed == ()
    assert (await soon(ai.catalogue.get(LARGE))).price_as_of == datetime.now(UTC).date().isoformat()


async def test_settings_reach_budgets_routes_and_prices(sim, tmp_path):
    """What arguments can say, settings can say as well."""
    prices = tmp_path / "prices.toml"
    prices.write_text(f'[models."{SMALL}"]\ninput_per_1m = 5\noutput_per_1m = 5\n')
    settings = Settings(
        home=tmp_path,
        budgets=[Budget(limit=1, per="day")],
        auto_models=(LARGE, SMALL),
        auto_prefer="cheapest",
        price_file=prices,
    )
    async with AsyncClient("k", base_url=sim.base_url, settings=settings) as ai:
        assert (await ai.chat("auto", "hi", temperature=0.5)).served_by == LARGE
        assert ai.middleware(Budgets).book is ai.ledger
        assert [state.limit for state in await ai.budgets()] == [1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stack": [], "budgets": []}, "a stack of your own holds its own Budgets and Routing"),
        ({"stack": [], "routing": Routing()}, "a stack of your own holds its own Budgets and Routing"),
        ({"budgets": ["25 USD"]}, "budgets: each must be a Budget, got '25 USD'"),
        ({"budgets": Budget(limit=1, per="day")}, "budgets: a list of Budget, got Budget"),
        ({"routing": "cheapest"}, "routing: a Routing, got 'cheapest'"),
    ],
)
@pytest.mark.parametrize("client", [AsyncClient, Client])
async def test_what_cannot_be_is_refused(client, options, sentence, tmp_path):
    """It is said when the client is built."""
    with pytest.raises(ConfigurationError, match=sentence):
        client("k", settings=Settings(home=tmp_path), **options)


async def test_a_stack_without_budgets_has_none_to_tell_of():
    """As with the cache and the ledger."""
    async with AsyncClient("k", stack=[]) as ai:
        assert await ai.budgets() == ()
        with pytest.raises(ConfigurationError, match="no Routing"):
            ai.explain(Chat(model="auto", messages="hi"))
        with pytest.raises(ConfigurationError, match="no CostAccounting"):
            _ = ai.costs
