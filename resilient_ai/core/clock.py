"""Time and chance, as the one thing through which the stack knows either."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

T = TypeVar("T")


class Timer(Protocol):
    """A context that raises `TimeoutError` when its body takes too long."""

    def expired(self) -> bool:
        """Return whether it was this timer that ended the body, and not somebody else's `TimeoutError`."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> bool | None: ...


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

    def timeout(self, seconds: float | None) -> Timer:
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

    def timeout(self, seconds: float | None) -> Timer:
        """Return a timeout of the running loop."""
        return asyncio.timeout(seconds)

    def __repr__(self) -> str:
        return "SystemClock()"


async def within(clock: Clock, seconds: float, action: Callable[[], Awaitable[T]], error: Callable[[], Exception]) -> T:
    """Return what `action` returns, or raise `error()` when it takes longer than `seconds`."""
    timer = clock.timeout(seconds)
    try:
        async with timer:
            return await action()
    except TimeoutError as timeout:
        if not timer.expired():
            raise
        raise error() from timeout


def time_of(clock: Clock) -> float:
    """Return the time; 0 where the clock has stopped with its loop, which is when the garbage collector ends a task."""
    try:
        return clock.monotonic()
    except RuntimeError:
        return 0.0
