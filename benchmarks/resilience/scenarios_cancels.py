"""Ten thousand calls of every kind, cancelled at random moments: what is still held afterwards."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.resilience.bench import Bench, Finding
from resilient_ai import AsyncClient
from resilient_ai.middleware import ConcurrencyLimit

_MODEL = "soon/ours"
_CALLERS, _CALLS = 25, 400


async def cancels(bench: Bench) -> Finding:
    chance = random.Random(12)
    sockets, tasks = _sockets(), len(asyncio.all_tasks())
    async with bench.client() as ai:
        await asyncio.gather(*(_caller(ai, chance) for _ in range(_CALLERS)))
        await asyncio.sleep(0.1)
        limit = ai.middleware(ConcurrencyLimit)
        origin = bench.url
        permits = limit.in_use(origin, _MODEL) + limit.waiting(origin, _MODEL)
        await ai.ledger.flush()
        rows = sum(row.sends for row in await ai.ledger.by("state") if row.key == ("sent",))
        sent = await asyncio.to_thread(bench.requests, _MODEL)
        answers = await asyncio.gather(*(ai.chat(_MODEL, "hi") for _ in range(100)), return_exceptions=True)
    await asyncio.sleep(0.2)
    served = sum(not isinstance(answer, BaseException) for answer in answers)
    held = {
        "permits": permits,
        "rows": rows,
        "sockets": _sockets() - sockets,
        "tasks": len(asyncio.all_tasks()) - tasks,
        "requests": await asyncio.to_thread(bench.under_way, _MODEL),
    }
    left = ", ".join(f"{count} {name}" for name, count in held.items() if count) or "nothing"
    return Finding(f"{left} held of {sent:,} requests, then {served} of 100", not any(held.values()) and served == 100)


def _sockets() -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            count += str(descriptor.readlink()).startswith("socket:")
    return count


async def _caller(ai: AsyncClient, chance: random.Random) -> None:
    """Make calls one after the other and cancel each, in its queue, its connection or its answer."""
    for _ in range(_CALLS):
        task = asyncio.ensure_future(chance.choice(_KINDS)(ai, chance.random()))
        await asyncio.sleep(chance.uniform(0.0, 0.05))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _stream(ai: AsyncClient, _: float) -> None:
    async with ai.stream(_MODEL, "hi") as events:
        await events.result()


_KINDS: list[Callable[[AsyncClient, float], Coroutine[Any, Any, object]]] = [
    lambda ai, _: ai.chat(_MODEL, "hi"),
    _stream,
    lambda ai, _: ai.complete(_MODEL, "hi"),
    lambda ai, number: ai.embed(_MODEL, [f"text {number}"]),
    lambda ai, _: ai.image(_MODEL, "hi"),
]
