"""Streamed answers: an iterator of events that ends exactly once."""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.collector import collecting
from resilient_ai.core.deltas import StreamEvent
from resilient_ai.core.errors import DeadlineExceeded, ProviderError, StreamInterrupted, StreamMisused
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.log import Log
from resilient_ai.core.results import ChatResult
from resilient_ai.core.transcript import Transcript

_log = Log()

Ending = Literal["completed", "closed", "failed", "abandoned"]

# Seconds to wait for usage and the end mark once the finish reason is there; then the answer is whole without them.
FINISH_GRACE = 2.0


class EventSource(Protocol):
    """Where a stream's events come from: a connection, a cached answer, a script in a test."""

    @property
    def finishing(self) -> bool:
        """Whether the finish reason has been seen, so that nothing but usage can follow."""
        ...

    async def read(self) -> Sequence[StreamEvent] | None:
        """Return the next events, at least one; None at the end of the body."""
        ...

    def conclude(self) -> Sequence[StreamEvent]:
        """Return the closing events once the body has ended; raise `ProviderError` if the answer is not whole."""
        ...

    def abort(self) -> None:
        """Drop the connection: at once, from any thread, any number of times."""
        ...


class StreamEnd:
    """How a stream ended, as told to the callbacks of its end.

    Args:
        how: "completed" (the whole answer was read), "closed" (the reader left or was cancelled), "failed", or "abandoned"
            (nobody closed it and the garbage collector found it).
        error: What made it fail, or the cancellation.
        transcript: What had arrived.
    """

    __slots__ = ("_answer", "error", "how", "transcript")

    def __init__(self, how: Ending, error: BaseException | None, transcript: Transcript) -> None:
        self.how: Ending = how
        self.error = error
        self.transcript = transcript
        self._answer: ChatResult | None = None

    @property
    def answer(self) -> ChatResult:
        """What had arrived, put together once for all who ask; partial unless the stream was completed."""
        if self._answer is None:
            self._answer = self.transcript.result()
        return self._answer


