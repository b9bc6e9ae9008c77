"""What middleware need of their neighbours, as protocols, so that no neighbour is imported."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from resilient_ai.core.operations import Embed, Operation


class PriceBook(Protocol):
    """Prices of models, in US dollars. Whatever is not known gives None, never zero."""

    def chat_cost(
        self,
        model: str,
        *,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int = 0,
        cache_write_tokens: int = 0,
        service_tier: str | None = None,
    ) -> Decimal | None:
        """Return what these tokens cost on `model`."""
        ...

    def embedding_cost(self, model: str, *, input_tokens: int, service_tier: str | None = None) -> Decimal | None:
        """Return what embedding these tokens costs."""
        ...

    def image_cost(
        self, model: str, *, images: int, width: int | None = None, height: int | None = None, steps: int | None = None
    ) -> Decimal | None:
        """Return what drawing these pictures costs."""
        ...


class Abilities(Protocol):
    """What models can do. Whatever is not known gives None, which never speaks against a model."""

    def lacks(self, operation: Operation[Any]) -> str | None:
        """Return what the model of `operation` lacks to serve it, such as "tools"; None if nothing is known to be missing."""
        ...

    def output_limit(self, model: str) -> int | None:
        """Return the most tokens that one answer of the model may have."""
        ...

    def service_tiers(self, model: str) -> Sequence[str] | None:
        """Return the tiers the model offers beside the default one."""
        ...

    def dimensions(self, operation: Embed) -> int | None:
        """Return the numbers per vector that the model would answer `operation` with."""
        ...


class Fleet(Protocol):
    """Limits that the processes of a fleet share. It never raises because of the world outside: None means it cannot be asked.

    Giving back and reporting (`hold`, `release`, `settle`) is synchronous, never waits, and may be called from any thread and
    from the garbage collector.
    """

    @property
    def share(self) -> float:
        """The part of a limit, above 0 to 1, that this process may use alone while the fleet cannot be asked."""
        ...

    @property
    def reachable(self) -> bool:
        """Whether the fleet decides now, as far as it is known from the last question; if not, this process decides alone."""
        ...

    async def acquire(self, name: str, *, limit: int, holder: str) -> int | None:
        """Ask for one of `limit` permits called `name` for `holder`, first come, first served.

        Returns:
            0 with the permit. Otherwise the holder waits in line, and this is how many permits must come back before it has one:
            1 for the next. It keeps its place as long as it asks again within a second. None where the fleet cannot be asked.

            Whatever the answer, and even where there was none, whoever asked calls `release` in the end. Until then, or until
            this process dies, a permit is kept.
        """
        ...

    def hold(self, name: str, *, holder: str) -> None:
        """Note that `holder` goes ahead without having been given a permit, as the fleet could not be asked."""
        ...

    def release(self, name: str, *, holder: str) -> None:
        """Give the permit of `holder` back, or have it leave the line."""
        ...

    async def reserve(self, name: str, *, amount: float, rate: float, burst: float) -> float | None:
        """Take `amount` from a bucket that refills by `rate` a second and holds `burst`; return the seconds to wait for it."""
        ...

    def settle(self, name: str, *, amount: float, rate: float, burst: float) -> None:
        """Take `amount` more from a bucket, or give it back where negative."""
        ...

    async def aclose(self) -> None:
        """Give everything back and let go of connections."""
        ...


class CacheStore(Protocol):
    """Bytes under keys, for a while.

    A store never fails a call: what it cannot read is a miss, what it cannot write is dropped. The cache names its entries by 96
    hexadecimal digits: 16 for the tenant, 16 for the model, 64 for everything that was asked.

    It may also have:

    - `timeout`: seconds after which it gives up on a read by itself, so that the cache need not.
    - `faults`: how often something went wrong, so that the cache can tell a fault from a miss.
    - `open()`: prepares what reading needs, such as a file; awaited once before the first read, for up to 2 s. False, where it
      could not be prepared, makes that read a miss.
    - `held()`: returns what `usage()` does, as far as that is known without waiting or looking; for figures that are read often.
    - the methods of `Inspectable`, without which entries can neither be counted nor be forgotten by tenant or model.
    - the methods of `Leases`.
    """

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the entries that are there and fresh."""
        ...

    async def set_many(self, entries: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        """Keep `entries` for `ttl` seconds; None keeps them until they are evicted."""
        ...

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget these entries."""
        ...

    async def clear(self) -> None:
        """Forget everything."""
        ...

    async def aclose(self) -> None:
        """Write what is pending and let go of files and connections."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUsage:
    """What a store holds and what became of it.

    Args:
        name: The store and where it is, without secrets.
        entries: Entries, those included whose time is over but that are still in the way; None where nobody can say.
        size: Bytes in use, None where nobody can say.
        limit: Bytes it may use, None where nothing limits it here.
        faults: How often something went wrong, so that a read was a miss or a write was dropped.
        refused: Entries that were not what the store had written there.
        dropped: Entries that were not written: too large, or too much was waiting.
        trouble: Why the store is not used, None where it is.
    """

    name: str
    entries: int | None = None
    size: int | None = None
    limit: int | None = None
    faults: int = 0
    refused: int = 0
    dropped: int = 0
    trouble: str | None = None


class Inspectable(Protocol):
    """A store whose entries can be counted, listed and forgotten in groups."""

    async def usage(self) -> "Sequence[StoreUsage]":
        """Return one line for the store, or one for each of those it is made of."""
        ...

    async def delete_matching(self, pattern: str) -> int:
        """Forget the entries whose keys match, where `?` is any character and `*` any number of them; return how many."""
        ...

    def scan(self) -> "AsyncIterator[Mapping[str, bytes]]":
        """Return the entries that are fresh, some at a time, each at least once unless it goes meanwhile."""
        ...


class Leases(Protocol):
    """Who may send, among processes that would send the same. It never raises because of the world outside."""

    async def acquire_lease(self, key: str, *, holder: str, seconds: float) -> bool | None:
        """Take the lease of `key` for `seconds`, or prolong it where `holder` has it.

        Returns:
            Whether `holder` has it now; None where nobody can say.
        """
        ...

    async def release_lease(self, key: str, *, holder: str) -> None:
        """Give it back, after everything that was set before is there to be read; does nothing where `holder` has it not."""
        ...
