"""The latch that keeps a refused key from being asked again, by example and against a reference."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from resilient_ai.middleware._machines.latch import Latch


def closed(now=100.0):
    latch = Latch(duration=2.0, longest=10.0, lease=5.0)
    latch.refuse(now)
    return latch


def test_what_was_never_refused_goes():
    """A new latch is open at any time, also before zero."""
    latch = Latch(duration=2.0, longest=10.0, lease=5.0)
    latch.release(0, 100.0)
    assert latch.wait(-1e9) == 0.0
    assert latch.try_acquire(-1e9)


def test_a_refusal_closes_it_until_its_time_and_not_longer():
    """Nobody goes a moment before the end, one goes just then."""
    latch = closed(100.0)
    assert latch.wait(100.0) == 2.0
    assert latch.wait(101.5) == 0.5
    assert not latch.try_acquire(math.nextafter(102.0, 0.0))
    assert latch.wait(102.0) == 0.0
    assert latch.try_acquire(102.0)


def test_only_one_goes_and_the_others_wait_for_the_lease():
    """Whoever comes while one is away waits for what is left of its lease, and then goes in its place."""
    latch = closed(100.0)
    assert [latch.try_acquire(103.0) for _ in range(50)] == [1] + [0] * 49
    assert latch.wait(104.0) == 4.0
    assert not latch.try_acquire(math.nextafter(108.0, 0.0))
    assert latch.try_acquire(108.0) == 2
    assert latch.try_acquire(108.0) == 0


def test_a_lease_that_has_run_out_is_somebody_elses():
    """Who comes back late takes nothing from whoever goes now."""
    latch = closed(100.0)
    late = latch.try_acquire(102.0)
    assert latch.try_acquire(107.0)
    latch.release(late, 107.5)
    assert latch.wait(107.5) == 4.5


def test_times_double_up_to_the_longest():
    """Two, four, eight, and then ten seconds for ever."""
    latch, now, waits = closed(100.0), 100.0, []
    for _ in range(6):
        waits.append(latch.wait(now))
        now += waits[-1]
        assert latch.try_acquire(now)
        latch.refuse(now)
    assert waits == [2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_refusals_of_those_who_had_asked_before_change_nothing():
    """A thousand that were under way when the first was refused neither lengthen nor double its time."""
    latch = closed(100.0)
    for _ in range(1000):
        latch.refuse(101.9)
    assert latch.wait(101.9) == pytest.approx(0.1)
    assert latch.try_acquire(102.0)
    latch.refuse(102.0)
    assert latch.wait(102.0) == 4.0


def test_a_refusal_at_the_very_end_closes_it_again():
    """What is heard when the time is over is news."""
    latch = closed(100.0)
    latch.refuse(102.0)
    assert latch.wait(102.0) == 4.0


def test_one_that_came_to_no_answer_gives_its_turn_back():
    """The next may go at once, and the time has not grown."""
    latch = closed(100.0)
    assert latch.try_acquire(102.0)
    latch.release(1, 103.0)
    assert latch.wait(103.0) == 0.0
    assert latch.try_acquire(103.0)
    latch.refuse(103.5)
    assert latch.wait(103.5) == 4.0


def test_a_turn_that_is_over_cannot_be_given_back():
    """After its refusal was told, a release opens nothing; on a new latch it does nothing."""
    latch = closed(100.0)
    latch.release(0, 100.5)
    assert latch.wait(100.5) == 1.5
    latch.try_acquire(102.0)
    latch.refuse(102.5)
    latch.release(1, 103.0)
    assert latch.wait(103.0) == 3.5
    latch.release(1, 103.0)
    assert latch.wait(103.0) == 3.5


def test_a_turn_is_given_back_once():
    """The second release of the same turn does not move the time on."""
    latch = closed(100.0)
    latch.try_acquire(102.0)
    latch.release(1, 102.5)
    latch.release(1, 104.0)
    assert latch.wait(103.0) == 0.0


class LatchModel(RuleBasedStateMachine):
    """The reference knows since when it is closed, for how long, and who is away."""

    def __init__(self):
        super().__init__()
        self.latch = Latch(duration=2.0, longest=10.0, lease=5.0)
        self.now, self.closed_until, self.refusals = 100.0, -math.inf, 0
        self.away_until, self.probe = None, 0

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0, 5.0, 8.0, 10.0, 60.0]))
    def pass_time(self, seconds):
        """Time passes."""
        self.now += seconds

    @rule()
    def ask(self):
        """One goes exactly when nothing holds it back, and takes the lease."""
        may = self.now >= (self.closed_until if self.away_until is None else self.away_until)
        probe = self.latch.try_acquire(self.now)
        assert bool(probe) == may
        if may:
            assert probe == self.probe + 1
            self.away_until, self.probe = self.now + 5.0, probe

    @rule()
    def refuse(self):
        """It is closed for longer than the last time, unless it is closed and nobody is away."""
        self.latch.refuse(self.now)
        if self.away_until is not None or self.now >= self.closed_until:
            self.closed_until = self.now + min(10.0, 2.0 * 2**self.refusals)
            self.refusals += 1
            self.away_until = None

    @rule()
    def release(self):
        """Who is away comes back with nothing, and the next may go."""
        self.latch.release(self.probe, self.now)
        if self.away_until is not None:
            self.closed_until, self.away_until = self.now, None

    @rule(older=st.integers(1, 3))
    def release_late(self, older):
        """Who has lost its lease changes nothing."""
        self.latch.release(self.probe - older, self.now)

    @invariant()
    def agrees(self):
        """The wait is never longer than the longest time."""
        until = self.closed_until if self.away_until is None else self.away_until
        assert self.latch.wait(self.now) == max(0.0, until - self.now) <= 10.0


TestLatch = LatchModel.TestCase
TestLatch.settings = settings(deadline=None)


def test_whoever_refuses_is_told_whether_that_was_news():
    """The first refusal is, one while it is closed is not, that of a probe and one after its time are."""
    latch = Latch(duration=2.0, longest=10.0, lease=5.0)
    assert latch.refuse(100.0) is True
    assert latch.refuse(101.9) is False
    assert latch.try_acquire(102.0) == 1
    assert latch.refuse(103.0) is True
    assert latch.refuse(107.0) is True
