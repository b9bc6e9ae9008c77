"""Leave a model alone while it fails, and a key while it is refused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_between, check_count, check_seconds, check_share
from resilient_ai.core.clock import time_of
from resilient_ai.core.errors import CircuitOpen, StreamInterrupted
from resilient_ai.core.events import Event
from resilient_ai.core.health import BreakerState
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._circuits import Circuit, Circuits
from resilient_ai.middleware._machines.breaker import Rules, Ticket
from resilient_ai.middleware._machines.turns import Turns
from resilient_ai.middleware._refusals import Lease, Refusals

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class CircuitBreaker:
    """Leave a model alone while it fails, and find out with one call at a time whether it is back.

    A model that is down answers no sooner for being asked more often, and every call would wait for its failure. Each pair
    of model and kind of operation has a breaker of its own. It opens after `consecutive_failures`, or where of at least
    `minimum_throughput` outcomes in `sampling_duration` at least `failure_ratio` failed. Then calls fail at once with
    `CircuitOpen` for `uniform(0.8, 1.2) * break_duration * 2 ** k` seconds, where k counts the probes that failed since, and
    never for less than the server asked for (up to 300 s). After that one call goes as a probe: its success closes the
    circuit, its failure opens it again. A stream has succeeded with its first token; a break later is one more failure. For
    `ramp` seconds after it closed a circuit takes more calls bit by bit, so that a server that is just back is not run over.

    No answer, an answer in no time, one that cannot be read, 408 and 5xx are failures. A 429 is none, but does not close the
    circuit. Every other 4xx shows that the server works. What we refuse or cancel ourselves says nothing, except that a request
    which the deadline cut off is a failure if it was given a second and as long as 99 of 100 answers took lately.

    A refused key is left alone too: after a 401 or 402 no call is sent with that key, after a 403 none to that model, for the
    same growing time. Calls then fail at once with a copy of that error, whose `sent` is False, until one probe gets through.

    A call that has waited in a queue inside of the breaker is looked at again before it is sent.

    Args:
        failure_ratio: Share of failures that opens the circuit, above 0 to 1.
        minimum_throughput: Outcomes below which the share says nothing, at least 1.
        consecutive_failures: Failures in a row that open the circuit, at least 1.
        sampling_duration: Seconds over which outcomes are counted, 0.01 to 86400.
        break_duration: Seconds of the first break.
        break_duration_max: Upper bound of a computed break, in seconds; at least `break_duration`.
        probe_lease: Seconds after which a probe that has not ended lets another one go.
        ramp: Seconds over which a circuit that has closed comes back, 0 to 3600; with 0 at once.

    Raises:
        ValueError: If a number is out of its range.

    >>> CircuitBreaker(consecutive_failures=3)  # doctest: +ELLIPSIS
    CircuitBreaker(failure_ratio=0.5, minimum_throughput=10, consecutive_failures=3, sampling_duration=30.0, ...)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Batching": "every batch is an outcome of its own",
        "Cache": "an answer from the cache says nothing about the model, and an open circuit must not hide it",
        "Retry": "every try is an outcome of its own, and a retry must not ask a model whose circuit has opened",
        "Resume": "a stream that broke is asked for again as a request of its own",
        "Routing": "every model has a circuit of its own",
    }

    failure_ratio: float = 0.5
    minimum_throughput: int = 10
    consecutive_failures: int = 5
    sampling_duration: float = 30.0
    break_duration: float = 2.0
    break_duration_max: float = 10.0
    probe_lease: float = 65.0
    ramp: float = 10.0
    _circuits: Circuits = field(init=False, repr=False, compare=False)
    _refusals: Refusals = field(init=False, repr=False, compare=False)
    _turns: Turns = field(default_factory=Turns, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_share("failure_ratio", self.failure_ratio)
        check_count("minimum_throughput", self.minimum_throughput, 1)
        check_count("consecutive_failures", self.consecutive_failures, 1)
        check_between("sampling_duration", self.sampling_duration, 0.01, 86400)
        check_seconds("break_duration", self.break_duration)
        check_seconds("break_duration_max", self.break_duration_max)
        check_seconds("probe_lease", self.probe_lease)
        check_between("ramp", self.ramp, 0, 3600)
        if self.break_duration_max < self.break_duration:
            raise ValueError(
                f"break_duration_max must be >= break_duration, got {self.break_duration_max!r} < {self.break_duration!r}"
            )
        circuits = Circuits(Rules(**{name: getattr(self, name) for name in Rules.__dataclass_fields__}))
        object.__setattr__(self, "_circuits", circuits)
        refusals = Refusals(duration=self.break_duration, longest=self.break_duration_max)
        object.__setattr__(self, "_refusals", refusals)
        self._turns.forked = self._forget

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call if its model may be asked, and take note of how it ends."""
        trip = _Trip(self._turns, self._circuits, self._refusals, call)
        trip.enter()
        try:
            result = await proceed(call.replace(recheck=trip.look_again))
        except BaseException as error:
            trip.failed(error)
            raise
        trip.succeeded()
        if isinstance(result, StreamResult):
            result.on_end(trip.stream_ended)
        return result

    def stands_against(self, call: Call[Any]) -> str | None:
        """Return why the call would fail at once, None where it may go."""
        now = call.clock.monotonic()
        with self._turns:
            return self._refusals.against(call, now) or self._circuits.against(call, now)

    def isolate(self, model: str) -> None:
        """Let no call to `model` through until `reset`: for planned work, or a model that misbehaves."""
        with self._turns:
            self._circuits.isolate(model)

    def reset(self, model: str | None = None) -> None:
        """Close the circuits of `model`, or of all models and keys, and forget what they have counted."""
        with self._turns:
            self._circuits.reset(model)
            if model is None:
                self._refusals.clear()

    def health(self) -> tuple[BreakerState, ...]:
        """Return what every breaker knows, by the clock of the calls that made it."""
        with self._turns:
            return (*self._circuits.states(), *self._refusals.states())

    def _forget(self) -> None:
        self._circuits.clear()
        self._refusals.clear()


class _Trip:
    """One call on its way through its circuit, from its ticket to the end of its answer."""

    __slots__ = ("began", "begun", "call", "circuit", "circuits", "leases", "refusals", "ticket", "turns")

    circuit: Circuit
    ticket: Ticket

    def __init__(self, turns: Turns, circuits: Circuits, refusals: Refusals, call: Call[Any]) -> None:
        self.turns = turns
        self.circuits = circuits
        self.refusals = refusals
        self.call = call
        self.began = 0.0
        self.begun = call.departed.begun
        self.leases: tuple[Lease, ...] = ()

    def enter(self) -> None:
        """Get a ticket, or raise what stands against it."""
        call = self.call
        now = call.clock.monotonic()
        with self.turns:
            if self.refusals:
                self.leases = self.refusals.check(call, now)
            circuit = self.circuit = self.circuits.of(call, now)
            breaker = circuit.breaker
            before = breaker.state
            ticket = breaker.try_acquire(now, call.clock.random, insist=call.insist)
            after = breaker.state
            if ticket is None:
                self._let_go(now)
                raise CircuitOpen(model=call.model, retry_after=breaker.retry_after(now))
        self.ticket = ticket
        self.began = now
        if after != before:
            call.emit(circuit.changed(call, now))

    def look_again(self) -> None:
        """Raise what stands against a call that has waited in the meantime."""
        now = self.call.clock.monotonic()
        with self.turns:
            self._let_go(now)
            if self.refusals:
                self.leases = self.refusals.check(self.call, now)
            if self.circuit.breaker.may_still_go(self.ticket):
                self.began = now
                return
            self._let_go(now)
        self.enter()

    def succeeded(self) -> None:
        """Take note of an answer."""
        call = self.call
        now = call.clock.monotonic()
        with self.turns:
            breaker = self.circuit.breaker
            before = breaker.state
            self.ticket = breaker.record_success(self.ticket, now)
            self.circuit.latencies.record(now - self.began)
            after = breaker.state
            if self.refusals:
                self.refusals.accept(call)
        if after != before:
            call.emit(self.circuit.changed(call, now))

    def failed(self, error: BaseException) -> None:
        """Take note of a failure, in a turn of its own: a task may be destroyed by the garbage collector."""

        def work() -> Callable[[], None]:
            call = self.call
            now = time_of(call.clock)
            # Time in a queue is not the service's: who was never sent has given it none.
            took = now - self.began if call.departed.begun > self.begun else 0.0
            events = self.circuit.record(call, self.ticket, error, now, took), self.refusals.record(call, error, now)
            self._let_go(now)
            return lambda: self._tell(*events)

        self.turns.post(work)

    def stream_ended(self, end: StreamEnd) -> None:
        """Take note of a stream that broke after its first token."""
        if end.how == "failed" and isinstance(end.error, StreamInterrupted):
            self.failed(end.error)

    def _tell(self, *events: Event | None) -> None:
        for event in events:
            if event is not None:
                self.call.emit(event)

    def _let_go(self, now: float) -> None:
        for latch, probe in self.leases:
            latch.release(probe, now)
        self.leases = ()
