"""What new counters of budgets begin with: which of them one question to a ledger can answer together."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from resilient_ai.core.budgets import Charge
from resilient_ai.core.kinds import covered
from resilient_ai.stores._ledger_common import Filter

Span = tuple[str, int, int]  # a key, the first slice that counts, and the last
Seed = list[tuple[int, int]]  # slices, and what was spent in each


class SeedGroup(NamedTuple):
    """Charges whose scopes name the same tags in the same window, such as those of many tenants.

    Attributes:
        first: The oldest slice that counts.
        slice: The slice they are added to.
        until: When it may be forgotten.
        names: The tags, the kind apart.
        kinds: The kinds that count; None for all.
        charges: All of them.
    """

    first: int
    slice: int
    until: int
    names: tuple[str, ...]
    kinds: tuple[str, ...] | None
    charges: list[Charge]

    def values(self, charge: Charge) -> tuple[str, ...]:
        """Return the tags of one of the charges, in the order of the names."""
        return tuple(charge.scope[name] for name in self.names)


def span(charge: Charge) -> Span:
    """Return which counters count for a charge."""
    return charge.key, charge.first, charge.slice


def groups_of(charges: Sequence[Charge]) -> list[SeedGroup]:
    """Return charges by what can be asked for together.

    >>> one = Charge(key="a", slice=0, first=0, amount=7, limit=9, until=1, scope={"tenant": "a", "kind": "chat"})
    >>> [(group.names, group.kinds, len(group.charges)) for group in groups_of([one, one])]
    [(('tenant',), ('chat', 'stream'), 2)]
    """
    found: dict[tuple[object, ...], SeedGroup] = {}
    for charge in charges:
        kind = charge.scope.get("kind")
        names = tuple(sorted(name for name in charge.scope if name != "kind"))
        what = (charge.first, charge.slice, charge.until, names, kind)
        group = found.get(what)
        if group is None:
            kinds = None if kind is None else covered(kind)
            group = found[what] = SeedGroup(charge.first, charge.slice, charge.until, names, kinds, [])
        group.charges.append(charge)
    return list(found.values())


def unpriced(charge: Charge) -> Filter:
    """Return which sends a charge's counters may hold at their worst, as what they have cost is not known."""
    kind = charge.scope.get("kind")
    tags = {name: value for name, value in charge.scope.items() if name != "kind"}
    return Filter(charge.first, charge.until, tags, None if kind is None else covered(kind))


def new_life() -> int:
    """Return a life for counters that are begun; never 0, which is none."""
    return int.from_bytes(os.urandom(8)) >> 2 | 1
