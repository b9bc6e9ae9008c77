"""The windows of time in which a budget counts, in UTC."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from resilient_ai.core.budgets import SLICES

Period = Literal["minute", "hour", "day", "week", "month", "total"]

_DAY = 86_400
_SECONDS = {"minute": 60, "hour": 3_600, "day": _DAY, "week": 7 * _DAY, "month": 30 * _DAY}
# 1970-01-01 was a Thursday, three days after a Monday.
_SINCE_MONDAY = 3 * _DAY
# The last second that a date can have.
_FOR_EVER = 253_402_300_799


class Slot(NamedTuple):
    """What counts at a moment, in whole seconds since 1970-01-01 UTC.

    Attributes:
        slice: Where the slice begins to which spending is added.
        first: Where the oldest slice begins that counts.
        ends: When the next slice begins, None where there is none.
        anew: When what has been told of this window may be told again.
        until: When the slice may be forgotten.
    """

    slice: int
    first: int
    ends: int | None
    anew: int
    until: int


class BudgetWindow:
    """Tells which slice of time is now, and which ones count.

    A calendar window is one slice: it begins with the minute, hour, day, Monday or month, and everything in it counts. One that
    rolls is as long as one of these, a month as 30 days. It is cut into sixty slices, and of the oldest all counts as long as
    any of it does, so that in no stretch of time as long as the window more is spent than the limit.

    Once it has told a slice it tells no older one for a clock that is set back by up to the length of a window, so that none
    opens for the second time. One that is set back further had been wrong before, and is followed.

    >>> window = BudgetWindow("day")
    >>> window.at(86_400.0 * 365 + 5).slice, window.at(86_400.0 * 364 + 5).slice, window.at(5.0).slice
    (31536000, 31536000, 0)
    """

    __slots__ = ("_next", "_per", "_rolling", "_slot")

    def __init__(self, per: Period, *, rolling: bool = False) -> None:
        self._per = per
        self._rolling = rolling
        self._next = -math.inf
        self._slot = Slot(0, 0, None, _FOR_EVER, _FOR_EVER)

    def at(self, now: float) -> Slot:
        """Return what counts at `now`, in seconds since 1970-01-01 UTC."""
        if now >= self._next or now < self._slot.slice - _SECONDS.get(self._per, math.inf):
            self._slot = self._find(math.floor(now))
            self._next = math.inf if self._slot.ends is None else self._slot.ends
        return self._slot

    def room_at(self, parts: Mapping[int, int], excess: int) -> int | None:
        """Return when so much of what slices hold will have left a window that rolls, the oldest first.

        Args:
            parts: What each slice holds, by where it begins.
            excess: How much must leave, above 0.

        Returns:
            Seconds since 1970-01-01 UTC; None where the slices do not hold as much.

        >>> BudgetWindow("minute", rolling=True).room_at({100: 5, 110: 5}, 6)
        171
        """
        length = _SECONDS.get(self._per, 0)
        width = max(1, length // SLICES)
        for start in sorted(parts):
            excess -= parts[start]
            if excess <= 0:
                return (start + length) // width * width + width
        return None

    def _find(self, now: int) -> Slot:
        if self._per == "total":
            return self._slot
        length = _SECONDS[self._per]
        if self._rolling:
            width = length // SLICES
            start = now // width * width
            # Kept for another window, as the clock of somebody else may be behind.
            return Slot(start, start - length, start + width, start + length, start + width + 2 * length)
        start, end = self._calendar(now, length)
        return Slot(start, start, end, end, end + length)

    def _calendar(self, now: int, length: int) -> tuple[int, int]:
        if self._per == "month":
            today = datetime.fromtimestamp(now, UTC)
            first = datetime(today.year, today.month, 1, tzinfo=UTC)
            next_first = datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=UTC)
            return int(first.timestamp()), int(next_first.timestamp())
        shift = _SINCE_MONDAY if self._per == "week" else 0
        start = (now + shift) // length * length - shift
        return start, start + length
