"""Give every attempt only so much time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_seconds
from resilient_ai.core.clock import within
from resilient_ai.core.errors import AttemptTimeout, Timer
from resilient_ai.core.pipeline import WorstCase
from resilient_ai.core.streams import StreamResult

R = TypeVar("R")

# The "flex" tier may hold a request for ten minutes before its first token.
_FLEX = 620.0


@dataclass(frozen=True, kw_only=True)
class Timeout:
    """Give every attempt only so much time.

    Place it inside of `Retry`, so that an attempt that hangs is tried again; the time of the whole call is the `Deadline`'s.
    A stream has three timers: until the first token, between two content events while the reader waits (keep-alive comments
    do not count), and for everything together. All other operations have the last alone. Where the deadline of the call
    comes first, it alone is measured. Connections have a timer of their own in the transport.

    Args:
        first_token: Seconds until a stream delivers its first content; at least 620 for calls of the "flex" tier.
        idle: Seconds between two content events of a stream.
        attempt: Seconds for a whole attempt; at least 620 for calls of the "flex" tier.

    Raises:
        ValueError: If a number is not positive and finite.

    >>> Timeout(attempt=30.0)
    Timeout(first_token=60.0, idle=60.0, attempt=30.0)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Batching": "every batch has timers of its own",
        "Resume": "a stream that falls silent is asked for again, with timers of its own",
    }

    first_token: float = 60.0
    idle: float = 60.0
    attempt: float = 300.0

    def __post_init__(self) -> None:
        check_seconds("first_token", self.first_token)
        check_seconds("idle", self.idle)
        check_seconds("attempt", self.attempt)

    def worst_case(self, inner: WorstCase) -> WorstCase:
        """Bound the time of an attempt."""
        return replace(inner, seconds=min(inner.seconds, self.attempt))

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call, and raise `AttemptTimeout` when one of the timers fires."""
        flex = call.operation.is_flex
        seconds = attempt = max(self.attempt, _FLEX) if flex else self.attempt
        timer: Timer = "attempt"
        if call.operation.kind == "stream":
            first_token = max(self.first_token, _FLEX) if flex else self.first_token
            if first_token < attempt:
                seconds, timer = first_token, "first_token"
        started = call.clock.monotonic()
        departed = call.departed.count
        remaining = call.remaining()
        if remaining is not None and remaining <= seconds:
            result = await proceed(call)
        else:
            result = await within(
                call.clock,
                seconds,
                lambda: proceed(call.replace(attempt_deadline=started + seconds)),
                lambda: AttemptTimeout(
                    timer=timer, elapsed=seconds, sent=call.departed.count > departed, model=call.model
                ),
            )
        if isinstance(result, StreamResult):
            self._limit(result, call, started, attempt)
        return result

    def _limit(self, stream: StreamResult, call: Call[R], started: float, attempt: float) -> None:
        model, idle = call.model, self.idle
        stream.limit_idle(idle, lambda: AttemptTimeout(timer="idle", elapsed=idle, model=model))
        until = started + attempt
        if call.deadline is None or until < call.deadline:
            stream.limit_until(until, lambda: AttemptTimeout(timer="attempt", elapsed=attempt, model=model))
