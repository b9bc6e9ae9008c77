"""Five times more callers than slots, and a provider that loses nine tenths of its slots for a while; in virtual time."""

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.resilience.bench import Finding
from benchmarks.resilience.virtual import SeededClock, Slots, stack_of
from resilient_ai.core.errors import ResilientAIError
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.testing import run

_CALLERS = 1_000
_PHASES = ((200, 200), (20, 200), (200, 200))  # slots, seconds
_DEADLINE = 60.0


@dataclass
class Tally:
    """What the callers saw."""

    over: bool = False
    longest: float = 0.0


def capacity(home: Path) -> Finding:
    return run(_capacity(home))


async def _capacity(home: Path) -> Finding:
    chance = random.Random(11)
    provider, tally = Slots(0, chance), Tally()
    async with Pipeline(provider, stack_of(home), clock=SeededClock(11)) as pipeline:
        callers: list[asyncio.Task[None]] = []
        for phase, (slots, seconds) in enumerate(_PHASES):
            provider.phase, provider.slots = phase, slots
            callers = callers or [asyncio.create_task(_caller(pipeline, tally, chance)) for _ in range(_CALLERS)]
            await asyncio.sleep(seconds)
        refused = provider.refused / provider.sends
        tally.over = True
        provider.phase = len(_PHASES)
        await asyncio.gather(*callers)
    shares = [provider.worked[phase] / (slots * seconds) for phase, (slots, seconds) in enumerate(_PHASES)]
    overshoot = max(0.0, tally.longest - _DEADLINE)
    used = " / ".join(f"{share:.1%}" for share in shares)
    text = f"{used} of capacity, {refused:.1%} 429s, overshoot {overshoot * 1000:.0f} ms"
    return Finding(text, min(shares) >= 0.9 and refused < 0.02 and overshoot < 0.001)


async def _caller(pipeline: Pipeline, tally: Tally, chance: random.Random) -> None:
    loop = asyncio.get_running_loop()
    while not tally.over:
        started = loop.time()
        pause = 0.0
        try:
            await pipeline.send(Chat(model="m", messages="hi"), timeout=_DEADLINE)
        except ResilientAIError:
            pause = chance.uniform(1.0, 5.0)
        tally.longest = max(tally.longest, loop.time() - started)
        await asyncio.sleep(pause)
