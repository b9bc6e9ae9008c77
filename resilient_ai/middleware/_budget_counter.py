"""One counter of budgets: who looks at it, and what this process knows of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resilient_ai.core.budgets import Charge, dollars
from resilient_ai.core.call import Call
from resilient_ai.core.events import BudgetThresholdReached
from resilient_ai.core.health import BudgetState
from resilient_ai.middleware._machines.budget_window import BudgetWindow, Slot
from resilient_ai.middleware._machines.spending import Spending
from resilient_ai.middleware.budget import Budget


class Together:
    """Budgets that look at the same counters: there may be a counter of theirs for each of many tenants.

    Attributes:
        budgets: All of them.
        hard: The smallest of those that refuse calls, None where none does.
        limit: What that one allows, as the book counts.
        window: Which slice of time counts.
        thresholds: Of each budget.
        marks: What thresholds come to, as the book counts.
        shown_as: What each budget is called in figures; made once, as there may be a counter for each of many tenants.
    """

    __slots__ = ("budgets", "hard", "limit", "marks", "shown_as", "thresholds", "window")

    def __init__(self, budgets: Sequence[Budget], window: BudgetWindow) -> None:
        self.budgets = tuple(budgets)
        self.hard = min((budget for budget in budgets if budget.hard), key=lambda budget: budget.units, default=None)
        self.limit = None if self.hard is None else self.hard.units
        self.window = window
        self.shown_as = tuple(budget.shown_as for budget in budgets)
        self.thresholds = tuple((budget, threshold) for budget in budgets for threshold in budget.thresholds)
        self.marks = tuple(int(budget.units * threshold) for budget, threshold in self.thresholds)


class Counter:
    """One counter: all budgets that count the same sends in the same windows, and what is known of it.

    Attributes:
        key: Its name in the book, which has no limit in it, so that a limit can be changed.
        scope: The tags of sends that count.
        limit: What the smallest of its hard budgets allows, as the book counts; None where there is none.
        window: Which slice of time counts.
        spending: What is known of it.
    """

    __slots__ = ("_together", "key", "limit", "scope", "spending", "window")

    def __init__(self, key: str, scope: Mapping[str, str], together: Together) -> None:
        self.key = key
        self.scope = scope
        self.limit = together.limit
        self.window = together.window
        self._together = together
        self.spending = Spending(together.marks)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Those that look at it."""
        return self._together.budgets

    @property
    def hard(self) -> Budget | None:
        """The smallest of those that refuse calls, None where none does."""
        return self._together.hard

    @property
    def text(self) -> str:
        """The values of its scope, to be shown."""
        return " ".join(f"{tag}={value}" for tag, value in self.scope.items())

    def charge(self, slot: Slot, amount: int, *, held: int = 0, life: int | None = None) -> Charge:
        """Return an amount that counts against it, and what it settles."""
        return Charge(
            key=self.key,
            slice=slot.slice,
            first=slot.first,
            amount=amount,
            limit=self.limit,
            until=slot.until,
            scope=self.scope,
            held=held,
            life=life,
        )

    def label(self, budget: Budget) -> str:
        """Return the name of one of its budgets, with the values of its scope."""
        return f"{budget.title} {self.text}".rstrip()

    def states(self, now: Slot, spent: int) -> Iterator[BudgetState]:
        """Return what there is to know of each budget."""
        for budget, shown_as in zip(self.budgets, self._together.shown_as, strict=True):
            yield BudgetState(
                key=("budget", budget.title, self.text),
                spent=dollars(spent),
                limit=budget.dollars,
                hard=budget.hard,
                until=None if budget.rolling else now.ends,
                rolling=budget.rolling,
                shown_as=shown_as,
            )

    def told(self, call: Call[Any], passed: Sequence[int]) -> Iterator[BudgetThresholdReached]:
        """Return the events of thresholds that were passed."""
        slot = self.spending.slot
        for place in passed:
            budget, threshold = self._together.thresholds[place]
            yield BudgetThresholdReached(
                call_id=call.id,
                model=call.model,
                budget=self.label(budget),
                threshold=threshold,
                spent=dollars(self.spending.settled),
                limit=budget.dollars,
                until=None if budget.rolling or slot is None else slot.ends,
            )
