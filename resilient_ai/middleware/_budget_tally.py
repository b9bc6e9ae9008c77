"""Which budgets a call counts against, and what this process knows of their counters."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from resilient_ai.core.call import Call
from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.events import BudgetThresholdReached
from resilient_ai.core.health import BudgetState
from resilient_ai.core.kinds import covered
from resilient_ai.core.log import Log
from resilient_ai.middleware._budget_counter import Counter, Together
from resilient_ai.middleware._machines.bounded import make_room
from resilient_ai.middleware._machines.budget_window import BudgetWindow, Slot
from resilient_ai.middleware._machines.turns import Turns
from resilient_ai.middleware.budget import ANY, Budget, value_in

# At so many counters a quarter is forgotten: those of which the least has been spent. The book keeps them all.
_MOST_COUNTERS = 65_536
# Of so many that were forgotten it is remembered which thresholds were told.
_MOST_TOLD = 262_144
_LONGEST_KEY = 200
_LOUD_EVERY = 60.0

_log = Log()


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
        self._together: dict[tuple[int, ...], Together] = {}
        self._told: dict[str, tuple[float, ...]] = {}
        self._complained_at = -_LOUD_EVERY
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
        lives: Sequence[int],
    ) -> None:
        """Take note of what the book said, and of what was reserved; warn where it has lost a counter."""
        known = lives if len(lives) == len(counters) else [None] * len(counters)
        lost: Counter | None = None
        with self.turns:
            for counter, slot, amount, since, life in zip(counters, slots, spent, asked, known, strict=True):
                if counter.spending.saw(slot, amount, since, life):
                    lost = counter
                counter.spending.reserve(slot, held)
        if lost is not None:
            self._complain(lost)

    def learned(
        self,
        counters: Sequence[Counter],
        slots: Sequence[Slot],
        spent: Iterable[int],
        *,
        asked: Sequence[int | None],
        keep: Sequence[bool],
    ) -> None:
        """Take note of what the book told somebody who added nothing, also of those new counters that are to be kept.

        Of a counter that a request of this process changes meanwhile, that request is told it exactly.
        """
        with self.turns:
            for counter, slot, amount, since, is_kept in zip(counters, slots, spent, asked, keep, strict=True):
                spending = counter.spending
                if spending.awaits or spending.asks(slot) != since:
                    continue
                spending.saw(slot, amount, since)
                # To have spent nothing is what is taken for granted. A question makes nobody forget what calls have seen.
                if is_kept and amount and counter.key not in self._counters and len(self._counters) < _MOST_COUNTERS:
                    self._keep(counter)

    def reserved(self, counters: Sequence[Counter], slots: Sequence[Slot]) -> list[dict[int, int]]:
        """Return what of each counter requests of this client under way have reserved, by slice."""
        with self.turns:
            return [counter.spending.reserved_in(slot) for counter, slot in zip(counters, slots, strict=True)]

    def settled(
        self,
        call: Call[Any],
        counters: Sequence[Counter],
        slots: Sequence[Slot],
        *,
        amount: int,
        held: int,
        lives: Sequence[int | None],
    ) -> None:
        """Take note of what was settled in the place of what was held, and tell of thresholds; never waits."""

        def note() -> "Callable[[], None] | None":
            news = [
                event
                for counter, slot, life in zip(counters, slots, lives, strict=True)
                for event in counter.told(call, counter.spending.settle(slot, amount, held, life))
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
        """Return the counters of budgets with the values of their scopes, each once; those not known yet are not kept."""
        rules = {id(budget): _Rule(place, budget) for place, budget in enumerate(self.budgets)}
        found: dict[str, Counter] = {}
        with self.turns:
            for budget, given in scopes:
                scope = dict(sorted(given.items()))
                key = _key_of(budget, scope)
                if key not in found:
                    found[key] = self._counters.get(key) or self._new(key, rules[id(budget)], scope)
        return list(found.values())

    def seen(self, budget: Budget) -> list[Mapping[str, str]]:
        """Return the scopes of a budget, with their values, that this process knows."""
        with self.turns:
            return [counter.scope for counter in self._counters.values() if budget in counter.budgets]

    def window(self, budget: Budget, now: float) -> Slot:
        """Return what counts of a budget now."""
        with self.turns:
            return self._windows[budget.per, budget.rolling].at(now)

    def _complain(self, counter: Counter) -> None:
        now = self.clock.monotonic()
        if now - self._complained_at >= _LOUD_EVERY:
            self._complained_at = now
            label = counter.label(counter.hard or counter.budgets[0])
            _log.warning("the book of budgets has lost what was spent of %r in this window, and begun anew", label)

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
                self._forget()
            counter = self._keep(self._new(key, rule, scope))
        self._keys[names] = key
        return counter

    def _keep(self, counter: Counter) -> Counter:
        counter.spending.told_until = self._told.pop(counter.key, ())
        self._counters[counter.key] = counter
        return counter

    def _new(self, key: str, rule: "_Rule", scope: Mapping[str, str]) -> Counter:
        places = tuple(place for place in rule.alike(self.budgets) if _counts(self.budgets[place], scope))
        together = self._together.get(places)
        if together is None:
            window = self._windows[rule.budget.per, rule.budget.rolling]
            together = self._together[places] = Together([self.budgets[place] for place in places], window)
        return Counter(key, dict(scope), together)

    def _forget(self) -> None:
        before = dict(self._counters)
        # What is reserved is still to be settled, and a threshold must not be told by two for one.
        make_room(
            self._counters,
            _MOST_COUNTERS,
            lambda known: math.inf if known.spending.awaits else known.spending.spent,
        )
        self._keys.clear()
        now = _wall_of(self.clock)
        if now is not None:
            self._told = {key: until for key, until in self._told.items() if max(until) > now}
        for key in before.keys() - self._counters.keys():
            if before[key].spending.told_until:
                self._told[key] = before[key].spending.told_until
        for key in list(self._told)[: max(0, len(self._told) - _MOST_TOLD)]:
            del self._told[key]


class _Rule:
    """A budget, prepared for the look whether a call is in its scope."""

    __slots__ = ("_alike", "_scope", "budget", "place")

    def __init__(self, place: int, budget: Budget) -> None:
        self.place = place
        self.budget = budget
        self._alike: tuple[int, ...] | None = None
        self._scope = tuple(sorted(budget.scope.items()))

    def alike(self, budgets: Sequence[Budget]) -> tuple[int, ...]:
        """Return where those stand with the same window and the same tags in their scope, which may look at the same counters."""
        if self._alike is None:
            self._alike = tuple(place for place, budget in enumerate(budgets) if _alike(budget, self.budget))
        return self._alike

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


def _alike(budget: Budget, other: Budget) -> bool:
    return (budget.per, budget.rolling, budget.scope.keys()) == (other.per, other.rolling, other.scope.keys())


def _counts(budget: Budget, scope: Mapping[str, str]) -> bool:
    """Return whether a budget counts the sends of this scope, of two that are alike."""
    return all(value_in(tag, value, budget.scope[tag]) == value for tag, value in scope.items())


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
