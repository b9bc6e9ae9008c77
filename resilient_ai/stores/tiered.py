"""Two cache stores, one behind the other."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol, cast

from resilient_ai.core.checks import check_seconds
from resilient_ai.core.protocols import CacheStore, Inspectable, Leases, StoreUsage


class TieredStore:
    """A fast store in front of a large one.

    Reading asks the first and then, for what is missing, the second; what the second had is put into the first. Writing
    goes to both. The age of an entry of the second is not known here, so its copy in the first lives for `fill_ttl`
    at most: an entry can be served so much longer than it was meant to live.

    Leases are those of the second, or of the first where the second has none. Listing and forgetting by pattern need a second
    store that can; a first one that cannot is emptied instead, as it holds copies.

    Args:
        first: The fast store, usually `MemoryStore`.
        second: The large or lasting store, usually `DiskStore`.
        fill_ttl: Seconds for which the first keeps what it got from the second. More than 0.

    Raises:
        ValueError: If `fill_ttl` is not more than 0.

    >>> from resilient_ai.stores import MemoryStore
    >>> TieredStore(MemoryStore(max_bytes=1000), MemoryStore(max_bytes=9000))
    TieredStore(MemoryStore(max_bytes=1000), MemoryStore(max_bytes=9000), fill_ttl=60.0)
    """

    def __init__(self, first: CacheStore, second: CacheStore, *, fill_ttl: float = 60.0) -> None:
        check_seconds("fill_ttl", fill_ttl)
        self.first = first
        self.second = second
        self.fill_ttl = fill_ttl

    def __repr__(self) -> str:
        return f"TieredStore({self.first!r}, {self.second!r}, fill_ttl={self.fill_ttl})"

    @property
    def timeout(self) -> float | None:
        """Seconds after which a read is given up: the sum of those of both stores, None where neither has any."""
        limits = [limit for store in (self.first, self.second) if (limit := _timeout(store)) is not None]
        return sum(limits) if limits else None

    @property
    def faults(self) -> int:
        """How often something went wrong in one of the two, as far as they count it."""
        counts: list[object] = [getattr(store, "faults", 0) for store in (self.first, self.second)]
        return sum(count for count in counts if isinstance(count, int))

    async def open(self) -> bool:
        """Prepare what can be prepared, both at the same time; return whether all of it could be."""
        stores = [store for store in (self.first, self.second) if _can(store, "open")]
        return False not in await asyncio.gather(*(cast("_Opens", store).open() for store in stores))

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return what either store has, and remember in the first what only the second had."""
        found = await self.first.get_many(keys)
        missing = [key for key in keys if key not in found]
        if not missing:
            return found
        more = await self.second.get_many(missing)
        if more:
            await self.first.set_many(more, ttl=self.fill_ttl)
        return {**found, **more}

    async def set_many(self, entries: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        """Keep `entries` in both stores."""
        await self.first.set_many(entries, ttl=ttl)
        await self.second.set_many(entries, ttl=ttl)

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget these entries in both; the second goes first, so that none comes back from it."""
        await self.second.delete_many(keys)
        await self.first.delete_many(keys)

    async def delete_matching(self, pattern: str) -> int:
        """Forget the entries whose keys match, in both.

        Returns:
            How many there were in the store that had more of them; what was in both is counted once.

        Raises:
            TypeError: If the second store cannot.
        """
        deleted = await _inspectable(self.second).delete_matching(pattern)
        if not _can(self.first, "delete_matching"):
            await self.first.clear()
            return deleted
        return max(deleted, await _inspectable(self.first).delete_matching(pattern))

    async def scan(self) -> AsyncIterator[Mapping[str, bytes]]:
        """Return the entries of the second store, then those that only the first has; some at a time.

        Raises:
            TypeError: If the second store cannot list its entries.
        """
        only_first = {key async for page in _pages(self.first) for key in page}
        async for page in _inspectable(self.second).scan():
            only_first.difference_update(page)
            yield page
        async for page in _pages(self.first):
            rest = {key: value for key, value in page.items() if key in only_first}
            if rest:
                yield rest

    async def usage(self) -> Sequence[StoreUsage]:
        """Return the lines of both; a store that has none to give has one with its name."""
        return [line for store in (self.first, self.second) for line in await _usage(store)]

    def held(self) -> Sequence[StoreUsage]:
        """Return the lines of those that know without looking."""
        stores = [store for store in (self.first, self.second) if _can(store, "held")]
        return [line for store in stores for line in cast("_Holds", store).held()]

    async def acquire_lease(self, key: str, *, holder: str, seconds: float) -> bool | None:
        """Take the lease of `key` for `seconds`, or prolong it; None where neither store has leases, or nobody can say."""
        leases = self._leases()
        return None if leases is None else await leases.acquire_lease(key, holder=holder, seconds=seconds)

    async def release_lease(self, key: str, *, holder: str) -> None:
        """Give it back, after everything that was set before is there to be read."""
        leases = self._leases()
        if leases is not None:
            await leases.release_lease(key, holder=holder)

    async def clear(self) -> None:
        """Forget everything in both."""
        await self.second.clear()
        await self.first.clear()

    async def aclose(self) -> None:
        """Close both, the second also when the first fails."""
        try:
            await self.first.aclose()
        finally:
            await self.second.aclose()

    def _leases(self) -> Leases | None:
        stores = [store for store in (self.second, self.first) if _can(store, "acquire_lease")]
        return cast("Leases", stores[0]) if stores else None


class _Opens(Protocol):
    async def open(self) -> object: ...


class _Holds(Protocol):
    def held(self) -> Sequence[StoreUsage]: ...


def _can(store: CacheStore, method: str) -> bool:
    return callable(getattr(store, method, None))


def _timeout(store: CacheStore) -> float | None:
    limit: object = getattr(store, "timeout", None)
    return limit if isinstance(limit, int | float) else None


def _inspectable(store: CacheStore) -> Inspectable:
    if not _can(store, "delete_matching"):
        raise TypeError(f"a store of type {type(store).__name__} can neither list entries nor forget them by pattern")
    return cast("Inspectable", store)


async def _pages(store: CacheStore) -> AsyncIterator[Mapping[str, bytes]]:
    if _can(store, "scan"):
        async for page in cast("Inspectable", store).scan():
            yield page


async def _usage(store: CacheStore) -> Sequence[StoreUsage]:
    return await cast("Inspectable", store).usage() if _can(store, "usage") else [StoreUsage(name=type(store).__name__)]
