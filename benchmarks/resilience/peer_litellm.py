"""LiteLLM: its Router with two tries again and fallbacks, through its provider for servers that speak OpenAI's wire."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import peer_kit as kit
from litellm import Router
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

litellm.suppress_debug_info = True
HI: Any = [{"role": "user", "content": "hi"}]


def _router(url: str, *models: str, **options: Any) -> Router:
    """Return a router on which each model falls back to the ones after it."""
    names = [
        {
            "model_name": model,
            "litellm_params": {"model": f"openai/{model}", "api_base": f"{url}/openai", "api_key": "bench"},
        }
        for model in models
    ]
    fallbacks = [{models[0]: list(models[1:])}] if models[1:] else []
    return Router(model_list=names, fallbacks=fallbacks, **{"num_retries": 2, **options})


async def _stream(router: Router, model: str, hear: Callable[[str], None]) -> None:
    async for event in await router.acompletion(model=model, messages=HI, stream=True):
        hear((event.choices[0].delta.content or "") if event.choices else "")


@scenario
async def retry_after(url: str) -> str:
    router = _router(url, "busy/litellm", timeout=10)
    await seconds(router.acompletion(model="busy/litellm", messages=HI))
    return waited(url, "busy/litellm")


@scenario
async def trickle(url: str) -> str:
    model = "trickle/litellm"
    router = _router(url, model, timeout=2, num_retries=0)
    work = lambda: router.completion(model=model, messages=HI)  # noqa: E731
    return both(
        *await asyncio.gather(
            asyncio.to_thread(seconds_blocking, work), seconds(router.acompletion(model=model, messages=HI))
        )
    )


@scenario
async def hung_chain(url: str) -> str:
    models = [f"hang/litellm-{number}" for number in (1, 2, 3)]
    router = _router(url, *models, timeout=2, num_retries=0)
    return raised(await seconds(router.acompletion(model=models[0], messages=HI)))


@scenario
async def cut_stream(url: str) -> str:
    words: list[str] = []
    router = _router(url, "cut/litellm", num_retries=0)
    return end_of_cut(await seconds(_stream(router, "cut/litellm", words.append)), words)


@scenario
async def broken_stream(url: str) -> str:
    words: list[str] = []
    router = _router(url, "broken/litellm", "ok/litellm")
    return end_of_broken(await seconds(_stream(router, "broken/litellm", words.append)), words)


@scenario
async def provider_down(url: str) -> str:
    dead = "down/litellm-5"
    router = _router(url, dead, "ok/litellm")
    return await kit.provider_down(url, dead, lambda: router.acompletion(model=dead, messages=HI))


@scenario
async def one_probe(url: str) -> str:
    """Its cooldown: after one allowed failure a model is left alone for two seconds."""
    model = "fails5/litellm"
    router = _router(url, model, "ok/litellm", num_retries=0, allowed_fails=1, cooldown_time=2)
    before = -1
    while before < requests(url, model) < 5:
        before = requests(url, model)
        await router.acompletion(model=model, messages=HI)
    if requests(url, model) >= 5:
        return "no cooldown after 5 failures"
    before = requests(url, model)
    await asyncio.sleep(2.2)
    callers = [asyncio.create_task(router.acompletion(model=model, messages=HI)) for _ in range(100)]
    await asyncio.gather(*callers, return_exceptions=True)
    return f"{requests(url, model) - before} probes"


@scenario
async def worst_case(url: str) -> str:
    models = ["down/litellm-1", "down/litellm-2"]
    router = _router(url, *models)
    await seconds(router.acompletion(model=models[0], messages=HI))
    return f"{sum(requests(url, model) for model in models)} requests, not foretold"


@scenario
async def outage(url: str) -> str:
    model = "down/litellm-outage"
    router = _router(url, model)
    await asyncio.gather(*(seconds(router.acompletion(model=model, messages=HI)) for _ in range(50)))
    return f"{requests(url, model) / 50:.2f} sends per call (50 calls)"


@scenario
async def cancels(url: str) -> str:
    router = _router(url, "soon/litellm")
    return await after_cancels(lambda: router.acompletion(model="soon/litellm", messages=HI))


@scenario
async def silent_stream(url: str) -> str:
    router = _router(url, "ping/litellm", timeout=15, stream_timeout=1, num_retries=0)
    return caught(await seconds(_stream(router, "ping/litellm", lambda _: None)))


@scenario
async def lost_image(url: str) -> str:
    router = _router(url, "lost/litellm")
    await seconds(router.aimage_generation(model="lost/litellm", prompt="a lighthouse"))
    return f"{requests(url, 'lost/litellm')} requests"


SCENARIOS = {
    "retry-after": retry_after,
    "trickle": trickle,
    "hung-chain": hung_chain,
    "cut-stream": cut_stream,
    "broken-stream": broken_stream,
    "provider-down": provider_down,
    "one-probe": one_probe,
    "worst-case": worst_case,
    "outage": outage,
    "recovery": "not run",
    "capacity": "not run; rejects, does not queue",
    "cancels": cancels,
    "silent-stream": silent_stream,
    "lost-image": lost_image,
}
