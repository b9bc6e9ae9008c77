"""The circuits of a breaker: one for each origin, model and kind of operation."""

import asyncio
import math
from collections.abc import Iterable
from typing import Any

from resilient_ai.core.call import Call
from resilient_ai.core.clock import Clock, time_of
from resilient_ai.core.errors import ConnectionFailed, ProviderError, StatusError
from resilient_ai.core.events import CircuitClosed, CircuitHalfOpened, CircuitOpened, Event
from resilient_ai.core.health import BreakerState
from resilient_ai.middleware._machines.bounded import make_room
from resilient_ai.middleware._machines.breaker import Breaker, Rules, Ticket
from resilient_ai.middleware._machines.latencies import Latencies

_Key = tuple[str, str, str]

# A request that the deadline cut off is a failure of the service if it was given at least this many seconds, and as long as
# all but a hundredth of the answers took, once so many of them are known.
_BRIEF = 1.0
_SLOW = 0.99
_ENOUGH = 20
# At so many circuits a quarter is forgotten: first those at rest, then closed ones, open ones only where nothing else is left.
_MOST_CIRCUITS = 1024


class Circuit:
    """A breaker, the clock of the call it was made for, and how long answers took lately."""

    __slots__ = ("breaker", "clock", "latencies")

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self.breaker = Breaker(rules)
        self.clock = clock
        self.latencies = Latencies()

    def record(self, call: Call[Any], ticket: Ticket, error: BaseException, now: float, took: float) -> Event | None:
        """Tell the breaker how a call failed after `took` seconds; return the change of state that follows from it."""
        breaker = self.breaker
        before = breaker.state
        if isinstance(error, asyncio.CancelledError) and call.remaining() == 0 and self._hangs(took):
            breaker.record_failure(ticket, now, call.clock.random)
            return None if breaker.state == before else self.changed(call, now)
        if not isinstance(error, ProviderError) or _says_nothing(error):
            breaker.release(ticket)
            return None
        status = error.status if isinstance(error, StatusError) else None
        hint = error.retry_after if isinstance(error, StatusError) else None
        if status is None or status >= 500 or status == 408:
            breaker.record_failure(ticket, now, call.clock.random, hint)
        elif status == 429:
            breaker.record_busy(ticket, now, call.clock.random, hint)
        else:
            breaker.record_client_error(ticket, now)
        if breaker.state == "open":
            error.circuit_open_for = breaker.retry_after(now)
        return None if breaker.state == before else self.changed(call, now)

    def _hangs(self, took: float) -> bool:
        """Return whether a request that the deadline cut off had been given as much time as answers take here."""
        usual = self.latencies.quantile(_SLOW) if len(self.latencies) >= _ENOUGH else 0.0
        return took >= max(_BRIEF, usual)

    def worth(self, now: float) -> float:
        """Return what would be lost with this circuit: at rest nothing, while closed less than otherwise."""
        if self.breaker.state == "closed":
            return 0.0 if self.breaker.at_rest(now) else 1.0
        return 2.0

    def changed(self, call: Call[Any], now: float) -> Event:
        """Return the event that tells of the state the breaker is in now."""
        if self.breaker.state == "open":
            return CircuitOpened(call_id=call.id, model=call.model, retry_after=self.breaker.retry_after(now))
        if self.breaker.state == "half_open":
            return CircuitHalfOpened(call_id=call.id, model=call.model)
        return CircuitClosed(call_id=call.id, model=call.model)


def _says_nothing(error: ProviderError) -> bool:
    """Return whether an error says nothing about the service."""
    if isinstance(error, ConnectionFailed):
        return error.local
    return isinstance(error, StatusError) and not error.sent  # our own copy of an older refusal


class Circuits:
    """All circuits of one `CircuitBreaker`. Not safe to use from two threads at once."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._known: dict[_Key, Circuit] = {}
        self._isolated: set[str] = set()

    def of(self, call: Call[Any], now: float) -> Circuit:
        """Return the circuit of a call."""
        key = (call.origin, call.model, call.operation.kind)
        return self._known.get(key) or self._add(key, call.clock, now)

    def against(self, call: Call[Any], now: float) -> str | None:
        """Return why a call may not go, None where it may; a circuit that comes back bit by bit stands against none."""
        circuit = self._known.get((call.origin, call.model, call.operation.kind))
        if circuit is None:
            return "it is isolated" if call.model in self._isolated else None
        state = circuit.breaker.state
        if state == "isolated":
            return "it is isolated"
        return "its circuit is open" if state != "closed" and circuit.breaker.retry_after(now) > 0 else None

    def isolate(self, model: str) -> None:
        """Let nothing through to `model`, also by the circuits it does not have yet."""
        self._isolated.add(model)
        for (_, known, _), circuit in self._known.items():
            if known == model:
                circuit.breaker.isolate()

    def reset(self, model: str | None) -> None:
        """Close the circuits of `model`, or all."""
        self._isolated = self._isolated - {model} if model is not None else set()
        for (_, known, _), circuit in self._known.items():
            if model in {None, known}:
                circuit.breaker.reset()

    def clear(self) -> None:
        """Forget everything but what was isolated by hand."""
        self._known.clear()

    def states(self) -> Iterable[BreakerState]:
        """Return what each breaker knows now."""
        for key, circuit in self._known.items():
            now = time_of(circuit.clock)
            throughput, failures = circuit.breaker.totals(now)
            yield BreakerState(
                key=key,
                state=circuit.breaker.state,
                failures=failures,
                throughput=throughput,
                retry_after=circuit.breaker.retry_after(now),
            )
        for model in sorted(self._isolated - {model for _, model, _ in self._known}):
            yield BreakerState(key=("", model, ""), state="isolated", failures=0, throughput=0, retry_after=math.inf)

    def _add(self, key: _Key, clock: Clock, now: float) -> Circuit:
        make_room(self._known, _MOST_CIRCUITS, lambda known: known.worth(now))
        circuit = self._known[key] = Circuit(self._rules, clock)
        if key[1] in self._isolated:
            circuit.breaker.isolate()
        return circuit
