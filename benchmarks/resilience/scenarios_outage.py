"""A total outage of two minutes and what comes after it, in virtual time."""

import asyncio
import statistics
from dataclasses import dataclass
from pathlib import Path

from benchmarks.resilience.bench import Finding
from benchmarks.resilience.virtual import Failing, SeededClock, stack_of
from resilient_ai.core.call import Middleware
from resilient_ai.core.errors import ResilientAIError
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import CircuitBreaker
from resilient_ai.testing import run

_RATE = 100
_OUTAGE, _AFTER = 120, 90
_SEEDS = range(1, 11)


@dataclass(frozen=True)
class Course:
    """What became of the calls.

    Args:
        sends_per_call: Requests for each call that was made during the outage, until the outage ended.
        first_success: Seconds from the end of the outage to the first answer; infinite without one.
        served: Share of the calls made after it that were answered.
    """

    sends_per_call: float
    first_success: float = float("inf")
    served: float = 0.0


def outage(home: Path) -> Finding:
    without = run(_course(stack_of(home, without=[CircuitBreaker]), seed=1, after=0)).sends_per_call
    breaker = run(_course(stack_of(home), seed=1, after=0)).sends_per_call
    text = f"{without:.2f} sends per call; {breaker:.3f} with the breaker"
    return Finding(text, without <= 1.05 and breaker <= 0.05)


def recovery(home: Path) -> Finding:
    courses = [run(_course(stack_of(home), seed=seed, after=_AFTER)) for seed in _SEEDS]
    first = [course.first_success for course in courses]
    served = [course.served for course in courses]
    text = (
        f"first after {statistics.mean(first):.1f} s, worst {max(first):.1f} s;"
        f" {statistics.mean(served):.1%} served, worst {min(served):.1%} ({len(courses)} seeds)"
    )
    return Finding(text, max(first) <= 10 and statistics.mean(served) >= 0.95)


async def _course(stack: list[Middleware], *, seed: int, after: int) -> Course:
    provider = Failing()
    loop = asyncio.get_running_loop()
    answered: list[float] = []

    async def call(pipeline: Pipeline) -> bool:
        try:
            await pipeline.send(Chat(model="m", messages="hi"))
        except ResilientAIError:
            return False
        answered.append(loop.time())
        return True

    async with Pipeline(provider, stack, clock=SeededClock(seed)) as pipeline:
        calls = await _arrivals(pipeline, call, _OUTAGE)
        sends_per_call = provider.sends / len(calls)
        provider.up, end = True, loop.time()
        later = await _arrivals(pipeline, call, after)
        outcomes = await asyncio.gather(*calls, *later)
    served = outcomes[len(calls) :]
    if not served:
        return Course(sends_per_call)
    return Course(sends_per_call, min(answered, default=float("inf")) - end, sum(served) / len(served))


async def _arrivals(pipeline: Pipeline, call, seconds: int) -> list[asyncio.Task[bool]]:
    calls: list[asyncio.Task[bool]] = []
    for _ in range(seconds * _RATE):
        calls.append(asyncio.create_task(call(pipeline)))
        await asyncio.sleep(1 / _RATE)
    return calls
