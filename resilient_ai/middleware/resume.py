"""Ask again for a stream that broke after its first content."""

import asyncio
import contextvars
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast, get_args

from typing_extensions import override

from resilient_ai.core.call import Call, Next, OperationMiddleware
from resilient_ai.core.checks import check_count
from resilient_ai.core.clock import within
from resilient_ai.core.deltas import Finished, Restarted, StreamEvent
from resilient_ai.core.errors import DeadlineExceeded, ProviderError, StreamInterrupted
from resilient_ai.core.events import StreamResumed
from resilient_ai.core.operations import OnInterrupt, Stream
from resilient_ai.core.pipeline import WorstCase
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._continuation import Seam, continuation, why_not_continued


@dataclass(frozen=True, kw_only=True)
class Resume(OperationMiddleware):
    """Ask again for a stream that broke after its first content, without telling the reader anything twice.

    A failure before the first content is repeated by `Retry`, as nobody has seen anything. After it there are three ways:

    - "raise" gives the reader `StreamInterrupted` with the partial answer. It costs nothing and asks for nothing.
    - "restart" delivers `Restarted`, at which the reader forgets what came before, and then a new answer from its beginning.
    - "continue" sends the text so far as the last message, which models continue, and delivers what is new. Where the model
      says the whole text again before it goes on, the repetition is left out; so is one that was meant, which cannot be told
      apart. What it thinks before it goes on is not delivered, and `max_tokens` is lowered by what has arrived, at 4 characters
      to a token. The tokens of a continued answer are not known: `usage` is None.

    An answer is not continued but raises, with a note that says why, where it is one of several (`n` above 1), has a form of
    its own (`response_format`), brings `logprobs`, has begun to call a tool, or holds no text yet.

    What is asked again goes through everything inside of this middleware, so with its tries, models and limits, and within the
    deadline of the call. Where that fails too, the reader gets `StreamInterrupted` with that failure as its cause. A failure
    that asking again cannot mend, such as a refusal, raises at once.

    Args:
        on_interrupt: What happens to streams that do not say it themselves: "raise", "restart" or "continue".
        resumes: How often one stream may be asked for again, at least 1.

    Raises:
        ValueError: If an option is out of its range.

    >>> Resume(on_interrupt="restart")
    Resume(on_interrupt='restart', resumes=2)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Tracing": "a stream is one span, however often it was asked for",
        "Logging": "a stream is one line, however often it was asked for",
        "Deadline": "the time for asking again is the call's own",
        "Cache": "the key holds the question of the caller, not the one that goes on from half an answer",
    }

    on_interrupt: OnInterrupt = "raise"
    resumes: int = 2

    def __post_init__(self) -> None:
        if self.on_interrupt not in get_args(OnInterrupt):
            raise ValueError(f"on_interrupt must be one of {get_args(OnInterrupt)}, got {self.on_interrupt!r}")
        check_count("resumes", self.resumes, 1)

    def worst_case(self, inner: WorstCase) -> WorstCase:
        """Count every repair, where streams are repaired unless they say otherwise."""
        if self.on_interrupt == "raise":
            return inner
        times = self.resumes + 1
        return dataclasses.replace(inner, sends=inner.sends * times, seconds=inner.seconds * times)

    @override
    async def stream(self, call: Call[StreamResult], proceed: Next[StreamResult]) -> StreamResult:
        """Hand over the stream, or one that repairs itself."""
        operation = cast("Stream", call.operation)
        how = operation.on_interrupt or self.on_interrupt
        if how == "raise":
            return await proceed(call)
        # From here on nobody else has to see to it.
        call = call.replace(operation=operation.model_copy(update={"on_interrupt": "raise"}))
        stream = await proceed(call)
        if stream.ended is not None:
            return stream
        return _Repaired(_Repairs(self.resumes, how, call, proceed, stream))


class _Repaired(StreamResult):
    """A stream whose events come from one stream after the other."""

    def __init__(self, repairs: "_Repairs") -> None:
        stream = repairs.stream
        super().__init__(repairs, model=stream.model, first=stream.take(), clock=repairs.call.clock)
        self._repairs = repairs
        repairs.transcript = self.transcript
        self.on_end(repairs.let_go)

    @override
    def limit_until(self, at: float, error: Callable[[], Exception]) -> None:
        # A timer around the stream inside would cancel it in place of failing it.
        self._repairs.limit_until(at, error)


class _Repairs:
    """The events of a stream, and of those that are asked for where it breaks."""

    finishing = False  # the stream inside waits no longer than it should once it is finishing

    def __init__(
        self,
        resumes: int,
        how: OnInterrupt,
        call: Call[StreamResult],
        proceed: Next[StreamResult],
        stream: StreamResult,
    ) -> None:
        self.call = call
        self.stream = stream
        self.transcript = stream.transcript
        self._resumes = resumes
        self._how = how
        self._proceed = proceed
        self._number = 0
        self._seam: Seam | None = None
        self._limits: list[tuple[float, Callable[[], Exception]]] = []
        self._end: StreamEnd | None = None
        # The reader's own context knows nothing of the call, such as its span.
        self._context = contextvars.copy_context()

    async def read(self) -> Sequence[StreamEvent] | None:
        """Return the next events, of another stream where this one breaks."""
        while True:
            try:
                events: Sequence[StreamEvent] = await self.stream.next_events()
            except StreamInterrupted as error:
                await self._repair(error)
                events = [Restarted()] if self._how == "restart" else ()
            else:
                if not events:
                    return None
                if self._number:
                    events = self._edited(events)
            if events:
                return events

    def conclude(self) -> Sequence[StreamEvent]:
        """Return nothing: the stream inside has concluded."""
        return ()

    def abort(self) -> None:
        """Do nothing: `let_go` ends the stream inside, and knows how."""

    def let_go(self, end: StreamEnd) -> None:
        """End the stream inside as the one outside has ended."""
        self._end = end
        self.stream.drop(end.how, end.error)

    def limit_until(self, at: float, error: Callable[[], Exception]) -> None:
        """Fail with `error()` at the point `at`, whether a stream is read or asked for then."""
        self._limits.append((at, error))
        self.stream.limit_until(at, error)

    async def _repair(self, error: StreamInterrupted) -> None:
        """Put another stream in place of the one that broke, or raise."""
        obstacle = self._obstacle(error)
        if obstacle is not None:
            error.add_note(f"not asked for again: {obstacle}")
            raise error
        self._number += 1
        call = self._next_call()
        event = StreamResumed(
            call_id=call.id,
            model=self.stream.model,
            how="restart" if self._how == "restart" else "continue",
            number=self._number,
            error=error,
        )
        call.emit(event)
        try:
            self._follow(await self._ask(call))
        except DeadlineExceeded:
            raise
        except Exception as failure:
            sentence = f"{error}; asking for it again failed: {failure}"
            raise StreamInterrupted(sentence, partial=None, model=self.stream.model) from failure
        # Its frames hold the stream that broke, for as long as a listener keeps the event.
        _without_frames(error)

    def _obstacle(self, error: StreamInterrupted) -> str | None:
        cause = error.__cause__
        if isinstance(cause, ProviderError) and not cause.retryable:
            return "the same request would fail again"
        if self._number == self._resumes:
            return f"resumes={self._resumes} is the most"
        if self._how == "restart":
            return None
        return why_not_continued(cast("Stream", self.call.operation), self.transcript)

    def _next_call(self) -> Call[StreamResult]:
        operation = _last(cast("Stream", self.call.operation), self.stream.model)
        if self._how == "restart":
            same = operation is self.call.operation
            return self.call if same else self.call.with_body(operation, f"r{self._number}")
        further, self._seam = continuation(operation, self.transcript)
        return self.call.with_body(further, f"c{self._number}")

    async def _ask(self, call: Call[StreamResult]) -> StreamResult:
        async def send() -> StreamResult:
            return await self._proceed(call)

        if not self._limits:
            return await asyncio.create_task(send(), context=self._context)
        at, error = min(self._limits, key=lambda limit: limit[0])
        seconds = at - call.clock.monotonic()
        if seconds <= 0:
            raise error()
        return await within(call.clock, seconds, lambda: asyncio.create_task(send(), context=self._context), error)

    def _follow(self, stream: StreamResult) -> None:
        for at, error in self._limits:
            stream.limit_until(at, error)
        self.stream = stream
        if self._end is not None:
            stream.drop(self._end.how, self._end.error)
        else:
            self.transcript.model = stream.model

    def _edited(self, events: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
        """Return what of the events the reader shall get; the answer's cost is no longer all there was to pay."""
        shown = events if self._seam is None else self._seam.join(events)
        return [self._closing(event) if isinstance(event, Finished) else event for event in shown]

    def _closing(self, event: Finished) -> Finished:
        cost = None if event.cost is None else event.cost.model_copy(update={"complete": False})
        return replace(event, cost=cost, usage=event.usage if self._seam is None else None)


def _last(operation: Stream, broken: str) -> Stream:
    """Return the operation with the model whose stream broke at the end of its list: the others have not failed yet."""
    others = [model for model in operation.models if model != broken]
    if not others or len(others) == len(operation.models):
        return operation
    return operation.model_copy(update={"model": others[0], "fallbacks": (*others[1:], broken)})


def _without_frames(error: BaseException) -> None:
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__
