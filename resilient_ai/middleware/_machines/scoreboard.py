"""How a model did lately: what it bills, how long its answers are, how fast it is, and how often it failed."""

import itertools
import math
from typing import NamedTuple

# Health changes by the minute, prices and the length of answers by the day.
_SHORT = 60.0
_LONG = 3600.0
# The calls that a mean stands on: one that must notice a change soon stands on few.
_FEW = 5
_SOME = 10
_MANY = 100
_TWENTY = 20.0
_A_FIFTH = 0.2
_A_TENTH = 0.1

# One bill counts at most as so many times what was to be expected, or a single absurd one would decide for days.
_DEAREST = 10.0

# Answers after which it can be told what is slow, and what is slow: so many times the usual, and so many seconds more.
_ENOUGH = 5
_SLOW = 3.0
_NOTICED = 0.25
_CERTAIN = 0.95


class Mean:
    """A mean in which the latest values count most, by their age and by how many came after them.

    Args:
        half_life: Seconds after which a value counts half.
        most: What all values together count at most, in values.

    >>> mean = Mean(half_life=60.0, most=5)
    >>> mean.value(0.0, prior=1.0)
    1.0
    >>> mean.add(0.0, 3.0); mean.value(0.0, prior=1.0), mean.value(60.0, prior=1.0)
    (2.0, 1.6666666666666667)
    """

    __slots__ = ("_at", "_half_life", "_most", "_sum", "_weight")

    def __init__(self, half_life: float, most: int) -> None:
        self._half_life = half_life
        self._most = most
        self._at = 0.0
        self._sum = 0.0
        self._weight = 0.0

    def add(self, now: float, value: float, weight: float = 1.0) -> None:
        """Take a value in, which counts as `weight` values, at most 1."""
        kept = self._kept(now)
        room = self._most - weight
        if self._weight * kept > room:
            kept = room / self._weight
        self._sum = self._sum * kept + value * weight
        self._weight = self._weight * kept + weight
        self._at = max(self._at, now)

    def value(self, now: float, prior: float, strength: float = 1.0) -> float:
        """Return the mean; `prior` counts as `strength` values that never age, so that it is the mean of nothing."""
        kept = self._kept(now)
        return (self._sum * kept + prior * strength) / (self._weight * kept + strength)

    @property
    def plain(self) -> float | None:
        """The mean of what is known, however old it is; None where nothing is."""
        return self._sum / self._weight if self._weight else None

    def _kept(self, now: float) -> float:
        age = now - self._at
        return 0.5 ** (age / self._half_life) if age > 0 else 1.0


class Look(NamedTuple):
    """What is to be expected of a model.

    Attributes:
        length: Tokens of an answer.
        drift: What is billed, divided by the list price; 1 where that is not known.
        is_billed: Whether it is known.
        rate: What one token or picture costs, None where nothing was billed yet.
        pace: Seconds for each unit of size, None where nothing was answered yet.
        trouble: The share of calls that failed or were slow, 0 to 1.
        answers: How many calls it has answered.
        is_awaited: Whether calls are under way.
        asked: When it was asked last.
    """

    length: float
    drift: float = 1.0
    is_billed: bool = False
    rate: float | None = None
    pace: float | None = None
    trouble: float = 0.0
    answers: int = 0
    is_awaited: bool = False
    asked: float = -math.inf


