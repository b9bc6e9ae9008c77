"""Budgets over real sockets: what the simulator bills never exceeds a hard limit, whoever shares the book."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from decimal import Decimal

import pytest

from resilient_ai import AsyncClient, BudgetExceeded, BudgetThresholdReached, Client, ResilientAIError, Settings
from resilient_ai.core.messages import user
from resilient_ai.middleware import Budget
from resilient_ai.simulator import Fault
from resilient_ai.testing import PIXEL

from ..stores.redis_server import start_redis  # noqa: TID252 - the tests have no package above them

pytestmark = pytest.mark.anyio

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
TIGHT = Budget(limit="0.003 USD", per="total")
# 7,500 tokens of output at 0.32 USD per million and a short prompt: 0.0024 USD.
LONG = {"max_tokens": 7_500}


@pytest.fixture
def redis(tmp_path_factory):
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def settings(request, tmp_path):
    if request.param == "sqlite":
        return Settings(home=tmp_path, cache="off")
    return Settings(home=tmp_path, cache="off", budget_redis_url=request.getfixturevalue("redis").url)


@contextlib.asynccontextmanager
async def clients(sim, settings, *budgets, count=2):
    """Some clients of the same settings, as so many processes would have them."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(AsyncClient("k", base_url=sim.base_url, settings=settings, budgets=budgets))
            for _ in range(count)
        ]


async def outcomes(*calls):
    found = await asyncio.gather(*calls, return_exceptions=True)
    return Counter(type(one).__name__ for one in found)


def quiet(sim):
    """Wait until the simulator has ended everything, and billed it."""
    until = time.monotonic() + 10
    while sim.stats().in_flight:
        assert time.monotonic() < until
        time.sleep(0.01)


async def test_of_twenty_calls_at_once_one_is_admitted(sim, settings):
    """For the others nothing is sent, and afterwards the budget knows the true cost."""
    sim.faults.rate(Fault.delay(1.0), 1.0)
    async with clients(sim, settings, TIGHT) as (one, other):
        found = await outcomes(*(ai.chat(LLAMA, "hi", **LONG) for ai in [one, other] * 10))
        assert found == {"ChatResult": 1, "BudgetExceeded": 19}
        stats = sim.stats()
    # What each of them has settled is written when it is closed, at the latest.
    async with clients(sim, settings, TIGHT, count=1) as (later,):
        (state,) = await later.budgets()
    assert (stats.requests, state.spent) == (1, stats.bill)


async def test_every_client_shows_the_budgets_of_all_values(sim, tmp_path):
    """Also of tenants that only another process has served, as the command line does."""
    settings = Settings(home=tmp_path, cache="off")
    async with clients(sim, settings, Budget(limit=1, per="total", scope={"tenant": "*"})) as (one, other):
        for tenant in "ab":
            await one.with_options(tags={"tenant": tenant}).chat(LLAMA, "hi", max_tokens=20)
        await one.ledger.flush()
        found = {state.name: state.left for state in await other.budgets()}
    assert found.keys() == {"1 USD in total tenant=a", "1 USD in total tenant=b"}
    assert all(left < 1 for left in found.values())


async def test_thresholds_are_told_at_the_truth(sim, tmp_path):
    """A soft budget that a single worst case is above tells each threshold when as much has been spent, and not before."""
    settings, told = Settings(home=tmp_path, cache="off"), []
    budget = Budget(limit="0.0002", per="total", hard=False)

    def listen(event):
        if isinstance(event, BudgetThresholdReached):
            told.append((event.threshold, event.spent))

    async with clients(sim, settings, budget, count=1) as (ai,):
        ai.subscribe(listen)
        bill = [(await ai.chat(LLAMA, "Tell me of tides. " * 20)).cost.amount for _ in range(3)]
        assert sum(bill) < Decimal("0.0001")
        assert told == []
        while sim.stats().bill < Decimal("0.0002"):
            await ai.chat(LLAMA, "Tell me of tides. " * 20)
    assert [threshold for threshold, _ in told] == [0.5, 0.8, 1.0]
    assert all(0 <= spent - Decimal("0.0002") * Decimal(str(part)) <= max(bill) for part, spent in told)


