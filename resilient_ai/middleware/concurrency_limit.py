"""Let at most so many requests to one model be under way at once."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from resilient_ai.core.call import Call, Next
from resilient_ai.core.errors import LimitReached
from resilient_ai.core.events import PermitGranted
from resilient_ai.core.streams import when_done
from resilient_ai.middleware._checks import check_at_least
from resilient_ai.middleware._machines.permits import Permits
from resilient_ai.middleware._machines.turns import Turns

R = TypeVar("R")
_Key = tuple[str, str]

# Beyond so many models the permits of those that nobody uses are forgotten.
_MOST_MODELS = 1024


@dataclass(frozen=True, kw_only=True)
class ConcurrencyLimit:
    """Let at most `limit` requests to one model be under way at once; who comes later waits in line.

    The service refuses a model's request beyond its own limit with 429. Waiting here costs nothing and keeps the order.
    A permit is held to the end of a stream, as the service counts it, and given back however the call ends: by an
    answer, an error, a cancellation, or the garbage collector that finds an abandoned stream. The time in the queue is
    bounded by the call's deadline. All loops and threads that share the object share the limit.

    Args:
        limit: Requests at once per origin and model, at least 1.
        queue_size: How many may wait, at least 0. Who finds the queue full gets `LimitReached`.

    Raises:
        ValueError: If a number is out of its range.

    >>> ConcurrencyLimit(limit=50)
    ConcurrencyLimit(limit=50, queue_size=10000)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Batching": "every batch is a request of its own and needs a permit of its own",
        "Cache": "an answer from the cache needs no permit",
        "Retry": "a permit must not be held while a retry waits",
        "Routing": "every model has permits of its own",
    }

    limit: int = 200
    queue_size: int = 10_000
    _permits: dict[_Key, Permits["_Waiter"]] = field(
        default_factory=dict[_Key, Permits["_Waiter"]], init=False, repr=False, compare=False
    )
    _turns: Turns = field(default_factory=Turns, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_at_least("limit", self.limit, 1)
        check_at_least("queue_size", self.queue_size, 0)
        self._turns.forked = self._permits.clear

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call once a permit is there."""
        permits, waiter = self._enter(call)
        if waiter is not None:
            await self._wait(call, permits, waiter)
        try:
            result = await proceed(call)
        except BaseException:
            self._give_back(permits)
            raise
        when_done(result, lambda _: self._give_back(permits))
        return result

    def in_use(self, origin: str, model: str) -> int:
        """Return how many permits of a model are in use."""
        with self._turns:
            permits = self._permits.get((origin, model))
            return permits.in_use if permits else 0

    def waiting(self, origin: str, model: str) -> int:
        """Return how many calls wait for a permit of a model."""
        with self._turns:
            permits = self._permits.get((origin, model))
            return permits.waiting if permits else 0

    def _enter(self, call: Call[R]) -> tuple[Permits["_Waiter"], "_Waiter | None"]:
        """Take a permit, or a place in the queue, which is the second of what is returned."""
        key = (call.origin, call.model)
        with self._turns:
            permits = self._permits.get(key) or self._add(key)
            if permits.try_acquire():
                return permits, None
            waiter = _Waiter()
            if permits.try_enqueue(waiter):
                return permits, waiter
        raise LimitReached(
            f"{self.limit} requests to {call.model!r} are under way and {self.queue_size} wait", limit=self.limit
        )

    def _add(self, key: _Key) -> Permits["_Waiter"]:
        if len(self._permits) >= _MOST_MODELS:
            for known in [known for known, permits in self._permits.items() if not permits.in_use]:
                del self._permits[known]
        permits = self._permits[key] = Permits(limit=self.limit, queue_size=self.queue_size)
        return permits

    async def _wait(self, call: Call[R], permits: Permits["_Waiter"], waiter: "_Waiter") -> None:
        since = call.clock.monotonic()
        try:
            await waiter.granted
        except BaseException:
            self._turns.post(lambda: _leave(permits, waiter))
            raise
        call.emit(PermitGranted(call_id=call.id, model=call.model, waited=call.clock.monotonic() - since))

    def _give_back(self, permits: Permits["_Waiter"]) -> None:
        self._turns.post(lambda: _pass_on(permits))


class _Waiter:
    """A task that waits for its permit, in whichever loop it runs."""

    __slots__ = ("_loop", "granted", "is_lost")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.granted: asyncio.Future[None] = self._loop.create_future()
        self.is_lost = False

    def try_wake(self) -> bool:
        """Tell the task that it holds a permit; False if its loop is gone."""
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - the public form raises where no loop runs
            self._grant()
            return True
        try:
            self._loop.call_soon_threadsafe(self._grant)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _grant(self) -> None:
        # A task that was cancelled meanwhile passes its permit on by itself.
        if not self.granted.done():
            self.granted.set_result(None)


def _pass_on(permits: Permits[_Waiter]) -> None:
    """Give a permit back: to the first of the queue whose loop still runs."""
    while (waiter := permits.release()) is not None and not waiter.try_wake():
        waiter.is_lost = True


def _leave(permits: Permits[_Waiter], waiter: _Waiter) -> None:
    """Take a task that was cancelled out of the queue; if it had got a permit in the same moment, pass that on."""
    if not permits.try_leave(waiter) and not waiter.is_lost:
        _pass_on(permits)
