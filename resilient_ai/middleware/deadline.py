"""Give a whole call only so much time."""

from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_seconds
from resilient_ai.core.clock import within
from resilient_ai.core.errors import DeadlineExceeded
from resilient_ai.core.pipeline import WorstCase
from resilient_ai.core.streams import StreamResult

R = TypeVar("R")

# The "flex" tier may hold a request for ten minutes, which leaves little of the usual time for the answer.
_FLEX = 900.0


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """Give a whole call only so much time: queueing, tries, waits, other models, and the body of a stream.

    It turns the `timeout=` of a call into a point in time that everything below can ask for, so that nobody begins what
    cannot end in time. Place it outside of whatever waits. A deadline that the call brings along wins where it is nearer.

    Args:
        total: Seconds for a call that names no `timeout` of its own; at least 900 for calls of the "flex" tier.

    Raises:
        ValueError: If the number is not positive and finite.

    >>> Deadline(total=30.0)
    Deadline(total=30.0)
    """

    sets_deadline: ClassVar[bool] = True

    total: float = 600.0

    def __post_init__(self) -> None:
        check_seconds("total", self.total)

    def worst_case(self, inner: WorstCase) -> WorstCase:
        """Bound the time of everything inside."""
        return replace(inner, seconds=min(inner.seconds, self.total))

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call with its deadline, and raise `DeadlineExceeded` when it passes."""
        total = call.timeout
        if total is None:
            total = max(self.total, _FLEX) if call.operation.is_flex else self.total
        deadline = call.started + total
        if call.deadline is None or deadline < call.deadline:
            call = call.replace(deadline=deadline)
        else:
            deadline = call.deadline
            total = deadline - call.started
        seconds = deadline - call.clock.monotonic()
        if seconds <= 0:
            raise _exceeded(total, call)
        result = await within(call.clock, seconds, lambda: proceed(call), lambda: _exceeded(total, call))
        if isinstance(result, StreamResult):
            result.limit_until(deadline, lambda: _exceeded(total, call))
        return result


def _exceeded(timeout: float, call: Call[R]) -> DeadlineExceeded:
    elapsed = call.clock.monotonic() - call.started
    return DeadlineExceeded(timeout=timeout, elapsed=elapsed, sent=call.departed.count > 0)
