"""The state machine of a circuit breaker: closed, open, half-open, isolated."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from resilient_ai.core.health import CircuitState
from resilient_ai.middleware._machines.window import Window

# A server may ask for a longer break than ours, but never for one that outlasts the patience of everybody.
_LONGEST_HINT = 300.0
_STEEPEST = 60
# Calls that a circuit which has just closed lets go in any case: little traffic is no stampede.
_RAMP_FLOOR = 5
_RAMP_SHARE = 0.25
_RAMP_WAIT = 1.0  # seconds after which a call that the ramp held back may ask again
_INSISTED = 1.0  # seconds between two probes ahead of time


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a breaker opens, and for how long; see `CircuitBreaker` for what each number means."""

    failure_ratio: float
    minimum_throughput: int
    consecutive_failures: int
    sampling_duration: float
    break_duration: float
    break_duration_max: float
    probe_lease: float
    ramp: float


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a call holds that was let through; every call of one closed period shares one.

    Args:
        generation: The period between two changes of state; results of an older one do not count.
        probe: Which probe of the period it is, from 1; 0 while the circuit is closed.
    """

    generation: int
    probe: int = 0


class Breaker:
    """Decides whether a call may go, from how the calls before it ended.

    Closed lets every call go; open none; half-open one probe, whose end decides. The probe holds a lease: one that is
    cancelled gives it back, and one that hangs loses it to the next call. A probe that lost its lease may still close the
    circuit by a success, as otherwise a model slower than the lease could never come back.

    A circuit that has just closed does not take everybody at once. For `ramp` seconds a call goes where fewer have gone since
    than `5 + 2 * answers`, and beyond that with a chance that grows evenly from 0.25 to 1.

    Isolated by hand it lets nothing go until it is reset, whatever is reported.

    Args:
        rules: When to open, and for how long.
    """

    __slots__ = (
        "_consecutive",
        "_insisted",
        "_leased",
        "_openings",
        "_ramp",
        "_rules",
        "_ticket",
        "_until",
        "_window",
        "state",
    )

    def __init__(self, rules: Rules) -> None:
        self.state: CircuitState = "closed"
        self._rules = rules
        self._window = Window(rules.sampling_duration)
        self._consecutive = 0
        self._openings = 0
        self._until = 0.0  # end of the break while open, of the lease while half-open
        self._ticket = Ticket(0)
        self._leased = False
        self._ramp: _Ramp | None = None
        self._insisted = -math.inf

    def try_acquire(self, now: float, random: Callable[[], float] = float, *, insist: bool = False) -> Ticket | None:
        """Return the ticket of a call that may go, None for one that may not.

        Args:
            now: The time.
            random: Chance, asked for only while the circuit comes back; by default always 0, which lets every call go.
            insist: Whether a probe may go ahead of time, where none is under way: at most one a second.
        """
        if self.state == "closed":
            return self._ticket if self._ramp is None or self._comes_back(now, random) else None
        if self.state == "isolated":
            return None
        if now < self._until:
            if self._leased or (self.state == "open" and not (insist and now >= self._insisted + _INSISTED)):
                return None
            if self.state == "open":
                self._insisted = now
        if self.state == "open":
            self._change("half_open")
        return self._lease(now)

    def may_still_go(self, ticket: Ticket) -> bool:
        """Return whether a call that got `ticket` a while ago and has waited since would be let through with it now."""
        return self._holds_lease(ticket) or (self.state == "closed" and ticket.generation == self._ticket.generation)

    def isolate(self) -> None:
        """Let nothing through until `reset`."""
        if self.state != "isolated":
            self._change("isolated")

    def reset(self) -> None:
        """Close, and forget everything."""
        self._openings = 0
        self._ramp = None
        self._window.clear()
        self._change("closed")

    def record_success(self, ticket: Ticket, now: float) -> Ticket:
        """Count an answer; return the ticket under which the end of a stream may be reported later."""
        if ticket.generation != self._ticket.generation:
            return ticket
        if self.state == "half_open":
            self._close(now)
        else:
            self._consecutive = 0
            self._window.record(now, failed=False)
            if self._ramp is not None:
                self._ramp.answers += 1
        return self._ticket

    def record_client_error(self, ticket: Ticket, now: float) -> None:
        """Count an answer that refused the request: the server works, but that is no news about its failures."""
        if ticket.generation != self._ticket.generation:
            return
        if self.state == "half_open":
            self._close(now)
        else:
            self._window.record(now, failed=False)

    def record_failure(
        self, ticket: Ticket, now: float, random: Callable[[], float], retry_after: float | None = None
    ) -> None:
        """Count a failure.

        Args:
            ticket: Of the call that failed.
            now: The time.
            random: Where the jitter of the break comes from, should it begin here.
            retry_after: Seconds the server asked to be left alone.
        """
        if self.state == "half_open":
            if self._holds_lease(ticket):
                self._openings += 1
                self._open(now, random(), retry_after)
        elif ticket.generation == self._ticket.generation:
            self._consecutive += 1
            self._window.record(now, failed=True)
            if self._has_failed_enough(now):
                self._open(now, random(), retry_after)

    def record_busy(
        self, ticket: Ticket, now: float, random: Callable[[], float], retry_after: float | None = None
    ) -> None:
        """Take note of a 429: nothing while closed; a probe that meets one leaves the model alone for a while longer."""
        if self._holds_lease(ticket):
            self._open(now, random(), retry_after)

    def release(self, ticket: Ticket) -> None:
        """Take back the ticket of a call that ended without saying anything about the server."""
        if self._holds_lease(ticket):
            self._leased = False

    def retry_after(self, now: float) -> float:
        """Return the seconds after which a call may be let through, 0 if one may go now."""
        if self.state == "isolated":
            return math.inf
        if self.state == "closed":
            return 0.0 if self._ramp is None else min(_RAMP_WAIT, max(0.0, self._ramp.until - now))
        if self.state == "half_open" and not self._leased:
            return 0.0
        left = max(0.0, self._until - now)
        # A probe under way mostly ends long before its lease.
        return left if self.state == "open" else min(left, self._rules.break_duration)

    def totals(self, now: float) -> tuple[int, int]:
        """Return the outcomes of the sampled time, and how many of them are failures."""
        return self._window.totals(now)

    def at_rest(self, now: float) -> bool:
        """Whether it is closed and nothing of the sampled time counts any more, so that little is lost by forgetting it."""
        quiet = self.state == "closed" and not self._window.totals(now)[0]
        return quiet and (self._ramp is None or now >= self._ramp.until)

    def _comes_back(self, now: float, random: Callable[[], float]) -> bool:
        ramp = self._ramp
        if ramp is None or now >= ramp.until:
            self._ramp = None
            return True
        share = 1.0 - (1.0 - _RAMP_SHARE) * (ramp.until - now) / self._rules.ramp
        if ramp.gone >= _RAMP_FLOOR + 2 * ramp.answers and random() >= share:
            return False
        ramp.gone += 1
        return True

    def _holds_lease(self, ticket: Ticket) -> bool:
        return self.state == "half_open" and self._leased and ticket == self._ticket

    def _has_failed_enough(self, now: float) -> bool:
        if self._consecutive >= self._rules.consecutive_failures:
            return True
        outcomes, failures = self._window.totals(now)
        return outcomes >= self._rules.minimum_throughput and failures >= self._rules.failure_ratio * outcomes

    def _lease(self, now: float) -> Ticket:
        self._ticket = Ticket(self._ticket.generation, self._ticket.probe + 1)
        self._leased = True
        self._until = now + self._rules.probe_lease
        return self._ticket

    def _open(self, now: float, chance: float, hint: float | None) -> None:
        longest = self._rules.break_duration_max
        duration = min(longest, self._rules.break_duration * 2.0 ** min(self._openings, _STEEPEST))
        duration = min(longest, duration * (0.8 + 0.4 * chance))
        if hint is not None and hint > duration:
            duration = min(hint, max(duration, _LONGEST_HINT))
        self._until = now + duration
        self._change("open")

    def _close(self, now: float) -> None:
        self.reset()
        if self._rules.ramp > 0:
            self._ramp = _Ramp(now + self._rules.ramp)

    def _change(self, state: CircuitState) -> None:
        self.state = state
        self._ticket = Ticket(self._ticket.generation + 1)
        self._leased = False
        self._consecutive = 0


class _Ramp:
    """A circuit's way back: when it ends, how many calls have gone since it closed, and how many were answered."""

    __slots__ = ("answers", "gone", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.gone = 0
        self.answers = 1  # the probe that closed it
