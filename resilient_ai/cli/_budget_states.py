"""What is spent of the budgets of the settings, those for each value of a tag included."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeGuard

from resilient_ai.cli._costs_book import opened
from resilient_ai.core.ledger import COLUMNS, Column

if TYPE_CHECKING:
    from resilient_ai.core.health import BudgetState
    from resilient_ai.core.ledger import CostBook
    from resilient_ai.middleware import Budget
    from resilient_ai.settings import Settings

_ANY = "*"
_LISTED = frozenset(COLUMNS) - {"day", "state"}  # tags whose values the book can tell


@dataclass(slots=True)
class Found:
    """What is known of budgets.

    Args:
        states: Those first of which most is used.
        hidden: How many there are beside them, of which less is spent.
        unlisted: Budgets for each value of tags whose values the book cannot tell, with the names of these tags.
    """

    states: "list[BudgetState]" = field(default_factory=list["BudgetState"])
    hidden: int = 0
    unlisted: "list[tuple[Budget, list[str]]]" = field(default_factory=list[tuple["Budget", list[str]]])


async def states_of(settings: "Settings", tags: Mapping[str, str], *, most: int | None) -> Found:
    """Return the budgets that calls with these tags may count against.

    Of a budget for each value of a tag there is one for each value that has spent something in its window, and `most` of them
    at most: to ask for one may take as long as to add up a whole window.

    Raises:
        BookUnavailable: If what was spent cannot be asked for.
    """
    from resilient_ai.deepinfra.catalogue import PriceTable  # noqa: PLC0415 - slow to import
    from resilient_ai.middleware import Budgets  # noqa: PLC0415 - as above
    from resilient_ai.stores import RedisBudgets  # noqa: PLC0415 - as above

    found, single = Found(), list["Budget"]()
    async with opened() as (ledger, _):
        for budget in settings.budgets:
            if any(tags.get(tag, value) != value for tag, value in budget.scope.items() if value != _ANY):
                continue
            open_tags = [tag for tag, value in budget.scope.items() if value == _ANY and tag not in tags]
            if _are_columns(open_tags):
                each = await _each(budget, open_tags, tags, ledger)
                single += each[:most]
                found.hidden += len(each[most:]) if most is not None else 0
            else:
                found.unlisted.append((budget, [tag for tag in open_tags if tag not in _LISTED]))
        url = settings.budget_redis_url
        book = ledger if url is None else RedisBudgets(url.get_secret_value())
        try:
            states = await Budgets(budgets=single, book=book, prices=PriceTable()).state(tags)
        finally:
            if url is not None:
                await book.aclose()
    found.states = sorted(states, key=lambda state: (-state.spent / state.limit, state.key))
    return found


async def _each(
    budget: "Budget", open_tags: "list[Column]", tags: Mapping[str, str], ledger: "CostBook"
) -> "list[Budget]":
    """Return a budget for each combination of values that has spent something in its window, the dearest first."""
    from resilient_ai.middleware._machines.budget_window import BudgetWindow  # noqa: PLC0415 - slow to import

    if not open_tags:
        return [budget]
    since = BudgetWindow(budget.per, rolling=budget.rolling).at(time.time()).first
    fixed = {tag: tags.get(tag, value) for tag, value in budget.scope.items() if tag not in open_tags}
    rows = await ledger.by(*open_tags, since=since, tags=fixed)
    dearest = sorted(rows, key=lambda row: -row.cost)
    scopes: list[dict[str, str]] = [
        {tag: value for tag, value in zip(open_tags, row.key, strict=True) if value is not None} for row in dearest
    ]
    return [replace(budget, scope={**budget.scope, **one}) for one in scopes if all(map(one.get, open_tags))]


def _are_columns(names: list[str]) -> TypeGuard[list[Column]]:
    return all(name in _LISTED for name in names)
