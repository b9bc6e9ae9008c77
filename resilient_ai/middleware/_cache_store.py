"""A cache store that cannot hurt a call, whatever it does."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from resilient_ai.core.call import Call
from resilient_ai.core.fault_window import FaultWindow
from resilient_ai.core.log import Log
from resilient_ai.core.protocols import CacheStore

T = TypeVar("T")

# Seconds a call waits for a store that names no `timeout` of its own.
PATIENCE = 0.05
_WAIT_OPEN = 2.0
_WAIT_CLOSE = 6.0  # a disk writes for up to 5 s
# Keys asked for or written at once. A store has its time for each such part, so that a long list is not taken for a slow store.
PART = 500

_log = Log()


class GuardedStore:
    """A store whose faults are misses.

    What takes too long or raises is a fault; after five within a minute the store is left alone for a minute. A store that names
    a `timeout` bounds and counts its faults by itself, and knows better whether it or the event loop is late; it is only kept
    from hanging for ever.

    Args:
        store: The store.

    Attributes:
        faults: Counts what went wrong.
    """

    def __init__(self, store: CacheStore) -> None:
        self.store = store
        self.faults = FaultWindow()
        self._patience = patience_with(store)
        self._open: Callable[[], Awaitable[object]] | None = getattr(store, "open", None)

    def paused(self, call: Call[Any]) -> bool:
        """Return whether the store is left alone now."""
        return self.faults.paused(call.clock.monotonic())

    async def read(self, call: Call[Any], keys: Sequence[str]) -> Mapping[str, bytes] | None:
        """Return the entries that are there; None where the store failed, unless a part of them is there all the same."""
        if self._open is not None:
            opening, self._open = partial(_opened, self._open), None
            if not await self._try(call, opening, _WAIT_OPEN):
                return None
        faults = self._faults_of_store()
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), PART):
            entries = await self._try(call, partial(self._get, keys[start : start + PART]))
            if entries is None:
                return found or None
            found.update(entries)
        return None if not found and self._faults_of_store() > faults else found

    async def write(self, call: Call[Any], entries: Mapping[str, bytes], ttl: float | None) -> int:
        """Write entries, or drop them where the store fails; return how many were written."""
        left, written = iter(entries.items()), 0
        while part := dict(islice(left, PART)):
            if not await self._try(call, partial(self._set, part, ttl), what="write"):
                break
            written += len(part)
        return written

    async def forget(self, call: Call[Any], keys: Sequence[str]) -> None:
        """Delete entries that cannot be read, if the store lets us."""
        await self._try(call, lambda: self.store.delete_many(keys), what="delete")

    async def close(self) -> None:
        """Close the store; one that fails or hangs must not keep the rest of a stack from closing."""
        try:
            async with asyncio.timeout(_WAIT_CLOSE):  # no call, and so no clock, is left by then
                await self.store.aclose()
        except Exception as error:  # noqa: BLE001 - what was not written is lost, which a cache may
            _log.warning("the cache store %s did not close: %s", type(self.store).__name__, type(error).__name__)

    async def _get(self, keys: Sequence[str]) -> dict[str, bytes]:
        entries = await self.store.get_many(keys)
        return {key: entries[key] for key in keys if key in entries}  # and nothing that nobody asked for

    async def _set(self, entries: Mapping[str, bytes], ttl: float | None) -> bool:
        await self.store.set_many(entries, ttl=ttl)
        return True

    def _faults_of_store(self) -> int:
        # A store that makes misses of its faults by itself may count them.
        faults: object = getattr(self.store, "faults", 0)
        return faults if isinstance(faults, int) else 0

    async def _try(
        self, call: Call[Any], work: Callable[[], Awaitable[T]], patience: float | None = None, *, what: str = ""
    ) -> T | None:
        if self.paused(call):
            return None
        # Never more than half of what is left, so that a store that hangs does not use up the deadline of the call.
        seconds = self._patience if patience is None else patience
        remaining = call.remaining()
        hurried = remaining is not None and remaining / 2 < seconds
        try:
            return await bounded(call, remaining / 2 if remaining is not None and hurried else seconds, work)
        except Exception as error:  # noqa: BLE001 - without an answer of the store the call goes on as after a miss
            if not (hurried and isinstance(error, TimeoutError)):
                self.faults.record(call.clock.monotonic())
            if what:
                name = type(self.store).__name__
                _log.warning("the cache store %s did not %s: %s", name, what, type(error).__name__)
            return None


def patience_with(store: object) -> float:
    """Return the seconds a store has: few, or as many as keep one from hanging for ever that keeps to a `timeout` by itself."""
    timeout: object = getattr(store, "timeout", None)
    return 1.0 + 10 * timeout if isinstance(timeout, int | float) else PATIENCE


async def bounded(call: Call[Any], seconds: float, work: Callable[[], Awaitable[T]]) -> T:
    """Return what `work` returns.

    Raises:
        Exception: What it raises, `TimeoutError` where it takes longer than `seconds`; also a cancellation of its own making.
    """
    try:
        async with call.clock.timeout(seconds):
            return await work()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("it cancelled itself") from None


async def _opened(opening: Callable[[], Awaitable[object]]) -> bool:
    return await opening() is not False


class Background:
    """Tasks that go on behind the calls that began them, and are waited for when the cache is closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin `work` in the running loop, which keeps no strong reference to it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, within: float, *, cancel: bool = False) -> None:
        """Wait until what was begun in the running loop is over, and what that begins; tasks of other loops never may be."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(within):
            await asyncio.sleep(0)  # what is scheduled begins, such as giving back a lease
            while tasks := [task for task in self._tasks if task.get_loop() is loop]:
                if cancel:
                    for task in tasks:
                        task.cancel()
                await asyncio.wait(tasks)
                await asyncio.sleep(0)

    def clear(self) -> None:
        """Let go of everything, which is a parent's and not this process's."""
        self._tasks.clear()
