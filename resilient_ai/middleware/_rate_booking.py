"""What a call takes from the buckets of its model, and gives back."""

import math
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from resilient_ai.core.call import Call
from resilient_ai.core.clock import Clock, time_of
from resilient_ai.core.operations import Operation
from resilient_ai.core.protocols import Fleet
from resilient_ai.middleware._gate import Gate
from resilient_ai.middleware._machines.gcra import Gcra, Reservation
from resilient_ai.middleware._machines.turns import Turns
from resilient_ai.middleware._tokens import estimate_tokens

Key = tuple[str, str]
Unit = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """One of a model's buckets: what it is called, how it refills, and the part of it that this process may use alone."""

    name: str
    unit: Unit
    limit: int
    rate: float
    burst: float
    alone: Gcra

    @classmethod
    def of(cls, call: Call[Any], unit: Unit, limit: int, *, rate: float, burst: float, share: float) -> "Bucket":
        """Make a bucket that is full."""
        size = max(1.0, limit * burst)
        alone = Gcra(rate=rate * share, burst=max(1.0, size * share))
        name = f"{unit}:{call.origin}:{call.account}:{call.model}"
        return cls(name, unit, limit, rate, size, alone)

    def amount_of(self, operation: Operation[Any]) -> float:
        """Return what an operation takes, as far as that is known before it is sent."""
        return 1.0 if self.unit == "requests" else float(estimate_tokens(operation))


@dataclass(frozen=True, slots=True)
class Line:
    """The buckets of one model, and who waits for them."""

    buckets: tuple[Bucket, ...]
    clock: Clock
    gate: Gate
    waiting: set[object] = field(default_factory=set[object])

    @contextmanager
    def waits(self) -> Generator[None]:
        """Count one more that waits; a set needs no lock, which a destroyed task could find held by its own thread."""
        me = object()
        self.waiting.add(me)
        try:
            yield
        finally:
            self.waiting.discard(me)

    def worth(self) -> float:
        """Return what would be lost with these buckets: the seconds until they are full, without end while somebody waits."""
        if self.waiting:
            return math.inf
        now = self.clock.monotonic()
        return max((one.burst - one.available(now)) / one.rate for one in (bucket.alone for bucket in self.buckets))


class Booking:
    """What one call took from its buckets: from the fleet's, or from those of this process."""

    __slots__ = ("_alone", "_amounts", "_clock", "_fleet", "_line", "_pid", "_turns", "tightest", "wait")

    def __init__(self, line: Line, amounts: Sequence[float], clock: Clock, fleet: Fleet | None, turns: Turns) -> None:
        self.wait = 0.0
        self.tightest = line.buckets[0]
        self._line = line
        self._amounts = amounts
        self._clock = clock
        self._fleet = fleet
        self._pid = os.getpid()
        self._turns = turns
        self._alone: list[Reservation] = []

    async def reserve_together(self, fleet: Fleet, kept: float) -> bool:
        """Take from the buckets of the fleet; False if it cannot be asked."""
        taken: list[tuple[Bucket, float]] = []
        try:
            for bucket, amount in zip(self._line.buckets, self._amounts, strict=True):
                wait = await fleet.reserve(
                    bucket.name, amount=amount, rate=bucket.rate, burst=bucket.burst * (1 - kept)
                )
                if wait is None:
                    _return_to(fleet, taken)
                    return False
                taken.append((bucket, amount))
                self._waits(bucket, wait)
        except BaseException:
            _return_to(fleet, taken)
            raise
        return True

    def reserve_alone(self, kept: float) -> None:
        """Take from the buckets of this process, from all for the same time; called in a turn."""
        now = self._clock.monotonic()
        self._fleet, self.wait = None, 0.0
        for bucket, amount in zip(self._line.buckets, self._amounts, strict=True):
            self._waits(bucket, bucket.alone.wait(now, amount, keep=kept * bucket.alone.burst))
        self._alone = [
            bucket.alone.take(now, amount, self.wait)
            for bucket, amount in zip(self._line.buckets, self._amounts, strict=True)
        ]

    def give_back(self) -> None:
        """Return everything: nothing was sent."""
        self._settle([0.0] * len(self._amounts))

    def settle(self, tokens: int | None) -> None:
        """Put the true number of tokens in the place of the guess, at most one limit more than that; None leaves the guess."""
        if tokens is None:
            return
        pairs = zip(self._line.buckets, self._amounts, strict=True)
        amounts = [
            self._bounded(bucket, guess, tokens) if bucket.unit == "tokens" else guess for bucket, guess in pairs
        ]
        if amounts != self._amounts:
            self._settle(amounts)

    @contextmanager
    def given_back_on_error(self) -> Generator[None]:
        """Return everything if the body raises."""
        try:
            yield
        except BaseException:
            self.give_back()
            raise

    def _bounded(self, bucket: Bucket, guess: float, tokens: int) -> float:
        share = 1.0 if self._fleet is not None else bucket.alone.rate / bucket.rate
        return float(min(tokens, guess + bucket.limit * share))

    def _waits(self, bucket: Bucket, wait: float) -> None:
        if wait > self.wait:
            self.wait, self.tightest = wait, bucket

    def _settle(self, amounts: Sequence[float]) -> None:
        if self._pid != os.getpid():
            return  # a forked child's copy: what was taken is the parent's
        if self._fleet is not None:
            for bucket, guess, amount in zip(self._line.buckets, self._amounts, amounts, strict=True):
                if amount != guess:
                    self._fleet.settle(bucket.name, amount=amount - guess, rate=bucket.rate, burst=bucket.burst)
            return
        now = time_of(self._clock)
        self._turns.post(lambda: self._settle_alone(now, amounts))

    def _settle_alone(self, now: float, amounts: Sequence[float]) -> None:
        for bucket, reservation, amount in zip(self._line.buckets, self._alone, amounts, strict=True):
            if amount:
                bucket.alone.settle(now, reservation, amount)
            else:
                bucket.alone.give_back(now, reservation)


def _return_to(fleet: Fleet, taken: Sequence[tuple[Bucket, float]]) -> None:
    for bucket, amount in taken:
        fleet.settle(bucket.name, amount=-amount, rate=bucket.rate, burst=bucket.burst)
