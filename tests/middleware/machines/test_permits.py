"""Permits and their two queues, by example and against two lists and two counters."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from resilient_ai.middleware._machines.permits import Permits


def full(*, limit, queue_size=1_000):
    """Permits that are all in use by interactive callers."""
    permits = Permits(limit=limit, queue_size=queue_size)
    while permits.try_acquire():
        pass
    return permits


def grants(permits, count):
    """Who gets the next `count` permits, each of which is given back before the next is granted."""
    served = []
    for _ in range(count):
        permits.release(batch=str(served[-1]).startswith("b") if served else False)
        served.append(permits.grant())
    return served


def test_every_fifth_permit_goes_to_batch_where_both_wait():
    """Interactive first, but batch is not starved; within a class the order of arrival."""
    permits = full(limit=1)
    for number in range(10):
        permits.try_enqueue(f"i{number}")
    for number in range(4):
        permits.try_enqueue(f"b{number}", batch=True)
    served = grants(permits, 14)
    assert served == ["i0", "i1", "i2", "i3", "b0", "i4", "i5", "i6", "i7", "b1", "i8", "i9", "b2", "b3"]


def test_interactive_permits_count_for_batch_only_while_it_waits():
    """A batch caller that comes after many interactive ones waits for four of them, not for none."""
    permits = full(limit=1)
    for number in range(20):
        permits.try_enqueue(f"i{number}")
    grants(permits, 10)
    permits.try_enqueue("b", batch=True)
    assert grants(permits, 5) == ["i10", "i11", "i12", "i13", "b"]


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (2, 1), (4, 3), (5, 4), (10, 8), (200, 160)])
def test_batch_holds_four_fifths_at_most(limit, most):
    """The rest is free for interactive callers, also while none is there; one is always allowed."""
    permits = Permits(limit=limit, queue_size=10)
    assert [permits.try_acquire(batch=True) for _ in range(limit + 1)].count(True) == most
    permits.try_enqueue("b", batch=True)
    assert permits.grant() is None
    assert [permits.try_acquire() for _ in range(limit)].count(True) == limit - most


def test_a_limit_that_grows_lets_more_through_and_one_that_shrinks_fewer():
    """What is in use beyond a lower limit is not taken away, only not passed on."""
    permits = full(limit=2)
    for name in "abcd":
        permits.try_enqueue(name)
    permits.limit = 4
    assert [permits.grant() for _ in range(3)] == ["a", "b", None]
    permits.limit = 1
    for _ in range(3):
        permits.release()
        assert permits.grant() is None
    permits.release()
    assert permits.grant() == "c"


def test_a_wait_is_predicted_once_ten_permits_came_back():
    """Callers ahead times the mean time a permit is held, divided by the limit."""
    permits = full(limit=4)
    for number in range(8):
        permits.try_enqueue(number)
    for _ in range(9):
        permits.record_held(2.0)
    assert permits.predicted_wait() is None
    permits.record_held(2.0)
    assert permits.mean_held == pytest.approx(2.0)
    assert permits.predicted_wait() == pytest.approx(8 * 2.0 / 4)
    assert permits.predicted_wait(batch=True) == pytest.approx(4 * 2.0 / 4)
    for number in range(3):
        permits.try_enqueue(f"b{number}", batch=True)
    assert permits.predicted_wait() == pytest.approx((8 + 2) * 2.0 / 4)
    assert permits.predicted_wait(batch=True) == pytest.approx((8 + 3) * 2.0 / 4)


@pytest.mark.parametrize(("interactive", "batch", "ahead"), [(3, 2, 3), (4, 2, 5), (7, 2, 8), (8, 1, 9)])
def test_every_fourth_interactive_caller_ahead_lets_one_of_batch_go(interactive, batch, ahead):
    """An interactive caller waits for those of its class, and for one of batch with every four of them."""
    permits = full(limit=2)
    for number in range(interactive):
        permits.try_enqueue(number)
    for number in range(batch):
        permits.try_enqueue(f"b{number}", batch=True)
    for _ in range(10):
        permits.record_held(2.0)
    assert permits.predicted_wait() == pytest.approx(float(ahead))


def test_a_permit_of_an_interactive_caller_leaves_batch_alone():
    """Nothing is known at first; what an interactive caller takes and gives back is not counted for batch."""
    permits = Permits(limit=2, queue_size=0)
    assert permits.mean_held == 0.0
    permits.try_acquire()
    permits.release()
    assert (permits.in_use, permits.batch_in_use) == (0, 0)


def test_the_mean_follows_what_changes():
    """Of requests that have become longer, some hundred are enough to be believed."""
    permits = Permits(limit=1, queue_size=0)
    for seconds in [1.0] * 1_000 + [11.0] * 115:
        permits.record_held(seconds)
    assert permits.mean_held == pytest.approx(10.0, abs=0.1)


class PermitsModel(RuleBasedStateMachine):
    """The reference: who holds, who waits in which order, and how often batch was passed over."""

    waiters = Bundle("waiters")

    @initialize(limit=st.integers(1, 6), queue_size=st.integers(0, 6))
    def begin(self, limit, queue_size):
        self.permits = Permits(limit=limit, queue_size=queue_size)
        self.limit, self.queue_size = limit, queue_size
        self.held = {False: 0, True: 0}
        self.queues = {False: [], True: []}
        self.served = {False: [], True: []}
        self.passed_over, self.names = 0, 0

    def is_free(self, batch):
        """Whether a caller of this class could take a permit."""
        within = not batch or self.held[True] < max(1, self.limit * 4 // 5)
        return sum(self.held.values()) < self.limit and within

    def next_class(self):
        """Which class gets the next permit; None if there is none or nobody may have it."""
        ready = [batch for batch in (False, True) if self.queues[batch] and self.is_free(batch)]
        if len(ready) < 2:
            return ready[0] if ready else None
        return self.passed_over >= 4

    def grant_all(self):
        """Hand out what is free, as the reference would."""
        while (batch := self.next_class()) is not None:
            if batch:
                self.passed_over = 0
            elif self.queues[True] and self.is_free(True):
                self.passed_over += 1
            waiter = self.queues[batch].pop(0)
            assert self.permits.grant() == waiter
            self.held[batch] += 1
            self.served[batch].append(waiter)
        assert self.permits.grant() is None

    @rule(target=waiters, batch=st.booleans())
    def arrive(self, batch):
        """A caller takes a permit, or a place of the queue, or is refused."""
        granted = self.permits.try_acquire(batch=batch)
        assert granted == self.is_free(batch)
        if granted:
            self.held[batch] += 1
            return multiple()
        self.names += 1
        queued = self.permits.try_enqueue(self.names, batch=batch)
        assert queued == (sum(map(len, self.queues.values())) < self.queue_size)
        if not queued:
            return multiple()
        self.queues[batch].append(self.names)
        return self.names

    @precondition(lambda self: sum(self.held.values()))
    @rule(data=st.data())
    def release(self, data):
        """A permit goes to who is next, or becomes free."""
        batch = data.draw(st.sampled_from([batch for batch in (False, True) if self.held[batch]]))
        self.permits.release(batch=batch)
        self.held[batch] -= 1
        self.grant_all()

    @rule(limit=st.integers(1, 8))
    def change(self, limit):
        """The limit is changed, and what has become free is handed out."""
        self.permits.limit = self.limit = limit
        self.grant_all()

    @rule(waiter=consumes(waiters))
    def leave(self, waiter):
        """A waiter that was not served leaves the queue; one that was is told so, and gives its permit back."""
        queue = next((queue for queue in self.queues.values() if waiter in queue), None)
        assert self.permits.try_leave(waiter) == (queue is not None)
        if queue is not None:
            queue.remove(waiter)

    @invariant()
    def counts_agree(self):
        """Permits and queues are what the reference says; nobody waits while it could go; the order is kept."""
        assert self.permits.in_use == sum(self.held.values())
        assert self.permits.batch_in_use == self.held[True]
        assert self.permits.waiting == sum(map(len, self.queues.values())) <= self.queue_size
        assert self.next_class() is None
        assert all(served == sorted(served) for served in self.served.values())


TestPermits = PermitsModel.TestCase
TestPermits.settings = settings(deadline=None)
