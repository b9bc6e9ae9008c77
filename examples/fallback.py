"""Name several models: where the first cannot serve, the next one does, and the answer says which did and why.

    python examples/fallback.py

The key is taken from DEEPINFRA_API_KEY, the server from RESILIENT_AI_BASE_URL if it is set.
"""

import asyncio

from resilient_ai import AsyncClient, Event, ModelSkipped, NoModelAvailable, RetryScheduled
from resilient_ai.deepinfra.catalogue import CatalogueAbilities
from resilient_ai.middleware import Routing

GONE = "nobody/model-that-is-gone"
EMBEDDER = "BAAI/bge-m3"
SPARE = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


def tell(event: Event) -> None:
    """Print what happens underneath a call."""
    if isinstance(event, ModelSkipped):
        print(f"skipped: {event.model} for {type(event.error).__name__}; next is {event.next_model}")
    elif isinstance(event, RetryScheduled):
        print(f"retry: attempt {event.attempt} of {event.model} failed; the next in {event.wait:.1f} s")


async def main() -> None:
    """Ask with a spare model, pass over one that cannot, stream with a spare model, then have none."""
    async with AsyncClient() as ai:
        ai.subscribe(tell)
        answer = await ai.chat([GONE, SPARE], "What is 17 * 23?", max_tokens=30)
        print(f"chat: {answer.text.strip()} (served by {answer.served_by} after {answer.attempts} requests)")

        print(f"      not by {GONE}: {answer.refused[GONE]}")

        # A model that is known to lack what the call needs, here chat, is not even asked.
        stack = [Routing(abilities=CatalogueAbilities())]
        async with AsyncClient(stack=stack) as careful:
            answer = await careful.chat([EMBEDDER, SPARE], "What is 3 * 5?", max_tokens=30)
        print(f"passed over: {answer.refused[EMBEDDER]} ({answer.attempts} request)")

        # A stream falls back until its first content has arrived; after that it is never repeated.
        async with ai.stream([GONE, SPARE], "What is 6 * 7?", max_tokens=30) as stream:
            whole = await stream.result()
        print(f"stream: {whole.text.strip()} (served by {whole.served_by})")

        try:
            await ai.chat([GONE, "nobody/gone-as-well"], "hi")
        except NoModelAvailable as error:
            for model, reason in error.refused.items():
                print(f"refused: {model}: {type(reason).__name__}")


if __name__ == "__main__":
    asyncio.run(main())
