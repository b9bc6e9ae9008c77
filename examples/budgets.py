"""Give each tenant a budget: spend one bit by bit, let twenty calls at once run into another one, and look at what is left.

Before a request leaves, the most that it can cost is reserved; when it has ended, what it did cost takes the place of that. So
however many calls begin at the same moment, none of them is sent for which there would be no money.

    python examples/budgets.py

The key is taken from DEEPINFRA_API_KEY, the server from RESILIENT_AI_BASE_URL if it is set.
"""

import asyncio
from collections import Counter

from resilient_ai import AsyncClient, Budget, BudgetExceeded, BudgetRefused, BudgetThresholdReached, Event

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"

refusals: Counter[str] = Counter()


def on_event(event: Event) -> None:
    """Say it when a part of a budget is spent, and count what a budget refuses."""
    if isinstance(event, BudgetThresholdReached):
        print(f"  {event.threshold:.0%} of {event.budget} is spent: {event.spent:f} USD")
    elif isinstance(event, BudgetRefused):
        refusals[event.budget] += 1


async def ask(ai: AsyncClient, number: int, max_tokens: int) -> BudgetExceeded | None:
    """Ask for an answer; return why it was refused."""
    try:
        await ai.chat(MODEL, f"Write a story of {number} ships.", max_tokens=max_tokens)
    except BudgetExceeded as error:
        return error
    return None


async def main() -> None:
    """Spend the budget of one tenant call by call, and try to spend that of another one at once."""
    each_tenant = Budget(limit="0.0001 USD", per="day", scope={"tenant": "*"}, thresholds=(0.25, 0.5))
    async with AsyncClient(budgets=[each_tenant, Budget(limit="5 USD", per="month")]) as ai:
        ai.subscribe(on_event)
        acme, globex = (ai.with_options(tags={"tenant": name}) for name in ("acme", "globex"))

        print("acme asks one thing after the other:")
        sent = 0
        while (refused := await ask(acme, sent, max_tokens=60)) is None:
            sent += 1
        print(f"  after {sent} answers: {refused}")

        answers = await asyncio.gather(*(ask(globex, number, max_tokens=200) for number in range(20)))
        print(f"globex asks twenty things at once: {answers.count(None)} of 20 sent")

        for budget, times in refusals.items():
            print(f"refused by {budget}: {times}")
        for state in await ai.budgets():
            print(f"{state.name}: {state.spent:f} of {state.limit:f} USD spent")


if __name__ == "__main__":
    asyncio.run(main())
