"""Whose turn it is to send what other processes would send as well."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from resilient_ai.core.call import Call
from resilient_ai.core.protocols import Leases
from resilient_ai.middleware._cache_store import Background

T = TypeVar("T")

# Seconds between two looks for what another process is asking for.
_WAIT_INITIAL = 0.02
_WAIT_MAX = 0.5


class Lease:
    """A lease that is held while an answer is on its way, and prolonged as long as that takes."""

    def __init__(self, leases: Leases, key: str, call: Call[Any], seconds: float, background: Background) -> None:
        self._leases = leases
        self._key = key
        self._call = call
        self._seconds = seconds
        self._background = background
        self._renewal: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._busy = asyncio.Lock()
        self._asked = False
        self._over = False

    async def take(self) -> bool | None:
        """Return whether it is held now, None where nobody can say."""
        self._asked = True  # whatever comes of it: a question that had no answer may have taken it all the same
        try:
            granted = await self._leases.acquire_lease(self._key, holder=self._call.id, seconds=self._seconds)
        except Exception:  # noqa: BLE001 - nobody can say, whatever a store of the user's own raises
            return None
        self._asked = granted is not False
        if granted and self._renewal is None:
            self._renewal = asyncio.create_task(self._renew())
        return granted

    def give_back(self) -> None:
        """Give it back, behind everything that was written before; never waits, and may be called from any thread."""
        if self._over or not self._asked:
            return
        self._over = True
        with suppress(RuntimeError):  # the loop has ended, and with it the renewal: the lease ends by itself
            self._loop.call_soon_threadsafe(lambda: self._background.start(self._release()))

    async def _release(self) -> None:
        async with self._busy:  # a renewal under way would take the lease again
            if self._renewal is not None:
                self._renewal.cancel()
            try:
                await self._leases.release_lease(self._key, holder=self._call.id)
            except Exception:  # noqa: BLE001 - it ends by itself
                return

    async def _renew(self) -> None:
        while True:
            await self._call.clock.sleep(self._seconds / 3)
            async with self._busy:
                if self._over:
                    return
                await self.take()


async def take_turn(lease: Lease, call: Call[Any], look: Callable[[], Awaitable[T | None]]) -> T | None:
    """Wait until the lease is held, or until `look` finds what another process has kept meanwhile, and return that.

    Where nobody can say who holds it, it is as if it were held.
    """
    wait = _WAIT_INITIAL
    try:
        while True:
            granted = await lease.take()
            if granted is None:
                return None
            # Also with the lease: whoever had it may have kept the answer since this call looked for it.
            found = await look()
            if found is not None:
                lease.give_back()
                return found
            if granted:
                return None
            await call.clock.sleep(wait)
            wait = min(wait * 1.5, _WAIT_MAX)
    except BaseException:
        lease.give_back()
        raise
