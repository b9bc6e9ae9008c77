"""Bound the rest of the chain in time, and tell our own timer from other people's `TimeoutError`."""

from collections.abc import Callable
from typing import Any, TypeVar

from resilient_ai.core.call import Call, Next

R = TypeVar("R")


async def within(seconds: float, call: Call[R], proceed: Next[R], error: Callable[[], Exception]) -> R:
    """Return what `proceed` returns, or raise `error()` when it takes longer than `seconds`."""
    timer: Any = None
    try:
        async with call.clock.timeout(seconds) as timer:
            return await proceed(call)
    except TimeoutError as timeout:
        if timer is None or not timer.expired():
            raise
        raise error() from timeout
