"""Make requests fail on purpose, by a plan that can be replayed."""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_between, check_callable, check_kind, check_names, check_span
from resilient_ai.core.deltas import StreamEvent
from resilient_ai.core.errors import (
    AttemptTimeout,
    ConnectionFailed,
    InvalidResponse,
    ProviderError,
    StreamInterrupted,
    status_error_type,
)
from resilient_ai.core.log import Log
from resilient_ai.core.streams import StreamResult

R = TypeVar("R")
Fault = Literal[
    "refused", "connect_timeout", "reset", "invalid_response", "status_429", "status_500", "status_502", "status_503"
]

FAULTS: tuple[Fault, ...] = get_args(Fault)
_HANG = 3600.0  # seconds after which a peer that hangs is gone
_RETRY_AFTER = 1.0  # seconds that a 429 and a 503 ask to wait
_MOST_EVENTS = 20  # of a stream before it is cut

_log = Log()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosPlan:
    """What happens to one request.

    Args:
        delay: Seconds by which it leaves later.
        hangs: Whether it gets no answer at all.
        fault: The name of the error it fails with, None where it reaches the provider.
        cut_after: Events after which its stream breaks; None, or as many as it has, leaves it whole.
    """

    delay: float = 0.0
    hangs: bool = False
    fault: Fault | None = None
    cut_after: int | None = None


