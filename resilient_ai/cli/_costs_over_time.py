"""What was spent when, by whom: the figures of a picture."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from resilient_ai.cli._costs_book import Question
    from resilient_ai.core.ledger import Column, CostBook, LedgerRow

Unit = Literal["hour", "day", "week", "month"]

_MOST_SERIES = 6
_HOURS_FOR = timedelta(days=2, minutes=5)  # a period of two days until now has begun a moment earlier
_HOURS = (1, 2, 3, 6, 12)
_KEPT_EMPTY = timedelta(days=92)  # a longer period begins with the first send in it


@dataclass(frozen=True, slots=True)
class Step:
    """The time that one bar stands for."""

    unit: Unit
    count: int = 1

    def __str__(self) -> str:
        return self.unit if self.count == 1 else f"{self.count} {self.unit}s"

    def floor(self, moment: datetime) -> datetime:
        """Return when the step begins in which `moment` lies."""
        if self.unit == "hour":
            return moment.replace(hour=moment.hour - moment.hour % self.count, minute=0, second=0, microsecond=0)
        day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.unit == "week":
            return day - timedelta(days=day.weekday())
        return day if self.unit == "day" else day.replace(day=1)

    def after(self, start: datetime) -> datetime:
        """Return when the step ends that begins at `start`."""
        if self.unit == "hour":
            return start + timedelta(hours=self.count)
        return self.floor(start + timedelta(days={"day": 1, "week": 7, "month": 31}[self.unit]))

    def starts(self, first: datetime, last: datetime) -> tuple[datetime, ...]:
        """Return when each step begins, from the one with `first` in it to the one with `last` in it."""
        start, starts = self.floor(first), list[datetime]()
        while start <= last:
            starts.append(start)
            start = self.after(start)
        return tuple(starts)


@dataclass(frozen=True, slots=True)
class Series:
    """US dollars per step that have the same name."""

    name: str
    amounts: tuple[Decimal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OverTime:
    """US dollars over time; what is of unknown cost is not in it.

    Args:
        column: What the series are, None for one series of everything.
        what: "spent" or "wasted".
        starts: When each step begins, in UTC.
        series: At most six and the rest as "others", the dearest first.
        since: What counts begins then, None where the first step counts as a whole.
        until: What counts ends then, None where the last step counts as a whole, or as far as it has come.
    """

    column: str | None
    what: Literal["spent", "wasted"]
    step: Step
    starts: tuple[datetime, ...]
    series: tuple[Series, ...]
    since: datetime | None = None
    until: datetime | None = None

    @property
    def totals(self) -> list[Decimal]:
        """US dollars of all series per step."""
        return [sum(amounts, Decimal(0)) for amounts in zip(*(one.amounts for one in self.series), strict=True)]

    @property
    def title(self) -> str:
        """What is to be seen."""
        by = "" if self.column is None else f" by {self.column}"
        first, last = (f"{moment:%Y-%m-%d}" for moment in (self.starts[0], self.starts[-1]))
        return f"{self.what.capitalize()} per {self.step}{by}, {first if first == last else f'{first} to {last}'} UTC"

    @property
    def remark(self) -> str:
        """Which bars stand for less than a whole step, empty where none does."""
        parts = [
            f"the {which} bar counts {word} {moment:%Y-%m-%d %H:%M} UTC"
            for which, word, moment in (("first", "from", self.since), ("last", "until", self.until))
            if moment is not None
        ]
        return ", ".join(parts)


async def over_time(
    book: "CostBook", question: "Question", *, most: int, wasted: bool = False, now: float | None = None
) -> OverTime | None:
    """Add up sends per hour, day, week or month, whatever comes to `most` steps or fewer; None where nothing was spent.

    Hours are for periods of up to two days. `now` is in seconds since 1970-01-01 UTC.
    """
    since, until, tags = question.since, question.until, question.tags
    now = time.time() if now is None else now
    column: Column | None = next((column for column in question.columns if column != "day"), None)
    groups: tuple[Column, ...] = ("kind",) if column is None else (column,)

    def found(rows: "Iterable[LedgerRow]") -> Iterator[tuple[str, Decimal]]:
        for row in rows:
            yield "" if column is None else row.key[-1] or "(none)", (row.wasted if wasted else row.cost) or Decimal(0)

    days = await book.by("day", *groups, since=since, until=until, tags=tags)
    spent = [(_day(row), *pair) for row, pair in zip(days, found(days), strict=True)]
    if not any(amount for _, _, amount in spent):
        return None
    first, last = _bounds([day for day, _, _ in spent], since, until, now)
    step = _step(first, last, most)
    starts = step.starts(first, last)
    if step.unit == "hour":
        spent = list[tuple[datetime, str, Decimal]]()
        for start in starts:
            lower = max(start.timestamp(), since or 0.0)
            # What a machine has sent whose clock is ahead is in the last one.
            upper = until if start == starts[-1] else step.after(start).timestamp()
            rows = await book.by(*groups, since=lower, until=upper, tags=tags)
            spent += [(start, *pair) for pair in found(rows)]
    series = _series(((step.floor(at), name, amount) for at, name, amount in spent), starts)
    began, ended = (None if bound is None else _moment(bound) for bound in (since, until))
    return OverTime(
        column=column,
        what="wasted" if wasted else "spent",
        step=step,
        starts=starts,
        series=series,
        since=began if began is not None and began > starts[0] else None,
        until=ended if ended is not None and ended < min(step.after(starts[-1]), _moment(now)) else None,
    )


def _day(row: "LedgerRow") -> datetime:
    return datetime.fromisoformat(row.key[0] or "1970-01-01").replace(tzinfo=UTC)


def _bounds(
    days: Sequence[datetime], since: float | None, until: float | None, now: float
) -> tuple[datetime, datetime]:
    """Return a moment in the first step and one in the last."""
    end = _moment(now) if until is None or until > now else _moment(until) - timedelta(microseconds=1)
    last = max([end, *days])
    first = min(days) if since is None else _moment(since)
    return (max(first, min(days)) if last - first > _KEPT_EMPTY else first), last


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _step(first: datetime, last: datetime, most: int) -> Step:
    hours = [Step("hour", count) for count in _HOURS] if last - first <= _HOURS_FOR else []
    for step in (*hours, Step("day"), Step("week")):
        if len(step.starts(first, last)) <= most:
            return step
    return Step("month")


def _series(spent: "Iterable[tuple[datetime, str, Decimal]]", starts: Sequence[datetime]) -> tuple[Series, ...]:
    """Return amounts by name and step, the dearest names first, and those beyond the sixth as one."""
    sums: dict[str, dict[datetime, Decimal]] = defaultdict(lambda: dict.fromkeys(starts, Decimal(0)))
    for start, name, amount in spent:
        sums[name][start] += amount
    dearest = sorted((name for name in sums if any(sums[name].values())), key=lambda name: (-_sum(sums[name]), name))
    shown, rest = dearest[:_MOST_SERIES], dearest[_MOST_SERIES:]
    if len(rest) == 1:
        shown, rest = dearest, []
    series = [Series(name, tuple(sums[name].values())) for name in shown]
    if rest:
        others = tuple(sum((sums[name][start] for name in rest), Decimal(0)) for start in starts)
        series.append(Series(f"{len(rest)} others", others))
    return tuple(series)


def _sum(amounts: Mapping[datetime, Decimal]) -> Decimal:
    return sum(amounts.values(), Decimal(0))
