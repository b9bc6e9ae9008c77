"""Waiting for what another thread does, so that an event loop that was busy is not taken for a thread that is slow."""

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from resilient_ai.core.clock import Clock

T = TypeVar("T")


async def answer_of(answer: Future[T], *, within: float, clock: Clock, keep: bool = False) -> T:
    """Return or raise what the other thread came to.

    A loop that was busy finds the end of its patience before the answer that has long been there, so the answer is looked for
    once more before it is given up. Where the loop was late by more than `within`, the thread may have been held up with it (both
    need Python's lock), and has `within` once more.

    Args:
        answer: What the other thread has been asked for.
        within: Seconds it may take.
        clock: Measures them.
        keep: Let the thread do it also when nobody waits any more; else it is cancelled where it has not begun.

    Raises:
        TimeoutError: If it took too long.
    """
    waiting = asyncio.wrap_future(answer)
    waiting.add_done_callback(_seen)
    try:
        late = await _wait(waiting, within, clock)
        if late and not answer.done():
            await _wait(waiting, within, clock)
        if not answer.done():
            raise TimeoutError(f"no answer within {within:g} s")
        return answer.result()
    finally:
        if not keep:
            # Not only `waiting`: that would reach the thread with the next turn of the loop, when it may have begun.
            answer.cancel()
            waiting.cancel()


async def _wait(waiting: asyncio.Future[T], seconds: float, clock: Clock) -> bool:
    """Return whether the loop came back so late that it cannot tell how long the answer took."""
    ends = clock.monotonic() + seconds
    with suppress(TimeoutError):
        async with clock.timeout(seconds):
            await asyncio.wait([waiting])
    return clock.monotonic() - ends > seconds


def _seen(waiting: asyncio.Future[T]) -> None:
    # Else asyncio would complain about an error that came after the end.
    if not waiting.cancelled():
        waiting.exception()
