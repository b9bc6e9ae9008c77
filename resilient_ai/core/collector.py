"""What must not run inside of the garbage collector, which may have interrupted whoever holds a lock."""

import asyncio
import threading
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVarTuple

Given = TypeVarTuple("Given")

_PATIENCE = 1.0  # seconds


class _Thread(threading.local):
    is_collecting = False
    loop: asyncio.AbstractEventLoop | None = None


_thread = _Thread()


@contextmanager
def collecting(loop: asyncio.AbstractEventLoop | None) -> Generator[None]:
    """Say that what runs in the body runs in a finalizer, and which loop may run later what must not."""
    before = _thread.is_collecting, _thread.loop
    _thread.is_collecting, _thread.loop = True, loop
    try:
        yield
    finally:
        _thread.is_collecting, _thread.loop = before


@contextmanager
def collecting_if(error: BaseException) -> Generator[None]:
    """Say the same at the end of a coroutine that was closed, which nearly always is the work of the garbage collector."""
    if not isinstance(error, GeneratorExit):
        yield
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    with collecting(loop):
        yield


def outside_of_collector(action: Callable[[*Given], None], *given: *Given) -> None:
    """Run `action` now, or from a finalizer as soon as its loop comes to it: for code of users, which may take locks.

    A loop that stands still may never come to it. Then a thread of its own runs the action, and is waited for up to a second:
    longer only where it needs a lock that is held by what the garbage collector has interrupted.

    Args:
        action: What is run.
        given: What it is given.
    """
    if not _thread.is_collecting:
        action(*given)
        return
    loop = _thread.loop
    if loop is not None and loop.is_running():
        try:
            loop.call_soon_threadsafe(action, *given)
        except RuntimeError:  # the loop is closed, and nobody else is left to run it
            _run_apart(action, *given)
        return
    _run_apart(action, *given)


def _run_apart(action: Callable[[*Given], None], *given: *Given) -> None:
    done = allocate_lock()

    def run() -> None:
        try:
            action(*given)
        finally:
            done.release()

    done.acquire()
    try:
        # Not by `threading`, which takes a lock to begin a thread.
        start_new_thread(run, ())
    except RuntimeError:  # the process ends, and there are no threads any more
        action(*given)
        return
    done.acquire(timeout=_PATIENCE)
