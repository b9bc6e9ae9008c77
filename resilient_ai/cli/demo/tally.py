"""Counts what happens during the tour, from a middleware and from events."""

from dataclasses import dataclass
from typing import TypeVar

from resilient_ai.core.call import Call, Next
from resilient_ai.core.events import (
    CacheLookedUp,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    PermitGranted,
    RetryScheduled,
    SendSettled,
    SendStarted,
)

R = TypeVar("R")


@dataclass
class Tally:
    """Sums over the tour."""

    calls: int = 0
    sends: int = 0
    retries: int = 0
    hits: int = 0
    opened: int = 0
    half_opened: int = 0
    closed: int = 0
    queued: int = 0
    longest_wait: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    async def count_calls(self, call: Call[R], proceed: Next[R]) -> R:
        """Count a call; a function such as this one is all a middleware needs to be."""
        self.calls += 1
        return await proceed(call)

    def heard(self, event: Event) -> None:
        """Count an event."""
        match event:
            case SendStarted():
                self.sends += 1
            case SendSettled(usage=usage) if usage is not None:
                self.input_tokens += usage.input_tokens or 0
                self.output_tokens += usage.output_tokens or 0
            case RetryScheduled():
                self.retries += 1
            case CacheLookedUp():
                self.hits += event.hits
            case PermitGranted():
                self.queued += 1
                self.longest_wait = max(self.longest_wait, event.waited)
            case CircuitOpened():
                self.opened += 1
            case CircuitHalfOpened():
                self.half_opened += 1
            case CircuitClosed():
                self.closed += 1
            case _:
                pass
