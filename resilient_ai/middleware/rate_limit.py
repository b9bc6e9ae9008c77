"""Let at most so many requests and tokens go to one model per minute."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_able, check_count, check_seconds, check_share
from resilient_ai.core.clock import Clock
from resilient_ai.core.deltas import Finished
from resilient_ai.core.errors import LimitReached
from resilient_ai.core.events import PermitGranted
from resilient_ai.core.health import RateState
from resilient_ai.core.operations import Embed, Operation
from resilient_ai.core.pipeline import WorstCase
from resilient_ai.core.protocols import Fleet
from resilient_ai.core.results import Result
from resilient_ai.core.streams import StreamEnd, when_done
from resilient_ai.middleware._gate import Gate
from resilient_ai.middleware._machines.bounded import make_room
from resilient_ai.middleware._machines.turns import Turns
from resilient_ai.middleware._rate_booking import Booking, Bucket, Key, Line, Unit

R = TypeVar("R")

# At so many models a quarter is forgotten: those whose buckets are full, or will be soonest; last those somebody waits for.
_MOST_MODELS = 1024

# The part of a bucket that work of priority "batch" leaves alone.
_KEPT = 0.2

# A wait that no event loop can tell from none, in seconds.
_NO_WAIT = 1e-6


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """Let at most so many requests, and so many tokens, go to one model per `per` seconds; who comes later waits for its time.

    For accounts and models with a limit per minute. (The service's own limit is one of requests at once: `ConcurrencyLimit`.)
    Each pair of origin and model has a bucket of its own that holds `burst * limit` and refills evenly, so within any `per`
    seconds at most `(1 + burst) * limit` go. Calls go in the order they came, and a large one is not overtaken by small ones.

    Tokens are not known before the send. What is reserved is a guess: a quarter of the prompt's characters, 1000 for each picture
    or sound in it, and for each answer `max_tokens`, or 1000 where that is None. Once the true number is known it takes the
    place of the guess; what was too much is given back, what was missing is a debt that delays later calls: of one answer
    at most a whole limit, so that no number, however absurd, stops a model for more than `per` seconds. Where the service tells
    no number the guess stays. A request larger than the bucket goes once the bucket is full and leaves the rest as a debt.
    A call that sent nothing gives everything back. Pictures that are drawn have no tokens and count as requests alone.

    A wait that is longer than the time the call has left is refused at once. Work of priority "batch" goes one after the other,
    and only while a fifth of the bucket stays behind for the others; it holds no place in their line.

    With a `fleet` all processes share the buckets. The order is then that of the fleet's answers, and where something is given
    back while others wait, that much may go on top, once. While the fleet cannot be asked, this process keeps to the fleet's
    `share` of the limit by itself. The fleet is closed along with the stack.

    Args:
        requests: Requests per `per` seconds and model, at least 1; None for no limit.
        tokens: Tokens of input and output together per `per` seconds and model, at least 1; None for no limit.
        per: Seconds.
        burst: The part of a limit that may go at once, above 0 to 1; at least one request goes at once.
        fleet: What shares the limit with other processes.

    Raises:
        ValueError: If neither limit is given, or a number is out of its range.

    >>> RateLimit(requests=600, tokens=200_000)
    RateLimit(requests=600, tokens=200000, per=60.0, burst=0.1, fleet=None)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Deadline": "a deadline inside of it would not see the time in the queue",
        "Batching": "every batch is a request of its own and counts by itself",
        "Cache": "an answer from the cache counts against no limit",
        "Retry": "every try is a request and counts by itself",
        "Resume": "a stream that broke is asked for again as a request of its own",
        "Routing": "every model has a limit of its own",
    }

    requests: int | None = None
    tokens: int | None = None
    per: float = 60.0
    burst: float = 0.1
    fleet: Fleet | None = None
    _lines: dict[Key, Line] = field(default_factory=dict[Key, Line], init=False, repr=False, compare=False)
    _turns: Turns = field(default_factory=Turns, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.requests is None and self.tokens is None:
            raise ValueError("requests and tokens: give at least one of the two")
        for name, limit in (("requests", self.requests), ("tokens", self.tokens)):
            if limit is not None:
                check_count(name, limit, 1)
        check_seconds("per", self.per)
        check_share("burst", self.burst)
        check_able("fleet", self.fleet, "reserve", "settle", "aclose", attributes=("share", "reachable"))
        self._turns.forked = self._lines.clear

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call when its time has come, and settle what it took."""
        with self._turns:
            line = self._lines.get((call.origin, call.model)) or self._add(call)
        amounts = [bucket.amount_of(call.operation) for bucket in line.buckets]
        booking = await self._admit(call, line, amounts)
        departed = call.departed.count
        try:
            result = await proceed(call)
        except BaseException as error:
            if not call.may_have_left(error, departed):
                booking.give_back()
            raise
        when_done(result, lambda end: booking.settle(_tokens_of(call.operation, result, end)))
        return result

    def stands_against(self, call: Call[Any]) -> str | None:
        """Return how long the call would have to wait, None where it may go at once, or only the fleet knows."""
        if self.fleet is not None and self.fleet.reachable:
            return None
        now = call.clock.monotonic()
        with self._turns:
            line = self._lines.get((call.origin, call.model))
            if line is None:
                return None
            kept = _KEPT if call.priority == "batch" else 0.0
            wait = max(
                bucket.alone.wait(now, bucket.amount_of(call.operation), keep=kept * bucket.alone.burst)
                for bucket in line.buckets
            )
        return f"its rate is used up for {wait:.1f} s" if wait > _NO_WAIT else None

    def worst_case(self, inner: WorstCase) -> WorstCase:
        """Say that nothing in here bounds the time in the queue: that is the deadline's."""
        return replace(inner, seconds=math.inf)

    async def aclose(self) -> None:
        """Close the fleet, which gives back what this process holds there."""
        if self.fleet is not None:
            await self.fleet.aclose()

    def health(self) -> list[RateState]:
        """Return what every limit knows, by the clock of the call that made it.

        With a fleet `available` is what this process may take alone, and so is `limit` while the fleet cannot be asked.
        """
        fleet = self.fleet
        shared = None if fleet is None else fleet.reachable
        with self._turns:
            return [
                RateState(
                    key=key,
                    unit=bucket.unit,
                    limit=bucket.limit if fleet is None or shared else bucket.limit * fleet.share,
                    shared=shared,
                    per=self.per,
                    available=bucket.alone.available(line.clock.monotonic()),
                    waiting=len(line.waiting),
                )
                for key, line in self._lines.items()
                for bucket in line.buckets
            ]

    def _add(self, call: Call[Any]) -> Line:
        make_room(self._lines, _MOST_MODELS, Line.worth)
        key = (call.origin, call.model)
        limits: tuple[tuple[Unit, int | None], ...] = (("requests", self.requests), ("tokens", self.tokens))
        share = 1.0 if self.fleet is None else self.fleet.share
        buckets = tuple(
            Bucket.of(call, unit, limit, rate=limit / self.per, burst=self.burst, share=share)
            for unit, limit in limits
            if limit is not None
        )
        line = self._lines[key] = Line(buckets, call.clock, Gate(self._turns))
        return line

    async def _admit(self, call: Call[Any], line: Line, amounts: Sequence[float]) -> Booking:
        """Wait until the call may go; return what it took."""
        began = call.clock.monotonic()
        if call.priority == "batch":
            waited, booking = await self._admit_batch(call, line, amounts)
        else:
            booking = await self._book(call.clock, line, amounts)
            waited = booking.wait > _NO_WAIT
            if waited:
                with line.waits(), booking.given_back_on_error():
                    _check_wait(call, booking, self.per)
                    await call.clock.sleep(booking.wait)
        if waited:
            with booking.given_back_on_error():
                call.recheck()
            wait = call.clock.monotonic() - began
            call.emit(PermitGranted(call_id=call.id, model=call.model, waited=wait, limit="rate"))
        return booking

    async def _admit_batch(self, call: Call[Any], line: Line, amounts: Sequence[float]) -> tuple[bool, Booking]:
        """Return whether the call waited, and what it took."""
        with line.waits():
            waited = await line.gate.enter()
            try:
                while (booking := await self._book(call.clock, line, amounts, kept=_KEPT)).wait > _NO_WAIT:
                    waited = True
                    booking.give_back()
                    _check_wait(call, booking, self.per)
                    await call.clock.sleep(booking.wait)
            finally:
                line.gate.leave()
        return waited, booking

    async def _book(self, clock: Clock, line: Line, amounts: Sequence[float], kept: float = 0.0) -> Booking:
        booking = Booking(line, amounts, clock, self.fleet, self._turns)
        if self.fleet is None or not await booking.reserve_together(self.fleet, kept):
            with self._turns:
                booking.reserve_alone(kept)
        return booking


def _check_wait(call: Call[Any], booking: Booking, per: float) -> None:
    remaining = call.remaining()
    if remaining is not None and booking.wait >= remaining:
        bucket = booking.tightest
        raise LimitReached(
            f"{bucket.limit} {bucket.unit} per {per:g} s may go to {call.model!r}: the call would have to wait "
            f"{booking.wait:.1f} s and has {remaining:.1f} s left",
            limit=bucket.limit,
            retry_after=booking.wait,
            limiter="rate",
        )


def _tokens_of(operation: Operation[Any], result: object, end: StreamEnd | None) -> int | None:
    """Return the tokens of an answer, None where the service did not tell all of them."""
    told = result if end is None else end.transcript.finished
    usage = told.usage if isinstance(told, Result | Finished) else None
    if usage is None or usage.input_tokens is None:
        return None
    if usage.output_tokens is None and not isinstance(operation, Embed):
        return None
    return usage.total_tokens
