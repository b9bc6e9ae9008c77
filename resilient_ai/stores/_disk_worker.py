"""The one thread that touches the file of a `DiskStore`, and the bounded queue of what it still has to write."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from resilient_ai.stores._disk_file import DiskFile

P = ParamSpec("P")
T = TypeVar("T")

_MAX_BATCHES = 256
_MAX_BYTES = 64 * 2**20
_SLICE = 32  # entries written in one turn, about 6 ms, so that reads get in between


@dataclass(slots=True)
class _Batch:
    entries: Sequence[tuple[str, bytes]]
    ttl: float | None
    wall: float
    monotonic: float
    size: int
    written: int = 0


class DiskWorker:
    """Runs work in its thread, in order, and writes batches behind the caller's back.

    Args:
        file: The file, which nobody else may use.
        on_fault: Called, in the thread, with the error of a write and the monotonic time of its batch.
    """

    def __init__(self, file: DiskFile, on_fault: Callable[[Exception, float], None]) -> None:
        self.file = file
        self._on_fault = on_fault
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="resilient-ai-cache")
        self._batches: deque[_Batch] = deque()
        self._bytes = 0
        self._writing = False
        self._lock = threading.Lock()

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Do `work` in the thread, after what was submitted before."""
        return self._executor.submit(work, *args, **kwargs)

    def offer(self, entries: Mapping[str, bytes], *, ttl: float | None, wall: float, monotonic: float) -> bool:
        """Take a batch to be written, unless too much is waiting already; return whether it was taken."""
        size = sum(map(len, entries.values()))
        batch = _Batch(tuple(entries.items()), ttl, wall, monotonic, size)
        with self._lock:
            if len(self._batches) >= _MAX_BATCHES or self._bytes + size > _MAX_BYTES:
                return False
            self._batches.append(batch)
            self._bytes += size
            start, self._writing = not self._writing, True
        if start:
            self.submit(self._turn)
        return True

    def finish(self) -> "Future[None]":
        """Write everything that waits, close the file and end the thread."""
        done = self.submit(self._finish)
        self._executor.shutdown(wait=False)
        return done

    def drain(self) -> None:
        """Write everything that waits; called in the thread."""
        while self._write_some(_SLICE):
            pass

    def forget(self) -> None:
        """Drop everything that waits."""
        with self._lock:
            self._batches.clear()
            self._bytes = 0

    def _finish(self) -> None:
        self.drain()
        with suppress(Exception):  # a broken file cannot be closed better
            self.file.close()

    def _turn(self) -> None:
        left = _SLICE
        while left > 0:
            written = self._write_some(left)
            if not written:
                return
            left -= written
        try:
            self.submit(self._turn)
        except RuntimeError:  # the thread is ending and takes no more turns
            self.drain()

    def _write_some(self, most: int) -> int:
        with self._lock:
            if not self._batches:
                self._writing = False
                return 0
            batch = self._batches[0]
        entries = batch.entries[batch.written : batch.written + most]
        batch.written += len(entries)
        try:
            self.file.set(entries, ttl=batch.ttl, created=batch.wall)
        except Exception as error:  # noqa: BLE001  # whatever it is, a write is dropped and a call goes on
            batch.written = len(batch.entries)
            self._on_fault(error, batch.monotonic)
        if batch.written == len(batch.entries):
            with self._lock:
                self._batches.popleft()  # batches are only taken away in this thread
                self._bytes -= batch.size
        return len(entries)
