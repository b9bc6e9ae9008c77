"""Tag calls with the tenant they are made for, and ask the ledger who spent what.

The ledger has a row for every request, written before it leaves, so failed and repeated ones are in it as well. It stays on
disk between runs; this program asks about its own run alone.

    python examples/costs_per_tenant.py

The key is taken from DEEPINFRA_API_KEY, the server from RESILIENT_AI_BASE_URL if it is set.
"""

import asyncio
import time
from decimal import Decimal

from resilient_ai import AsyncClient

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


async def work(ai: AsyncClient, questions: int) -> None:
    """Do what a tenant asks for: some chats and some vectors."""
    for n in range(questions):
        await ai.chat(MODEL, f"What is {n} * 7?", max_tokens=30)
    await ai.embed("BAAI/bge-m3", [f"Note {n}" for n in range(10)])


async def main() -> None:
    """Work for two tenants, then read the book."""
    began = time.time()
    async with AsyncClient() as ai:
        # A view is cheap: it shares connections, limits, cache and ledger, and adds its tags to every call.
        await asyncio.gather(
            work(ai.with_options(tags={"tenant": "acme", "feature": "support"}), questions=4),
            work(ai.with_options(tags={"tenant": "globex"}), questions=2),
        )
        for row in await ai.costs.by("tenant", since=began):
            print(f"tenant {row.key[0]}: {row.sends} sends, {usd(row.cost)}, {row.unknown} of unknown cost")
        for row in await ai.costs.by("tenant", "model", since=began):
            tenant, model = row.key
            print(f"  {tenant} on {model}: {row.input_tokens} tokens in, {row.output_tokens} out, {usd(row.cost)}")

        acme = await ai.costs.total(since=began, tenant="acme")
        print(f"acme so far: {usd(acme.cost)}")


def usd(cost: Decimal | None) -> str:
    """Return an amount in digits; where nothing is known it is not zero."""
    return "unknown" if cost is None else f"{cost:f} USD"


if __name__ == "__main__":
    asyncio.run(main())
