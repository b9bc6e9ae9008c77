"""Whose turn it is to send what other processes would send as well."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

from resilient_ai.core.call import Call
from resilient_ai.core.fault_window import FaultWindow
from resilient_ai.core.protocols import Leases
from resilient_ai.middleware._cache_store import Background, bounded, patience_with

T = TypeVar("T")

# Seconds between two looks for what another process is asking for.
_WAIT_INITIAL = 0.02
_WAIT_MAX = 0.5


@dataclass(frozen=True, slots=True)
class GuardedLeases:
    """Leases whose faults mean that nobody can say who sends; after five within a minute nobody asks for a minute.

    Args:
        leases: Who gives them out.
        seconds: How long one lasts unless it is prolonged.
        writes: Where giving one back goes on behind a call.
        faults: Counts what went wrong.
    """

    leases: Leases
    seconds: float
    writes: Background
    faults: FaultWindow

    def lease(self, key: str, call: Call[Any]) -> "Lease":
        """Return the lease of a key, which is not held yet."""
        return Lease(self, key, call)

    async def ask(self, call: Call[Any], question: Callable[[], Awaitable[T]]) -> T | None:
        """Return an answer, None where there is none in time."""
        if self.faults.paused(call.clock.monotonic()):
            return None
        try:
            return await bounded(call, patience_with(self.leases), question)
        except Exception:  # noqa: BLE001 - nobody can say, whatever a store of the user's own raises
            self.faults.record(call.clock.monotonic())
            return None


class Lease:
    """A lease that is held while an answer is on its way, and prolonged as long as that takes."""

    def __init__(self, giver: GuardedLeases, key: str, call: Call[Any]) -> None:
        self._giver = giver
        self._key = key
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._busy = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._perhaps_held = False
        self._over = False
        self._seen_alive: float | None = None

    async def take(self) -> bool | None:
        """Return whether it is held now, None where nobody can say."""
        self._perhaps_held = True  # whatever comes of it: a question that had no answer may have taken it all the same
        giver = self._giver
        granted = await giver.ask(
            self._call, lambda: giver.leases.acquire_lease(self._key, holder=self._call.id, seconds=giver.seconds)
        )
        self._perhaps_held = granted is not False
        if granted and self._renewal is None:
            self._renewal = asyncio.create_task(self._renew())
        return granted

    def is_alive(self) -> None:
        """Say that what it is held for goes on; once said, it must be said again within the time of the lease."""
        self._seen_alive = self._call.clock.monotonic()

    def give_back(self) -> None:
        """Give it back, behind everything that was written before; never waits, and may be called from any thread."""
        if self._over:
            return
        self._over = True
        with suppress(RuntimeError):  # the loop has ended, and with it the renewal: the lease ends by itself
            self._loop.call_soon_threadsafe(self._begin_to_release)

    def _begin_to_release(self) -> None:
        self._giver.writes.start(self._release())

    async def _release(self) -> None:
        async with self._busy:  # a renewal under way would take the lease again
            if self._renewal is not None:
                self._renewal.cancel()
            if self._perhaps_held:
                leases = self._giver.leases
                await self._giver.ask(self._call, lambda: leases.release_lease(self._key, holder=self._call.id))

    async def _renew(self) -> None:
        while True:
            await self._call.clock.sleep(self._giver.seconds / 3)
            async with self._busy:
                # One that was lost is not taken again: whoever has it now shall keep it.
                if self._over or self._is_stuck() or await self.take() is False:
                    return

    def _is_stuck(self) -> bool:
        alive = self._seen_alive
        return alive is not None and self._call.clock.monotonic() - alive > self._giver.seconds


async def take_turn(lease: Lease, call: Call[Any], look: Callable[[], Awaitable[T | None]]) -> T | None:
    """Wait until the lease is held, or until `look` finds what another process has kept meanwhile, and return that.

    Where nobody can say who holds it, or whoever does takes more than half of the time that is left, it is as if it were held.
    """
    wait, remaining = _WAIT_INITIAL, call.remaining()
    until = inf if remaining is None else call.clock.monotonic() + remaining / 2
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
            if granted or call.clock.monotonic() >= until:
                return None
            await call.clock.sleep(wait)
            wait = min(wait * 1.5, _WAIT_MAX)
    except BaseException:
        lease.give_back()
        raise
