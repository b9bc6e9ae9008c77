"""A timeout that measures silence, not work: it runs anew with every sign of life."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

_MOST = 10  # times the patience, in all


class Patience:
    """Ends what it surrounds with `TimeoutError` once there was no sign of life for `seconds`, or after `most` in all.

    An event loop that is busy takes long to read what has long been there. That is not the other side's silence, so before it
    gives up it lets the loop hand over what has arrived.

    Args:
        seconds: How long silence may last.
        heard: Returns when there was a sign of life last, as a time of the running loop.
        most: Seconds in all; None for ten times `seconds`.
    """

    def __init__(self, seconds: float, heard: Callable[[], float], *, most: float | None = None) -> None:
        self._seconds = seconds
        self._most = _MOST * seconds if most is None else most
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._timer = asyncio.timeout(None)
        self._began = self._loop.time()
        self._handle: asyncio.Handle = self._loop.call_at(self._began + seconds, self._look)
        self._looked = False

    async def __aenter__(self) -> Self:
        await self._timer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.cancel()
        await self._timer.__aexit__(kind, error, traceback)

    def _look(self) -> None:
        now = self._loop.time()
        ends = min(max(self._began, self._heard()) + self._seconds, self._began + self._most)
        if now < ends:
            self._looked = False
            self._handle = self._loop.call_at(ends, self._look)
        elif not self._looked:
            # In the next turn of the loop, by when whoever waits for what has arrived in this one has got it.
            self._looked = True
            self._handle = self._loop.call_soon(self._look)
        else:
            self._timer.reschedule(now)
