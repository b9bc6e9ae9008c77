"""The line for the permits of one model."""

from collections.abc import Callable
from typing import Any, Literal

from resilient_ai.core.call import Call
from resilient_ai.core.errors import BadRequest, Overloaded, RateLimited, RequestTooLarge
from resilient_ai.core.events import LimitChanged
from resilient_ai.core.health import LimitState
from resilient_ai.core.streams import StreamEnd
from resilient_ai.middleware._fleet_permit import FleetPermit
from resilient_ai.middleware._machines.aimd import Aimd
from resilient_ai.middleware._machines.permits import Permits
from resilient_ai.middleware._waiter import Waiter

Key = tuple[str, str]

# What the end of a request says about the limit: the service had room, had none, or neither. Nothing is known where nobody
# can be asked for the time: the garbage collector found it, or it was cancelled.
Room = Literal["had_room", "had_none", "neither", "unknown"]
# How many calls the time that a call waits for the fleet is taken from.
_ASKED_SAMPLES = 20


class PermitLine:
    """The permits of one model and those who wait for them. Its methods are called in a turn."""

    __slots__ = ("aimd", "is_inherited", "is_shared", "mean_asked", "permits", "sending")

    def __init__(self, permits: Permits[Waiter], aimd: Aimd | None, *, is_shared: bool) -> None:
        self.permits = permits
        self.aimd = aimd
        self.is_shared = is_shared
        # Of those that have a permit of this process, those that have one of the fleet as well; and the seconds that took.
        self.sending = 0
        self.mean_asked = 0.0
        self.is_inherited = False

    def settle(
        self, call: Call[Any], shared: FleetPermit | None, room: Room, since: float, now: float | None
    ) -> Callable[[], None] | None:
        """Take a permit back, learn from how its request ended, and pass it on; return what tells of a changed limit."""
        permits, aimd = self.permits, self.aimd
        permits.release(batch=call.priority == "batch")
        if shared is not None:
            self.sending -= shared.is_admitted
        before = permits.limit
        if now is not None:
            if room != "had_none":
                permits.record_held(now - since)
            if aimd is not None:
                if room == "had_room":
                    aimd.record_success(now, permits.in_use + 1)
                elif room == "had_none":
                    aimd.record_overload(now, permits.in_use, permits.mean_held)
                permits.limit = aimd.limit
        self.pass_on()
        if permits.limit == before:
            return None
        event = LimitChanged(call_id=call.id, model=call.model, limit=permits.limit)
        return lambda: call.emit(event)

    @property
    def under_way(self) -> int:
        """How many requests are sent and not answered."""
        return self.sending if self.is_shared else self.permits.in_use

    @property
    def waiting(self) -> int:
        """How many calls wait, for a permit of this process or of the fleet."""
        return self.permits.waiting + self.permits.in_use - self.under_way

    def predicted_wait(self, *, batch: bool) -> float | None:
        """Return the seconds that a call which comes now would wait; None where that cannot be told."""
        if self.aimd is not None and self.aimd.is_starting:
            return None
        wait = self.permits.predicted_wait(batch=batch)
        if not wait:
            return wait
        # A permit of this process is taken for the time in the line of the fleet, too.
        return wait * (1 + self.mean_asked / self.permits.mean_held)

    def mean_held(self) -> float | None:
        """Return the seconds for which a request holds its permit; None where too few are known."""
        return None if self.permits.predicted_wait() is None else self.permits.mean_held

    def record_asked(self, seconds: float) -> None:
        """Take note of how long a call waited for the fleet: a mean in which the last few count most."""
        self.mean_asked += (seconds - self.mean_asked) / _ASKED_SAMPLES

    def pass_on(self) -> None:
        """Give what is free to those of the queue whose loop still runs."""
        while (waiter := self.permits.grant()) is not None:
            if not waiter.try_wake():
                self.permits.release(batch=waiter.batch)

    def leave(self, waiter: Waiter) -> None:
        """Take a task that was cancelled out of the queue; if it had got a permit in the same moment, pass that on."""
        if not self.permits.try_leave(waiter) and waiter.is_woken:
            self.permits.release(batch=waiter.batch)
            self.pass_on()

    def state(self, key: Key, limit_max: int, at_most: int, *, shared: bool | None) -> LimitState:
        """Return what there is to know."""
        return LimitState(
            key=key,
            limit=min(self.permits.limit, at_most),
            limit_max=limit_max,
            in_use=self.under_way,
            waiting=self.waiting,
            shared=shared,
        )


def room_for(error: BaseException) -> Room:
    if isinstance(error, RateLimited | Overloaded):
        return "had_none"
    if isinstance(error, BadRequest | RequestTooLarge):
        return "had_room"
    return "neither" if isinstance(error, Exception) else "unknown"


def room_for_stream(end: StreamEnd) -> Room:
    if end.how == "completed":
        return "had_room"
    return "neither" if end.how == "failed" else "unknown"
