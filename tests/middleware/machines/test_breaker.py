"""The state machine of the breaker, by example and against a reference."""

import math
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from resilient_ai.middleware._machines.breaker import Breaker, Rules, Ticket

RULES = Rules(
    failure_ratio=0.5,
    minimum_throughput=10,
    consecutive_failures=5,
    sampling_duration=30.0,
    break_duration=2.0,
    break_duration_max=10.0,
    probe_lease=65.0,
    ramp=0.0,
)


RAMPED = replace(RULES, ramp=10.0)


def middle():
    return 0.5


def always():
    return 1.0


def never():
    raise AssertionError("chance was asked for")


def opened(now=100.0, hint=None, chance=0.5, rules=RULES):
    breaker = Breaker(rules)
    for _ in range(5):
        breaker.record_failure(breaker.try_acquire(now), now, lambda: chance, hint)
    assert breaker.state == "open"
    return breaker


def test_five_failures_in_a_row_open_it():
    """Four failures change nothing, the fifth opens."""
    breaker = Breaker(RULES)
    for _ in range(4):
        breaker.record_failure(breaker.try_acquire(1.0), 1.0, middle)
        assert breaker.state == "closed"
    breaker.record_failure(breaker.try_acquire(1.0), 1.0, middle)
    assert breaker.state == "open"


def test_half_of_ten_outcomes_open_it():
    """Alternating successes and failures open it with the tenth outcome, and not before."""
    breaker = Breaker(RULES)
    for _ in range(4):
        breaker.record_success(breaker.try_acquire(1.0), 1.0)
        breaker.record_failure(breaker.try_acquire(1.0), 1.0, middle)
    breaker.record_success(breaker.try_acquire(1.0), 1.0)
    assert breaker.state == "closed"
    breaker.record_failure(breaker.try_acquire(1.0), 1.0, middle)
    assert breaker.state == "open"


def test_failures_that_are_long_ago_do_not_count():
    """What has left the sampled time has no share in the ratio."""
    breaker = Breaker(RULES)
    for now in (0.0, 40.0, 80.0):
        for _ in range(4):
            breaker.record_failure(breaker.try_acquire(now), now, middle)
        breaker.record_success(breaker.try_acquire(now), now)
    assert breaker.state == "closed"
    assert breaker.totals(80.0) == (5, 4)


def test_a_refusal_neither_adds_to_nor_clears_failures_in_a_row():
    """Four failures, a 400, and one more failure are five in a row."""
    breaker = Breaker(RULES)
    for _ in range(4):
        breaker.record_failure(breaker.try_acquire(1.0), 1.0, middle)
    breaker.record_client_error(breaker.try_acquire(1.0), 1.0)
    assert breaker.state == "closed"
    breaker.record_failure(breaker.try_acquire(1.0), 1.0, middle)
    assert breaker.state == "open"


@pytest.mark.parametrize(("chance", "duration"), [(0.0, 1.6), (0.5, 2.0), (1.0, 2.4)])
def test_the_first_break_has_a_fifth_of_jitter(chance, duration):
    """Breaks of many clients do not end together."""
    assert opened(100.0, chance=chance).retry_after(100.0) == pytest.approx(duration)


def test_breaks_double_up_to_ten_seconds_while_probes_fail():
    """Each failed probe doubles the break, and a success begins anew."""
    breaker, now, breaks = opened(100.0), 100.0, []
    for _ in range(4):
        breaks.append(breaker.retry_after(now))
        now += breaker.retry_after(now)
        breaker.record_failure(breaker.try_acquire(now), now, middle)
    breaks.append(breaker.retry_after(now))
    assert breaks == pytest.approx([2.0, 4.0, 8.0, 10.0, 10.0])

    now += 10.0
    breaker.record_success(breaker.try_acquire(now), now)
    for _ in range(5):
        breaker.record_failure(breaker.try_acquire(now), now, middle)
    assert breaker.retry_after(now) == pytest.approx(2.0)


