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
_SLICE = 128  # entries written in one turn, about 6 ms, so that reads get in between


@dataclass(slots=True)
class _Batch:
    entries: Sequence[tuple[str, bytes]]
    ttl: float | None
    wall: float
    monotonic: float
    size: int
    written: int = 0


@dataclass(slots=True)
class _Errand:
    run: Callable[[], None]


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
        self._waiting: deque[_Batch | _Errand] = deque()
        self._batches = 0
        self._bytes = 0
        self._turning = False
        self._ended = False
        self._lock = threading.Lock()

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Do `work` in the thread, after what was submitted before but between the writes of batches."""
        return self._executor.submit(work, *args, **kwargs)

    def after(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Do `work` in the thread, after every batch that was offered before; what is submitted gets in between."""
        done: Future[T] = Future()

        def run() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(work(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  # it is raised where the future is asked
                done.set_exception(error)

        with self._lock:
            if not self._append(_Errand(run)):
                raise RuntimeError("the thread of the store has ended")
        return done

    def offer(self, entries: Mapping[str, bytes], *, ttl: float | None, wall: float, monotonic: float) -> bool:
        """Take a batch to be written, unless too much is waiting already; return whether it was taken."""
        size = sum(map(len, entries.values()))
        batch = _Batch(tuple(entries.items()), ttl, wall, monotonic, size)
        with self._lock:
            if self._batches >= _MAX_BATCHES or self._bytes + size > _MAX_BYTES or not self._append(batch):
                return False
            self._batches += 1
            self._bytes += size
        return True

    def finish(self) -> "Future[None]":
        """Write everything that waits, close the file and end the thread."""
        with self._lock:
            self._ended = True
            done = self.submit(self._finish)
            self._executor.shutdown(wait=False)
        return done

    def drain(self) -> None:
        """Write everything that waits; called in the thread."""
        while self._do_some(_SLICE):
            pass

    def forget(self) -> None:
        """Drop the batches that wait; called in the thread."""
        with self._lock:
            self._waiting = deque(one for one in self._waiting if isinstance(one, _Errand))
            self._batches = self._bytes = 0

    def _append(self, one: _Batch | _Errand) -> bool:
        if not self._turning and not self._ended:
            try:
                self.submit(self._turn)
                self._turning = True
            except RuntimeError:  # Python itself is ending
                self._ended = True
        if not self._ended:
            self._waiting.append(one)
        return not self._ended

    def _finish(self) -> None:
        self.drain()
        with suppress(Exception):  # a broken file cannot be closed better
            self.file.close()

    def _turn(self) -> None:
        left = _SLICE
        while left > 0:
            done = self._do_some(left)
            if not done:
                return
            left -= done
        try:
            self.submit(self._turn)
        except RuntimeError:  # the thread is ending and takes no more turns
            self.drain()

    def _do_some(self, most: int) -> int:
        with self._lock:
            if not self._waiting:
                self._turning = False
                return 0
            one = self._waiting[0]  # only this thread takes anything away
            if isinstance(one, _Errand):
                self._waiting.popleft()
        if isinstance(one, _Batch):
            return self._write_some(one, most)
        one.run()
        return 1

    def _write_some(self, batch: _Batch, most: int) -> int:
        entries = batch.entries[batch.written : batch.written + most]
        batch.written += len(entries)
        try:
            self.file.set(entries, ttl=batch.ttl, created=batch.wall)
        except Exception as error:  # noqa: BLE001  # whatever it is, a write is dropped and a call goes on
            batch.written = len(batch.entries)
            self._on_fault(error, batch.monotonic)
        if batch.written == len(batch.entries):
            with self._lock:
                self._waiting.popleft()
                self._batches -= 1
                self._bytes -= batch.size
        return len(entries)
