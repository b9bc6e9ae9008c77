"""The bucket and its line, by examples and against a reference that counts what really goes."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from resilient_ai.middleware._machines.gcra import Gcra


def waits(bucket, now, *amounts):
    return [bucket.reserve(now, amount)[0] for amount in amounts]


def test_a_burst_goes_at_once_and_then_the_rate_decides():
    """Three at once, then one every half second."""
    assert waits(Gcra(rate=2.0, burst=3.0), 0.0, *[1.0] * 6) == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]


def test_an_idle_bucket_holds_no_more_than_its_burst():
    """An hour of rest is worth one burst."""
    bucket = Gcra(rate=1.0, burst=2.0)
    waits(bucket, 0.0, 2.0)
    assert waits(bucket, 3600.0, 1.0, 1.0, 1.0) == [0.0, 0.0, 1.0]


def test_a_large_amount_is_not_overtaken_by_small_ones():
    """Ten small ones that come later go after the large one that waits for a full bucket."""
    bucket = Gcra(rate=1.0, burst=10.0)
    waits(bucket, 0.0, 5.0)
    assert waits(bucket, 0.0, 10.0, 1.0, 1.0) == [5.0, 6.0, 7.0]


def test_an_amount_larger_than_the_bucket_goes_and_leaves_a_debt():
    """A hundred of a bucket of twenty goes at once, and the next one waits until the rest is paid."""
    bucket = Gcra(rate=10.0, burst=20.0)
    assert waits(bucket, 0.0, 100.0, 1.0) == pytest.approx([0.0, 8.1])


def test_a_refund_lets_later_ones_go_earlier():
    """What was guessed too high is there again."""
    bucket = Gcra(rate=1.0, burst=10.0)
    _, reservation = bucket.reserve(0.0, 10.0)
    bucket.settle(0.0, reservation, 4.0)
    assert waits(bucket, 0.0, 6.0, 1.0) == [0.0, 1.0]


def test_a_debt_delays_later_ones_alone():
    """Who has a time keeps it; who comes after the settlement waits for the debt."""
    bucket = Gcra(rate=1.0, burst=10.0)
    _, gone = bucket.reserve(0.0, 10.0)
    wait, _ = bucket.reserve(0.0, 1.0)
    bucket.settle(0.0, gone, 30.0)
    assert (wait, waits(bucket, 0.0, 1.0)) == (1.0, [22.0])


def test_a_debt_of_a_call_long_ago_counts_from_now():
    """A bucket that has filled up since pays it all the same."""
    bucket = Gcra(rate=1.0, burst=10.0)
    _, reservation = bucket.reserve(0.0, 1.0)
    bucket.settle(500.0, reservation, 6.0)
    assert bucket.available(500.0) == 5.0


def test_a_refund_never_fills_the_bucket_beyond_its_burst():
    """What comes back to a full bucket is lost."""
    bucket = Gcra(rate=1.0, burst=10.0)
    _, reservation = bucket.reserve(0.0, 8.0)
    bucket.give_back(8.0, reservation)
    assert bucket.available(8.0) == 10.0


def test_giving_back_twice_counts_once():
    """The second time nothing is left of it."""
    bucket = Gcra(rate=1.0, burst=10.0)
    _, reservation = bucket.reserve(0.0, 5.0)
    bucket.reserve(0.0, 5.0)
    bucket.give_back(0.0, reservation)
    bucket.give_back(0.0, reservation)
    assert bucket.available(0.0) == 5.0


def test_a_wait_given_up_leaves_no_trace():
    """The far time of one that gave up is no time for those who come later."""
    bucket = Gcra(rate=1.0, burst=1.0)
    waits(bucket, 0.0, 1.0)
    _, far = bucket.reserve(0.0, 3600.0)
    bucket.give_back(0.0, far)
    assert (bucket.waiting, waits(bucket, 0.0, 1.0)) == (0, [1.0])


def test_nobody_goes_before_those_who_have_a_time():
    """A large refund does not let newcomers overtake, nor go all at once with those who wait."""
    bucket = Gcra(rate=1.0, burst=10.0)
    _, first = bucket.reserve(0.0, 10.0)
    waits(bucket, 0.0, 5.0)
    bucket.give_back(0.0, first)
    assert waits(bucket, 0.0, 5.0, 5.0) == [5.0, 10.0]


def test_waits_count_from_now_whatever_the_time_is():
    """A line that was made at noon is as long as one that was made at midnight."""
    bucket = Gcra(rate=1.0, burst=10.0)
    _, first = bucket.reserve(100.0, 10.0)
    waits(bucket, 100.0, 5.0)
    bucket.give_back(100.0, first)
    assert waits(bucket, 101.0, 1.0, 5.0) == [4.0, 5.0]


def test_who_goes_at_once_does_not_wait():
    """The line holds those alone whose time has not come."""
    bucket = Gcra(rate=1.0, burst=1.0)
    waits(bucket, 0.0, 1.0)
    assert bucket.waiting == 0
    waits(bucket, 0.0, 1.0)
    assert bucket.waiting == 1


def test_what_is_kept_is_left_for_others():
    """Who keeps two of ten in the bucket waits while eight are gone; larger ones wait for a full bucket."""
    bucket = Gcra(rate=1.0, burst=10.0)
    waits(bucket, 0.0, 8.0)
    assert bucket.wait(0.0, 1.0) == 0.0
    assert bucket.wait(0.0, 1.0, keep=2.0) == 1.0
    assert bucket.wait(0.0, 50.0, keep=2.0) == 8.0


def test_time_that_runs_backwards_is_no_time():
    """A clock that is behind neither adds nor waits for the difference."""
    bucket = Gcra(rate=1.0, burst=1.0)
    waits(bucket, 100.0, 1.0)
    assert waits(bucket, 50.0, 1.0) == [1.0]


class GcraModel(RuleBasedStateMachine):
    """The reference knows only who went when: a level that rises by `rate`, up to `burst`, and falls when somebody goes."""

    reservations = Bundle("reservations")

    @initialize(rate=st.sampled_from([0.5, 1.0, 3.0]), burst=st.sampled_from([1.0, 4.0, 10.0]))
    def begin(self, rate, burst):
        self.bucket = Gcra(rate=rate, burst=burst)
        self.rate, self.burst = rate, burst
        self.now = self.seen = 0.0
        self.level, self.indebted = burst, 0.0
        self.line = []

    def pass_to(self, moment):
        """Let the level rise to `moment`, and those go whose time comes until then."""
        while self.line and self.line[0][0] <= moment:
            start, amount, _ = self.line.pop(0)
            self.rise(start)
            # Debts made after a time was given may not move it.
            assert self.level + self.indebted >= min(amount, self.burst) - 1e-6
            self.level -= amount
        self.rise(moment)

    def rise(self, moment):
        self.level = min(self.burst, self.level + (moment - self.seen) * self.rate)
        self.seen = max(self.seen, moment)

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0, 7.0]))
    def wait(self, seconds):
        self.now += seconds
        self.pass_to(self.now)

    @rule(target=reservations, amount=st.sampled_from([0.5, 1.0, 3.0, 25.0]))
    def reserve(self, amount):
        """Nobody gets a time before those who came earlier, and none later than needed."""
        wait, reservation = self.bucket.reserve(self.now, amount)
        start = self.now + wait
        assert wait >= 0
        assert not self.line or start >= self.line[-1][0]
        if not self.line:
            assert wait <= max(0.0, min(amount, self.burst) - self.level) / self.rate + 1e-6
        self.line.append((start, amount, reservation))
        self.pass_to(self.now)
        return [reservation, amount]

    @rule(pair=consumes(reservations))
    def give_back(self, pair):
        """What comes back is there again, were it waiting or gone."""
        reservation, amount = pair
        waiting = any(known is reservation for _, _, known in self.line)
        self.line = [entry for entry in self.line if entry[2] is not reservation]
        if not waiting:
            self.level = min(self.burst, self.level + amount)
        self.bucket.give_back(self.now, reservation)

    @rule(pair=consumes(reservations), actual=st.sampled_from([0.25, 1.0, 5.0]))
    def settle(self, pair, actual):
        """The true amount takes the place of the guess of one that has gone."""
        reservation, amount = pair
        if any(known is reservation for _, _, known in self.line):
            return
        self.level = min(self.burst, self.level + amount - actual)
        self.indebted += max(0.0, actual - amount) if self.line else 0.0
        self.bucket.settle(self.now, reservation, actual)

    @invariant()
    def agrees(self):
        """With nobody waiting, what is available is the reference's level; otherwise it is less."""
        available = self.bucket.available(self.now)
        assert self.bucket.waiting == len(self.line)
        assert available <= self.level + 1e-6
        if not self.line:
            self.indebted = 0.0
            assert math.isclose(available, self.level, abs_tol=1e-6)


TestGcra = GcraModel.TestCase
TestGcra.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
