"""What was measured, as a table, as verdicts on the aims, and as JSON."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from benchmarks.cached_embeddings.contenders import CONTENDERS, DISK_AIM, GOALS
from benchmarks.cached_embeddings.meter import Reading


@dataclass(frozen=True)
class Outcome:
    """The reads of one contender, or why there are none."""

    count: int
    readings: Sequence[Reading] = field(default_factory=list[Reading])
    trouble: str = ""

    @property
    def best(self) -> float:
        """Texts per second of the quickest read."""
        return self.count / min(reading.seconds for reading in self.readings)

    @property
    def median(self) -> float:
        """Texts per second of the read in the middle."""
        return self.count / statistics.median(reading.seconds for reading in self.readings)

    @property
    def cpu(self) -> float:
        """Microseconds of CPU per text, the median."""
        return statistics.median(reading.cpu for reading in self.readings) / self.count * 1e6

    @property
    def growth(self) -> float | None:
        """MiB of memory at the highest peak beyond those before; None where the system does not tell."""
        known = [reading.growth for reading in self.readings if reading.growth is not None]
        return max(known) / 2**20 if known else None


@dataclass(frozen=True)
class Verdict:
    """Whether an aim was reached; unknown where a side was not measured."""

    text: str
    holds: bool | None

    @property
    def line(self) -> str:
        """The text and the word on it."""
        word = {True: ": holds", False: ": FALLS SHORT", None: ""}[self.holds]
        return f"{self.text}{word}"


def verdicts(outcomes: Mapping[str, Outcome]) -> list[Verdict]:
    """Judge the aims by the ratio of the medians of the same run."""
    told: list[Verdict] = []
    for goal in GOALS:
        ours, other = outcomes.get(goal.ours), outcomes.get(goal.other)
        name = f"{_name(goal.ours)} is at least {goal.factor:g} of {_name(goal.other)}"
        if ours is None or other is None or not ours.readings or not other.readings:
            told.append(Verdict(f"{name}: not measured", None))
            continue
        ratio = ours.median / other.median
        told.append(Verdict(f"{name}: {ratio:.2f} (best {ours.best / other.best:.2f})", ratio >= goal.factor))
    disk = outcomes.get("ours-disk")
    if disk is not None and disk.readings:
        told.append(Verdict(f"{_name('ours-disk')}: {disk.median:,.0f} texts/s, on a quiet machine {DISK_AIM:,}", None))
    return told


def table(outcomes: Mapping[str, Outcome]) -> Table:
    """Return a line per contender that was measured."""
    drawn = Table("cache", "returns")
    for heading in ("texts/s, median", "texts/s, best", "CPU µs/text", "MiB at the peak", "reads"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for key, outcome in outcomes.items():
        if not outcome.readings:
            continue
        contender = CONTENDERS[key]
        growth = "?" if outcome.growth is None else f"{outcome.growth:,.0f}"
        speeds = (f"{outcome.median:,.0f}", f"{outcome.best:,.0f}", f"{outcome.cpu:.1f}")
        drawn.add_row(contender.label, contender.returns, *speeds, growth, str(len(outcome.readings)))
    return drawn


def troubles(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return a line per contender that took no part, or did not to the end."""
    return [f"{_name(key)} {outcome.trouble}" for key, outcome in outcomes.items() if outcome.trouble]


def as_json(outcomes: Mapping[str, Outcome], versions: Mapping[str, str]) -> dict[str, Any]:
    """Return everything, for a file."""
    rows = {
        key: {"label": CONTENDERS[key].label, "returns": CONTENDERS[key].returns, "trouble": outcome.trouble}
        | (
            {
                "texts_per_second": {"median": outcome.median, "best": outcome.best},
                "cpu_microseconds_per_text": outcome.cpu,
                "peak_growth_mib": outcome.growth,
                "seconds": [reading.seconds for reading in outcome.readings],
            }
            if outcome.readings
            else {}
        )
        for key, outcome in outcomes.items()
    }
    goals = [{"goal": verdict.text, "holds": verdict.holds} for verdict in verdicts(outcomes)]
    return {"contenders": rows, "goals": goals, "versions": dict(versions)}


def _name(key: str) -> str:
    contender = CONTENDERS[key]
    return f"{contender.label} ({contender.returns})"
