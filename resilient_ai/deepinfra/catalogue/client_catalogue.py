"""The catalogue of a client: asked like any other, refreshed through the client's own connections."""

import asyncio
import os
import weakref
from contextlib import suppress
from datetime import date
from typing import TYPE_CHECKING

from typing_extensions import override

from resilient_ai.core.checks import check_seconds
from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.errors import StatusError
from resilient_ai.core.log import Log
from resilient_ai.deepinfra.catalogue._data import Snapshot
from resilient_ai.deepinfra.catalogue._live_fetch import Fetch
from resilient_ai.deepinfra.catalogue.changes import CatalogueChanges
from resilient_ai.deepinfra.catalogue.live import LiveCatalogue
from resilient_ai.deepinfra.catalogue.lookup import Catalogue

if TYPE_CHECKING:
    from resilient_ai.deepinfra.transport import Transport

# A failed refresh is tried again after so many seconds, then after twice as many, and so on up to the usual time.
_AGAIN = 60.0
# Processes that start together shall not ask together.
_SPREAD = 0.2
_FIRST_WITHIN = 10.0

_log = Log()


class ClientCatalogue(Catalogue):
    """The models of DeepInfra as a client knows them.

    Args:
        live: What is known.
        source: The connections of the client, or a function that returns the body at a path below its base address.
        every: Seconds between two refreshes in the background, above 0, which `keep_fresh` begins; None for none.
        clock: Time and chance.

    Raises:
        ValueError: If `every` is no time.
    """

    def __init__(
        self,
        live: LiveCatalogue,
        source: "Transport | Fetch",
        *,
        every: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        if every is not None:
            check_seconds("every", every)
        super().__init__((), as_of=date.min)  # what it shows is that of `live`, which is not read yet
        self.live = live
        self._source = source
        self._every = every
        self._clock = SystemClock() if clock is None else clock
        self._task: asyncio.Task[None] | None = None
        self._process = 0
        self._failures = 0

    @override
    def __repr__(self) -> str:
        return f"ClientCatalogue({self.live!r}, every={self._every!r})"

    @property
    @override
    def _snapshot(self) -> Snapshot:
        return self.live._snapshot  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # of the same family

    @property
    def fetched_at(self) -> float | None:
        """Seconds since 1970 of the last refresh; None for packaged data."""
        return self.live.fetched_at

    async def refresh(self, *, timeout: float = 30.0) -> CatalogueChanges:
        """Read the provider's lists, and return what has changed; see `LiveCatalogue.refresh`."""
        return await self.live.refresh(self._source, clock=self._clock, timeout=timeout)

    def changes(self) -> CatalogueChanges:
        """Return what is different from the packaged data."""
        return self.live.changes()

    def keep_fresh(self) -> None:
        """Begin to refresh in the background of the running loop, where it is wanted and nobody does; costs nothing else.

        Called with every call of the client. What has ended with its loop, or was left behind by a fork, begins anew.
        """
        if self._every is None:
            return
        task = self._task
        if task is not None and not task.done() and self._process == os.getpid() and not task.get_loop().is_closed():
            return
        self._process = os.getpid()
        # The task must not keep a client alive that nobody closed.
        self._task = asyncio.get_running_loop().create_task(_keep_fresh(weakref.ref(self), self._clock))

    async def aclose(self) -> None:
        """End the background refresh."""
        task, self._task = self._task, None
        if task is None or task.done() or self._process != os.getpid():
            return
        loop = task.get_loop()
        if loop is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])
        else:
            with suppress(RuntimeError):  # it has ended with its loop
                loop.call_soon_threadsafe(task.cancel)

    def next_wait(self) -> float:
        """Return the seconds until the background refreshes next: `every`, less a random part, after the last time."""
        every, chance = self._every or 0, self._clock.random()
        if self._failures:
            return min(every, _AGAIN * 2.0 ** min(self._failures - 1, 30)) * (1 - _SPREAD * chance)
        fetched_at = self.live.fetched_at
        age = every if fetched_at is None else max(0.0, self._clock.wall() - fetched_at)
        return max(every * (1 - _SPREAD * chance) - age, min(_FIRST_WITHIN, every) * chance)

    async def refresh_quietly(self) -> None:
        """Refresh, unless another process on this machine just has; what goes wrong is logged, and is tried again sooner."""
        try:
            if await asyncio.to_thread(self.live.reload) and self._is_fresh():
                self._failures = 0
                return
            changes = await self.refresh()
        except Exception as error:  # noqa: BLE001 - what is known stays, and no call may fail of it
            self._failures += 1
            if self._failures == 1:
                # What the service says may repeat what was sent, so of a refusal the status is enough.
                reason = f"status {error.status}" if isinstance(error, StatusError) else error
                _log.warning("the catalogue could not be refreshed: %s: %s", type(error).__name__, reason)
        else:
            self._failures = 0
            _tell(changes)

    def _is_fresh(self) -> bool:
        fetched_at = self.live.fetched_at
        return fetched_at is not None and self._clock.wall() - fetched_at < (self._every or 0) * (1 - _SPREAD)


async def _keep_fresh(of: "weakref.ref[ClientCatalogue]", clock: Clock) -> None:
    while (owner := of()) is not None:
        wait = owner.next_wait()
        del owner
        await clock.sleep(wait)
        if (owner := of()) is not None:
            await owner.refresh_quietly()
            del owner


def _tell(changes: CatalogueChanges) -> None:
    if changes or changes.suspicious:
        _log.info(
            "the catalogue was refreshed: %d new, %d prices, %d retired, %d not believed, %d of 2 lists not read",
            len(changes.added),
            len(changes.prices),
            len(changes.retired),
            len(changes.suspicious),
            len(changes.failed),
        )
