"""Virtual time: providers that fail or fill up, and crowds of callers, hours in seconds."""

import asyncio
import random
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast

from typing_extensions import override

from resilient_ai import Settings
from resilient_ai.core.call import Call, Middleware
from resilient_ai.core.errors import RateLimited, ServerFailed
from resilient_ai.presets import default_stack
from resilient_ai.testing import FakeClock, chat_result

R = TypeVar("R")


class SeededClock(FakeClock):
    """Virtual time with chances that a seed decides, the same in every run."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    @override
    def random(self) -> float:
        return self._random.random()

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Provider(ABC):
    """Counts the requests it gets."""

    origin = "https://virtual.test/v1"

    def __init__(self) -> None:
        self.sends = 0

    async def __call__(self, call: Call[R], /) -> R:
        self.sends += 1
        call.send_started()
        await self.answer(call.model)
        return cast("R", chat_result(model=call.model))

    @abstractmethod
    async def answer(self, model: str) -> None:
        """Take the time of an answer, or raise."""

    async def aclose(self) -> None:
        return None


class Failing(Provider):
    """Fails every request within 50 ms until `up`; then answers as fast."""

    def __init__(self) -> None:
        super().__init__()
        self.up = False

    @override
    async def answer(self, model: str) -> None:
        failing = not self.up
        await asyncio.sleep(0.05)
        if failing:
            raise ServerFailed("down", status=500, model=model)


class Slots(Provider):
    """Answers as many requests at once as it has slots, and refuses the others with 429 within 20 ms.

    Attributes:
        worked: Seconds of finished work by the phase in which it was taken up.
    """

    def __init__(self, slots: int, chance: random.Random) -> None:
        super().__init__()
        self.slots = slots
        self.refused = 0
        self.worked: dict[int, float] = {}
        self.phase = 0
        self._in_use = 0
        self._chance = chance

    @override
    async def answer(self, model: str) -> None:
        if self._in_use >= self.slots:
            self.refused += 1
            await asyncio.sleep(0.02)
            raise RateLimited("busy", status=429, model=model)
        phase, seconds = self.phase, self._chance.uniform(1.0, 3.0)
        self._in_use += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._in_use -= 1
        self.worked[phase] = self.worked.get(phase, 0.0) + seconds


def stack_of(home: Path, *, without: Sequence[type] = ()) -> list[Middleware]:
    """Return the default stack with its book in memory and no cache, less what is named."""
    settings = Settings(home=Path(tempfile.mkdtemp(dir=home)), cache="off", ledger="off")
    return [layer for layer in default_stack(settings) if not isinstance(layer, tuple(without))]
