"""What must not run inside of the garbage collector, which may have interrupted whoever holds a lock."""

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVarTuple

Given = TypeVarTuple("Given")


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


def outside_of_collector(action: Callable[[*Given], None], *given: *Given) -> None:
    """Run `action` now, or from a finalizer as soon as its loop comes to it: for code of users, which may take locks.

    A loop that stands still may never come to it, so then it is run now as well.

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
            action(*given)
        return
    action(*given)
