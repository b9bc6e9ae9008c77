"""Files that are private, whole or not there at all, and locked by one process at a time."""

import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)  # absent on Windows


@contextmanager
def private(path: Path, *, keep: bool = False) -> Generator[BinaryIO]:
    """Open a file for writing that only this user can read; what it held is dropped unless `keep`."""
    flags = os.O_RDWR | os.O_CREAT | _NOFOLLOW | getattr(os, "O_BINARY", 0) | (0 if keep else os.O_TRUNC)
    with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
        yield file


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """Open a file that only this user can read, and that takes the name `path` once it is whole; on an error it goes.

    Until then it has a name of its own, so that two who write the same file at once leave each other's alone, and nothing that
    somebody has put there before is written to.
    """
    with _told_of(path):
        descriptor, name = tempfile.mkstemp(prefix=".resilient-ai-", suffix=".draft", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        with _told_of(path):
            put(draft, path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


@contextmanager
def _told_of(path: Path) -> Generator[None]:
    """Let an error name the file that was asked for; nobody knows of the draft."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def put(draft: Path, path: Path) -> None:
    """Let a finished file take the place of another; both names are on the disk when this returns."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)
    with suppress(OSError):  # folders cannot be opened everywhere
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: Path) -> Generator[bool]:
    """Make a file and hold its lock; False where another process has it.

    It is a lock of the system, which ends with the process that holds it, also after kill -9.
    """
    with private(path, keep=True) as file:
        # Whoever held it before may have removed the file, and then the lock of it keeps nobody out.
        yield _try_lock(file) and _is(file, path)


def _is(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _try_lock(file: BinaryIO) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
