"""An event loop in a background thread, for code that does not await."""

import asyncio
import atexit
import contextvars
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# A signal that arrives while the interpreter is about to block wakes nobody up, so a thread never waits longer than this without
# looking whether it was interrupted.
_SLICE = 0.2


class _Latch:
    """Opens once, and lets whoever waits for it go.

    A bare lock, because a signal may interrupt the waiting at any place: in the middle of a condition or an event it would leave
    their locks held, and the thread that opens them would wait for ever.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        self._lock.release()

    def wait(self, thread: threading.Thread) -> bool:
        """Wait until it opens; False if `thread`, which was to open it, has ended without that."""
        while not self._lock.acquire(timeout=_SLICE):
            if not thread.is_alive():
                return self._lock.acquire(blocking=False)
        return True


class _Wait(Generic[T]):
    """What one thread waits for: a coroutine on the loop of another one."""

    __slots__ = ("_called_off", "_context", "_function", "done", "task")

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self.done = _Latch()
        self.task: asyncio.Task[T] | None = None
        self._function = function
        self._context = contextvars.copy_context()
        self._called_off = False

    def begin(self, loop: "_Loop") -> None:
        """Start the coroutine; called on the loop."""
        if self._called_off or loop.stopping.is_set():
            self.done.open()
            return
        self.task = task = asyncio.get_running_loop().create_task(self._run(), context=self._context)
        loop.tasks.add(task)
        task.add_done_callback(loop.tasks.discard)
        task.add_done_callback(lambda _: self.done.open())

    def call_off(self) -> None:
        """End the coroutine, begun or not; called on the loop."""
        self._called_off = True
        if self.task is not None:
            self.task.cancel()

    async def _run(self) -> T:
        return await self._function()


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.thread = threading.Thread(target=self._serve, name="resilient-ai-client", daemon=True)
        self.stopping: asyncio.Event
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = _Latch()

    def start(self) -> None:
        """Run the loop in its thread, and return once it runs; an interrupted start is gone on with."""
        if self.thread.ident is None:
            self.thread.start()
        if self._loop is None:
            self._ready.wait(self.thread)

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Have `function(*args)` called on the loop; raise `RuntimeError` if it has closed."""
        if self._loop is None:
            raise RuntimeError("the event loop did not start")
        self._loop.call_soon_threadsafe(function, *args)

    def close(self, *, cancel: bool) -> None:
        """Stop the loop and wait for its thread."""

        def stop() -> None:
            self.stopping.set()
            if cancel:
                for task in self.tasks:
                    task.cancel()

        with suppress(RuntimeError):
            self.call(stop)
        self.thread.join()

    def _serve(self) -> None:
        async def main() -> None:
            self.stopping = asyncio.Event()
            self._loop = asyncio.get_running_loop()
            self._ready.open()
            await self.stopping.wait()
            while self.tasks:
                await asyncio.wait(self.tasks)

        asyncio.run(main())


class _Slot:
    """The place of one process's loop, which is made when it is needed."""

    __slots__ = ("lock", "loop")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loop: _Loop | None = None

    def open(self) -> _Loop:
        with self.lock:
            self.loop = self.loop or _Loop()
            self.loop.start()
            return self.loop

    def close(self, *, cancel: bool) -> None:
        with self.lock:
            loop, self.loop = self.loop, None
        if loop is not None:
            loop.close(cancel=cancel)


class Portal:
    """Runs coroutines on one event loop in a background thread; a forked child gets a loop of its own."""

    def __init__(self) -> None:
        # By process: the parent's thread does not exist in a child, and its lock may be held there for ever.
        self._slots: dict[int, _Slot] = {}
        _portals.add(self)

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run `function(*args)` to its end; whatever interrupts the waiting, such as Ctrl-C, cancels it.

        Raises:
            RuntimeError: If it is called in the loop's own thread, or the loop was closed meanwhile.
        """
        own = self._slot().open()
        if threading.current_thread() is own.thread:
            raise RuntimeError("this would wait for ever in the event loop thread; await the coroutine there")
        wait = _Wait(lambda: function(*args))
        try:
            own.call(wait.begin, own)
            wait.done.wait(own.thread)
        except BaseException:
            with suppress(RuntimeError):
                own.call(wait.call_off)
            raise
        if wait.task is None or not wait.task.done():
            raise RuntimeError("the event loop was closed before the call began")
        return wait.task.result()

    def close(self, *, cancel: bool = False) -> None:
        """Stop the loop and its thread; wait for what still runs there, or cancel it."""
        self._slot().close(cancel=cancel)

    def _slot(self) -> _Slot:
        return self._slots.setdefault(os.getpid(), _Slot())


# An interpreter that ends would wait for ever for a loop whose thread it has stopped, so the loops are stopped first.
_portals: "weakref.WeakSet[Portal]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for portal in list(_portals):
        with suppress(BaseException):
            portal.close(cancel=True)