class StreamResult:
    """An answer that is still arriving.

    It is handed over once its first content has arrived; a failure before that is an ordinary exception of the call. It ends
    exactly once, in one of four ways, and whoever holds something for the time of the call gives it back there.

    Use it as `async with`, so that leaving early frees the connection at once:

        async with ai.stream(model, messages) as stream:
            async for event in stream: ...
            answer = await stream.result()

    Args:
        source: Where events come from.
        model: The model that was asked.
        first: Events that have been read already.
        clock: Measures the limits on reading.
    """

    def __init__(
        self, source: EventSource, *, model: str, first: Sequence[StreamEvent] = (), clock: Clock | None = None
    ) -> None:
        self.transcript = Transcript(model)
        self._source = source
        self._clock = clock or SystemClock()
        self._ready: deque[StreamEvent] = deque(first)
        self.transcript.add(first)
        self._end: StreamEnd | None = None
        self._pid = os.getpid()
        self._loop = asyncio._get_running_loop()  # noqa: SLF001 - the public form raises where no loop runs
        self._callbacks: list[Callable[[StreamEnd], None]] = []
        self._watchers: list[Callable[[Sequence[StreamEvent]], None]] = []
        self._limits: list[tuple[float, Callable[[], Exception]]] = []
        self._idle: tuple[float, Callable[[], Exception]] | None = None
        self._stamp: Callable[[ChatResult], ChatResult] | None = None
        self._reading = False
        self._failure: Exception | None = None
        if self.transcript.finished is not None:
            self._finish("completed")

    # What the reader uses

    def __aiter__(self) -> Self:
        """Iterate over the events that have not been read yet."""
        if self._end is not None and not self._ready:
            raise StreamMisused(f"the stream has {self._end.how} and holds no more events; read it once")
        return self

    async def __anext__(self) -> StreamEvent:
        """Return the next event."""
        ready = self._ready
        if not ready and not await self._fill():
            raise StopAsyncIteration
        return ready.popleft()

    async def next_events(self) -> list[StreamEvent]:
        """Return all events that have arrived, waiting for at least one; an empty list at the end."""
        if not self._ready and not await self._fill():
            return []
        return self.take()

    async def result(self) -> ChatResult:
        """Read to the end and return the whole answer, the same that `chat()` gives.

        Raises:
            StreamInterrupted: If the stream broke; `.partial` is what had arrived.
            StreamMisused: If the stream was closed before its end.
        """
        while await self.next_events():
            pass
        if self._end is None or self._end.how != "completed":
            raise self._failure or StreamMisused("the stream was closed before its end; there is no whole answer")
        return self._stamped()

    @property
    def model(self) -> str:
        """The model that was asked for what arrives now."""
        return self.transcript.model

    @property
    def ended(self) -> Ending | None:
        """How the stream ended, None while it has not."""
        return self._end.how if self._end else None

    async def aclose(self) -> None:
        """Stop reading and free the connection; does nothing on a stream that has ended."""
        self.drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._finish("closed", error)

    def __del__(self) -> None:
        # At the end of the interpreter the threads that would be told are gone.
        if getattr(self, "_end", self) is None and not sys.is_finalizing():
            with collecting(self._loop):
                self._finish("abandoned")

    def __repr__(self) -> str:
        return f"StreamResult(model={self.model!r}, ended={self.ended!r})"

    # What middleware use

    def take(self) -> list[StreamEvent]:
        """Return what has arrived and has not been read, without waiting."""
        events = list(self._ready)
        self._ready.clear()
        return events

    def drop(self, how: Ending = "closed", error: BaseException | None = None) -> None:
        """End the stream and free the connection, at once and without waiting; does nothing on a stream that has ended.

        Args:
            how: How it ended, as its callbacks shall be told.
            error: What made it end.
        """
        self._finish(how, error)

    def on_end(self, callback: Callable[[StreamEnd], None]) -> None:
        """Have `callback` called once when the stream ends, at once if it has ended.

        Callbacks run in the order in which they were attached, so that of the innermost middleware first: whoever is further
        out finds on the call what those inside have written down at the end.

        It must be synchronous and quick: it also runs while a task is being cancelled and from the garbage collector. What it
        raises is logged by name and changes nothing.
        """
        if self._end is not None:
            _tell(callback, self._end)
        else:
            self._callbacks.append(callback)

    def on_events(self, callback: Callable[[Sequence[StreamEvent]], None]) -> None:
        """Have `callback` told of what is unread, and from now on of what arrives; it must be synchronous and quick."""
        if self._ready:
            callback(tuple(self._ready))
        self._watchers.append(callback)

    def limit_until(self, at: float, error: Callable[[], Exception]) -> None:
        """Fail with `error()` when the stream is still being read at `at`, a `clock.monotonic()`; the earliest counts."""
        self._limits.append((at, error))

    def limit_idle(self, seconds: float, error: Callable[[], Exception]) -> None:
        """Fail with `error()` when no content arrives for `seconds` while the reader waits for it; the last one set counts."""
        self._idle = (seconds, error)

    def stamp_with(self, stamp: Callable[[ChatResult], ChatResult]) -> None:
        """Have the whole answer completed by `stamp`, which adds attempts, cost and cache."""
        self._stamp = stamp

    # Reading

    async def _fill(self) -> bool:
        """Wait for events; False once there are none left."""
        if self._end is not None:
            if self._failure is not None and self._end.how == "failed":
                raise self._failure
            return False
        if self._reading:
            raise StreamMisused("the stream is already being read by another task")
        self._reading = True
        try:
            events = await self._read()
        except Exception as error:
            if self._end is not None:
                raise StreamMisused("the stream was closed while it was being read") from error
            failure = self._fail(error)
            if failure is error:
                raise
            raise failure from error
        except BaseException as error:
            self._finish("closed", error)
            raise
        finally:
            self._reading = False
        if self._end is not None:
            raise StreamMisused("the stream was closed while it was being read")
        self.transcript.add(events)
        self._ready.extend(events)
        for watcher in self._watchers:
            watcher(events)
        if self.transcript.finished is not None or not events:
            self._finish("completed")
        return bool(events)

    async def _read(self) -> Sequence[StreamEvent]:
        seconds, error = self._tightest_limit()
        try:
            if seconds is None:
                events = await self._source.read()
            elif seconds <= 0 and error is not None:
                raise error()
            else:
                timer = self._clock.timeout(seconds)
                try:
                    async with timer:
                        events = await self._source.read()
                except TimeoutError:
                    if not timer.expired():
                        raise
                    if error is not None:
                        raise error() from None
                    events = None
        except ProviderError:
            if not self._source.finishing:
                raise
            events = None  # the answer is whole: what broke could only have brought its usage
        return self._source.conclude() if events is None else events

    def _tightest_limit(self) -> tuple[float | None, Callable[[], Exception] | None]:
        seconds: float | None = None
        error: Callable[[], Exception] | None = None
        finishing = self._source.finishing
        if finishing:
            seconds = FINISH_GRACE
        elif self._idle is not None:
            seconds, error = self._idle
        if self._limits:
            now = self._clock.monotonic()
            for at, limit_error in self._limits:
                if seconds is None or at - now < seconds:
                    # The answer is whole once it is finishing: a limit then only ends the wait for what may follow.
                    seconds, error = at - now, None if finishing else limit_error
        return seconds, error

    def _fail(self, error: Exception) -> Exception:
        failure = error
        if isinstance(error, ProviderError) and not isinstance(error, StreamInterrupted):
            sentence = f"the stream broke after content had arrived: {error}"
            failure = StreamInterrupted(sentence, partial=None, model=self.model)
        self._failure = failure
        self._finish("failed", failure)
        # Only now do those who count know what the partial answer cost.
        if isinstance(failure, StreamInterrupted | DeadlineExceeded):
            failure.partial = self._stamped()
        return failure

    def _stamped(self) -> ChatResult:
        answer = self._end.answer if self._end else self.transcript.result()
        return self._stamp(answer) if self._stamp else answer

    def _finish(self, how: Ending, error: BaseException | None = None) -> None:
        if self._end is not None:
            return
        self._end = StreamEnd(how, error, self.transcript)
        callbacks, self._callbacks = self._callbacks, []
        if self._pid != os.getpid():
            return  # a forked child's copy: the connection, the permit and the row are the parent's
        try:
            if how != "completed":
                self._source.abort()
        finally:
            for callback in callbacks:
                _tell(callback, self._end)


def _tell(callback: Callable[[StreamEnd], None], end: StreamEnd) -> None:
    try:
        callback(end)
    except FAULTS as error:  # what one holder does wrong must not keep the next from letting go
        _log.warning("a callback at the end of a stream raised %s", type(error).__name__)


def when_done(result: object, callback: Callable[[StreamEnd | None], None]) -> None:
    """Call `callback` when the call is over: at the end of a stream, else now, with None."""
    if isinstance(result, StreamResult):
        result.on_end(callback)
    else:
        callback(None)


__all__ = [
    "FINISH_GRACE",
    "Ending",
    "EventSource",
    "StreamEnd",
    "StreamResult",
    "when_done",
]
