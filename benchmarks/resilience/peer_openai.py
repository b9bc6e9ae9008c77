"""openai-python: the client as its documentation sets it up, pointed at the server. It retries twice and knows no fallback."""

import asyncio
from collections.abc import Callable
from typing import Any

from openai import AsyncOpenAI, OpenAI
from peer_kit import (
    after_cancels,
    both,
    caught,
    end_of_broken,
    end_of_cut,
    requests,
    scenario,
    seconds,
    seconds_blocking,
    waited,
)

HI: Any = [{"role": "user", "content": "hi"}]
NO_FALLBACK = "no fallbacks"
NO_BREAKER = "no breaker"


def client(url: str, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="bench", base_url=f"{url}/openai", **options)


async def _chat(ai: AsyncOpenAI, model: str) -> object:
    return await ai.chat.completions.create(model=model, messages=HI)


async def _stream(ai: AsyncOpenAI, model: str, hear: Callable[[str], None]) -> None:
    async for event in await ai.chat.completions.create(model=model, messages=HI, stream=True):
        hear((event.choices[0].delta.content or "") if event.choices else "")


@scenario
async def retry_after(url: str) -> str:
    await seconds(_chat(client(url, timeout=10), "busy/openai"))
    return waited(url, "busy/openai")


@scenario
async def trickle(url: str) -> str:
    blocking = OpenAI(api_key="bench", base_url=f"{url}/openai", timeout=2)
    work = lambda: blocking.chat.completions.create(model="trickle/openai", messages=HI)  # noqa: E731
    asked = _chat(client(url, timeout=2), "trickle/openai")
    return both(*await asyncio.gather(asyncio.to_thread(seconds_blocking, work), seconds(asked)))


@scenario
async def cut_stream(url: str) -> str:
    words: list[str] = []
    return end_of_cut(await seconds(_stream(client(url), "cut/openai", words.append)), words)


@scenario
async def broken_stream(url: str) -> str:
    words: list[str] = []
    return end_of_broken(await seconds(_stream(client(url), "broken/openai", words.append)), words)


@scenario
async def worst_case(url: str) -> str:
    await seconds(_chat(client(url, max_retries=2), "down/openai-worst"))
    return f"{requests(url, 'down/openai-worst')} requests, not foretold; no fallbacks"


@scenario
async def outage(url: str) -> str:
    ai = client(url)
    await asyncio.gather(*(seconds(_chat(ai, "down/openai-outage")) for _ in range(50)))
    return f"{requests(url, 'down/openai-outage') / 50:.2f} sends per call (50 calls)"


@scenario
async def cancels(url: str) -> str:
    ai = client(url)
    return await after_cancels(lambda: _chat(ai, "soon/openai"))


@scenario
async def silent_stream(url: str) -> str:
    return caught(await seconds(_stream(client(url, timeout=1, max_retries=0), "ping/openai", lambda _: None)))


@scenario
async def lost_image(url: str) -> str:
    await seconds(client(url).images.generate(model="lost/openai", prompt="a lighthouse"))
    return f"{requests(url, 'lost/openai')} requests"


SCENARIOS = {
    "retry-after": retry_after,
    "trickle": trickle,
    "hung-chain": NO_FALLBACK,
    "cut-stream": cut_stream,
    "broken-stream": broken_stream,
    "provider-down": NO_FALLBACK,
    "one-probe": NO_BREAKER,
    "worst-case": worst_case,
    "outage": outage,
    "recovery": "not run",
    "capacity": "not run; no limiter",
    "cancels": cancels,
    "silent-stream": silent_stream,
    "lost-image": lost_image,
}
