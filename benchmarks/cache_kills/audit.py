"""Reads everything that lies in a store, as a process does that comes later, and compares it with what is right."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from benchmarks.cache_kills.clients import Place, client_of, store_of
from benchmarks.cache_kills.questions import is_right_entry, operation_of, order_of


@dataclass(frozen=True)
class Audit:
    """What lies in a store.

    Args:
        names: The entries that are right.
        wrong: Names of entries that hold a wrong value, and keys of entries that nobody can have made.
        refused: How many were not what some process had written.
        complete: Whether all that are counted were read.
    """

    names: frozenset[str]
    wrong: list[str] = field(default_factory=list)
    refused: int = 0
    complete: bool = True


def audit(place: Place, url: str, names: Collection[str]) -> Audit:
    """Read the store at `place`; `names` are those of everything that was ever sent to the service at `url`."""
    return asyncio.run(_audit(place, url, names))


async def _audit(place: Place, url: str, names: Collection[str]) -> Audit:
    store = store_of(place)
    async with client_of(store, url) as ai:
        name_of = {ai.cache.key(operation_of(order_of(name))): name for name in names}
        right: set[str] = set()
        wrong: list[str] = []
        async for page in store.scan():
            for key, entry in page.items():
                name = name_of.get(key)
                if name is not None and is_right_entry(name, entry):
                    right.add(name)
                else:
                    wrong.append(name or key)
        (usage,) = await store.usage()
    read = len(right) + len(wrong)
    return Audit(frozenset(right), wrong, usage.refused, complete=usage.entries == read and not usage.faults)