async def test_the_bill_never_exceeds_a_budget(sim, settings):
    """A mix of all operations with faults, cancels and streams that are left: two tenants, two clients, one book."""
    chance = random.Random(5)
    sim.faults.rate(Fault.status(500), 0.1, seed=1)
    sim.faults.rate(Fault.delay(0.02), 0.3, seed=2)
    sim.faults.rate(Fault.cut(after=2), 0.1, seed=3)
    budgets = [Budget(limit="0.004", per="total"), Budget(limit="0.0025", per="total", scope={"tenant": "*"})]

    refused = []

    async def work(ai, n):
        ai = ai.with_options(tags={"tenant": chance.choice("ab")})
        kind, tokens = chance.randrange(5), chance.choice([10, 200, 2_000])
        try:
            async with asyncio.timeout(chance.choice([0.01, 5, 5])):
                if kind == 0:
                    await ai.embed("BAAI/bge-m3", [f"text {n} {m}" for m in range(30)])
                elif kind == 1:
                    await ai.image("black-forest-labs/FLUX-1-schnell", "dusk", size="256x256", steps=1)
                elif kind == 2:
                    async with ai.stream(LLAMA, "Tell me of tides. " * 20, max_tokens=tokens) as stream:
                        async for _ in stream:
                            if chance.random() < 0.2:
                                break
                elif kind == 3:
                    await ai.complete(LLAMA, "Tides are", max_tokens=tokens)
                else:
                    await ai.chat(LLAMA, f"What is {n} * 7?", max_tokens=tokens)
        except BudgetExceeded as error:
            refused.append(error)
        except (ResilientAIError, TimeoutError):
            pass

    async with clients(sim, settings, *budgets) as both:
        await asyncio.gather(*(work(both[n % 2], n) for n in range(300)))
        await asyncio.to_thread(quiet, sim)
        spent = {state.limit: state.spent for state in await both[0].budgets()}
    assert all(amount <= limit for limit, amount in spent.items())
    assert Decimal(0) < sim.stats().bill <= Decimal("0.004")
    assert refused
    assert all(error.left < error.limit for error in refused)


async def test_the_worst_case_is_above_the_bill(sim, tmp_path):
    """Whatever is asked: with room for exactly the worst case nothing more is ever billed."""
    tool = {"name": "tides", "description": "The tides of a port.", "parameters": {"type": "object", "properties": {}}}
    async with AsyncClient("k", base_url=sim.base_url, settings=Settings(home=tmp_path, cache="off")) as ai:
        costs = {}
        for name, ask in {
            "short": lambda ai: ai.chat(LLAMA, "hi", max_tokens=50),
            "greek": lambda ai: ai.chat(LLAMA, "παλίρροια " * 50, max_tokens=50),
            "tools": lambda ai: ai.chat(LLAMA, "tides of Kiel?", tools=[tool], max_tokens=50),
            "picture": lambda ai: ai.chat("Qwen/Qwen3-VL-30B-A3B-Instruct", [user("what?", PIXEL)], max_tokens=50),
            "several": lambda ai: ai.chat(LLAMA, "hi", n=3, max_tokens=50),
            "dear": lambda ai: ai.chat(LLAMA, "hi", service_tier="priority", max_tokens=50),
            "vectors": lambda ai: ai.embed("BAAI/bge-m3", ["παλίρροια"] * 20),
        }.items():
            answer = await ask(ai)
            async with clients(
                sim, Settings(home=tmp_path / name, cache="off"), Budget(limit="0.000001", per="total"), count=1
            ) as (poor,):
                with pytest.raises(BudgetExceeded, match="could cost") as caught:
                    await ask(poor)
            worst = Decimal(str(caught.value).split("could cost ")[1].split(" USD")[0])
            costs[name] = (answer.cost.amount, worst)
    assert all(0 < cost <= worst for cost, worst in costs.values()), costs


def test_the_blocking_client_keeps_to_budgets(sim, tmp_path):
    """As the other one."""
    with Client("k", base_url=sim.base_url, settings=Settings(home=tmp_path, cache="off"), budgets=[TIGHT]) as ai:
        assert ai.chat(LLAMA, "hi", **LONG).text
        with pytest.raises(BudgetExceeded, match="USD in total"):
            ai.chat(LLAMA, "hi", max_tokens=10_000)
    assert sim.stats().requests == 1
