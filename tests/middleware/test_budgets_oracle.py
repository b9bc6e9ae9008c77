"""Budgets against a provider that keeps its own bill: whatever happens to calls, no hard limit is exceeded, and no money is lost."""

import asyncio
import contextlib
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilient_ai.core.budgets import dollars
from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import AttemptTimeout, ConnectionFailed, ResilientAIError, ServerFailed
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import Budget, Budgets, CostAccounting, Hedge, Retry
from resilient_ai.stores import MemoryBudgets
from resilient_ai.testing import FakeClock, ScriptedSource, chat_result, run

WORST = 100  # in units of a counter, as everything here
IN_ALL, A_MINUTE = 450, 250

COSTS = st.integers(0, WORST)
ENDS = (
    "answered",
    "answered",
    "refused",
    "not sent",
    "cut off",
    "timed out",
    "cancelled",
    "closed",
    "abandoned",
    "bug",
)
CALLS = st.lists(
    st.tuples(
        st.floats(0, 100),  # when it begins
        st.sampled_from("ab"),  # whose it is
        st.sampled_from(["chat", "stream"]),
        st.lists(st.tuples(st.sampled_from(ENDS), COSTS, st.floats(0, 3)), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=12,
)


class Prices:
    def chat_cost(self, model, **amounts):
        return dollars(WORST)

    embedding_cost = image_cost = chat_cost


class Billing:
    """A provider whose requests end as they are told, and which knows best what each has cost, also where it tells nobody."""

    origin = "https://billing.test/v1"

    def __init__(self):
        self.plans, self.bill, self.certain = {}, [], True

    async def __call__(self, call):
        plan = self.plans[call.tags["n"]]
        end, cost, seconds = plan.pop(0) if len(plan) > 1 else plan[0]
        call.send_started(leaving=end != "not sent")
        if end not in {"refused", "not sent"}:
            self.bill.append((call.clock.monotonic(), call.tags["tenant"], cost))
            self.certain &= end == "answered"
        failures = {
            "refused": ServerFailed("boom", status=500),
            "not sent": ConnectionFailed("refused", phase="connect"),
            "timed out": AttemptTimeout(timer="attempt", elapsed=seconds),
            "bug": KeyError("a bug"),
        }
        told = Cost(amount=dollars(cost), source="provider")
        try:
            await asyncio.sleep(3600 if end == "cancelled" else seconds)
        except asyncio.CancelledError:
            self.certain = False
            raise
        if end in failures:
            raise failures[end]
        if call.operation.kind == "chat":
            return chat_result(cost=told)
        last = {
            "answered": [Finished(("stop",), model="m", cost=told)],
            "cut off": ConnectionFailed("cut", phase="receive"),
        }
        source = ScriptedSource([1.0, last.get(end, 3600.0)])
        return StreamResult(source, model="m", first=[TextDelta("Hello")], clock=call.clock)

    async def aclose(self):
        pass


async def make(pipe, number, call):
    """One call of a user, and what the user does with it."""
    begin, tenant, kind, plan = call
    await asyncio.sleep(begin)
    pipe.provider.plans[str(number)] = list(plan)
    operation = (Chat if kind == "chat" else Stream)(model="m", messages="hi")
    with contextlib.suppress(ResilientAIError, KeyError, TimeoutError):
        async with asyncio.timeout(20):
            result = await pipe.send(operation, tags={"tenant": tenant, "n": str(number)})
            if kind == "chat":
                return
            if plan[-1][0] in {"closed", "abandoned"}:
                pipe.provider.certain = False
                if plan[-1][0] == "closed":
                    await result.aclose()
                return
            await result.result()


@given(calls=CALLS)
@settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_mix_of_calls_exceeds_a_hard_limit(calls):
    """Failures, retries, hedges, cancels, streams that end in all ways, and unknown ends, of two tenants with nested budgets."""
    provider = Billing()
    budgets = [
        Budget(limit=dollars(IN_ALL), per="total"),
        Budget(limit=dollars(A_MINUTE), per="minute", rolling=True, scope={"tenant": "*"}),
        Budget(limit=dollars(1), per="day", hard=False),
    ]
    layer = Budgets(budgets=budgets, book=MemoryBudgets(), prices=Prices())
    retry = Retry(attempts=3, hedge=Hedge(samples=1, delay_min=0.5, quantile=0.5, extra=1.0))
    clock = FakeClock()
    pipe = Pipeline(provider, [retry, layer, CostAccounting(prices=Prices())], clock=clock)

    async def main():
        await asyncio.gather(*(make(pipe, number, call) for number, call in enumerate(calls)))
        await asyncio.sleep(1)
        return await layer.state({}, clock=clock)

    states = run(main())
    in_all = sum(cost for _, _, cost in provider.bill)
    assert in_all <= IN_ALL
    for then, tenant, _ in provider.bill:
        window = [cost for at, whose, cost in provider.bill if whose == tenant and then <= at < then + 60]
        assert sum(window) <= A_MINUTE
    counted = next(state.spent for state in states if state.limit == dollars(IN_ALL))
    assert counted >= dollars(in_all)
    if provider.certain:
        assert counted == dollars(in_all)
    assert counted <= Decimal(IN_ALL)
