"""Tells objects that own threads and connections when they find themselves copied into a child process."""

import os
import threading
import weakref
from types import TracebackType
from typing import Protocol

# Seconds a fork waits for files to be left alone; it is never held up for longer.
_PATIENCE = 1.0

# Connections of the parent. They are kept, because letting go of one would close it, and a child may not do that.
abandoned: list[object] = []


class Forked(Protocol):
    """Something that must start afresh in a child process."""

    def after_fork(self) -> None:
        """Drop, without closing, what belongs to the parent."""
        ...


_watching: "weakref.WeakSet[Forked]" = weakref.WeakSet()


def watch(owner: Forked) -> None:
    """Call `owner.after_fork()` in every child process, before anything else runs there."""
    _watching.add(owner)


class Gate:
    """Passed by every thread that uses a database file, and shut for the moment of a fork.

    SQLite counts the locks of a process in memory, so a child that was forked in the middle of a transaction would find the
    file locked for ever.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def shut(self) -> None:
        """Let nobody in, and wait until nobody is inside, for a second at most."""
        with self._changed:
            self._shut = True
            self._changed.wait_for(lambda: not self._inside, _PATIENCE)

    def reopen(self) -> None:
        """Let threads in again."""
        with self._changed:
            self._shut = False
            self._changed.notify_all()


_gate = Gate()


def using_file() -> Gate:
    """Return the gate, to be held while a database file is used."""
    return _gate


def _before() -> None:
    _gate.shut()


def _in_parent() -> None:
    _gate.reopen()


def _in_child() -> None:
    global _gate  # noqa: PLW0603 - the parent's may be held by threads that do not exist here
    _gate = Gate()
    for owner in list(_watching):
        owner.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
