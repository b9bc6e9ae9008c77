"""Which budgets a call counts against, and what this process knows of their counters."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from resilient_ai.core.call import Call
from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.events import BudgetThresholdReached
from resilient_ai.core.health import BudgetState
from resilient_ai.core.kinds import covered
from resilient_ai.middleware._budget_counter import Counter
from resilient_ai.middleware._machines.bounded import make_room
from resilient_ai.middleware._machines.budget_window import BudgetWindow, Slot
from resilient_ai.middleware._machines.turns import Turns
from resilient_ai.middleware.budget import ANY, Budget, value_in

# At so many counters a quarter is forgotten: those of which the least has been spent. The book keeps them all.
_MOST_COUNTERS = 16_384
_LONGEST_KEY = 200


class Tally:
    """The budgets of one client by the calls that count against them. Safe to use from several threads.

    Attributes:
        budgets: All of them, in the order they were given.
        clock: That of the last call; the machine's own before the first.
    """

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self.clock: Clock = SystemClock()
        self.turns = Turns()
        self.turns.forked = self._forked
        self.budgets = tuple(budgets)
        self._windows = {
            (budget.per, budget.rolling): BudgetWindow(budget.per, rolling=budget.rolling) for budget in budgets
        }
        self._counters: dict[str, Counter] = {}
        self._keys: dict[tuple[int, tuple[str, ...]], str] = {}
        # Of thousands of budgets, one for each tenant, a call is compared with its own alone.
        self._everywhere: list[_Rule] = []
        self._by_value: dict[str, dict[str, list[_Rule]]] = {}
        for place, budget in enumerate(budgets):
            rule = _Rule(place, budget)
            chosen = next(((tag, value) for tag, value in budget.scope.items() if value != ANY), None)
            if chosen is None:
                self._everywhere.append(rule)
            else:
                tag, value = chosen
                for named in covered(value) if tag == "kind" else (value,):
                    self._by_value.setdefault(tag, {}).setdefault(named, []).append(rule)

    def match(self, call: Call[Any]) -> Sequence[Counter]:
        """Return the counters of a call, each once."""
        rules = self._everywhere
        for tag, values in self._by_value.items():
            more = values.get(_value_of(call, tag) or "")
            if more is not None:
                rules = [*rules, *more]
        if not rules:
            return ()
        self.clock = call.clock
        found: dict[str, Counter] = {}
        with self.turns:
            for rule in rules:
                scope = rule.scope_of(call)
                if scope is not None:
                    counter = self._counter(rule, scope)
                    found[counter.key] = counter
        return tuple(found.values())

    def slots(self, counters: Iterable[Counter], clock: Clock) -> list[Slot]:
        """Return what counts now."""
        now = clock.wall()
        with self.turns:
            return [counter.window.at(now) for counter in counters]

    def ask(self, counters: Sequence[Counter], slots: Sequence[Slot]) -> list[int | None]:
        """Return what to hand to `saw` with the answer of the book."""
        return [counter.spending.asks(slot) for counter, slot in zip(counters, slots, strict=True)]

    def saw(
        self,
        counters: Sequence[Counter],
        slots: Sequence[Slot],
        spent: Iterable[int],
        *,
        asked: Sequence[int | None],
        held: int,
    ) -> None:
        """Take note of what the book said, and of what was reserved."""
        with self.turns:
            for counter, slot, amount, since in zip(counters, slots, spent, asked, strict=True):
                counter.spending.saw(slot, amount, since)
                counter.spending.reserve(slot, held)

    def reserved(self, counters: Sequence[Counter], slots: Sequence[Slot]) -> list[dict[int, int]]:
        """Return what of each counter requests of this client under way have reserved, by slice."""
        with self.turns:
            return [counter.spending.reserved_in(slot) for counter, slot in zip(counters, slots, strict=True)]

    def settled(
        self, call: Call[Any], counters: Sequence[Counter], slots: Sequence[Slot], *, amount: int, held: int
    ) -> None:
        """Take note of what was settled in the place of what was held, and tell of thresholds; never waits."""

        def note() -> "Callable[[], None] | None":
            news = [
                event
                for counter, slot in zip(counters, slots, strict=True)
                for event in counter.told(call, counter.spending.settle(slot, amount, held))
            ]
            return (lambda: _tell(call, news)) if news else None

        self.turns.post(note)

    def states(self) -> list[BudgetState]:
        """Return what is known of every counter that was used."""
        now = _wall_of(self.clock)
        with self.turns:
            found: list[BudgetState] = []
            for counter in self._counters.values():
                slot = counter.spending.slot
                if slot is not None:
                    current = slot if now is None else counter.window.at(now)
                    over = slot.slice < current.first
                    found += counter.states(current, 0 if over else counter.spending.spent)
            return found

    def counters_of(self, scopes: Iterable[tuple[Budget, Mapping[str, str]]]) -> list[Counter]:
        """Return the counters of budgets with the values of their scopes, each once."""
        places = {id(budget): place for place, budget in enumerate(self.budgets)}
        found: dict[str, Counter] = {}
        with self.turns:
            for budget, scope in scopes:
                counter = self._counter(_Rule(places[id(budget)], budget), dict(sorted(scope.items())))
                found[counter.key] = counter
        return list(found.values())

    def seen(self, budget: Budget) -> list[Mapping[str, str]]:
        """Return the scopes of a budget, with their values, that this process knows."""
        with self.turns:
            return [counter.scope for counter in self._counters.values() if budget in counter.budgets]

    def window(self, budget: Budget, now: float) -> Slot:
        """Return what counts of a budget now."""
        with self.turns:
            return self._windows[budget.per, budget.rolling].at(now)

    def _forked(self) -> None:
        # What the parent's calls have reserved is the parent's, as that of any other process.
        for counter in self._counters.values():
            counter.spending.forget_reserved()

    def _counter(self, rule: "_Rule", scope: Mapping[str, str]) -> Counter:
        names = (rule.place, tuple(scope.values()))
        key = self._keys.get(names)
        counter = None if key is None else self._counters.get(key)
        if counter is not None:
            return counter
        key = _key_of(rule.budget, scope)
        counter = self._counters.get(key)
        if counter is None:
            if len(self._counters) >= _MOST_COUNTERS:
                make_room(self._counters, _MOST_COUNTERS, lambda known: known.spending.spent)
                self._keys.clear()
            budgets = [budget for budget in self.budgets if _counts(budget, rule.budget, scope)]
            window = self._windows[rule.budget.per, rule.budget.rolling]
            counter = self._counters[key] = Counter(key, dict(scope), budgets, window)
        self._keys[names] = key
        return counter


class _Rule:
    """A budget, prepared for the look whether a call is in its scope."""

    __slots__ = ("_scope", "budget", "place")

    def __init__(self, place: int, budget: Budget) -> None:
        self.place = place
        self.budget = budget
        self._scope = tuple(sorted(budget.scope.items()))

    def scope_of(self, call: Call[Any]) -> dict[str, str] | None:
        """Return the scope with the values of the call, None where it is not in it."""
        found: dict[str, str] = {}
        for tag, wanted in self._scope:
            given = _value_of(call, tag)
            value = None if given is None else value_in(tag, given, wanted)
            if value is None:
                return None
            found[tag] = value
        return found


def _tell(call: Call[Any], news: Iterable[BudgetThresholdReached]) -> None:
    for event in news:
        call.emit(event)


def _value_of(call: Call[Any], tag: str) -> str | None:
    if tag == "model":
        return call.model
    return call.operation.kind if tag == "kind" else call.tags.get(tag)


def _counts(budget: Budget, other: Budget, scope: Mapping[str, str]) -> bool:
    """Return whether a budget counts the same sends in the same windows as another one with this scope."""
    return (
        (budget.per, budget.rolling) == (other.per, other.rolling)
        and budget.scope.keys() == scope.keys()
        and all(value_in(tag, value, budget.scope[tag]) == value for tag, value in scope.items())
    )


def _key_of(budget: Budget, scope: Mapping[str, str]) -> str:
    pairs = [f"{_quoted(tag)}={_quoted(value)}" for tag, value in sorted(scope.items())]
    key = " ".join([f"{'rolling ' if budget.rolling else ''}{budget.per}", *pairs])
    if len(key) <= _LONGEST_KEY:
        return key
    return f"{key[:_LONGEST_KEY]}#{hashlib.sha256(key.encode()).hexdigest()}"


def _quoted(text: str) -> str:
    return quote(text, safe="/:@", errors="backslashreplace")


def _wall_of(clock: Clock) -> float | None:
    try:
        return clock.wall()
    except RuntimeError:  # a clock that has stopped with its loop
        return None
