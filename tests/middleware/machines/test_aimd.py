"""Aimd: how a limit grows, shrinks and remembers, by example and under any history."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilient_ai.middleware._machines.aimd import Aimd


def rounds(aimd, count=1, *, now=0.0):
    """Serve `count` times as many requests as the limit allows, with all permits in use; return the limits that follow."""
    limits = []
    for _ in range(count):
        for _ in range(aimd.limit):
            aimd.record_success(now, aimd.limit)
        limits.append(aimd.limit)
    return limits


def until_it_moves(aimd):
    """Serve requests until the limit moves; return how many."""
    before, count = aimd.limit, 0
    while aimd.limit == before:
        aimd.record_success(0.0, aimd.limit)
        count += 1
    return count


def proven(limit, *, maximum=1_000):
    """A limit that was refused nothing but a probe."""
    aimd = Aimd(initial=limit, maximum=maximum)
    aimd.record_overload(0.0, limit, 0.0)
    rounds(aimd)
    aimd.record_overload(0.0, limit, 0.0)
    assert aimd.limit == limit
    return aimd


@pytest.mark.parametrize(("initial", "maximum", "limit"), [(32, 200, 32), (32, 6, 6), (1, 1, 1)])
def test_it_starts_at_the_smaller_of_two(initial, maximum, limit):
    """No limit starts beyond what it may never exceed."""
    assert Aimd(initial=initial, maximum=maximum).limit == limit


def test_it_doubles_once_a_second_until_the_maximum():
    """Before the first refusal the limit doubles, however many requests succeed in a second."""
    aimd = Aimd(initial=32, maximum=200)
    limits = []
    for now in (0.0, 0.5, 0.99, 1.0, 1.5, 2.0, 3.0):
        aimd.record_success(now, aimd.limit)
        limits.append(aimd.limit)
    assert limits == [64, 64, 64, 128, 128, 200, 200]


@pytest.mark.parametrize("end", ["maximum", "refusal"])
def test_it_knows_whether_it_still_doubles(end):
    """Fast growth ends at the maximum or with the first refusal."""
    aimd = Aimd(initial=5, maximum=10)
    assert aimd.is_starting
    if end == "maximum":
        aimd.record_success(0.0, 5)
    else:
        aimd.record_overload(0.0, 4, 0.0)
    assert not aimd.is_starting


def test_it_does_not_grow_while_less_than_half_is_used():
    """A limit that nobody comes near says nothing about what the service takes."""
    aimd = Aimd(initial=32, maximum=200)
    for _ in range(1_000):
        aimd.record_success(0.0, 15)
    assert aimd.limit == 32
    aimd.record_success(0.0, 16)
    assert aimd.limit == 64


def test_what_was_refused_above_the_proven_limit_takes_its_own_permit():
    """Of 64 that were sent 24 are refused: 40 stay, and no factor is applied."""
    aimd = Aimd(initial=64, maximum=200)
    for in_use in range(63, 39, -1):
        aimd.record_overload(0.0, in_use, 2.0)
    assert aimd.limit == 40


def test_a_refusal_at_the_proven_limit_takes_a_fifth_once_in_a_window():
    """Within the window of the latency each further refusal takes its own permit; after it, a fifth again."""
    aimd = proven(100)
    aimd.record_overload(10.0, 99, 2.0)
    assert aimd.limit == 80
    aimd.record_overload(10.1, 85, 2.0)
    assert aimd.limit == 80
    aimd.record_overload(10.2, 79, 2.0)
    aimd.record_overload(11.9, 78, 2.0)
    assert aimd.limit == 78
    aimd.record_overload(12.0, 77, 2.0)
    assert aimd.limit == 62


def test_the_window_lasts_a_second_at_least():
    """Short requests do not shorten it."""
    aimd = proven(100)
    limits = []
    for now in (5.0, 5.9, 6.0):
        aimd.record_overload(now, aimd.limit - 1, 0.01)
        limits.append(aimd.limit)
    assert limits == [80, 79, 63]


def test_a_probe_that_is_refused_waits_twice_as_long_each_time():
    """After 1, 2, 4, 8 and 16 rounds, then always 16, one more permit is tried and taken back."""
    aimd = proven(20)
    aimd.record_overload(0.0, 19, 0.0)  # a fifth less
    rounds(aimd, 2)
    assert aimd.limit == 19
    waits = []
    for _ in range(7):
        waits.append(until_it_moves(aimd))
        assert aimd.limit == 20
        aimd.record_overload(0.0, 19, 0.0)
        assert aimd.limit == 19
    assert waits == [19 * count for count in (1, 2, 4, 8, 16, 16, 16)]


def test_below_what_was_refused_each_round_goes_half_of_the_way():
    """From a fifth less, quickly near to what was refused and then in single steps."""
    aimd = proven(100)
    aimd.record_overload(0.0, 99, 0.0)
    assert [aimd.limit, *rounds(aimd, 5)] == [80, 90, 95, 97, 98, 99]


def test_a_probe_that_lasts_a_round_lets_growth_quicken():
    """Once the count that was refused has lasted, capacity is back and is found in a few rounds."""
    aimd = proven(20, maximum=200)
    assert rounds(aimd, 12)[2:] == [22, 24, 28, 36, 52, 84, 148, 200, 200, 200]


def test_a_long_time_at_the_maximum_changes_nothing():
    """Rounds at the maximum are proofs, not steps: the first refusal there takes a fifth."""
    aimd = Aimd(initial=10, maximum=10)
    assert set(rounds(aimd, 100)) == {10}
    aimd.record_overload(0.0, 9, 0.0)
    assert aimd.limit == 8


def test_a_busy_service_is_told_from_one_that_is_full():
    """Refused while hardly anything is under way, the limit gives up a fifth once in a window and no more."""
    aimd = Aimd(initial=100, maximum=200)
    for now in (0.0, 0.1, 0.9):
        aimd.record_overload(now, 0, 1.0)
    assert aimd.limit == 80
    assert rounds(aimd, 3) == [81, 83, 87]


def test_one_permit_always_stays():
    """However often the service refuses, there is one who asks again."""
    aimd = Aimd(initial=2, maximum=200)
    for now in range(10):
        aimd.record_overload(float(now), 0, 0.0)
    assert aimd.limit == 1
    assert rounds(aimd, 5) == [2, 3, 5, 9, 17]


@pytest.mark.parametrize(("served", "limit"), [(9, 9), (10, 8)])
def test_a_limit_is_proven_by_a_whole_round(served, limit):
    """One success short of a round the limit is not proven: a refusal takes its own permit and not a fifth."""
    aimd = Aimd(initial=10, maximum=10)
    for _ in range(served):
        aimd.record_success(0.0, 10)
    aimd.record_overload(0.0, 9, 0.0)
    assert aimd.limit == limit


@pytest.mark.parametrize(("in_use", "limit"), [(49, 49), (48, 80)])
def test_half_of_the_limit_with_the_refused_one_is_in_use(in_use, limit):
    """The refused request counts with those under way: 50 of 100 are half, 49 are less and blame a busy service."""
    aimd = Aimd(initial=100, maximum=200)
    aimd.record_overload(0.0, in_use, 0.0)
    assert aimd.limit == limit


def test_what_is_remembered_is_the_count_that_was_refused():
    """Of 64 that were allowed the 41st was refused: 41 is the next probe, and 42 is new ground."""
    aimd = Aimd(initial=64, maximum=200)
    aimd.record_overload(0.0, 40, 0.0)
    assert [aimd.limit, *rounds(aimd, 3)] == [40, 41, 42, 44]


def test_a_probe_that_lasts_a_round_ends_the_patience():
    """After capacity was back, the next probe waits for one round, not for as many as before."""
    aimd = Aimd(initial=20, maximum=20)
    rounds(aimd)
    aimd.record_overload(0.0, 19, 100.0)
    assert [aimd.limit, *rounds(aimd, 3)] == [16, 18, 19, 20]
    aimd.record_overload(1.0, 19, 100.0)
    assert until_it_moves(aimd) == 2 * 19
    rounds(aimd)
    aimd.record_overload(2.0, 19, 100.0)
    assert until_it_moves(aimd) == 19


class AimdUnderAnyHistory(RuleBasedStateMachine):
    """Whatever is served and refused, in whatever order and at whatever pace."""

    @initialize(initial=st.integers(1, 300), maximum=st.integers(1, 300))
    def begin(self, initial, maximum):
        self.aimd = Aimd(initial=initial, maximum=maximum)
        self.maximum = maximum
        self.now = 0.0
        self.next_decrease = 0.0

    @rule(seconds=st.floats(0.0, 5.0))
    def wait(self, seconds):
        """Time passes."""
        self.now += seconds

    @rule(count=st.integers(1, 100), share=st.floats(0.0, 1.2))
    def serve(self, count, share):
        """A success lets the limit grow only while it is used, and by twice at most."""
        for _ in range(count):
            before = self.aimd.limit
            in_use = max(1, int(before * share))
            self.aimd.record_success(self.now, in_use)
            assert before <= self.aimd.limit <= 2 * before
            assert self.aimd.limit == before or 2 * in_use >= before

    @rule(share=st.floats(0.0, 1.2), latency=st.floats(0.0, 10.0))
    def refuse(self, share, latency):
        """A refusal never lets the limit grow; it takes more than what is not in use only once in a window, and only a fifth."""
        before = self.aimd.limit
        in_use = int(before * share)
        self.aimd.record_overload(self.now, in_use, latency)
        after = self.aimd.limit
        assert after <= before
        if after < min(before, max(1, in_use)):
            assert after == max(1, int(before * 0.8))
            assert self.now >= self.next_decrease
            self.next_decrease = self.now + max(1.0, latency)

    @invariant()
    def stays_in_bounds(self):
        """The limit never leaves 1 to the maximum."""
        assert 1 <= self.aimd.limit <= self.maximum


TestAimd = AimdUnderAnyHistory.TestCase
TestAimd.settings = settings(deadline=None, max_examples=60)
