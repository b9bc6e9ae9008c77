"""Directories and files that nobody else may read or change."""

import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_SECRET_SIZE = 32
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ANY = stat.S_IRWXG | stat.S_IRWXO
# Absent on Windows, where access is a matter of the folder's own rights.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_user = getattr(os, "geteuid", lambda: 0)
# Held while a file is created, so that no other thread has SQLite open it before it is closed again.
_creating = threading.Lock()


class Unsafe(OSError):
    """A path that another user could have prepared or could change."""


def private_directory(path: Path) -> None:
    """Create a directory for this user alone, or check that an existing one is.

    Raises:
        Unsafe: If it is a link, no directory, another user's, or writable by others.
        OSError: If it cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    _check(path, os.lstat(path), stat.S_ISDIR, "directory")


def private_file(path: Path) -> None:
    """Create an empty file with mode 0600, or give an existing file of ours that mode.

    An existing file is never opened: closing it again would lift the locks that SQLite, in this process, holds on it through
    connections of its own (https://www.sqlite.org/howtocorrupt.html, section 2.2).

    Raises:
        Unsafe: If it is a link, no ordinary file, or another user's.
        OSError: If it cannot be created.
    """
    with _creating, suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600))
    make_private(path)


def make_private(path: Path) -> None:
    """Give an existing file of ours mode 0600, without opening it.

    Raises:
        Unsafe: If it is a link, no ordinary file, or another user's.
        PermissionError: If somebody has made it read-only.
        FileNotFoundError: If there is none.
    """
    about = os.lstat(path)
    if stat.S_ISLNK(about.st_mode):
        raise Unsafe(f"{path} is a symbolic link")
    _check(path, about, stat.S_ISREG, "file")
    if not about.st_mode & stat.S_IWUSR and _user() != 0:  # root may write whatever the mode
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    path.chmod(0o600)


def secret(path: Path) -> bytes:
    """Return the 32 secret bytes in a file that only this user can read; make them where there are none.

    Raises:
        Unsafe: If the file is a link, another user's, readable by others, or has not the right size.
        OSError: If it cannot be created or read.
    """
    if not os.path.lexists(path):
        _publish(path, secrets.token_bytes(_SECRET_SIZE))
    about = os.lstat(path)
    _check(path, about, stat.S_ISREG, "file")
    if about.st_mode & _OTHERS_ANY:
        raise Unsafe(f"{path} can be read by others")
    value = path.read_bytes()
    if len(value) != _SECRET_SIZE:
        raise Unsafe(f"{path} has {len(value)} bytes, a secret has {_SECRET_SIZE}")
    return value


def _publish(path: Path, value: bytes) -> None:
    # Written aside and linked into place: of two processes that start together one wins, and no one reads half a secret.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600)
    try:
        os.write(descriptor, value)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.close(descriptor)
        draft.unlink()


def _check(path: Path, about: os.stat_result, is_kind: Callable[[int], bool], kind: str) -> None:
    if not is_kind(about.st_mode):
        raise Unsafe(f"{path} is not a {kind}")
    if about.st_uid != _user():
        raise Unsafe(f"{path} belongs to user {about.st_uid}")
    if about.st_mode & _OTHERS_WRITE:
        raise Unsafe(f"{path} can be changed by others (mode {stat.S_IMODE(about.st_mode):04o})")