@pytest.mark.parametrize(("hint", "duration"), [(1.0, 2.0), (30.0, 30.0), (86_400.0, 300.0), (float("nan"), 2.0)])
def test_a_break_is_never_shorter_than_the_server_asked_for(hint, duration):
    """A Retry-After lengthens the break, within reason."""
    assert opened(100.0, hint=hint).retry_after(100.0) == pytest.approx(duration)


def test_only_one_probe_goes_at_a_time():
    """Of fifty callers who come after the break, one goes."""
    breaker = opened(100.0)
    assert breaker.try_acquire(101.9) is None
    tickets = [breaker.try_acquire(102.0) for _ in range(50)]
    assert sum(ticket is not None for ticket in tickets) == 1
    assert breaker.retry_after(102.0) == 2.0


def test_a_probe_that_is_given_back_goes_to_the_next():
    """A cancelled probe does not leave the circuit half-open for ever."""
    breaker = opened(100.0)
    breaker.release(breaker.try_acquire(102.0))
    assert breaker.state == "half_open"
    assert breaker.retry_after(102.0) == 0.0
    assert breaker.try_acquire(102.0) is not None


def test_a_probe_that_hangs_loses_its_lease():
    """When the lease is over another probe goes, and the first can neither free nor fail it."""
    breaker = opened(100.0)
    first = breaker.try_acquire(102.0)
    assert breaker.try_acquire(166.9) is None
    second = breaker.try_acquire(167.0)
    assert second is not None
    breaker.release(first)
    breaker.record_failure(first, 168.0, middle)
    breaker.record_busy(first, 168.0, middle)
    assert breaker.state == "half_open"
    assert breaker.try_acquire(168.0) is None


def test_a_probe_that_lost_its_lease_may_still_close_it():
    """A model slower than the lease comes back all the same."""
    breaker = opened(100.0)
    first = breaker.try_acquire(102.0)
    breaker.try_acquire(167.0)
    breaker.record_success(first, 200.0)
    assert breaker.state == "closed"


def test_a_busy_probe_leaves_the_model_alone_for_a_first_break():
    """A 429 while half-open opens it again, without making the break longer each time."""
    breaker, now = opened(100.0), 102.0
    for _ in range(3):
        breaker.record_busy(breaker.try_acquire(now), now, middle)
        assert breaker.state == "open"
        assert breaker.retry_after(now) == pytest.approx(2.0)
        now += 2.0


def test_a_429_says_nothing_while_closed():
    """Any number of 429s leaves a closed circuit closed."""
    breaker = Breaker(RULES)
    for _ in range(50):
        breaker.record_busy(breaker.try_acquire(1.0), 1.0, middle)
    assert breaker.state == "closed"
    assert breaker.totals(1.0) == (0, 0)


def test_a_refused_probe_closes_it():
    """A 400 shows that the server answers."""
    breaker = opened(100.0)
    breaker.record_client_error(breaker.try_acquire(102.0), 102.0)
    assert breaker.state == "closed"


def test_results_of_an_older_generation_do_not_count():
    """A call that began before the break cannot close, open or count anything after it."""
    breaker = Breaker(RULES)
    old = breaker.try_acquire(99.0)
    for _ in range(5):
        breaker.record_failure(breaker.try_acquire(100.0), 100.0, middle)
    probe = breaker.try_acquire(102.0)
    assert breaker.record_success(old, 102.0) == old
    breaker.record_client_error(old, 102.0)
    assert breaker.state == "half_open"
    breaker.record_success(probe, 103.0)
    for _ in range(5):
        breaker.record_failure(old, 103.0, middle)
    breaker.record_client_error(old, 103.0)
    assert breaker.state == "closed"
    assert breaker.at_rest(103.0)


