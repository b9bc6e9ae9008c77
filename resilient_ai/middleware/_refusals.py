"""Keys that the service has refused, so that a thousand callers do not ask a thousand times."""

import copy
from collections.abc import Iterable
from typing import Any

from resilient_ai.core.call import Call
from resilient_ai.core.clock import Clock, time_of
from resilient_ai.core.errors import AuthenticationFailed, InsufficientBalance, PermissionDenied, StatusError
from resilient_ai.core.events import KeyRefused
from resilient_ai.core.health import BreakerState
from resilient_ai.middleware._machines.bounded import make_room
from resilient_ai.middleware._machines.latch import Latch

# Origin, account, and the model where a refusal is about one model only.
_Key = tuple[str, str, str]

# A latch that let a call through, and the number of its lease.
Lease = tuple[Latch, int]

_LEASE = 5.0
_MOST_REFUSALS = 1024


class _Refusal:
    """A refusal that holds: what the service said, and the latch that keeps others from hearing it as well."""

    __slots__ = ("clock", "error", "latch")

    def __init__(self, error: StatusError, latch: Latch, clock: Clock) -> None:
        self.error = error
        self.latch = latch
        self.clock = clock


class Refusals:
    """What each key was refused. Not safe to use from two threads at once.

    Args:
        duration: Seconds a refused key is left alone at first.
        longest: Upper bound in seconds, as the time doubles with every further refusal.
    """

    def __init__(self, *, duration: float, longest: float) -> None:
        self._duration = duration
        self._longest = longest
        self._known: dict[_Key, _Refusal] = {}

    def __bool__(self) -> bool:
        """Return whether any refusal holds."""
        return bool(self._known)

    def check(self, call: Call[Any], now: float) -> tuple[Lease, ...]:
        """Return the leases with which the call may find out; raise the refusal where one holds."""
        passed: list[Lease] = []
        for key in _entries_of(call):
            refusal = self._known.get(key)
            if refusal is None:
                continue
            wait = refusal.latch.wait(now)
            probe = refusal.latch.try_acquire(now)
            if not probe:
                for latch, held in passed:
                    latch.release(held, now)
                raise _again(refusal.error, wait)
            passed.append((refusal.latch, probe))
        return tuple(passed)

    def against(self, call: Call[Any], now: float) -> str | None:
        """Return why a call would be refused, None where it may go."""
        for key in _entries_of(call) if self._known else ():
            refusal = self._known.get(key)
            if refusal is not None and refusal.latch.wait(now) > 0:
                return f"the key was refused with {refusal.error.status}"
        return None

    def record(self, call: Call[Any], error: BaseException, now: float) -> KeyRefused | None:
        """Take note of a refusal; return what to tell the listeners, None for every other error."""
        if not isinstance(error, StatusError) or not error.sent:  # not sent is our own copy of an older refusal
            return None
        if isinstance(error, AuthenticationFailed | InsufficientBalance):
            model = ""
        elif isinstance(error, PermissionDenied):
            model = call.model
        else:
            if error.status < 500:
                self.accept(call)  # whoever is told what is wrong with a request has got past the door
            return None
        refusal = self._known.get((call.origin, call.account, model)) or self._add(call, error, model, now)
        refusal.error = copy.copy(error)  # without the frames of the call it belongs to
        if not refusal.latch.refuse(now):
            return None
        return KeyRefused(call_id=call.id, model=call.model, status=error.status, retry_after=refusal.latch.wait(now))

    def _add(self, call: Call[Any], error: StatusError, model: str, now: float) -> _Refusal:
        make_room(self._known, _MOST_REFUSALS, lambda known: known.latch.wait(now))
        latch = Latch(duration=self._duration, longest=self._longest, lease=_LEASE)
        refusal = self._known[call.origin, call.account, model] = _Refusal(error, latch, call.clock)
        return refusal

    def accept(self, call: Call[Any]) -> None:
        """Forget what the key of a call was refused: it was answered."""
        for key in _entries_of(call):
            self._known.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()

    def states(self) -> Iterable[BreakerState]:
        """Return what holds now, as breakers without a kind."""
        for (origin, _, model), refusal in self._known.items():
            wait = refusal.latch.wait(time_of(refusal.clock))
            yield BreakerState(
                key=(origin, model, ""),
                state="open" if wait else "half_open",
                failures=1,
                throughput=1,
                retry_after=wait,
            )


def _entries_of(call: Call[Any]) -> tuple[_Key, _Key]:
    return (call.origin, call.account, ""), (call.origin, call.account, call.model)


def _again(error: StatusError, wait: float) -> StatusError:
    """Return the refusal for a call that was not sent; each caller gets an error of its own."""
    again = copy.copy(error)
    again.args = (f"not sent, as the key was refused a moment ago and is tried again in {wait:.1f} s: {error}",)
    again.sent = False
    again.retry_after = wait
    return again
