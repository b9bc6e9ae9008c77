"""Time and chance, as the one thing through which the stack knows either."""

import asyncio
import random
import time
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Clock(Protocol):
    """What a middleware may ask about time and chance.

    Middleware never call `asyncio.sleep`, `time.time` or `random.random` themselves. They ask the clock of the call, so that
    a test can run hours of outage in milliseconds and see every wait.
    """

    def monotonic(self) -> float:
        """Return seconds that never run backwards; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970-01-01 UTC, for what is written down or compared with a server's date."""
        ...

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        """Return a context that raises `TimeoutError` when its body takes longer than `seconds`; None never does."""
        ...


class SystemClock:
    """The machine's own clock and generator.

    >>> clock = SystemClock()
    >>> clock.monotonic() <= clock.monotonic()
    True
    """

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    random = staticmethod(random.random)

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[Any]:
        """Return a timeout of the running loop."""
        return asyncio.timeout(seconds)

    def __repr__(self) -> str:
        return "SystemClock()"
