"""Let only so many requests to one model be under way at once as the service takes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_able, check_count, check_kind
from resilient_ai.core.errors import LimitReached
from resilient_ai.core.events import PermitGranted
from resilient_ai.core.health import LimitState
from resilient_ai.core.pipeline import WorstCase
from resilient_ai.core.protocols import Fleet
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware._fleet_permit import FleetPermit
from resilient_ai.middleware._machines.aimd import Aimd
from resilient_ai.middleware._machines.permits import Permits
from resilient_ai.middleware._machines.turns import Turns
from resilient_ai.middleware._permit_line import Key, PermitLine, Room, room_for, room_for_stream
from resilient_ai.middleware._waiter import Waiter

R = TypeVar("R")
# Beyond so many models the permits of those that nobody uses are forgotten.
_MOST_MODELS = 1024


@dataclass(frozen=True, kw_only=True)
class ConcurrencyLimit:
    """Let at most so many requests to one model be under way at once as the service takes; who comes later waits in line.

    The service refuses a model's request beyond its own limit with 429, and takes less when it is busy. Waiting here costs
    nothing and keeps the order. The limit starts at `initial`, grows while requests are served and shrinks when the service
    answers 429, 503 or 529, never beyond `limit`; `_machines/aimd.py` has the formulae. A permit is held to the end of a
    stream, as the service counts it, and given back however the call ends: by an answer, an error, a cancellation, or the
    garbage collector that finds an abandoned stream. All loops and threads that share the object share the limit.

    In the queue interactive calls go before batch calls, but every fifth permit goes to batch where both wait. Batch calls hold
    at most four fifths of the limit (at least 1), always, so that an interactive call finds the rest free. The time in the
    queue is bounded by the call's deadline, and a call whose predicted wait is longer than that is refused at once. The
    prediction is `calls ahead * mean time a permit is held / limit`, made once ten permits came back and the limit has ended
    its first, fast growth.

    With a `fleet` each request also takes one of `limit` permits that all its processes share. Who waits for one stands in a
    line, first come, first served, which knows no priorities. A call is refused at once if by its first place in that line the
    wait is longer than it has left, `(permits that must come back - 1) * mean time a permit is held / limit`, with the mean of
    this process; one that still waits for its own process is refused by the time that calls have lately waited for the fleet.
    While the fleet cannot be asked this process has at most `max(1, floor(limit * fleet.share))` requests under way, those
    included that it sent before, and asks again with every request. The fleet is closed along with the stack.

    Args:
        limit: Requests at once per origin and model that are never exceeded, at least 1.
        initial: Where an adaptive limit starts, at least 1; `limit` where that is smaller. Ignored when not `adaptive`.
        queue_size: How many may wait, at least 0. Who finds the queue full gets `LimitReached`.
        adaptive: Whether the limit follows what the service takes; if not, it is `limit`.
        fleet: Limits that several processes share, None for this process alone.

    Raises:
        ValueError: If a number is out of its range.

    >>> ConcurrencyLimit(limit=50)
    ConcurrencyLimit(limit=50, initial=32, queue_size=10000, adaptive=True, fleet=None)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Deadline": "a deadline inside of it would not see the time in the queue",
        "Batching": "every batch is a request of its own and needs a permit of its own",
        "Cache": "an answer from the cache needs no permit",
        "Retry": "a permit must not be held while a retry waits",
        "Resume": "a stream that broke is asked for again with a permit of its own",
        "Routing": "every model has permits of its own",
    }

    limit: int = 200
    initial: int = 32
    queue_size: int = 10_000
    adaptive: bool = True
    fleet: Fleet | None = None
    _lines: dict[Key, "PermitLine"] = field(
        default_factory=dict[Key, "PermitLine"], init=False, repr=False, compare=False
    )
    _turns: Turns = field(default_factory=Turns, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_count("limit", self.limit, 1)
        check_count("initial", self.initial, 1)
        check_count("queue_size", self.queue_size, 0)
        check_kind("adaptive", self.adaptive, bool)
        check_able("fleet", self.fleet, "acquire", "release", "hold", "aclose", attributes=("share", "reachable"))
        self._turns.forked = self._forget_all

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call once a permit is there."""
        line, waiter = self._enter(call)
        shared = None
        if waiter is not None or self.fleet is not None:
            shared = await self._wait(call, line, waiter)
        since = call.clock.monotonic()
        try:
            result = await proceed(call)
        except BaseException as error:
            self._give_back(call, line, shared, since, room_for(error))
            raise
        if isinstance(result, StreamResult):
            result.on_end(lambda end: self._give_back(call, line, shared, since, room_for_stream(end)))
        else:
            self._give_back(call, line, shared, since, "had_room")
        return result

    def stands_against(self, call: Call[Any]) -> str | None:
        """Return why the call would have to wait for a permit of this process, None where one is free."""
        alone = self.fleet is not None and not self.fleet.reachable
        with self._turns:
            line = self._lines.get((call.origin, call.model))
            if line is None:
                return None
            if line.permits.has_room(batch=call.priority == "batch") and not (alone and line.sending >= self._alone()):
                return None
            return f"{line.under_way} requests are under way and {line.waiting} wait"

    def in_use(self, origin: str, model: str) -> int:
        """Return how many requests to a model are under way."""
        with self._turns:
            line = self._lines.get((origin, model))
            return line.under_way if line else 0

    def waiting(self, origin: str, model: str) -> int:
        """Return how many calls wait for a permit of a model, of this process or of the fleet."""
        with self._turns:
            line = self._lines.get((origin, model))
            return line.waiting if line else 0

    def worst_case(self, inner: WorstCase) -> WorstCase:
        """Say that nothing in here bounds the time in the queue: that is the deadline's."""
        return replace(inner, seconds=math.inf)

    async def aclose(self) -> None:
        """Close the fleet, which gives back what this process holds there."""
        if self.fleet is not None:
            await self.fleet.aclose()

    def health(self) -> list[LimitState]:
        """Return what the limit of every model is now, and how much of it is used."""
        with self._turns:
            shared = self.fleet.reachable if self.fleet is not None else None
            at_most = self._alone() if shared is False else self.limit
            return [line.state(key, self.limit, at_most, shared=shared) for key, line in self._lines.items()]

    def _enter(self, call: Call[R]) -> tuple["PermitLine", "Waiter | None"]:
        """Take a permit, or a place in the queue, which is the second of what is returned."""
        key = (call.origin, call.model)
        batch = call.priority == "batch"
        with self._turns:
            line = self._lines.get(key) or self._add(key)
            permits = line.permits
            if permits.try_acquire(batch=batch):
                return line, None
            wait, remaining = line.predicted_wait(batch=batch), call.remaining()
            if wait is not None and remaining is not None and wait > remaining:
                reason = (
                    f"a permit for {call.model!r} takes about {wait:.1f} s, and the call has {remaining:.1f} s left"
                )
            else:
                waiter = Waiter(batch=batch)
                if permits.try_enqueue(waiter, batch=batch):
                    return line, waiter
                reason = f"{permits.in_use} requests to {call.model!r} are under way and {permits.waiting} wait"
            raise LimitReached(reason, limit=permits.limit, retry_after=wait, limiter="concurrency")

    def _add(self, key: Key) -> "PermitLine":
        if len(self._lines) >= _MOST_MODELS:
            for known in [known for known, line in self._lines.items() if not line.permits.in_use]:
                del self._lines[known]
        aimd = Aimd(initial=self.initial, maximum=self.limit) if self.adaptive else None
        permits = Permits[Waiter](limit=aimd.limit if aimd else self.limit, queue_size=self.queue_size)
        line = self._lines[key] = PermitLine(permits, aimd, is_shared=self.fleet is not None)
        return line

    async def _wait(self, call: Call[R], line: "PermitLine", waiter: "Waiter | None") -> FleetPermit | None:
        """Wait for the permit of this process and for that of the fleet; return the latter."""
        since = call.clock.monotonic()
        has_waited, shared = waiter is not None, None
        if waiter is not None:
            try:
                await waiter.granted
            except BaseException:
                self._turns.post(lambda: line.leave(waiter))
                raise
        try:
            if self.fleet is not None:
                name, asked = f"requests in flight:{call.origin}:{call.account}:{call.model}", call.clock.monotonic()
                shared = FleetPermit(self.fleet, name, self.limit)
                has_waited |= await shared.acquire(
                    call, lambda alone: self._try_admit(line, alone=alone), line.mean_held
                )
                with self._turns:
                    line.record_asked(call.clock.monotonic() - asked)
            if has_waited:
                call.recheck()
        except BaseException:
            self._give_back(call, line, shared, since, "unknown")
            raise
        if has_waited:
            wait = call.clock.monotonic() - since
            call.emit(PermitGranted(call_id=call.id, model=call.model, waited=wait, limit="concurrency"))
        return shared

    def _try_admit(self, line: "PermitLine", *, alone: bool) -> bool:
        """Count a request that may be sent as far as the fleet goes; False if it must wait, as this process decides alone."""
        with self._turns:
            if alone and line.sending >= self._alone():
                return False
            line.sending += 1
            return True

    def _alone(self) -> int:
        """Return how many requests this process may have under way while the fleet cannot be asked."""
        return self.limit if self.fleet is None else max(1, int(self.limit * self.fleet.share))

    def _give_back(
        self, call: Call[R], line: "PermitLine", shared: FleetPermit | None, since: float, room: Room
    ) -> None:
        # What a forked child inherits is the parent's to give back.
        inherited = line.is_inherited
        now = None if room == "unknown" else call.clock.monotonic()
        self._turns.post(lambda: line.settle(call, shared, room, since, now))
        if shared is not None and not inherited:
            shared.release()

    def _forget_all(self) -> None:
        for line in self._lines.values():
            line.is_inherited = True
        self._lines.clear()
