"""A cache store that cannot hurt a call, whatever it does."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from resilient_ai.core.call import Call
from resilient_ai.core.protocols import CacheStore

T = TypeVar("T")

# Seconds a call waits for a store. A store that is slower is of no use, and one that hangs must not take the call with it.
PATIENCE = 1.0

_log = logging.getLogger("resilient_ai")


async def fetch(call: Call[Any], store: CacheStore, keys: Sequence[str]) -> Mapping[str, bytes] | None:
    """Return the entries that are there, None where the store failed."""
    try:
        return await _in_time(call, lambda: store.get_many(keys))
    except Exception:  # noqa: BLE001 - without an answer of the store the call goes on as after a miss
        return None


async def keep(call: Call[Any], store: CacheStore, entries: Mapping[str, bytes], ttl: float | None) -> None:
    """Write entries, or drop them where the store fails."""
    try:
        await _in_time(call, lambda: store.set_many(entries, ttl=ttl))
    except Exception as error:  # noqa: BLE001 - the answer is there, and it is what the caller waits for
        _log.warning("the cache store %s did not write: %s", type(store).__name__, type(error).__name__)


async def forget(call: Call[Any], store: CacheStore, keys: Sequence[str]) -> None:
    """Delete entries that cannot be read, if the store lets us."""
    try:
        await _in_time(call, lambda: store.delete_many(keys))
    except Exception as error:  # noqa: BLE001 - a damaged entry that stays is a miss again
        _log.warning("the cache store %s did not delete: %s", type(store).__name__, type(error).__name__)


async def close(store: CacheStore) -> None:
    """Close a store; one that fails must not keep the rest of a stack from closing."""
    try:
        await store.aclose()
    except Exception as error:  # noqa: BLE001 - what was not written is lost, which a cache may
        _log.warning("the cache store %s did not close: %s", type(store).__name__, type(error).__name__)


async def _in_time(call: Call[Any], work: Callable[[], Awaitable[T]]) -> T:
    # Never more than half of what is left, so that a store that hangs does not use up the deadline of the call.
    remaining = call.remaining()
    patience = PATIENCE if remaining is None else min(PATIENCE, remaining / 2)
    async with call.clock.timeout(patience):
        return await work()
