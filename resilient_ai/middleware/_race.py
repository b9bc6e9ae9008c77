"""Two requests for one answer."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TypeVar

from resilient_ai.core.call import Call, Next
from resilient_ai.core.events import HedgeSettled
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware._leaving import let_end

R = TypeVar("R")

_Outcome = Literal["won", "lost", "failed", "cancelled"]
_CLEANUP = 0.05  # seconds


async def race(call: Call[R], proceed: Next[R], delay: float, may_hedge: Callable[[], bool]) -> R:
    """Return the answer of `proceed`, or of a second request beside it, whichever comes first.

    Args:
        call: What is sent.
        proceed: Sends it.
        delay: Seconds after which the second request goes, if there is no answer by then.
        may_hedge: Asked at that moment whether it may go; it pays for it.

    Raises:
        Exception: The failure of the first request, where both fail.
    """
    claims: list[int] = []
    tasks = [_start(call, proceed, 0, claims)]
    winner: asyncio.Task[R] | None = None
    try:
        with suppress(TimeoutError):
            async with call.clock.timeout(delay):
                await asyncio.wait(tasks)  # raises nothing of its own, so that only the timer can have ended it
        if not tasks[0].done() and may_hedge():
            tasks.append(_start(call, proceed, 1, claims))
        winner = await _first_success(tasks, claims)
        _announce(call, _outcome(tasks, winner))
        await _settled(call, [task for task in tasks if task is not winner])
        return winner.result()
    except GeneratorExit:  # a coroutine that is closed cannot wait for anything
        winner = None
        raise
    except BaseException:
        if winner is None:
            _announce(call, "cancelled" if len(tasks) > 1 else None)
        winner = None  # an answer that cannot be handed over any more
        await _end(tasks)
        raise
    finally:
        for task in tasks:
            if task is not winner:
                let_end(task, _free)


def _start(call: Call[R], proceed: Next[R], place: int, claims: list[int]) -> asyncio.Task[R]:
    """Send a branch of the call; the first whose answer is claimed wins, and the other one is told that it came in vain."""

    def claim() -> bool:
        claims.append(place)
        return claims[0] == place and call.claim()

    async def send() -> R:
        return await proceed(call.branch().replace(claim=claim, hedge=place > 0))

    return asyncio.create_task(send())


async def _first_success(tasks: list[asyncio.Task[R]], claims: list[int]) -> asyncio.Task[R]:
    pending = set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        # Where both have an answer by now, the one that was booked as used is; without accounting it is the first.
        in_turn = tasks if claims[:1] != [1] else tasks[::-1]
        for task in in_turn:
            if task in done and not task.cancelled() and task.exception() is None:
                return task
    return tasks[0]


def _outcome(tasks: list[asyncio.Task[R]], winner: asyncio.Task[R]) -> _Outcome | None:
    """Return what became of the second request, None where there was none."""
    if len(tasks) == 1:
        return None
    if winner is tasks[1]:
        return "won"
    return "lost" if not winner.cancelled() and winner.exception() is None else "failed"


def _announce(call: Call[Any], outcome: _Outcome | None) -> None:
    if outcome is not None:
        call.emit(HedgeSettled(call_id=call.id, model=call.model, outcome=outcome))


async def _settled(call: Call[Any], losers: list[asyncio.Task[Any]]) -> None:
    """Cancel the requests that lost, and give them a moment to be written down, so that the answer tells their cost."""
    pending = [task for task in losers if task.cancel()]
    if pending:
        with suppress(TimeoutError):
            async with call.clock.timeout(_CLEANUP):
                await asyncio.wait(pending)


async def _end(tasks: list[asyncio.Task[R]]) -> None:
    """Cancel what is still under way and wait until it has given everything back."""
    pending = [task for task in tasks if task.cancel()]
    if pending:
        await asyncio.wait(pending)


def _free(task: asyncio.Task[Any]) -> None:
    """Let go of what a request has brought whose answer is not wanted any more."""
    if task.cancelled() or task.exception() is not None:
        return
    result = task.result()
    if isinstance(result, StreamResult):
        result.drop(error=asyncio.CancelledError())  # as one that is cancelled: what had arrived went to nobody
