"""Every scenario is cancelled at each of its moments, in every way, and leaves nothing behind."""

import functools

import pytest

from .harness import WAYS, cancel_at, count_points
from .scenarios import SCENARIOS

EACH = [pytest.param(scenario, id=name) for name, scenario in SCENARIOS.items()]
PAIRS = [pytest.param(scenario, how, id=f"{name}-{how}") for name, scenario in SCENARIOS.items() for how in WAYS]


@functools.cache
def whole(scenario):
    return count_points(scenario)


def end_everywhere(scenario, how):
    """Return what is left behind at each moment at which something is."""
    broken = {}
    for number, at in moments(scenario, how):
        trial = cancel_at(scenario, number, how, moment=at)
        wrong = trial.broken + trial.kept
        if wrong:
            broken[number] = wrong
    return broken


def moments(scenario, how):
    """Return the moments of a scenario for a way to end it, as (number, seconds from the start)."""
    trial = whole(scenario)
    if how == "tick":
        return [(number, None) for number in range(2, trial.ticks + 1)]  # in the first it has not begun
    if how == "timeout":
        return list(enumerate(sorted({*trial.times, *(at + 0.005 for at in trial.times)}), 1))
    return [(number, None) for number in range(1, trial.points + 1)]


@pytest.mark.parametrize("scenario", EACH)
def test_left_alone_it_succeeds(scenario):
    """Each scenario suspends at least once, comes to the end it names, and leaves nothing behind."""
    trial = whole(scenario)
    assert trial.broken == []
    assert trial.points >= 1


@pytest.mark.parametrize(("scenario", "how"), PAIRS)
def test_ended_at_every_moment(scenario, how):
    """Wherever it is ended, nothing is held, every row, span and stream has its end, and fresh calls get through."""
    assert end_everywhere(scenario, how) == {}