@dataclass(frozen=True, kw_only=True)
class Chaos:
    """Make requests fail on purpose, to see whether an application stands it.

    It is for tests and drills, stands innermost, and says in the log that it is there. What is outside of it cannot tell its
    failures from real ones: they are the errors of `resilient_ai.core.errors`, and count as requests. A request that is made
    to fail or hang never reaches the provider, and so costs nothing.

    What happens to the n-th request that reaches it is a function of `seed` and n alone, however long anything takes, and a
    change of one rate leaves the draws of the others as they were. Errors carry a note with seed and number, and
    `plan(number)` tells what was planned. Requests that `only` spares have no number. Calls that run at the same time may
    take their numbers in another order.

    Args:
        seed: Where the draws begin.
        fault_rate: Share of requests that fail at once with one of `faults`, 0 to 1.
        faults: Which errors, each as likely as the other: "refused" and "connect_timeout" (nothing was sent), "reset" (sent,
            but no answer), "invalid_response", "status_429" and "status_503" (which ask to wait 1 s), "status_500",
            "status_502".
        latency_rate: Share of requests that leave late, 0 to 1; they may fail as well.
        latency: Least and most seconds of lateness.
        hang_rate: Share of requests that get no answer for an hour, and then a reset, 0 to 1.
        interrupt_rate: Share of streams that break after 1 to 20 events, 0 to 1.
        only: Which calls it is about, such as those of one tenant; None for all.

    Raises:
        ValueError: If a rate or time is out of its range, or a fault has no such name.

    >>> Chaos(seed=7, fault_rate=0.5).plan(3)
    ChaosPlan(delay=0.0, hangs=False, fault='status_502', cut_after=None)
    """

    stands_for_provider: ClassVar[bool] = True
    inside_of: ClassVar[Mapping[str, str]] = {
        "Deadline": "a request that hangs must be ended by it",
        "Resume": "a stream that is made to break would never be repaired",
        "Routing": "a failure made outside of it would never lead to another model",
        "Batching": "every batch is a request that may be made to fail",
        "Retry": "a failure made outside of it would never be tried again",
        "CircuitBreaker": "it would not see the failures",
        "RateLimit": "a request that is made to fail has taken its share of the rate",
        "ConcurrencyLimit": "a request that is late or hangs holds a permit, as a real one does",
        "CostAccounting": "a request that is made to fail is a send and has a row",
        "Timeout": "a request that hangs must be ended by its timers",
    }

    seed: int = 0
    fault_rate: float = 0.05
    faults: Sequence[Fault] = FAULTS
    latency_rate: float = 0.0
    latency: tuple[float, float] = (0.1, 2.0)
    hang_rate: float = 0.0
    interrupt_rate: float = 0.0
    only: Callable[[Call[Any]], bool] | None = field(default=None, repr=False)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("fault_rate", "latency_rate", "hang_rate", "interrupt_rate"):
            check_between(name, getattr(self, name), 0, 1)
        check_kind("seed", self.seed, int)
        check_kind("faults", self.faults, Sequence)
        check_names("faults", self.faults)
        unknown = [fault for fault in self.faults if fault not in FAULTS]
        if unknown or not self.faults:
            raise ValueError(f"faults must be one or more of {', '.join(FAULTS)}, got {self.faults!r}")
        check_span("latency", self.latency)
        check_callable("only", self.only)
        _log.warning("chaos is on, so requests fail on purpose: %r", self)

    def plan(self, number: int) -> ChaosPlan:
        """Return what happens to the request of that number, counted from 1."""
        # Always so many draws in the same order, so that each rate has draws of its own.
        chance = random.Random(f"{self.seed}/{number}")
        fails, late, hangs, breaks = (chance.random() for _ in range(4))
        fault, delay, events = (
            chance.choice(self.faults),
            chance.uniform(*self.latency),
            chance.randint(1, _MOST_EVENTS),
        )
        hang = hangs < self.hang_rate
        return ChaosPlan(
            delay=delay if late < self.latency_rate else 0.0,
            hangs=hang,
            fault=fault if fails < self.fault_rate and not hang else None,
            cut_after=events if breaks < self.interrupt_rate else None,
        )

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Let happen to the request what is planned for it."""
        if self.only is not None and not self.only(call):
            return await proceed(call)
        number = next(self._numbers)
        plan = self.plan(number)
        if plan.delay:
            await call.clock.sleep(plan.delay)
        if plan.hangs or plan.fault is not None:
            error = self._noted(number, _error(plan.fault or "reset", call.model))
            call.send_started(leaving=error.sent)
            if plan.hangs:
                await call.clock.sleep(_HANG)
            raise error
        result = await proceed(call)
        if plan.cut_after is None or not isinstance(result, StreamResult):
            return result
        error = self._noted(number, _error("reset", call.model))
        # R is the stream's own type here, which no type checker concludes.
        return cast("R", await _cut(result, call, plan.cut_after, error))

    def _noted(self, number: int, error: ProviderError) -> ProviderError:
        error.add_note(f"made on purpose: Chaos(seed={self.seed}), request {number}")
        return error


def _error(fault: Fault, model: str) -> ProviderError:
    if fault == "refused":
        return ConnectionFailed("the host refused the connection or could not be reached", phase="connect", model=model)
    if fault == "connect_timeout":
        return AttemptTimeout(timer="connect", elapsed=None, sent=False, model=model)
    if fault == "reset":
        return ConnectionFailed(
            "the connection broke before the whole answer had arrived", phase="receive", model=model
        )
    if fault == "invalid_response":
        return InvalidResponse("the answer is not JSON", excerpt="<html>", model=model)
    status = int(fault.removeprefix("status_"))
    retry_after = _RETRY_AFTER if status in {429, 503} else None
    sentence = f"{model!r} answered {status}: made on purpose"
    return status_error_type(status)(sentence, status=status, retry_after=retry_after, model=model)


async def _cut(stream: StreamResult, call: Call[Any], after: int, error: ProviderError) -> StreamResult:
    source = _Cut(stream, after, error)
    return StreamResult(source, model=stream.model, first=await source.read() or (), clock=call.clock)


class _Cut:
    """The events of a stream, up to the one after which it breaks."""

    finishing = False  # the stream inside waits no longer than it should once it is finishing

    def __init__(self, stream: StreamResult, left: int, error: ProviderError) -> None:
        self._stream = stream
        self._left = left
        self._error = error

    async def read(self) -> Sequence[StreamEvent] | None:
        """Return the next events, and break once there were so many."""
        if self._left == 0:
            raise self._error
        try:
            events = (await self._stream.next_events())[: self._left]
        except StreamInterrupted as error:  # the stream around this one says so by itself
            raise error.__cause__ or error from None
        self._left -= len(events)
        return events or None

    def conclude(self) -> Sequence[StreamEvent]:
        """Return nothing: the stream inside has concluded."""
        return ()

    def abort(self) -> None:
        """Drop the stream inside."""
        self._stream.drop()


__all__ = ["FAULTS", "Chaos", "ChaosPlan", "Fault"]
