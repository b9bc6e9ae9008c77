"""Pydantic AI: models of its OpenAI provider, `request_timeout` for time, `FallbackModel` for fallbacks."""

import asyncio
from collections.abc import Callable
from typing import Any

import peer_kit as kit
from peer_kit import (
    after_cancels,
    both,
    caught,
    end_of_broken,
    end_of_cut,
    raised,
    requests,
    scenario,
    seconds,
    seconds_blocking,
    waited,
)
from pydantic_ai import Agent
from pydantic_ai.images import ImageGenerator
from pydantic_ai.images.openai import OpenAIImageGenerationModel
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


def _agent(url: str, *models: str, **settings: Any) -> Agent:
    """Return an agent on which each model falls back to the ones after it."""
    provider = OpenAIProvider(base_url=f"{url}/openai", api_key="bench")
    chats = [OpenAIChatModel(model, provider=provider) for model in models]
    return Agent(FallbackModel(*chats) if chats[1:] else chats[0], model_settings=settings)


async def _stream(agent: Agent, hear: Callable[[str], None]) -> None:
    async with agent.run_stream("hi") as answer:
        async for text in answer.stream_text(delta=True, debounce_by=None):
            hear(text)


@scenario
async def retry_after(url: str) -> str:
    await seconds(_agent(url, "busy/pydantic-ai", request_timeout=10).run("hi"))
    return waited(url, "busy/pydantic-ai")


@scenario
async def trickle(url: str) -> str:
    work = lambda: _agent(url, "trickle/pydantic-ai", request_timeout=2).run_sync("hi")  # noqa: E731
    asked = _agent(url, "trickle/pydantic-ai", request_timeout=2).run("hi")
    return both(*await asyncio.gather(asyncio.to_thread(seconds_blocking, work), seconds(asked)))


@scenario
async def hung_chain(url: str) -> str:
    models = [f"hang/pydantic-ai-{number}" for number in (1, 2, 3)]
    return raised(await seconds(_agent(url, *models, request_timeout=2).run("hi")))


@scenario
async def cut_stream(url: str) -> str:
    words: list[str] = []
    return end_of_cut(await seconds(_stream(_agent(url, "cut/pydantic-ai"), words.append)), words)


@scenario
async def broken_stream(url: str) -> str:
    words: list[str] = []
    agent = _agent(url, "broken/pydantic-ai", "ok/pydantic-ai")
    return end_of_broken(await seconds(_stream(agent, words.append)), words)


@scenario
async def provider_down(url: str) -> str:
    dead = "down/pydantic-ai-5"
    agent = _agent(url, dead, "ok/pydantic-ai")
    return await kit.provider_down(url, dead, lambda: agent.run("hi"))


@scenario
async def worst_case(url: str) -> str:
    models = ["down/pydantic-ai-1", "down/pydantic-ai-2"]
    await seconds(_agent(url, *models).run("hi"))
    return f"{sum(requests(url, model) for model in models)} requests, not foretold"


@scenario
async def outage(url: str) -> str:
    agent = _agent(url, "down/pydantic-ai-outage")
    await asyncio.gather(*(seconds(agent.run("hi")) for _ in range(50)))
    return f"{requests(url, 'down/pydantic-ai-outage') / 50:.2f} sends per call (50 calls)"


@scenario
async def cancels(url: str) -> str:
    agent = _agent(url, "soon/pydantic-ai")
    return await after_cancels(lambda: agent.run("hi"))


@scenario
async def silent_stream(url: str) -> str:
    return caught(
        await seconds(_stream(_agent(url, "ping/pydantic-ai", timeout=1, first_event_timeout=1), lambda _: None))
    )


@scenario
async def lost_image(url: str) -> str:
    provider = OpenAIProvider(base_url=f"{url}/openai", api_key="bench")
    images = ImageGenerator(OpenAIImageGenerationModel("lost/pydantic-ai", provider=provider))
    await seconds(images.generate("a lighthouse"))
    return f"{requests(url, 'lost/pydantic-ai')} requests"


SCENARIOS = {
    "retry-after": retry_after,
    "trickle": trickle,
    "hung-chain": hung_chain,
    "cut-stream": cut_stream,
    "broken-stream": broken_stream,
    "provider-down": provider_down,
    "one-probe": "no breaker",
    "worst-case": worst_case,
    "outage": outage,
    "recovery": "not run",
    "capacity": "not run; fixed limit",
    "cancels": cancels,
    "silent-stream": silent_stream,
    "lost-image": lost_image,
}
