"""Tells objects that own threads and connections when they find themselves copied into a child process."""

import os
import weakref
from typing import Protocol

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


def _tell() -> None:
    for owner in list(_watching):
        owner.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
    os.register_at_fork(after_in_child=_tell)
