"""Opens ordinary files alone: a pipe or a device in the place of one holds nobody up."""

import os
import stat
from typing import BinaryIO

# Each of them is absent somewhere; on Windows access is a matter of the folder's own rights.
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)


def open_plain(path: str | os.PathLike[str], flags: int = 0) -> BinaryIO:
    """Open an ordinary file to be read; `flags` are further ones of `os.open`.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is a pipe, a device or a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | _NONBLOCK | _BINARY | flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ValueError("it is no ordinary file")
