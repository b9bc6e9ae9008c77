"""Ask the same from many places, and keep answering while the service is down.

Identical calls at the same time share one request. What was answered once is an answer for an hour, and for a day longer where
asking again fails.

    python examples/calm_cache.py

The key is taken from DEEPINFRA_API_KEY, the server from RESILIENT_AI_BASE_URL if it is set.
"""

import asyncio
from typing import TypeVar

from resilient_ai import AsyncClient, CacheControl, Call, Chat, ConnectionFailed, Next, Settings, default_stack

R = TypeVar("R")
MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
CALM = Settings(cache_ttl=3600, cache_stale_if_error=24 * 3600, attempts=1)
QUESTION = Chat(model=MODEL, messages="What is the capital of France?", temperature=0)


class Outage:
    """Plays a service that is down, next to the service."""

    def __init__(self) -> None:
        self.on = False

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Fail without asking, while it is on."""
        if self.on:
            raise ConnectionFailed("nobody answers", phase="connect", model=call.model)
        return await proceed(call)


async def main() -> None:
    """Ask twenty times at once, once more, and then where nobody answers."""
    outage = Outage()
    async with AsyncClient(stack=[*default_stack(CALM), outage], settings=CALM) as ai:
        answers = await asyncio.gather(*(ai.send(QUESTION) for _ in range(20)))
        print(f"{len(answers)} answers, {sum(answer.attempts for answer in answers)} request: {answers[0].text}")

        again = await ai.send(QUESTION)
        print(f"once more: {again.cache}, {again.cost}, saved {again.saved:f} USD")

        # A call may say how old an answer it takes, and why nothing is found can be asked.
        print("another question:", await ai.cache.why_miss(Chat(model=MODEL, messages="And of Italy?", temperature=0)))

        # An entry that is too old is better than an error.
        await ai.send(QUESTION, cache=CacheControl(mode="write", ttl=0.001))
        await asyncio.sleep(0.01)
        outage.on = True
        stale = await ai.send(QUESTION)
        print(f"in an outage: {stale.cache}, {stale.cache_age:.2f} s old: {stale.text}")


if __name__ == "__main__":
    asyncio.run(main())
