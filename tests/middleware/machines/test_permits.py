"""Permits and their queue, against a list and a counter."""

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


class PermitsModel(RuleBasedStateMachine):
    """The reference: who holds, who waits in which order."""

    waiters = Bundle("waiters")

    @initialize(limit=st.integers(1, 4), queue_size=st.integers(0, 4))
    def begin(self, limit, queue_size):
        self.permits = Permits(limit=limit, queue_size=queue_size)
        self.limit, self.queue_size = limit, queue_size
        self.held, self.queue, self.served, self.names = 0, [], [], 0

    @rule(target=waiters)
    def arrive(self):
        """A caller takes a permit, or the last place of the queue, or is refused."""
        granted = self.permits.try_acquire()
        assert granted == (self.held < self.limit)
        if granted:
            self.held += 1
            return multiple()
        self.names += 1
        queued = self.permits.try_enqueue(self.names)
        assert queued == (len(self.queue) < self.queue_size)
        if not queued:
            return multiple()
        self.queue.append(self.names)
        return self.names

    @precondition(lambda self: self.held)
    @rule()
    def release(self):
        """A permit goes to the first of the queue, or becomes free."""
        expected = self.queue.pop(0) if self.queue else None
        assert self.permits.release() == expected
        if expected is None:
            self.held -= 1
        else:
            self.served.append(expected)

    @rule(waiter=consumes(waiters))
    def leave(self, waiter):
        """A waiter that was not served leaves the queue; one that was is told so."""
        waited = waiter in self.queue
        assert self.permits.try_leave(waiter) == waited
        if waited:
            self.queue.remove(waiter)

    @invariant()
    def counts_agree(self):
        """Permits and queue are what the reference says; nobody waits while a permit is free; the order is kept."""
        assert self.permits.in_use == self.held <= self.limit
        assert self.permits.waiting == len(self.queue) <= self.queue_size
        assert not self.queue or self.held == self.limit
        assert self.served == sorted(self.served)


TestPermits = PermitsModel.TestCase
TestPermits.settings = settings(deadline=None)
