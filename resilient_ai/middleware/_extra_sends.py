"""What each model may still be sent beyond the calls themselves, and how quick it was lately."""

from collections.abc import Callable
from typing import Any

from resilient_ai.core.call import Call
from resilient_ai.core.clock import time_of
from resilient_ai.core.health import SendBudgetState
from resilient_ai.middleware._machines.bounded import make_room
from resilient_ai.middleware._machines.latencies import Latencies
from resilient_ai.middleware._machines.send_budget import SendBudget
from resilient_ai.middleware._machines.turns import Turns
from resilient_ai.middleware.hedge import Hedge

_Key = tuple[str, str]

_PER_ANSWER = 0.1
_PER_SECOND = 0.05
_HEDGES_SAVED = 5.0  # hedges that a quiet time saves up at most
_TROUBLE = 30.0  # seconds after a failure in which nothing is hedged
# At so many models a quarter is forgotten: those that have spent least, or of which the fewest answers are known.
_MOST_MODELS = 1024


class ExtraSends:
    """The budgets of one `Retry`: per model one for all extra sends, and one for hedges. Safe to use from several threads.

    Args:
        capacity: Extra sends a model has when nothing was spent.
        hedge: When to hedge, None for never.
    """

    def __init__(self, capacity: float, hedge: Hedge | None) -> None:
        self._capacity = capacity
        self._hedge = hedge
        # A model that has spent nothing has no entry: then an answer costs no more than looking that up.
        self._budgets: dict[_Key, tuple[SendBudget, Callable[[], float]]] = {}
        self._hedges: dict[tuple[str, str, str], _Hedging] = {}
        self._turns = Turns()
        self._turns.forked = self._forget

    def try_spend(self, call: Call[Any], amount: float) -> bool:
        """Pay for an extra send, if the model's budget allows it."""
        now = call.clock.monotonic()
        key = (call.origin, call.model)
        with self._turns:
            known = self._budgets.get(key)
            if known is None:
                make_room(self._budgets, _MOST_MODELS, lambda kept: self._capacity - kept[0].left(kept[1]()))
                budget = SendBudget(capacity=self._capacity, per_answer=_PER_ANSWER, per_second=_PER_SECOND)
                clock = call.clock
                known = self._budgets[key] = budget, lambda: time_of(clock)
            return known[0].try_spend(now, amount)

    def answered(self, call: Call[Any]) -> None:
        """Take note of an answer."""
        if not self._budgets:
            return
        key = (call.origin, call.model)
        now = call.clock.monotonic()
        with self._turns:
            known = self._budgets.get(key)
            if known is None:
                return
            known[0].record_success(now)
            if known[0].left(now) >= self._capacity:
                del self._budgets[key]

    def hedge_delay(self, call: Call[Any]) -> float | None:
        """Return after how many seconds a second request may go, None for not at all."""
        hedge = self._hedge
        if hedge is None:
            return None
        now = call.clock.monotonic()
        with self._turns:
            known = self._hedging(call, hedge)
            known.budget.record_success(now)
            if len(known.latencies) < hedge.samples or now < known.trouble_until:
                return None
            return max(hedge.delay_min, known.latencies.quantile(hedge.quantile))

    def try_hedge(self, call: Call[Any]) -> bool:
        """Pay for a second request."""
        hedge = self._hedge
        now = call.clock.monotonic()
        with self._turns:
            if hedge is None or not self._hedging(call, hedge).budget.try_spend(now, 1.0):
                return False
        return self.try_spend(call, 1.0)

    def took(self, call: Call[Any], seconds: float) -> None:
        """Take note of how long an answer, or the first token of a stream, took."""
        with self._turns:
            known = self._hedges.get(_hedge_key(call))
            if known is not None:
                known.latencies.record(seconds)

    def failed(self, call: Call[Any]) -> None:
        """Take note of a failure, after which nothing is hedged for a while."""
        now = call.clock.monotonic()
        with self._turns:
            known = self._hedges.get(_hedge_key(call))
            if known is not None:
                known.trouble_until = now + _TROUBLE

    def states(self) -> tuple[SendBudgetState, ...]:
        """Return what is left of every budget from which something was spent."""
        with self._turns:
            return tuple(
                SendBudgetState(key=key, left=budget.left(now()), capacity=self._capacity)
                for key, (budget, now) in self._budgets.items()
            )

    def _hedging(self, call: Call[Any], hedge: Hedge) -> "_Hedging":
        key = _hedge_key(call)
        known = self._hedges.get(key)
        if known is None:
            make_room(self._hedges, _MOST_MODELS, lambda kept: len(kept.latencies))
            known = self._hedges[key] = _Hedging(hedge)
        return known

    def _forget(self) -> None:
        self._budgets.clear()
        self._hedges.clear()


class _Hedging:
    """What is known of one model and kind of operation: its latencies, its hedges, its last failure."""

    __slots__ = ("budget", "latencies", "trouble_until")

    def __init__(self, hedge: Hedge) -> None:
        self.latencies = Latencies()
        # Empty at first, so that hedges are never more than their share, not even in the first minute.
        self.budget = SendBudget(capacity=_HEDGES_SAVED, per_answer=hedge.extra, per_second=0.0, left=0.0)
        self.trouble_until = 0.0


def _hedge_key(call: Call[Any]) -> tuple[str, str, str]:
    return call.origin, call.model, call.operation.kind
