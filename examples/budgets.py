"""Give each tenant a budget, let twenty calls of one of them run into it at once, and look at what is left.

Before a request leaves, the most that it can cost is reserved; when it has ended, what it did cost takes the place of that. So
however many calls begin at the same moment, none of them is sent for which there would be no money.

    python examples/budgets.py

The key is taken from DEEPINFRA_API_KEY, the server from RESILIENT_AI_BASE_URL if it is set.
"""

import asyncio

from resilient_ai import AsyncClient, Budget, BudgetExceeded, BudgetThresholdReached, Event

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


def on_event(event: Event) -> None:
    """Say it when half of a budget is spent or reserved."""
    if isinstance(event, BudgetThresholdReached):
        print(f"{event.threshold:.0%} of {event.budget}")


async def ask(ai: AsyncClient, number: int) -> BudgetExceeded | None:
    """Ask for an answer that may be long; return why it was refused."""
    try:
        await ai.chat(MODEL, f"Write a story of {number} ships.", max_tokens=7_500)
    except BudgetExceeded as error:
        return error
    return None


async def main() -> None:
    """Spend too much for one tenant, and a little for another one."""
    each_tenant = Budget(limit="0.003 USD", per="day", scope={"tenant": "*"}, thresholds=(0.5,))
    async with AsyncClient(budgets=[each_tenant, Budget(limit="5 USD", per="month")]) as ai:
        ai.subscribe(on_event)
        acme, globex = (ai.with_options(tags={"tenant": name}) for name in ("acme", "globex"))
        refused = [error for error in await asyncio.gather(*(ask(acme, n) for n in range(20))) if error is not None]
        print(f"acme: {20 - len(refused)} of 20 sent, {len(refused)} refused, for example:")
        print(f"  {refused[0]}")
        print(f"globex: {'refused' if await ask(globex, 3) else 'answered'}")
        for state in await ai.budgets():
            print(f"{' '.join(state.key[1:]).strip()}: {state.spent:f} of {state.limit:f} USD")


if __name__ == "__main__":
    asyncio.run(main())
