"""Leave the model to the client: the cheapest that is healthy, rules by tag, and why each was chosen.

    python examples/routing.py

The key is taken from DEEPINFRA_API_KEY, the server from RESILIENT_AI_BASE_URL if it is set.
"""

import asyncio

from resilient_ai import AsyncClient, Chat
from resilient_ai.middleware import CircuitBreaker, Routing, Rule

SMALL = "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo"
LARGE = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


async def main() -> None:
    """Ask the cheapest model, take it out of service, and ask for a tenant that has a model of its own."""
    rules = [Rule(models=[LARGE], kinds=["chat"], tags={"tenant": "acme"}, strict=True)]
    async with AsyncClient(routing=Routing(models=[LARGE, SMALL], prefer="cheapest", rules=rules)) as ai:
        answer = await ai.chat("auto", "What is 17 * 23?", max_tokens=30)
        print(f"the cheapest: {answer.served_by}")
        for one in answer.considered:
            cost = "unknown" if one.cost is None else f"about {one.cost:f} USD"
            print(f"  {one.place}. {one.model}: {cost}, {one.why}")

        ai.middleware(CircuitBreaker).isolate(SMALL)
        answer = await ai.chat("auto", "What is 6 * 7?", max_tokens=30)
        print(f"while that is out of service: {answer.served_by}")
        ai.middleware(CircuitBreaker).reset(SMALL)

        answer = await ai.with_options(tags={"tenant": "acme"}).chat("auto", "What is 3 * 5?", max_tokens=30)
        print(f"tenant acme: {answer.served_by}")

        print("without sending:")
        for one in ai.explain(Chat(model="auto", messages="What is 2 + 2?")):
            print(f"  {one.place}. {one.model}: {one.why}")


if __name__ == "__main__":
    asyncio.run(main())