class Score:
    """What is known of one model and kind of operation.

    *Price*: `drift` is what the service bills, divided by the list price of the same tokens, a mean of the last five; without a
    list price there is the price of one token (or picture). What was billed for sends whose answer nobody got is put on the next
    answer. A bill counts at most as ten times the list price, or ten times what one token cost so far.

    *Pace*: seconds divided by the size of the call, whatever that is counted in: a mean of the last five calls that goes back to
    the usual of the last hundred within minutes.

    *Trouble*: the share of the last five calls that failed or were slow, where one good call that never ages counts as well; it
    goes back to 0 by half a minute by minute. A call is slow whose pace is above `max(3 * mean, mean + 3 * deviation)` of the
    usual, and that takes a quarter of a second more than by the mean. One that has been under way for that long, by the size it
    is expected to have, is slow already, unless a later one was answered well: so a model that hangs is found out before its
    calls end. The pace of a slow call adds to the usual only up to that bound, and by a tenth.

    >>> score = Score()
    >>> for number in range(6): score.end(score.begin(number, 2.0), number + 0.5, good=True)
    >>> look = score.look(6.0, usual_length=1000); look.pace, look.trouble, look.answers
    (0.25, 0.0, 6)
    """

    __slots__ = (
        "_drift",
        "_latest_good",
        "_length",
        "_owed",
        "_rate",
        "_recent",
        "_serial",
        "_squares",
        "_trouble",
        "_under_way",
        "_usual",
        "answers",
        "asked",
    )

    def __init__(self) -> None:
        self.answers = 0
        self.asked = -math.inf
        self._drift = Mean(_LONG, _FEW)
        self._rate = Mean(_LONG, _SOME)
        self._length = Mean(_LONG, _MANY)
        self._recent = Mean(_SHORT, _FEW)
        self._usual = Mean(_LONG, _MANY)
        self._squares = Mean(_LONG, _MANY)
        self._trouble = Mean(_SHORT, _FEW)
        self._owed = 0.0
        self._latest_good = -math.inf
        self._under_way: dict[int, tuple[float, float]] = {}
        self._serial = itertools.count()

    def begin(self, now: float, size: float) -> int:
        """Take note of a call that is sent and expected to have a size, above 0; return its number."""
        self.asked = now
        number = next(self._serial)
        self._under_way[number] = (now, size)
        return number

    def end(self, number: int, now: float, *, good: bool | None, size: float | None = None) -> None:
        """Take note of how a call ended.

        Args:
            number: What `begin` returned.
            now: The time.
            good: Whether the model answered; None says nothing about it, unless the call was slow by then.
            size: How large the call turned out to be, None for as large as expected.
        """
        began, expected = self._under_way.pop(number, (None, 1.0))
        if began is None:
            return
        size = size or expected
        seconds, bound = max(0.0, now - began), self.slow_from(size)
        is_slow = seconds > bound
        if good and not is_slow:
            self._latest_good = max(self._latest_good, began)
        if good or is_slow:
            self._trouble.add(now, float(not good or is_slow))
            self._recent.add(now, seconds / size)
            pace, weight = (bound / size, _A_TENTH) if is_slow else (seconds / size, 1.0)
            self._usual.add(now, pace, weight)
            self._squares.add(now, pace * pace, weight)
            self.answers += bool(good)
        elif good is not None:
            self.record_trouble(now)

    def record_trouble(self, now: float) -> None:
        """Count a failure, such as that of a stream whose beginning was counted as an answer."""
        self._trouble.add(now, 1.0)

    def record_cost(self, now: float, cost: float, *, listed: float | None, units: float, used: bool) -> None:
        """Take note of what a send cost, beside its list price and the tokens or pictures it was billed for."""
        if not used:
            self._owed += cost
            return
        cost, self._owed = cost + self._owed, 0.0
        if listed:
            cost = min(cost, _DEAREST * listed)
            self._drift.add(now, cost / listed)
        if units:
            known = self._rate.plain
            self._rate.add(now, min(cost / units, _DEAREST * known) if known else cost / units)

    def record_length(self, now: float, tokens: float) -> None:
        """Take note of how many tokens an answer had."""
        self._length.add(now, tokens)

    def look(self, now: float, usual_length: float) -> "Look":
        """Return what is to be expected of the next call.

        Args:
            now: The time.
            usual_length: Tokens of the answers of other models, which count as twenty of this one's.
        """
        usual = self._usual.plain
        return Look(
            length=self.length(now, usual_length),
            drift=self._drift.value(now, 1.0, _A_FIFTH),
            is_billed=self._drift.plain is not None,
            rate=self._rate.plain,
            pace=None if usual is None else self._recent.value(now, usual),
            trouble=self.trouble(now),
            answers=self.answers,
            is_awaited=bool(self._under_way),
            asked=self.asked,
        )

    def length(self, now: float, usual: float) -> float:
        """Return the tokens of an answer, where `usual` is what others have."""
        return self._length.value(now, usual, _TWENTY)

    def slow_from(self, size: float) -> float:
        """Return the seconds from which on a call of a size is slow; without end where too few were answered."""
        mean, squares = self._usual.plain, self._squares.plain
        if self.answers < _ENOUGH or mean is None or squares is None:
            return math.inf
        deviation = math.sqrt(max(0.0, squares - mean * mean))
        return max(_SLOW * mean * size, (mean + _SLOW * deviation) * size, mean * size + _NOTICED)

    def trouble(self, now: float) -> float:
        """Return the share of calls that failed or were slow, those included that are slow and still under way."""
        share = self._trouble.value(now, 0.0)
        if self._under_way:
            by_now = self.slow_from(1.0)
            for began, size in self._under_way.values():
                if began > self._latest_good and now - began > by_now and now - began > self.slow_from(size):
                    share += (1.0 - share) / (_FEW + 1)
                    if share > _CERTAIN:
                        break
        return share
