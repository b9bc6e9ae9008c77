"""A cache store in memory: the most recently used entries, up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from math import inf

from resilient_ai.core.checks import check_count
from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.protocols import StoreUsage
from resilient_ai.stores._forks import watch
from resilient_ai.stores._patterns import matcher

_LISTED_AT_ONCE = 256
_ENTRY_OVERHEAD = 200  # bytes that Python itself needs for an entry, roughly


class MemoryStore:
    """Keep bytes in this process, the least recently used going first when room is needed.

    It is the fastest store and forgets everything when the process ends. Put it in front of a slower one with `TieredStore`.
    It may be shared between threads and event loops.

    Args:
        max_bytes: Room for keys, values and about 200 bytes of overhead per entry. A value that is larger than all of
            it is not kept.
        clock: Measures the age of entries.

    Raises:
        ValueError: If `max_bytes` is less than 1.

    >>> import asyncio
    >>> async def main():
    ...     store = MemoryStore()
    ...     await store.set_many({"a": b"1"}, ttl=60)
    ...     return await store.get_many(["a", "b"])
    >>> asyncio.run(main())
    {'a': b'1'}
    """

    def __init__(self, *, max_bytes: int = 64 * 2**20, clock: Clock | None = None) -> None:
        check_count("max_bytes", max_bytes, 1)
        self.max_bytes = max_bytes
        self._clock = clock or SystemClock()
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._size = 0
        self._dropped = 0
        self._lock = threading.Lock()
        watch(self)

    def __repr__(self) -> str:
        return f"MemoryStore(max_bytes={self.max_bytes})"

    def __len__(self) -> int:
        """Return the number of entries, those included whose time is over but that are still in the way."""
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes in use, as counted against `max_bytes`."""
        return self._size

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the entries that are there and fresh; each becomes the most recently used."""
        now = self._clock.monotonic()
        found: dict[str, bytes] = {}
        with self._lock:
            for key in keys:
                ends, value = self._entries.get(key, (-inf, b""))
                if now < ends:
                    found[key] = value
                    self._entries.move_to_end(key)
                else:
                    self._remove(key)
        return found

    async def set_many(self, entries: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        """Keep `entries` for `ttl` seconds; None keeps them until they are evicted."""
        ends = inf if ttl is None else self._clock.monotonic() + ttl
        with self._lock:
            for key, value in entries.items():
                self._remove(key)
                if _room(key, value) <= self.max_bytes:
                    self._entries[key] = (ends, bytes(value))
                    self._size += _room(key, value)
                else:
                    self._dropped += 1
            while self._size > self.max_bytes:
                self._remove(next(iter(self._entries)))

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget these entries."""
        with self._lock:
            for key in keys:
                self._remove(key)

    async def delete_matching(self, pattern: str) -> int:
        """Forget the entries whose keys match, and return how many there were."""
        fits = matcher(pattern)
        with self._lock:
            keys = list(filter(fits, self._entries))
            for key in keys:
                self._remove(key)
        return len(keys)

    async def scan(self) -> AsyncIterator[Mapping[str, bytes]]:
        """Return the entries that are fresh, up to 256 at a time; this does not count as use."""
        with self._lock:
            keys = list(self._entries)
        for start in range(0, len(keys), _LISTED_AT_ONCE):
            now = self._clock.monotonic()
            with self._lock:
                some = {key: self._entries.get(key, (-inf, b"")) for key in keys[start : start + _LISTED_AT_ONCE]}
            fresh = {key: value for key, (ends, value) in some.items() if now < ends}
            if fresh:
                yield fresh

    async def usage(self) -> Sequence[StoreUsage]:
        """Return one line."""
        return self.held()

    def held(self) -> Sequence[StoreUsage]:
        """Return the same at once."""
        with self._lock:
            return [
                StoreUsage(
                    name="memory",
                    entries=len(self._entries),
                    size=self._size,
                    limit=self.max_bytes,
                    dropped=self._dropped,
                )
            ]

    async def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._size = 0

    async def aclose(self) -> None:
        """Forget everything; there is nothing else to let go of."""
        await self.clear()

    def after_fork(self) -> None:
        """Start empty in a child process: a thread that the child does not have may have been in the middle of a change."""
        if self._lock.locked():
            self._entries, self._size = OrderedDict(), 0
        self._lock = threading.Lock()

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size -= _room(key, entry[1])


def _room(key: str, value: bytes) -> int:
    return len(key) + len(value) + _ENTRY_OVERHEAD
