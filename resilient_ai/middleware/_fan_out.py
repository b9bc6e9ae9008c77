"""One stream for several readers."""

import asyncio
import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from resilient_ai.core.clock import Clock
from resilient_ai.core.deltas import StreamEvent
from resilient_ai.core.errors import StreamMisused
from resilient_ai.core.streams import StreamResult

ErrorT = TypeVar("ErrorT", bound=BaseException)


class FanOut:
    """Reads a stream once, at the pace of its fastest reader, and gives every reader all of it from the beginning.

    What has arrived is kept until the last reader is gone, so memory is bounded by the length of one answer.
    """

    def __init__(self, stream: StreamResult) -> None:
        self._stream = stream
        self._parts: list[Sequence[StreamEvent]] = [ready] if (ready := stream.take()) else []
        self._loop = asyncio.get_running_loop()
        self._step: asyncio.Task[None] | None = None
        self._ended = False
        self._error: Exception | None = None

    def reader(self, clock: Clock, leave: Callable[[], object], is_last: Callable[[], bool]) -> StreamResult:
        """Return a stream for one more reader.

        Args:
            clock: The clock of the reader.
            leave: Called where the reader stops before the end.
            is_last: Returns whether nobody else reads or is about to.
        """
        return StreamResult(_Reader(self, leave, is_last), model=self._stream.model, clock=clock)

    def drop(self) -> None:
        """End the stream, as nobody reads it any more; may be called from any thread."""
        self._stream.drop()
        step = self._step
        if step is not None:
            with suppress(RuntimeError):  # the loop has ended, and the step with it
                self._loop.call_soon_threadsafe(step.cancel)

    async def part(self, index: int, is_last: Callable[[], bool]) -> Sequence[StreamEvent] | None:
        """Return what arrived as the `index`th piece, waiting for it if need be; None at the end.

        Raises:
            Exception: A copy of what broke the stream, for each reader.
        """
        while index >= len(self._parts):
            if self._error is not None:
                raise copy_of(self._error)
            if self._ended:
                return None
            if self._step is None:
                # In a task of its own: a reader that is cancelled must not cut the stream for the others.
                self._step = asyncio.create_task(self._read())
            step = self._step
            try:
                await asyncio.wait([step])
            except asyncio.CancelledError:
                if is_last():
                    step.cancel()
                    await asyncio.wait([step])
                raise
        return self._parts[index]

    async def _read(self) -> None:
        try:
            events = await self._stream.next_events()
            if events:
                self._parts.append(events)
            elif self._stream.ended == "completed":
                self._ended = True
            else:
                self._error = _closed()
        except asyncio.CancelledError:  # by the last reader, or by somebody who ends all tasks there are
            self._error = _closed()
            raise
        except Exception as error:  # noqa: BLE001 - each reader raises it
            self._error = error
        finally:
            self._step = None


class _Reader:
    """The source of the stream of one reader."""

    finishing = False

    def __init__(self, fan_out: FanOut, leave: Callable[[], object], is_last: Callable[[], bool]) -> None:
        self._fan_out = fan_out
        self._leave = leave
        self._is_last = is_last
        self._next = 0

    async def read(self) -> Sequence[StreamEvent] | None:
        """Return the next piece."""
        part = await self._fan_out.part(self._next, self._is_last)
        self._next += 1
        return part

    def conclude(self) -> Sequence[StreamEvent]:
        """Return nothing: the last piece of a whole stream holds its end."""
        return ()

    def abort(self) -> None:
        """Leave the others alone with it."""
        self._leave()


def _closed() -> StreamMisused:
    return StreamMisused("the stream that several readers share was closed before its end; there is no whole answer")


def copy_of(error: ErrorT) -> ErrorT:
    """Return an error that can be raised beside the original, which several tasks must not share; itself where it has no copy."""
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - an error of somebody else's making
        return error
    twin.__cause__ = error.__cause__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(error.__traceback__)
