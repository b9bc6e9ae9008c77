"""Tasks that nobody waits for any more."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_LONGEST = 3600.0  # seconds


def let_end(task: "asyncio.Task[T]", when_over: "Callable[[asyncio.Task[T]], None]") -> None:
    """Cancel a task and hand it to `when_over` once it is over, without waiting for it.

    A loop keeps no strong reference to a task, but to its timers; so a task is kept for as long as its loop lives, and no
    longer. With a loop that was closed before, it is left to the garbage collector.
    """
    loop = task.get_loop()
    if loop.is_closed():
        if task.done():
            when_over(task)
        return
    task.cancel()
    kept = loop.call_later(_LONGEST, task.done)

    def over(task: "asyncio.Task[T]") -> None:
        kept.cancel()
        when_over(task)

    task.add_done_callback(over)
