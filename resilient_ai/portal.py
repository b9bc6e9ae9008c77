"""An event loop in a background thread, for code that does not await."""

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

T = TypeVar("T")


class _Loop:
    """The event loop of one process, once it runs."""

    __slots__ = ("lock", "portal", "thread")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.portal: BlockingPortal | None = None
        self.thread: threading.Thread | None = None

    def open(self) -> BlockingPortal:
        """Return the portal to the loop, whose thread is started if need be."""
        with self.lock:
            if self.portal is None:
                ready: Future[BlockingPortal] = Future()
                self.thread = threading.Thread(target=_serve, args=(ready,), name="resilient-ai-client", daemon=True)
                self.thread.start()
                self.portal = ready.result()
            return self.portal

    def close(self, *, cancel: bool) -> None:
        """Stop the loop and wait for its thread."""
        with self.lock:
            portal, thread, self.portal, self.thread = self.portal, self.thread, None, None
        if portal is not None and thread is not None:
            with suppress(RuntimeError):
                portal.call(portal.stop, cancel)
            thread.join()


def _serve(ready: "Future[BlockingPortal]") -> None:
    # anyio's own `start_blocking_portal` is a generator, which a forked child could not collect without waiting for ever.
    async def main() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(main)
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)


class Portal:
    """Runs coroutines on one event loop in a background thread; a forked child gets a loop of its own."""

    def __init__(self) -> None:
        # By process: the parent's thread does not exist in a child, and its lock may be held there for ever.
        self._loops: dict[int, _Loop] = {}
        _portals.add(self)

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run `function(*args)` to its end; whatever interrupts the waiting, such as Ctrl-C, cancels it."""
        portal = self._open()
        tasks: list[asyncio.Task[Any] | None] = []

        async def begin() -> T:
            tasks.append(asyncio.current_task())
            return await function(*args)

        def call_back() -> None:
            for task in filter(None, tasks):
                task.cancel()

        future: Future[T] | None = None
        try:
            future = portal.start_task_soon(begin)
            return future.result()
        except BaseException:
            # An interrupt may come before the future has its name, when the coroutine runs already.
            if future is None or not future.done():
                with suppress(RuntimeError):
                    portal.start_task_soon(call_back)
            raise

    def _open(self) -> BlockingPortal:
        return self._loops.setdefault(os.getpid(), _Loop()).open()

    def close(self, *, cancel: bool = False) -> None:
        """Stop the loop and its thread; wait for what still runs there, or cancel it."""
        self._loops.setdefault(os.getpid(), _Loop()).close(cancel=cancel)


# An interpreter that ends would wait for ever for a loop whose thread it has stopped, so the loops are stopped first.
_portals: "weakref.WeakSet[Portal]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for portal in list(_portals):
        with suppress(BaseException):
            portal.close(cancel=True)
