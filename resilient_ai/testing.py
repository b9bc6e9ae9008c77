"""What tests of this package and of its users share: a fake clock, a virtual-time event loop, a scripted provider."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar, cast

from typing_extensions import override

from resilient_ai.core.call import Call
from resilient_ai.core.clock import Timer
from resilient_ai.core.deltas import Finished, StreamEvent, TextDelta
from resilient_ai.core.errors import InvalidResponse
from resilient_ai.core.operations import Embed, Image, Operation, Stream
from resilient_ai.core.results import ChatResult, Choice, EmbedResult, ImageResult, Result, Usage
from resilient_ai.core.results import Image as Picture
from resilient_ai.core.streams import StreamResult
from resilient_ai.core.vectors import Vectors

R = TypeVar("R")
T = TypeVar("T")

# The smallest PNG there is: one transparent pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000b4944415478da636000020000050001e9fadcd80000000049454e44ae426082"
)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps: when nothing is left to do, it is at once the time of the next timer.

    A test of an hour of outage takes milliseconds, and every timer fires in its order. Sockets and threads work, but time does
    not wait for them, so such tests use an ordinary loop.
    """

    def __init__(self) -> None:
        self._now = 1_000.0
        super().__init__(_JumpingSelector(self))
        # A timer is due within the clock's resolution; the machine's nanosecond is less than a float of a year can show.
        self._clock_resolution = 1e-6

    @override
    def time(self) -> float:
        return self._now

    @override
    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads of the loop, in real time: a limit in time that jumps would be over at once."""
        await super().shutdown_default_executor()

    def jump(self, seconds: float) -> None:
        """Move time forward."""
        self._now += seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self._loop.jump(timeout)
        return ready


class FakeClock:
    """A clock that tells the time of a `VirtualLoop`, writes down every wait and knows what chance will bring.

    Args:
        chances: What `random()` returns, in turn, the last for ever; 1.0 minus a hair by default, so that every jittered wait is
            at its longest.

    >>> clock = FakeClock()
    >>> run(clock.sleep(3600)); clock.slept
    [3600]
    """

    def __init__(self, chances: Iterable[float] = (0.9999999999999999,)) -> None:
        self.slept: list[float] = []
        self.offset = 1_800_000_000.0
        self._chances = list(chances)

    def monotonic(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """Return a date in 2027 that moves with the loop; add to `offset` to let the wall clock jump."""
        return self.offset + self.monotonic()

    def random(self) -> float:
        """Return the next chance."""
        return self._chances.pop(0) if len(self._chances) > 1 else self._chances[0]

    async def sleep(self, seconds: float) -> None:
        """Write the wait down and let virtual time pass."""
        self.slept.append(seconds)
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> Timer:
        """Return a timeout in virtual time."""
        return asyncio.timeout(seconds)

    @override
    def __repr__(self) -> str:
        return "FakeClock()"


class ManualClock(FakeClock):
    """A clock for machines that never wait: `now` is whatever the test says.

    >>> clock = ManualClock(); clock.now += 30; clock.monotonic()
    1030.0
    """

    def __init__(self, chances: Iterable[float] = (0.9999999999999999,)) -> None:
        super().__init__(chances)
        self.now = 1_000.0

    @override
    def monotonic(self) -> float:
        return self.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class ScriptedSource:
    """A stream's source that follows a script: events to deliver, seconds to wait, errors to raise.

    Args:
        script: In order: a list of events is delivered, a number is waited for, an exception is raised. A stream whose script
            delivers no `Finished` ends like a connection that was cut.
    """

    finishing = False

    def __init__(self, script: Sequence[Sequence[StreamEvent] | float | BaseException]) -> None:
        self._script = list(script)
        self._finished = False
        self.aborted = 0

    async def read(self) -> Sequence[StreamEvent] | None:
        """Follow the script to the next events."""
        while self._script:
            step = self._script.pop(0)
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, int | float):
                await asyncio.sleep(step)
                continue
            self._finished = any(isinstance(event, Finished) for event in step)
            return step
        return None

    def conclude(self) -> Sequence[StreamEvent]:
        """Complain, as the script ended without `Finished`."""
        raise InvalidResponse("the stream ended without a finish reason")

    def abort(self) -> None:
        """Count how often the connection was dropped."""
        self.aborted += 1


Step = BaseException | float | Any
Handler = Callable[[Call[Any]], Awaitable[Any]]


class ScriptedProvider:
    """A provider that follows a script and remembers what it was asked.

    Each request takes the next step: an exception is raised, a number is waited for (and the step after it taken), a function
    of the call is awaited, anything else is returned. When the script is over, requests are answered sensibly: chat with
    "Hello.", embeddings with `vector_of`, images with one pixel.

    >>> from resilient_ai.core.operations import Chat
    >>> from resilient_ai.core.pipeline import Pipeline
    >>> provider = ScriptedProvider()
    >>> run(Pipeline(provider).send(Chat(model="m", messages="hi"))).text, len(provider.calls)
    ('Hello.', 1)
    """

    origin = "https://scripted.test/v1"

    def __init__(self, *script: Step) -> None:
        self.script: list[Step] = list(script)
        self.calls: list[Call[Any]] = []
        self.closed = False

    async def __call__(self, call: Call[R], /) -> R:
        """Take the next step of the script."""
        self.calls.append(call)
        call.send_started()
        while self.script:
            step = self.script.pop(0)
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, int | float):
                await asyncio.sleep(step)
                continue
            answer = await cast("Handler", step)(call) if callable(step) else step
            return cast("R", _served_by(answer, call.model))
        return cast("R", _served_by(answer_to(call.operation), call.model))

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True


def _served_by(answer: object, model: str) -> object:
    if isinstance(answer, Result) and not answer.served_by:
        return answer.model_copy(update={"served_by": model})
    return answer


def answer_to(operation: Operation[Any]) -> object:
    """Return a sensible result for any operation."""
    model = operation.model
    if isinstance(operation, Embed):
        vectors = Vectors.pack([vector_of(text) for text in operation.texts])
        return EmbedResult(model=model, vectors=vectors, usage=Usage(input_tokens=len(operation.texts)))
    if isinstance(operation, Image):
        return ImageResult(model=model, images=(Picture(data=PIXEL, media_type="image/png"),) * operation.n)
    if isinstance(operation, Stream):
        return stream_of("Hel", "lo.", model=model)
    return chat_result("Hello.", model=model)


def chat_result(text: str = "Hello.", *, model: str = "m", **fields: Any) -> ChatResult:
    """Return a chat answer with ten tokens in and three out."""
    usage = Usage(input_tokens=10, output_tokens=3)
    values: dict[str, Any] = {"model": model, "usage": usage, "choices": (Choice(text=text, finish_reason="stop"),)}
    return ChatResult(**(values | fields))


def stream_of(*texts: str, model: str = "m", pause: float = 0.0) -> StreamResult:
    """Return a stream that delivers each text as one event, with `pause` seconds before each but the first."""
    steps: list[Sequence[StreamEvent] | float | BaseException] = []
    for text in texts[1:]:
        steps += [pause, [TextDelta(text)]]
    steps.append([Finished(("stop",), Usage(input_tokens=10, output_tokens=len(texts)))])
    return StreamResult(ScriptedSource(steps), model=model, first=[TextDelta(texts[0])], clock=FakeClock())


def vector_of(text: str, dimensions: int = 4) -> list[float]:
    """Return a vector that belongs to `text` alone.

    >>> vector_of("a") == vector_of("a"), vector_of("a") == vector_of("b")
    (True, False)
    """
    seed = int.from_bytes(text.encode()[:6].ljust(6, b"\x00"), "big") + len(text)
    return [((seed * (position + 3)) % 1009) / 1009 for position in range(dimensions)]


__all__ = [
    "PIXEL",
    "FakeClock",
    "ManualClock",
    "ScriptedProvider",
    "ScriptedSource",
    "VirtualLoop",
    "answer_to",
    "chat_result",
    "run",
    "stream_of",
    "vector_of",
]
