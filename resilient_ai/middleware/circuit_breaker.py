"""Leave a model alone while it fails."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from resilient_ai.core.call import Call, Next
from resilient_ai.core.clock import Clock
from resilient_ai.core.errors import CircuitOpen, ProviderError, StatusError, StreamInterrupted
from resilient_ai.core.events import CircuitClosed, CircuitHalfOpened, CircuitOpened, Event
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._checks import check_at_least, check_seconds
from resilient_ai.middleware._machines.breaker import Breaker, Rules, State, Ticket
from resilient_ai.middleware._machines.turns import Turns

R = TypeVar("R")
_Key = tuple[str, str, str]

# Beyond so many models the breakers that have nothing to remember are forgotten.
_MOST_MODELS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerState:
    """What one breaker knows at a moment.

    Args:
        key: Origin, model and kind of operation.
        state: "closed", "open" or "half_open".
        failures: Failures in the sampled time.
        throughput: Outcomes in the sampled time.
        retry_after: Seconds after which a call may be let through, 0 if one may go now.
    """

    key: tuple[str, str, str]
    state: State
    failures: int
    throughput: int
    retry_after: float


@dataclass(frozen=True, kw_only=True)
class CircuitBreaker:
    """Leave a model alone while it fails, and find out with one call at a time whether it is back.

    A model that is down answers no sooner for being asked more often, and every call would wait for its failure. Each pair
    of model and kind of operation has a breaker of its own. It opens after `consecutive_failures`, or where of at least
    `minimum_throughput` outcomes in `sampling_duration` at least `failure_ratio` failed. Then calls fail at once with
    `CircuitOpen` for `uniform(0.8, 1.2) * break_duration * 2 ** k` seconds, where k counts the probes that failed since, and
    never for less than the server asked for (up to 300 s). After that one call goes as a probe: its success closes the
    circuit, its failure opens it again. A stream has succeeded with its first token; a break later is one more failure.

    No answer, an answer in no time, one that cannot be read, 408 and 5xx are failures. A 429 is none, but does not close the
    circuit. Every other 4xx shows that the server works. What we refuse or cancel ourselves says nothing.

    Args:
        failure_ratio: Share of failures that opens the circuit, above 0 to 1.
        minimum_throughput: Outcomes below which the share says nothing, at least 1.
        consecutive_failures: Failures in a row that open the circuit, at least 1.
        sampling_duration: Seconds over which outcomes are counted.
        break_duration: Seconds of the first break.
        break_duration_max: Upper bound of a computed break, in seconds; at least `break_duration`.
        probe_lease: Seconds after which a probe that has not ended lets another one go.

    Raises:
        ValueError: If a number is out of its range.

    >>> CircuitBreaker(consecutive_failures=3)  # doctest: +ELLIPSIS
    CircuitBreaker(failure_ratio=0.5, minimum_throughput=10, consecutive_failures=3, sampling_duration=30.0, ...)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Cache": "an answer from the cache says nothing about the model, and an open circuit must not hide it",
        "Retry": "every try is an outcome of its own, and a retry must not ask a model whose circuit has opened",
        "Routing": "every model has a circuit of its own",
    }

    failure_ratio: float = 0.5
    minimum_throughput: int = 10
    consecutive_failures: int = 5
    sampling_duration: float = 30.0
    break_duration: float = 2.0
    break_duration_max: float = 10.0
    probe_lease: float = 65.0
    _circuits: dict[_Key, "_Circuit"] = field(
        default_factory=dict[_Key, "_Circuit"], init=False, repr=False, compare=False
    )
    _turns: Turns = field(default_factory=Turns, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.failure_ratio <= 1:
            raise ValueError(f"failure_ratio must be above 0 and at most 1, got {self.failure_ratio!r}")
        check_at_least("minimum_throughput", self.minimum_throughput, 1)
        check_at_least("consecutive_failures", self.consecutive_failures, 1)
        check_seconds("sampling_duration", self.sampling_duration)
        check_seconds("break_duration", self.break_duration)
        check_seconds("break_duration_max", self.break_duration_max)
        check_seconds("probe_lease", self.probe_lease)
        if self.break_duration_max < self.break_duration:
            raise ValueError(
                f"break_duration_max must be >= break_duration, got {self.break_duration_max!r} < {self.break_duration!r}"
            )
        self._turns.forked = self._circuits.clear

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call if its model may be asked, and take note of how it ends."""
        circuit, ticket = self._enter(call)
        try:
            result = await proceed(call)
        except BaseException as error:
            self._report(call, circuit, ticket, error)
            raise
        with self._turns:
            before = circuit.breaker.state
            ticket = circuit.breaker.record_success(ticket, call.clock.monotonic())
            after = circuit.breaker.state
        if after != before:
            call.emit(CircuitClosed(call_id=call.id, model=call.model))
        if isinstance(result, StreamResult):
            result.on_end(lambda end: self._report_end(call, circuit, ticket, end))
        return result

    def snapshot(self) -> tuple[BreakerState, ...]:
        """Return what every breaker knows, by the clock of the calls that made it."""
        with self._turns:
            return tuple(circuit.snapshot(key) for key, circuit in self._circuits.items())

    def _enter(self, call: Call[R]) -> tuple["_Circuit", Ticket]:
        """Return the circuit and a ticket, or raise `CircuitOpen`."""
        key = (call.origin, call.model, call.operation.kind)
        now = call.clock.monotonic()
        with self._turns:
            circuit = self._circuits.get(key) or self._add(key, call.clock)
            breaker = circuit.breaker
            before = breaker.state
            ticket = breaker.try_acquire(now)
            after = breaker.state
            retry_after = 0.0 if ticket else breaker.retry_after(now)
        if ticket is None:
            raise CircuitOpen(model=call.model, retry_after=retry_after)
        if after != before:
            call.emit(CircuitHalfOpened(call_id=call.id, model=call.model))
        return circuit, ticket

    def _add(self, key: _Key, clock: Clock) -> "_Circuit":
        if len(self._circuits) >= _MOST_MODELS:
            now = clock.monotonic()
            for known in [known for known, circuit in self._circuits.items() if circuit.breaker.at_rest(now)]:
                del self._circuits[known]
        rules = Rules(
            failure_ratio=self.failure_ratio,
            minimum_throughput=self.minimum_throughput,
            consecutive_failures=self.consecutive_failures,
            sampling_duration=self.sampling_duration,
            break_duration=self.break_duration,
            break_duration_max=self.break_duration_max,
            probe_lease=self.probe_lease,
        )
        circuit = self._circuits[key] = _Circuit(Breaker(rules), clock)
        return circuit

    def _report_end(self, call: Call[R], circuit: "_Circuit", ticket: Ticket, end: StreamEnd) -> None:
        if end.how == "failed" and isinstance(end.error, StreamInterrupted):
            self._report(call, circuit, ticket, end.error)

    def _report(self, call: Call[R], circuit: "_Circuit", ticket: Ticket, error: BaseException) -> None:
        """Take note of a failure, in a turn of its own: a task may be destroyed by the garbage collector."""

        def work() -> Callable[[], None] | None:
            event = circuit.record(call, ticket, error)
            return None if event is None else lambda: call.emit(event)

        self._turns.post(work)


@dataclass(frozen=True, slots=True)
class _Circuit:
    """A breaker, and the clock of the call it was made for."""

    breaker: Breaker
    clock: Clock

    def record(self, call: Call[R], ticket: Ticket, error: BaseException) -> Event | None:
        """Tell the breaker how a call failed; return the change of state that follows from it."""
        breaker = self.breaker
        before = breaker.state
        status = error.status if isinstance(error, StatusError) else None
        hint = error.retry_after if isinstance(error, StatusError) else None
        if not isinstance(error, ProviderError):
            breaker.release(ticket)
            return None
        now = call.clock.monotonic()
        if status is None or status >= 500 or status == 408:
            breaker.record_failure(ticket, now, call.clock.random, hint)
        elif status == 429:
            breaker.record_busy(ticket, now, call.clock.random, hint)
        else:
            breaker.record_refusal(ticket, now)
        if breaker.state == before:
            return None
        if breaker.state == "open":
            return CircuitOpened(call_id=call.id, model=call.model, retry_after=breaker.retry_after(now))
        return CircuitClosed(call_id=call.id, model=call.model)

    def snapshot(self, key: _Key) -> BreakerState:
        """Return what the breaker knows now."""
        now = self.clock.monotonic()
        throughput, failures = self.breaker.totals(now)
        return BreakerState(
            key=key,
            state=self.breaker.state,
            failures=failures,
            throughput=throughput,
            retry_after=self.breaker.retry_after(now),
        )