def test_the_ticket_of_a_success_counts_for_the_circuit_it_closed():
    """A stream that closed the circuit by its first token may still fail in the new period."""
    breaker = opened(100.0)
    ticket = breaker.record_success(breaker.try_acquire(102.0), 102.0)
    breaker.record_failure(ticket, 110.0, middle)
    assert breaker.totals(110.0) == (1, 1)
    assert not breaker.at_rest(110.0)


def closed_again(now=102.0, **options):
    """Return a breaker that a probe has closed at `now`."""
    breaker = opened(now - 2.0, rules=replace(RAMPED, **options))
    breaker.record_success(breaker.try_acquire(now), now)
    assert breaker.state == "closed"
    return breaker


def fail(breaker, now=1.0, count=1):
    for _ in range(count):
        breaker.record_failure(breaker.try_acquire(now), now, middle)


def answer(breaker, now=1.0, count=1):
    for _ in range(count):
        breaker.record_success(breaker.try_acquire(now), now)


def test_a_new_breaker_is_closed_and_knows_nothing():
    """It lets every call go without asking chance, and forgetting it loses nothing."""
    breaker = Breaker(RAMPED)
    assert (breaker.state, breaker.retry_after(1.0), breaker.totals(1.0), breaker.at_rest(1.0)) == (
        "closed",
        0.0,
        (0, 0),
        True,
    )
    assert [breaker.try_acquire(1.0, never) for _ in range(3)] == [Ticket(0)] * 3


def test_a_success_clears_failures_in_a_row():
    """Four failures, a success and four more do not open it."""
    breaker = Breaker(replace(RULES, minimum_throughput=100))
    fail(breaker, count=4)
    answer(breaker)
    fail(breaker, count=4)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"


@pytest.mark.parametrize(
    ("answers", "failures", "state"), [(5, 4, "closed"), (5, 5, "open"), (6, 5, "closed"), (7, 3, "closed")]
)
def test_the_share_counts_from_ten_outcomes_and_from_half(answers, failures, state):
    """Nine outcomes are too few, five failures of ten are enough, five of eleven are not."""
    breaker = Breaker(replace(RULES, consecutive_failures=100))
    answer(breaker, count=answers)
    fail(breaker, count=failures)
    assert breaker.state == state
    assert breaker.totals(1.0) == (answers + failures, failures)


def test_refusals_count_as_outcomes_that_are_no_failures():
    """Six 400s and five failures are less than half."""
    breaker = Breaker(replace(RULES, consecutive_failures=100))
    for _ in range(6):
        breaker.record_client_error(breaker.try_acquire(1.0), 1.0)
    fail(breaker, count=5)
    assert (breaker.state, breaker.totals(1.0)) == ("closed", (11, 5))


def test_the_end_of_a_break_is_its_first_moment_to_go():
    """A hair before nobody goes, and who comes just then is the probe."""
    breaker = opened(100.0)
    assert breaker.retry_after(101.5) == 0.5
    assert breaker.try_acquire(math.nextafter(102.0, 0.0)) is None
    assert (breaker.state, breaker.retry_after(102.0), breaker.retry_after(500.0)) == ("open", 0.0, 0.0)
    assert breaker.try_acquire(102.0, never) == Ticket(2, 1)
    assert breaker.state == "half_open"


def test_probes_of_one_period_are_numbered():
    """Each new probe gets a ticket of its own, so that an old one cannot speak for it."""
    breaker = opened(100.0)
    tickets = [breaker.try_acquire(now) for now in (102.0, 167.0, 232.0)]
    assert tickets == [Ticket(2, 1), Ticket(2, 2), Ticket(2, 3)]
    assert [breaker.may_still_go(ticket) for ticket in tickets] == [False, False, True]


