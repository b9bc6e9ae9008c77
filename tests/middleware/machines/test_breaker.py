"""The state machine of the breaker, by example and against a reference."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from resilient_ai.middleware._machines.breaker import Breaker, Rules

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


def middle():
    return 0.5


def opened(now=100.0, hint=None, chance=0.5):
    breaker = Breaker(RULES)
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
    breaker.record_refusal(breaker.try_acquire(1.0), 1.0)
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
    breaker.record_refusal(breaker.try_acquire(102.0), 102.0)
    assert breaker.state == "closed"


def test_results_of_an_older_generation_do_not_count():
    """A call that began before the break cannot close, open or count anything after it."""
    breaker = Breaker(RULES)
    old = breaker.try_acquire(99.0)
    for _ in range(5):
        breaker.record_failure(breaker.try_acquire(100.0), 100.0, middle)
    probe = breaker.try_acquire(102.0)
    assert breaker.record_success(old, 102.0) == old
    breaker.record_refusal(old, 102.0)
    assert breaker.state == "half_open"
    breaker.record_success(probe, 103.0)
    for _ in range(5):
        breaker.record_failure(old, 103.0, middle)
    breaker.record_refusal(old, 103.0)
    assert breaker.state == "closed"
    assert breaker.at_rest(103.0)


def test_the_ticket_of_a_success_counts_for_the_circuit_it_closed():
    """A stream that closed the circuit by its first token may still fail in the new period."""
    breaker = opened(100.0)
    ticket = breaker.record_success(breaker.try_acquire(102.0), 102.0)
    breaker.record_failure(ticket, 110.0, middle)
    assert breaker.totals(110.0) == (1, 1)
    assert not breaker.at_rest(110.0)


class BreakerModel(RuleBasedStateMachine):
    """The reference keeps every outcome and every ticket, and computes the state from them."""

    tickets = Bundle("tickets")

    def __init__(self):
        super().__init__()
        self.breaker = Breaker(RULES)
        self.now = 1_000.0
        self.state, self.outcomes, self.row, self.openings, self.until = "closed", [], 0, 0, 0.0
        self.period, self.current = 0, set()  # the tickets of this period
        self.probe, self.lease = None, 0.0

    def change(self, state):
        self.state, self.row, self.probe = state, 0, None
        self.period += 1
        self.current = set()
        if state == "closed":
            self.outcomes, self.openings = [], 0

    def open(self, hint):
        length = max(min(2.0 * 2**self.openings, 10.0), hint or 0.0)
        self.until = self.now + length
        self.change("open")

    @rule(seconds=st.floats(0, 80))
    def pass_time(self, seconds):
        """Time passes."""
        self.now += seconds

    @rule(target=tickets)
    def arrive(self):
        """A call is let through exactly when the reference says so."""
        ticket = self.breaker.try_acquire(self.now)
        if self.state == "open" and self.now >= self.until:
            self.change("half_open")
        may = self.state == "closed" or (self.state == "half_open" and (self.probe is None or self.now >= self.lease))
        assert (ticket is not None) == may
        if ticket is None:
            return multiple()
        self.current.add(ticket)
        if self.state == "half_open":
            self.probe, self.lease = ticket, self.now + 65.0
        return ticket

    @rule(ticket=consumes(tickets))
    def succeed(self, ticket):
        """A success clears failures in a row, or closes."""
        self.breaker.record_success(ticket, self.now)
        self._answer(ticket, clears=True)

    @rule(ticket=consumes(tickets))
    def refuse(self, ticket):
        """A refusal closes, or counts without clearing."""
        self.breaker.record_refusal(ticket, self.now)
        self._answer(ticket, clears=False)

    def _answer(self, ticket, *, clears):
        if ticket not in self.current:
            return
        if self.state == "half_open":
            self.change("closed")
        else:
            self.outcomes.append((self.now // 3.0, False))
            self.row = 0 if clears else self.row

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

    @invariant()
    def agrees(self):
        """State and waiting time are what the reference says, and nothing can be stuck."""
        assert self.breaker.state == self.state
        retry_after = self.breaker.retry_after(self.now)
        if self.state == "open":
            assert retry_after == pytest.approx(max(0.0, self.until - self.now))
        else:
            assert 0.0 <= retry_after <= 2.0
        if self.state == "closed":
            assert retry_after == 0.0


TestBreaker = BreakerModel.TestCase
TestBreaker.settings = settings(deadline=None)
