"""A cache store on disk, over diskcache: one thread, short waits, and trust in nothing that lies in the file."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from resilient_ai.core.checks import check_count, check_seconds
from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.fault_window import FaultWindow
from resilient_ai.core.log import Log
from resilient_ai.core.protocols import StoreUsage
from resilient_ai.stores import _forks
from resilient_ai.stores._disk_file import DiskFile, Unavailable
from resilient_ai.stores._disk_layout import name_range
from resilient_ai.stores._disk_worker import DiskWorker
from resilient_ai.stores._first_refused import FirstRefused
from resilient_ai.stores._patterns import literal_prefix, matcher, matches_all
from resilient_ai.stores._thread_answer import answer_of

P = ParamSpec("P")
T = TypeVar("T")

_log = Log("resilient_ai.stores")
_MAX_VALUE = 4 * 2**20
_MIN_SIZE = 2**20
_READ_AT_ONCE = 1024  # about 15 ms for vectors of 1024 numbers
_WAIT_OPEN = 2.0  # from the first use on: what is not open then does not hold up every read
_WAIT_CHANGE = 5.0
_REFUSED = (
    "cache store %s: an entry does not fit its seal and is not used; it was damaged, or written with another secret, and all"
    " processes that share the directory need the same secret, in the file beside it that ends in .key"
)


class DiskStore:
    """Keep bytes in a directory of this machine, for processes that come and go.

    A cache must never be the reason that a call fails or waits. So a read takes `timeout` seconds at most and is a miss after
    that, a write happens behind the caller's back, and a fault (locked, damaged, read-only, full) is counted in `faults` and
    is otherwise a miss. After five faults within a minute the directory is left alone for a minute. A damaged file is
    moved aside and a new one begun.

    Nothing in the directory is believed. It must belong to this user alone; values carry a seal made with a secret that lies
    beside it, in `<directory>.key`; what does not fit its seal is counted in `refused` and deleted, and nothing is ever
    unpickled. A directory that is not safe or cannot be written makes the store `unavailable`: one warning in the log,
    and misses from then on.

    The store may be used from several threads and event loops and after a fork. Several processes may share the directory, and
    exclude each other by leases. It must lie on a local disk.

    Args:
        directory: Where to keep the entries. Created if missing, with mode 0700.
        max_bytes: Bytes on disk, about; the entries that were stored first go first. At least 1 MiB. A value larger than a
            quarter of it, or than 4 MiB, is not kept.
        timeout: Seconds a read of up to 1024 keys may take, and taking or giving back a lease. More than 0. Where the database is
            not open yet, reads may take up to 2 s from the first use on; `open()` prepares it.
        lock_timeout: Seconds to wait for another process that is writing, more than 0; then a write is dropped, or a lease is
            nobody's. Reads do not wait for writers of other processes, but they queue behind what this one does.
        clock: Measures the age of entries and the waits.

    Raises:
        ValueError: If a number is out of its range.

    >>> DiskStore("/tmp/answers", max_bytes=2**30)
    DiskStore('/tmp/answers', max_bytes=1073741824, timeout=0.05)
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        max_bytes: int = 2**30,
        timeout: float = 0.05,
        lock_timeout: float = 0.05,
        clock: Clock | None = None,
    ) -> None:
        check_count("max_bytes", max_bytes, _MIN_SIZE)
        check_seconds("timeout", timeout)
        check_seconds("lock_timeout", lock_timeout)
        self.directory = Path(directory).expanduser()
        self.max_bytes = max_bytes
        self.timeout = timeout
        self.lock_timeout = lock_timeout
        self.dropped = 0
        self.unavailable: str | None = None
        self._clock = clock or SystemClock()
        self._window = FaultWindow()
        self._refused = 0
        self._first_refused = FirstRefused(_REFUSED, str(self.directory))
        self._worker: DiskWorker | None = None
        self._opens_until = 0.0
        self._held: Sequence[StoreUsage] = ()
        self._lock = threading.Lock()
        _forks.watch(self)

    def __repr__(self) -> str:
        return f"DiskStore({str(self.directory)!r}, max_bytes={self.max_bytes}, timeout={self.timeout})"

    @property
    def faults(self) -> int:
        """How often something went wrong, so that a read was a miss or a write was dropped."""
        return self._window.total

    @property
    def refused(self) -> int:
        """How many rows were not what this store had written there."""
        return self._refused + (self._worker.file.refused if self._worker else 0)

    async def open(self) -> bool:
        """Prepare the database, for up to 2 s, so that the first read need not; return whether it is open."""
        worker = self._usable()
        if worker is None:
            return False
        await self._within(_WAIT_OPEN, lambda: worker.submit(worker.file.open), keep=True)
        return worker.file.is_open

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the entries that are there and fresh; those that were found until it takes too long or goes wrong."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), _READ_AT_ONCE):
            part = await self._read(tuple(keys[start : start + _READ_AT_ONCE]))
            if part is None:
                break
            found.update(part)
        return found

    async def set_many(self, entries: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        """Hand `entries` to the thread that writes; a batch is dropped where 256 are waiting already."""
        limit = min(_MAX_VALUE, self.max_bytes // 4)
        small = {key: bytes(value) for key, value in entries.items() if len(value) <= limit}
        self.dropped += len(entries) - len(small)
        if not small:
            return
        worker = self._usable()
        if worker is None or not worker.offer(
            small, ttl=ttl, wall=self._clock.wall(), monotonic=self._clock.monotonic()
        ):
            self.dropped += len(small)

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget these entries, those included that are still to be written; waits up to 5 s for it."""
        await self._change(DiskFile.delete, tuple(keys))

    async def delete_matching(self, pattern: str) -> int:
        """Forget the entries whose keys match, those included that are still to be written, and return how many there were.

        A key that is not 16 to 128 lower-case hexadecimal digits is known to the database by a digest, and matches no pattern
        but "*". The thread is held for about a thousand entries at a time, and each time is waited for up to 5 s; where one
        takes longer or goes wrong, the rest stays.
        """
        fits = None if matches_all(pattern) else matcher(pattern)
        start, behind = name_range(literal_prefix(pattern))
        deleted = 0
        while start is not None:
            part = await self._change(DiskFile.delete_some, fits, start, behind)
            count, start = part or (0, None)
            deleted += count
        return deleted

    async def scan(self) -> AsyncIterator[Mapping[str, bytes]]:
        """Return the entries that are fresh, up to 256 at a time; ends early where something takes 5 s or goes wrong."""
        # Without an end, a caller who writes while it lists would never come to one.
        last = await self._change(DiskFile.last) or 0
        behind: int | None = 0
        while behind is not None and behind < last:
            part = await self._change(DiskFile.list_some, behind, last, self._clock.wall())
            entries, behind = part or ({}, None)
            if entries:
                yield entries

    async def usage(self) -> Sequence[StoreUsage]:
        """Return one line; entries and size are None where the database cannot be asked within 5 s."""
        entries, size = await self._change(DiskFile.usage) or (None, None)
        trouble = self.unavailable
        if trouble is None and self._window.paused(self._clock.monotonic()):
            trouble = "left alone for a minute after five faults within a minute"
        self._held = [
            StoreUsage(
                name=f"disk {self.directory}",
                entries=entries,
                size=size,
                limit=self.max_bytes,
                faults=self.faults,
                refused=self.refused,
                dropped=self.dropped,
                trouble=trouble,
            )
        ]
        return self._held

    def held(self) -> Sequence[StoreUsage]:
        """Return what `usage` did when it was asked last; nothing before."""
        return self._held

    async def acquire_lease(self, key: str, *, holder: str, seconds: float) -> bool | None:
        """Take the lease of `key` for `seconds`, or prolong it; None where that takes longer than `timeout` or goes wrong."""
        worker = self._usable()
        if worker is None:
            return None
        take = partial(worker.file.acquire_lease, key, holder=holder, seconds=seconds, now=self._clock.wall())
        return await self._within(self.timeout, lambda: worker.submit(take))

    async def release_lease(self, key: str, *, holder: str) -> None:
        """Give it back once everything that was set before is written, which is waited for up to `timeout`.

        Writing more than that can take is no fault; the lease is then given back behind the caller's back.
        """
        worker, at = self._usable(), self._clock.monotonic()
        if worker is None:
            return
        give_back = partial(worker.file.release_lease, key, holder=holder, now=self._clock.wall())

        def work() -> None:
            try:
                give_back()
            except Exception as error:  # noqa: BLE001  # whatever it is, a cache must not fail a call
                self._note(error, at)

        with suppress(Exception):  # the thread has noted what went wrong, and being late is no fault here
            async with self._clock.timeout(self.timeout):
                await asyncio.shield(asyncio.wrap_future(worker.after(work)))

    async def clear(self) -> None:
        """Forget everything, what is still to be written included; waits up to 5 s for it."""

        def change(worker: DiskWorker) -> None:
            worker.forget()
            worker.file.clear()

        worker = self._usable()
        if worker is not None:
            await self._within(_WAIT_CHANGE, lambda: worker.submit(change, worker), keep=True)

    async def aclose(self) -> None:
        """Write what waits, for up to 5 s, and close the file. A store that is used again opens again."""
        with self._lock:
            worker, self._worker = self._worker, None
        self.unavailable = None
        if worker is not None:
            await self._within(_WAIT_CHANGE, worker.finish, keep=True)
            self._refused += worker.file.refused

    def after_fork(self) -> None:
        """Leave the parent's thread and connection alone, and open afresh when needed."""
        _forks.abandoned.append(self._worker)
        self._worker = None
        self._lock = threading.Lock()
        self._window = FaultWindow()

    def _usable(self) -> DiskWorker | None:
        if self.unavailable is not None or self._window.paused(self._clock.monotonic()):
            return None
        with self._lock:
            if self._worker is None:
                file = DiskFile(self.directory, max_bytes=self.max_bytes, wait=self.lock_timeout)
                self._worker = DiskWorker(file, self._note)
                self._opens_until = self._clock.monotonic() + _WAIT_OPEN
            return self._worker

    async def _read(self, keys: Sequence[str]) -> Mapping[str, bytes] | None:
        worker = self._usable()
        if worker is None:
            return None
        now = self._clock.wall()
        limit = self.timeout if worker.file.is_open else max(self.timeout, self._opens_until - self._clock.monotonic())
        return await self._within(limit, lambda: worker.submit(worker.file.get, keys, now))

    async def _change(
        self, change: Callable[Concatenate[DiskFile, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T | None:
        worker = self._usable()
        if worker is None:
            return None
        return await self._within(_WAIT_CHANGE, lambda: worker.after(change, worker.file, *args, **kwargs), keep=True)

    async def _within(self, limit: float, begin: Callable[[], Future[T]], *, keep: bool = False) -> T | None:
        try:
            return await answer_of(begin(), within=limit, clock=self._clock, keep=keep)
        except Exception as error:  # noqa: BLE001  # whatever it is, a cache must not fail a call
            self._note(error, self._clock.monotonic())
            return None
        finally:
            self._first_refused.note(self.refused)

    def _note(self, error: Exception, at: float) -> None:
        self._opens_until = at  # what went wrong while it was opened goes wrong again, and is not waited for
        if not isinstance(error, Unavailable):
            self._window.record(at)
            _log.debug("cache store %s: %s: %s", self.directory, type(error).__name__, error)
        elif self.unavailable is None:
            self.unavailable = str(error)
            _log.warning("cache store %s is not used: %s", self.directory, error)
