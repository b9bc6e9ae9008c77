"""The store that the commands of `resilient-ai cache` work on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from resilient_ai.cli.failures import CacheUnreachableError

if TYPE_CHECKING:
    from resilient_ai.core.protocols import CacheStore, Inspectable, StoreUsage
    from resilient_ai.settings import Settings

    class Store(CacheStore, Inspectable, Protocol):
        """A store that can do everything that is needed here."""


T = TypeVar("T")


def with_store(work: "Callable[[Store], Awaitable[T]]", *, make: bool = False) -> T | None:
    """Return what `work` gives, None where there is no store and none shall be made."""
    from resilient_ai.settings import Settings  # noqa: PLC0415 - slow to import

    store = _store(Settings(), make=make)
    if store is None:
        return None

    async def run() -> T:
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(run())


async def healthy(store: "Store") -> "Sequence[StoreUsage]":
    """Return the usage of a store that has done all that was asked of it.

    Raises:
        CacheUnreachableError: If it has not.
    """
    usage = await store.usage()
    for line in usage:
        if line.trouble is not None or line.faults:
            raise CacheUnreachableError(
                f"{line.name}: {line.trouble or 'something went wrong; not everything was done'}"
            )
    return usage


def unreadable(usage: "Iterable[StoreUsage]") -> str | None:
    """Say how many entries were there and could not be read, after all were; None where there was none.

    With another key or secret than theirs, a full cache would look like an empty one.
    """
    count = sum(line.refused for line in usage)
    return f"{entries(count)} could not be read with the keys and the secret that are set" if count else None


def entries(count: int) -> str:
    """Return a number of entries with its noun."""
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def _store(settings: "Settings", *, make: bool) -> "Store | None":
    """Return the store of the default stack that outlives a process; None where it is a folder that is not there."""
    from resilient_ai.presets import home_of, lasting_store  # noqa: PLC0415 - slow to import

    home = home_of(settings.home)
    if settings.cache_redis_url is None and not make and not (home / "cache").is_dir():
        return None
    return cast("Store | None", lasting_store(settings, home))
