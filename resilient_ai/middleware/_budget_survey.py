"""What is spent of each budget, those for each value of a tag included."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeGuard

from resilient_ai.core.budgets import BudgetBook
from resilient_ai.core.clock import Clock
from resilient_ai.core.health import BudgetState
from resilient_ai.core.kinds import CHAT, check_filter
from resilient_ai.core.ledger import COLUMNS, Column, CostBook
from resilient_ai.core.money import total
from resilient_ai.middleware._budget_tally import Tally
from resilient_ai.middleware.budget import ANY, Budget, value_in

_LISTED = frozenset(COLUMNS) - {"day", "state"}  # tags whose values a ledger can tell
_OF_EVERY_CALL = frozenset({"model", "kind"})


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of budgets.

    Args:
        states: What is spent of each.
        hidden: How many budgets for single values there are beside them, of which less is spent.
        unlisted: Budgets for each value of tags whose values nobody can tell, with the names of these tags.
    """

    states: tuple[BudgetState, ...] = ()
    hidden: int = 0
    unlisted: tuple[tuple[Budget, tuple[str, ...]], ...] = ()


async def survey(
    tally: Tally,
    book: BudgetBook,
    *,
    tags: Mapping[str, str] | None,
    clock: Clock,
    costs: CostBook | None = None,
    most: int | None = None,
) -> Survey:
    """Ask what is spent of the budgets against which a call with exactly these tags may count; of all without any.

    Args:
        tally: The budgets, and what this process has seen of them; it is told the answer.
        book: Where they are counted.
        tags: Those of a call. It has a model and a kind beside them, whether they are named or not.
        clock: Tells which windows are now.
        costs: Tells with which values of tags something was sent.
        most: How many values of one budget are asked for at most, the dearest: to ask for one may take as long as to add up a
            whole window. None for all.

    Raises:
        BookUnavailable: If it cannot be asked what was spent, or sent.
        InvalidInput: If `tags` name a kind that there is not.
    """
    check_filter(tags)
    given = tags or {}
    scopes: list[tuple[Budget, Mapping[str, str]]] = []
    named: set[frozenset[tuple[str, str]]] = set()
    hidden, unlisted = 0, list[tuple[Budget, tuple[str, ...]]]()
    for budget in tally.budgets:
        if given and not _may_count(budget, given):
            continue
        open_tags = [tag for tag, value in budget.scope.items() if value == ANY and tag not in given]
        scope = {
            tag: (value_in(tag, given[tag], value) or value) if tag in given else value
            for tag, value in budget.scope.items()
        }
        if not open_tags:
            scopes.append((budget, scope))
            named.add(frozenset(scope.items()))
            continue
        found: list[Mapping[str, str]] = []
        if costs is not None and _are_columns(open_tags):
            since = tally.window(budget, clock.wall()).first
            found += await _sent(costs, scope, open_tags, since)
        else:
            unlisted.append((budget, tuple(tag for tag in open_tags if costs is None or tag not in _LISTED)))
        fixed = {tag: value for tag, value in scope.items() if tag not in open_tags}
        known = {frozenset(one.items()) for one in found}
        seen = [one for one in tally.seen(budget) if fixed.items() <= one.items()]
        found += [one for one in seen if frozenset(one.items()) not in known]
        scopes += [(budget, one) for one in found[:most]]
        if _OF_EVERY_CALL.issuperset(open_tags):  # there are few models and kinds, while tenants may be any number
            named |= {frozenset(one.items()) for one in found[:most]}
        hidden += len(found) - len(found[:most])
    return Survey(await _states(tally, book, scopes, named, clock), hidden, tuple(unlisted))


def _may_count(budget: Budget, tags: Mapping[str, str]) -> bool:
    return all(
        value_in(tag, tags[tag], value) is not None if tag in tags else tag in _OF_EVERY_CALL
        for tag, value in budget.scope.items()
    )


async def _sent(
    costs: CostBook, scope: Mapping[str, str], open_tags: "list[Column]", since: float
) -> list[Mapping[str, str]]:
    """Return the scope with each combination of values with which something was sent, the dearest first."""
    fixed = {tag: scope[tag] for tag in scope if tag not in open_tags}
    columns = list(open_tags)
    if fixed.get("kind") == CHAT:
        # The ledger keeps streamed chats apart, which count as well.
        del fixed["kind"]
        columns.append("kind")
    costs_of: dict[tuple[str, ...], list[Decimal]] = {}
    for row in await costs.by(*columns, since=since, tags=fixed):
        values = [value_in(tag, value, scope[tag]) for tag, value in zip(columns, row.key, strict=True) if value]
        key = tuple(value for value in values if value is not None)
        if len(key) == len(columns):  # calls without the tag do not count
            costs_of.setdefault(key, []).append(row.cost or Decimal(0))
    dearest = sorted(costs_of, key=lambda key: total(costs_of[key]), reverse=True)
    return [{**scope, **dict(zip(columns, key, strict=True))} for key in dearest]


async def _states(
    tally: Tally,
    book: BudgetBook,
    scopes: Sequence[tuple[Budget, Mapping[str, str]]],
    named: AbstractSet[frozenset[tuple[str, str]]],
    clock: Clock,
) -> tuple[BudgetState, ...]:
    """Ask the book, and have the tally take note of the answer; new counters are kept where their scope is among the named."""
    counters = tally.counters_of(scopes)
    slots = tally.slots(counters, clock)
    asked = tally.ask(counters, slots)
    spent = await book.spent([counter.charge(slot, 0) for counter, slot in zip(counters, slots, strict=True)])
    keep = [frozenset(counter.scope.items()) in named for counter in counters]
    tally.learned(counters, slots, spent, asked=asked, keep=keep)
    found = zip(counters, slots, spent, strict=True)
    return tuple(state for counter, slot, amount in found for state in counter.states(slot, amount))


def _are_columns(names: list[str]) -> TypeGuard[list[Column]]:
    return all(name in _LISTED for name in names)
