"""Waits and time limits: a server that asks to wait, trickles, hangs or goes silent."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.resilience.bench import Bench, Finding, seconds_to_fail
from resilient_ai import AsyncClient, Client
from resilient_ai.core.errors import AttemptTimeout, DeadlineExceeded, StreamInterrupted
from resilient_ai.middleware import Timeout
from resilient_ai.presets import default_stack

_LIMIT = 2.1
_OPERATIONS = ("chat", "stream", "complete", "embed", "image")


async def retry_after(bench: Bench) -> Finding:
    async with bench.client() as ai:
        started = time.perf_counter()
        answer = await ai.with_options(timeout=10.0).chat("busy/ours", "hi")
        elapsed = time.perf_counter() - started
        waited = await asyncio.to_thread(bench.gap, "busy/ours")
    return Finding(f"waits {waited:.2f} s", waited >= 2.0 and elapsed < 10.0 and answer.attempts == 2)


async def trickle(bench: Bench) -> Finding:
    """All operations of both clients, each against a clock of its own."""
    async with bench.client() as ai:
        await ai.chat("ok/ours", "hi")
        view = ai.with_options(timeout=2.0)
        found = await asyncio.gather(*(seconds_to_fail(_asked(view, kind)) for kind in _OPERATIONS))
    found += await asyncio.to_thread(_blocking, bench)
    slowest = max(elapsed for elapsed, _ in found)
    raised = all(isinstance(error, DeadlineExceeded) for _, error in found)
    return Finding(f"{len(found)} of 10 raised, the last after {slowest:.2f} s", raised and slowest <= _LIMIT)


def _asked(ai: AsyncClient, kind: str) -> Callable[[], Awaitable[object]]:
    async def stream() -> object:
        async with ai.stream("trickle/ours", "hi") as events:
            return await events.result()

    return {
        "chat": lambda: ai.chat("trickle/ours", "hi"),
        "stream": stream,
        "complete": lambda: ai.complete("trickle/ours", "hi"),
        "embed": lambda: ai.embed("trickle/ours", "hi"),
        "image": lambda: ai.image("trickle/ours", "hi"),
    }[kind]


def _blocking(bench: Bench) -> list[tuple[float, BaseException | None]]:
    with bench.blocking_client() as ai, ThreadPoolExecutor(len(_OPERATIONS)) as threads:
        ai.chat("ok/ours", "hi")
        view = ai.with_options(timeout=2.0)
        return list(threads.map(lambda kind: _seconds_to_fail_blocking(view, kind), _OPERATIONS))


def _seconds_to_fail_blocking(ai: Client, kind: str) -> tuple[float, BaseException | None]:
    def stream() -> object:
        with ai.stream("trickle/ours", "hi") as events:
            return events.result()

    calls: dict[str, Callable[[], object]] = {
        "chat": lambda: ai.chat("trickle/ours", "hi"),
        "stream": stream,
        "complete": lambda: ai.complete("trickle/ours", "hi"),
        "embed": lambda: ai.embed("trickle/ours", "hi"),
        "image": lambda: ai.image("trickle/ours", "hi"),
    }
    started = time.perf_counter()
    try:
        calls[kind]()
    except DeadlineExceeded as error:
        return time.perf_counter() - started, error
    return time.perf_counter() - started, None


async def hung_chain(bench: Bench) -> Finding:
    async with bench.client() as ai:
        await ai.chat("ok/ours", "hi")
        view = ai.with_options(timeout=2.0)
        chain = ["hang/ours-1", "hang/ours-2", "hang/ours-3"]
        elapsed, error = await seconds_to_fail(lambda: view.chat(chain, "hi"))
    return Finding(f"raised after {elapsed:.2f} s", isinstance(error, DeadlineExceeded) and elapsed <= _LIMIT)


async def silent_stream(bench: Bench) -> Finding:
    stack = [Timeout(idle=1.0) if isinstance(layer, Timeout) else layer for layer in default_stack(bench.settings())]
    last = time.perf_counter()
    cause: BaseException | None = None
    async with AsyncClient(api_key="bench", base_url=bench.url, stack=stack) as ai:
        try:
            async with ai.with_options(timeout=15.0).stream("ping/ours", "hi") as events:
                async for _ in events:
                    last = time.perf_counter()
        except StreamInterrupted as error:
            cause = error.__cause__
    elapsed = time.perf_counter() - last
    holds = isinstance(cause, AttemptTimeout) and cause.timer == "idle" and elapsed <= 2.0
    return Finding(f"caught after {elapsed:.2f} s" if cause else "not caught in 15 s", holds)