def test_a_probe_under_way_is_waited_for_no_longer_than_a_first_break():
    """What is left of the lease is named only where it is less."""
    breaker = opened(100.0)
    breaker.try_acquire(102.0)
    assert [breaker.retry_after(now) for now in (102.0, 165.0, 166.0, 167.0, 168.0)] == [2.0, 2.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(("chance", "duration"), [(0.0, 8.0), (0.5, 10.0), (1.0, 10.0)])
def test_jitter_makes_no_break_longer_than_the_longest(chance, duration):
    """At the bound a break is only ever made shorter."""
    assert opened(100.0, chance=chance, rules=replace(RULES, break_duration=10.0)).retry_after(100.0) == duration


@pytest.mark.parametrize(
    ("hint", "duration"),
    [(2.0, 2.0), (2.5, 2.5), (300.0, 300.0), (301.0, 300.0), (math.inf, 300.0), (0.0, 2.0), (-5.0, 2.0)],
)
def test_a_servers_hint_lengthens_a_break_up_to_five_minutes(hint, duration):
    """Shorter hints change nothing."""
    assert opened(100.0, hint=hint).retry_after(100.0) == duration


def test_a_hint_never_shortens_a_break_of_more_than_five_minutes():
    """Who asked for long breaks gets them."""
    rules = replace(RULES, break_duration=600.0, break_duration_max=600.0)
    assert opened(100.0, hint=1_000.0, rules=rules).retry_after(100.0) == 600.0
    assert opened(100.0, hint=400.0, rules=rules).retry_after(100.0) == 600.0


def test_a_very_long_outage_does_not_overflow():
    """After two thousand failed probes the break is the longest one still."""
    breaker, now = opened(100.0), 100.0
    for _ in range(2_000):
        now += breaker.retry_after(now)
        breaker.record_failure(breaker.try_acquire(now), now, middle)
    assert breaker.retry_after(now) == pytest.approx(10.0)


def test_who_insists_goes_ahead_of_time():
    """The break is not waited for, and the call is a probe like any other."""
    breaker = opened(100.0)
    assert breaker.try_acquire(100.1) is None
    ticket = breaker.try_acquire(100.1, insist=True)
    assert (ticket, breaker.state) == (Ticket(2, 1), "half_open")
    breaker.record_success(ticket, 100.2)
    assert breaker.state == "closed"


def test_insisting_is_heard_once_a_second():
    """A failed probe ahead of time opens it again, and the next one goes a second after the last."""
    breaker = opened(100.0)
    breaker.record_failure(breaker.try_acquire(100.5, insist=True), 100.6, middle)
    assert breaker.state == "open"
    assert breaker.try_acquire(math.nextafter(101.5, 0.0), insist=True) is None
    assert breaker.try_acquire(101.5, insist=True) is not None


def test_nobody_insists_beside_a_probe():
    """While one is under way the next waits for its end, also ahead of time."""
    breaker = opened(100.0)
    breaker.try_acquire(100.5, insist=True)
    assert breaker.try_acquire(110.0, insist=True) is None
    breaker = opened(100.0)
    breaker.try_acquire(102.0)
    assert breaker.try_acquire(166.9, insist=True) is None
    assert breaker.try_acquire(167.0, insist=True) is not None


def test_a_probe_ahead_of_time_that_is_given_back_goes_to_the_next():
    """Half-open without a probe, everybody may be it."""
    breaker = opened(100.0)
    breaker.release(breaker.try_acquire(100.5, insist=True))
    assert breaker.retry_after(100.6) == 0.0
    assert breaker.try_acquire(100.6) is not None


def test_a_probe_in_time_does_not_count_as_insisting():
    """Who insisted by the way, when the break was over anyway, has not used up the second."""
    breaker = opened(100.0)
    breaker.record_failure(breaker.try_acquire(102.0, insist=True), 102.1, middle)
    assert breaker.try_acquire(102.2, insist=True) is not None


def test_who_waited_may_go_while_nothing_has_changed():
    """In a closed circuit a ticket holds; once it has opened it does not, nor after it has closed again."""
    breaker = Breaker(RULES)
    ticket = breaker.try_acquire(1.0)
    assert breaker.may_still_go(ticket)
    fail(breaker, count=5)
    assert not breaker.may_still_go(ticket)
    probe = breaker.try_acquire(3.0)
    assert [breaker.may_still_go(known) for known in (ticket, probe)] == [False, True]
    later = breaker.record_success(probe, 3.0)
    assert [breaker.may_still_go(known) for known in (ticket, probe, later)] == [False, False, True]


def test_a_probe_that_was_given_back_may_not_go():
    """Its place is free for another."""
    breaker = opened(100.0)
    probe = breaker.try_acquire(102.0)
    breaker.release(probe)
    assert not breaker.may_still_go(probe)


def test_isolated_nothing_goes_whatever_is_reported():
    """No time, no success and no insisting ends it."""
    breaker = Breaker(RULES)
    ticket = breaker.try_acquire(1.0)
    breaker.isolate()
    assert (breaker.state, breaker.retry_after(1e9)) == ("isolated", math.inf)
    assert breaker.try_acquire(1e9) is None
    assert breaker.try_acquire(1e9, insist=True) is None
    assert not breaker.may_still_go(ticket)
    breaker.record_success(ticket, 2.0)
    breaker.record_client_error(ticket, 2.0)
    for _ in range(20):
        breaker.record_failure(ticket, 2.0, middle)
    breaker.record_busy(ticket, 2.0, middle)
    breaker.release(ticket)
    assert (breaker.state, breaker.at_rest(1e9)) == ("isolated", False)


def test_isolating_twice_is_isolating_once():
    """The second changes nothing, and one reset ends it."""
    breaker = Breaker(RAMPED)
    breaker.isolate()
    breaker.isolate()
    breaker.reset()
    assert (breaker.state, breaker.retry_after(1.0), breaker.try_acquire(1.0, never)) == ("closed", 0.0, Ticket(2))


@pytest.mark.parametrize("state", ["open", "half_open", "isolated"])
def test_an_isolated_probe_cannot_close_it(state):
    """Isolated while it was out, or open or isolated, a reset closes it and forgets everything."""
    breaker = opened(100.0, rules=RAMPED)
    probe = breaker.try_acquire(102.0)
    if state == "isolated":
        breaker.isolate()
        breaker.record_success(probe, 103.0)
        breaker.record_failure(probe, 103.0, middle)
    elif state == "open":
        breaker.record_failure(probe, 102.0, middle)
    assert breaker.state == state
    breaker.reset()
    assert (breaker.state, breaker.totals(104.0), breaker.at_rest(104.0)) == ("closed", (0, 0), True)
    fail(breaker, 104.0, count=5)
    assert breaker.retry_after(104.0) == 2.0


def test_a_closed_circuit_that_is_reset_forgets_its_failures():
    """Four failures before do not count with one after."""
    breaker = Breaker(RULES)
    fail(breaker, count=4)
    assert not breaker.at_rest(1.0)
    breaker.reset()
    fail(breaker, count=4)
    assert breaker.state == "closed"
    assert breaker.totals(1.0) == (4, 4)


def test_after_it_closed_seven_go_in_any_case():
    """Five and two for the probe's answer, without asking chance; the eighth depends on it."""
    breaker = closed_again(102.0)
    assert all(breaker.try_acquire(102.0, never) for _ in range(7))
    assert breaker.try_acquire(102.0, always) is None
    assert breaker.try_acquire(102.0, float) is not None


def test_every_answer_lets_two_more_go():
    """A server that answers takes ever more."""
    breaker = closed_again(102.0)
    tickets = [breaker.try_acquire(102.0, never) for _ in range(7)]
    breaker.record_success(tickets[0], 102.5)
    assert [breaker.try_acquire(102.5, chance) is not None for chance in (never, never, always)] == [True, True, False]
    breaker.record_client_error(tickets[1], 102.5)
    assert breaker.try_acquire(102.5, always) is None


@pytest.mark.parametrize(("seconds", "share"), [(0.0, 0.25), (2.0, 0.4), (5.0, 0.625), (8.0, 0.85)])
def test_the_chance_of_the_others_grows_evenly(seconds, share):
    """A quarter at first, all after ten seconds."""
    breaker = closed_again(102.0)
    now = 102.0 + seconds
    for _ in range(7):
        breaker.try_acquire(now)
    assert breaker.try_acquire(now, lambda: share - 1e-6) is not None
    assert breaker.try_acquire(now, lambda: share + 1e-6) is None


def test_chance_that_just_reaches_the_share_is_held_back():
    """At a share of a quarter exactly a quarter of the chances from 0 to 1 lets a call go."""
    breaker = closed_again(102.0)
    for _ in range(7):
        breaker.try_acquire(102.0)
    assert breaker.try_acquire(102.0, lambda: 0.25) is None


def test_those_that_chance_let_go_count_as_gone():
    """An answer makes room for two beyond what has gone in whatever way."""
    breaker = closed_again(102.0)
    tickets = [breaker.try_acquire(102.0) for _ in range(9)]
    breaker.record_success(tickets[0], 102.0)
    assert breaker.try_acquire(102.0, always) is None
    breaker.record_success(tickets[1], 102.0)
    assert [breaker.try_acquire(102.0, always) is not None for _ in range(3)] == [True, True, False]


def test_those_that_are_held_back_may_ask_again_in_a_second():
    """Or earlier, where the ramp ends earlier."""
    breaker = closed_again(102.0)
    assert [breaker.retry_after(now) for now in (102.0, 111.0, 111.5, 112.0, 200.0)] == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_the_ramp_ends():
    """A hair before chance is asked, then no more, also where time runs back afterwards."""
    breaker = closed_again(102.0)
    for _ in range(7):
        breaker.try_acquire(102.0)
    assert breaker.try_acquire(math.nextafter(112.0, 0.0), always) is None
    assert not breaker.at_rest(math.nextafter(112.0, 0.0))
    assert breaker.at_rest(112.0)
    assert all(breaker.try_acquire(112.0, never) for _ in range(50))
    assert breaker.try_acquire(103.0, never) is not None


def test_without_a_ramp_everybody_goes_at_once():
    """Zero seconds are no ramp."""
    breaker = closed_again(102.0, ramp=0.0)
    assert all(breaker.try_acquire(102.0, never) for _ in range(50))
    assert breaker.retry_after(102.0) == 0.0


def test_without_a_ramp_time_may_run_backwards():
    """A step back of the clock right after it closed makes no ramp either."""
    breaker = closed_again(102.0, ramp=0.0)
    assert breaker.try_acquire(101.0, never)


def test_a_ramp_may_be_shorter_than_a_second():
    """Half a second is a ramp as well."""
    breaker = closed_again(102.0, ramp=0.5)
    assert [breaker.try_acquire(102.0, always) is not None for _ in range(8)] == [True] * 7 + [False]
    assert breaker.retry_after(102.0) == 0.5


def test_a_circuit_that_opens_while_it_comes_back_begins_with_a_first_break_and_a_new_ramp():
    """Failures during the ramp open it as ever."""
    breaker = closed_again(102.0)
    fail(breaker, 103.0, count=5)
    assert (breaker.state, breaker.retry_after(103.0)) == ("open", 2.0)
    breaker.record_success(breaker.try_acquire(105.0), 105.0)
    assert all(breaker.try_acquire(105.0, never) for _ in range(7))
    assert breaker.try_acquire(105.0, always) is None
    assert breaker.try_acquire(114.9, lambda: 0.999) is None


def test_a_reset_ends_the_ramp():
    """Who closes it by hand wants everybody through."""
    breaker = closed_again(102.0)
    breaker.reset()
    assert all(breaker.try_acquire(102.0, never) for _ in range(50))


def test_a_refused_probe_begins_a_ramp_as_well():
    """A 400 closes the circuit like an answer does."""
    breaker = opened(100.0, rules=RAMPED)
    breaker.record_client_error(breaker.try_acquire(102.0), 102.0)
    assert [breaker.try_acquire(102.0, always) is not None for _ in range(8)] == [True] * 7 + [False]


def test_a_failed_probe_is_left_alone_as_long_as_the_server_asks():
    """The hint of a probe's failure sets the break where it is longer."""
    breaker = opened(100.0)
    breaker.record_failure(breaker.try_acquire(102.0), 102.0, middle, 30.0)
    assert (breaker.state, breaker.retry_after(102.0)) == ("open", 30.0)


def test_a_breaker_that_remembers_an_answer_is_not_at_rest():
    """An answer counts against the share of failures for as long as the window reaches."""
    breaker = Breaker(RULES)
    answer(breaker, 1.0)
    assert [breaker.at_rest(now) for now in (1.0, 29.0, 31.0)] == [False, False, True]


def test_failures_that_have_left_the_window_are_no_reason_to_keep_a_breaker():
    """Four failures in a row keep it for as long as the window reaches, and no longer."""
    breaker = Breaker(RULES)
    fail(breaker, 1.0, count=4)
    assert [breaker.at_rest(now) for now in (1.0, 29.0, 31.0)] == [False, False, True]


def test_a_busy_probe_is_left_alone_as_long_as_the_server_asks():
    """The hint of a 429 sets the break, and a probe without a lease sets none."""
    breaker = opened(100.0)
    lost = breaker.try_acquire(102.0)
    probe = breaker.try_acquire(167.0)
    breaker.record_busy(lost, 168.0, middle, 30.0)
    assert breaker.state == "half_open"
    breaker.record_busy(probe, 168.0, middle, 30.0)
    assert (breaker.state, breaker.retry_after(168.0)) == ("open", 30.0)


class BreakerModel(RuleBasedStateMachine):
    """The reference keeps every outcome and every ticket, and computes the state from them."""

    tickets = Bundle("tickets")

    def __init__(self):
        super().__init__()
        self.breaker = Breaker(RAMPED)
        self.now = 1_000.0
        self.state, self.outcomes, self.row, self.openings, self.until = "closed", [], 0, 0, 0.0
        self.current = set()  # the tickets of this period
        self.probe, self.lease, self.insisted = None, 0.0, -math.inf
        self.closed_at, self.gone, self.answers = None, 0, 0

    def change(self, state):
        self.state, self.row, self.probe = state, 0, None
        self.current = set()
        self.closed_at = None

    def open(self, hint):
        length = max(min(2.0 * 2**self.openings, 10.0), hint or 0.0)
        self.until = self.now + length
        self.change("open")

    def close(self):
        self.change("closed")
        self.outcomes, self.openings = [], 0

    def may_go(self, chance, insist):
        if self.state == "closed":
            if self.closed_at is None or self.now >= self.closed_at + 10.0:
                self.closed_at = None
                return True
            share = 0.25 + 0.75 * (self.now - self.closed_at) / 10.0
            return self.gone < 5 + 2 * self.answers or chance < share
        if self.state == "half_open":
            return self.probe is None or self.now >= self.lease
        if self.state == "open" and self.now < self.until and insist and self.now >= self.insisted + 1.0:
            self.insisted = self.now
            return True
        return self.state == "open" and self.now >= self.until

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 9.75, 30.0, 64.0, 65.0]))
    def pass_time(self, seconds):
        """Time passes."""
        self.now += seconds

    @rule(target=tickets, chance=st.sampled_from([0.0, 0.2, 0.3, 0.6, 0.99]), insist=st.booleans())
    def arrive(self, chance, insist):
        """A call is let through exactly when the reference says so."""
        ticket = self.breaker.try_acquire(self.now, lambda: chance, insist=insist)
        may = self.may_go(chance, insist)
        assert (ticket is not None) == may
        if ticket is None:
            return multiple()
        if self.state == "open":
            self.change("half_open")
        self.current.add(ticket)
        self.gone += 1
        if self.state == "half_open":
            self.probe, self.lease = ticket, self.now + 65.0
        return ticket

    @rule(ticket=consumes(tickets))
    def succeed(self, ticket):
        """A success clears failures in a row, or closes."""
        known = ticket in self.current
        later = self.breaker.record_success(ticket, self.now)
        self._answer(ticket, clears=True)
        if known:
            self.current.add(later)
        else:
            assert later == ticket

    @rule(ticket=consumes(tickets))
    def refuse(self, ticket):
        """A refusal closes, or counts without clearing."""
        self.breaker.record_client_error(ticket, self.now)
        self._answer(ticket, clears=False)

    def _answer(self, ticket, *, clears):
        if ticket not in self.current:
            return
        if self.state == "half_open":
            self.close()
            self.closed_at, self.gone, self.answers = self.now, 0, 1
        else:
            self.outcomes.append((self.now // 3.0, False))
            self.row = 0 if clears else self.row
            self.answers += clears

    @rule(ticket=tickets, hint=st.none() | st.floats(0, 60))
    def fail(self, ticket, hint):
        """A failure of this period counts; of a probe it opens again, for longer."""
        self.breaker.record_failure(ticket, self.now, middle, hint)
        if self.state == "half_open" and ticket == self.probe:
            self.openings += 1
            self.open(hint)
        elif self.state == "closed" and ticket in self.current:
            self.row += 1
            self.outcomes.append((self.now // 3.0, True))
            recent = [failed for bucket, failed in self.outcomes if bucket > self.now // 3.0 - 10]
            if self.row >= 5 or (len(recent) >= 10 and sum(recent) >= 0.5 * len(recent)):
                self.open(hint)

    @rule(ticket=consumes(tickets), hint=st.none() | st.floats(0, 60))
    def be_busy(self, ticket, hint):
        """A 429 of the probe opens again; any other says nothing."""
        self.breaker.record_busy(ticket, self.now, middle, hint)
        if self.state == "half_open" and ticket == self.probe:
            self.open(hint)

    @rule(ticket=consumes(tickets))
    def release(self, ticket):
        """The current probe is given back; any other ticket is nothing."""
        self.breaker.release(ticket)
        if self.state == "half_open" and ticket == self.probe:
            self.probe = None

    @rule()
    def isolate(self):
        """Nothing goes from now on."""
        self.breaker.isolate()
        if self.state != "isolated":
            self.change("isolated")

    @rule()
    def reset(self):
        """Everything is forgotten."""
        self.breaker.reset()
        self.close()

    @rule(ticket=tickets)
    def look_again(self, ticket):
        """A ticket holds for its period, that of a probe for as long as it is the probe."""
        holds = ticket == self.probe if self.state == "half_open" else self.state == "closed" and ticket in self.current
        assert self.breaker.may_still_go(ticket) == holds

    @invariant()
    def agrees(self):
        """State and waiting time are what the reference says, and nothing can be stuck."""
        assert self.breaker.state == self.state
        if self.state == "open":
            expected = max(0.0, self.until - self.now)
        elif self.state == "isolated":
            expected = math.inf
        elif self.state == "half_open":
            expected = 0.0 if self.probe is None else min(2.0, max(0.0, self.lease - self.now))
        else:
            expected = 0.0 if self.closed_at is None else min(1.0, max(0.0, self.closed_at + 10.0 - self.now))
        assert self.breaker.retry_after(self.now) == pytest.approx(expected)


TestBreaker = BreakerModel.TestCase
TestBreaker.settings = settings(deadline=None, stateful_step_count=60)
