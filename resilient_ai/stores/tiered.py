"""Two cache stores, one behind the other."""

from collections.abc import Mapping, Sequence

from resilient_ai.core.checks import check_seconds
from resilient_ai.core.protocols import CacheStore


class TieredStore:
    """A fast store in front of a large one.

    Reading asks the first and then, for what is missing, the second; what the second had is put into the first. Writing
    goes to both. The age of an entry of the second is not known here, so its copy in the first lives for `fill_ttl`
    at most: an entry can be served so much longer than it was meant to live.

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
