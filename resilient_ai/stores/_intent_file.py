"""A file of slots: what was stored there outlives the process, however that ends."""

import ctypes
import errno
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson

if sys.platform != "win32":
    from fcntl import LOCK_EX, LOCK_NB, flock

# Windows has none of the first, and tells texts from bytes.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_END = b"\n"  # of the content of a slot, of which nothing counts behind it
# Bytes of a slot: most rows take half of a small one, and the large ones are for many or long tags.
_SMALL, _LARGE = 512, 8192
_SMALL_SLOTS, _LARGE_SLOTS = 4096, 64
_LARGE_FROM = _SMALL * (1 + _SMALL_SLOTS)  # in front of all others is the slot that names the owner
_SIZE = _LARGE_FROM + _LARGE * _LARGE_SLOTS
LONGEST = _LARGE
_LARGEST_OF_32_BITS = 2**31 - 1
_seeking = threading.RLock()


def _write_unhurried(descriptor: int, content: bytes, _: int, place: int) -> int:  # pragma: no cover  # not on Linux
    try:
        if sys.platform != "win32":
            return os.pwrite(descriptor, content, place)
        with _seeking:
            os.lseek(descriptor, place, os.SEEK_SET)
            return os.write(descriptor, content)
    except OSError:
        return -1


def _writer() -> Callable[[int, bytes, int, int], int]:
    """Return what writes bytes, so many of them, at a place of a file, and tells how many it has written.

    It does not let go of Python's lock, as `os.pwrite` does, which so hands it to whatever thread wants it: getting it back costs
    many times what is done here, which is to copy a few hundred bytes to where the kernel keeps them.
    """
    try:
        write = ctypes.PyDLL(None).pwrite if sys.maxsize > _LARGEST_OF_32_BITS else None
    except (AttributeError, OSError, TypeError):  # pragma: no cover  # Windows
        write = None
    if write is None:  # pragma: no cover  # not on Linux
        return _write_unhurried
    write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64)
    write.restype = ctypes.c_ssize_t
    return write


_write = _writer()
_close = os.close


class IntentFile:
    """Slots in a file of this process's own.

    What was written to a file is the kernel's, and the death of the process does not take it. It is not mapped into memory, as
    somebody who cuts a mapped file off ends the process. A slot holds a line of JSON, and one without an end is passed over.
    Slots may be filled by several threads, and are freed by one.

    The file is locked for as long as the process lives, which processes see that cannot see each other otherwise.

    Args:
        path: The file, which must not exist.
        owner: What a reader is told first.

    Attributes:
        places: Where the slots are that are filled, by name.

    Raises:
        OSError: If it cannot be made, or has no room. All of it is taken at once, so that a disk that fills up later takes no
            row.
    """

    __slots__ = ("_descriptor", "_large", "_place", "_small", "path", "places")

    def __init__(self, path: Path, owner: Any) -> None:
        self.path = path
        self._descriptor = -1
        self._descriptor = os.open(path, _FLAGS, 0o600)
        try:
            with suppress(OSError):  # a file system without locks
                _lock(self._descriptor)
            _take_room(self._descriptor)
            self._name(owner)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._place = _place(self._descriptor)
        self.places: dict[str, int] = {}
        self._small = deque(range(_SMALL, _LARGE_FROM, _SMALL))
        self._large = deque(range(_LARGE_FROM, _SIZE, _LARGE))

    def __del__(self) -> None:
        # Not before, as a thread may be about to write to it.
        if self._descriptor >= 0:
            _close(self._descriptor)

    def put(self, name: str, line: bytes) -> bool:
        """Fill a slot, by a name that none has; False if there is none left that is large enough, or it cannot be written."""
        size = len(line)
        if size > LONGEST:
            return False
        slots = self._small if size <= _SMALL else self._large
        try:
            # The one freed last is taken next, so that little of the file is ever touched.
            place = slots.pop()
        except IndexError:
            return False
        if _write(self._descriptor, line, size, place) != size:
            # Somebody has cut the file off, and now the disk is full.
            slots.append(place)
            return False
        self.places[name] = place
        return True

    def free(self, names: Iterable[str]) -> None:
        """Empty the slots of these names, as far as there are any."""
        for name in names:
            place = self.places.pop(name, None)
            if place is not None:
                if _write(self._descriptor, _END, 1, place) != 1:
                    continue  # it is not filled again, and what it holds is in the ledger
                (self._small if place < _LARGE_FROM else self._large).append(place)

    def is_there(self) -> bool:
        """Tell whether somebody can find it, as nobody has deleted it."""
        try:
            about = os.fstat(self._descriptor)
        except OSError:
            about = None
        if about is None or (about.st_dev, about.st_ino) != self._place:
            self._descriptor = (
                -1
            )  # somebody has closed it, as daemons do at their start, and it may be another file by now
            return False
        return about.st_nlink > 0

    def leave(self, owner: Any) -> None:
        """Let nobody fill a slot any more; where none is filled the file is removed, else it is left to another owner."""
        empty = sum(_drained(free) for free in (self._small, self._large))
        if not self.is_there():
            return
        if empty < _SMALL_SLOTS + _LARGE_SLOTS:
            self._name(owner)
            return
        # Nobody has a slot, so nobody is about to write.
        descriptor, self._descriptor = self._descriptor, -1
        _close(descriptor)
        self.path.unlink(missing_ok=True)

    def _name(self, owner: Any) -> None:
        line = orjson.dumps(owner, option=orjson.OPT_APPEND_NEWLINE)
        if _write(self._descriptor, line, len(line), 0) != len(line):
            raise OSError(f"{self.path} cannot be written")


def is_left(path: Path) -> bool:
    """Tell whether no process has the file open any more; False where that cannot be told.

    Raises:
        OSError: If it cannot be opened.
    """
    with path.open("rb") as file:
        try:
            _lock(file.fileno())
        except OSError:
            return False
    return sys.platform != "win32"


def owner_of(path: Path) -> Any:
    """Return the owner of a file; None where that cannot be told.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return _content(file.read(_SMALL), 0, _SMALL)


def read(path: Path) -> list[Any]:
    """Return what the slots of a file hold; what is damaged is left out.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        whole = bytearray(_SIZE)
        places = sorted({place for start, end in _written(file.fileno()) for place in _fetch(file, whole, start, end)})
    found = (_content(whole, place, _SMALL if place < _LARGE_FROM else _LARGE) for place in places)
    return [each for each in found if each is not None]


def _written(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield from where to where something was ever written, which is little of it as a rule."""
    size = min(os.fstat(descriptor).st_size, _SIZE)
    end = 0
    while end < size:
        start, end = end, size
        try:
            start = os.lseek(descriptor, start, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except AttributeError:  # pragma: no cover  # not on Linux
            pass
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing comes any more
                return
        yield start, min(end, size)


def _fetch(file: BinaryIO, whole: bytearray, start: int, end: int) -> Iterator[int]:
    file.seek(start)
    content = file.read(end - start)
    whole[start : start + len(content)] = content
    for at in range(start - start % _SMALL, start + len(content), _SMALL):
        if at >= _LARGE_FROM:
            yield at - (at - _LARGE_FROM) % _LARGE
        elif at:
            yield at


def _content(whole: bytes | bytearray, place: int, size: int) -> Any:
    end = whole.find(_END, place, place + size)
    if end <= place:
        return None
    try:
        return orjson.loads(whole[place:end])
    except orjson.JSONDecodeError:
        return None


def _drained(free: "deque[int]") -> int:
    """Empty it, and return how many were in it: whoever has taken one out meanwhile is not among them."""
    count = 0
    try:
        while True:
            free.pop()
            count += 1
    except IndexError:
        return count


def _lock(descriptor: int) -> None:
    """Lock a file until it is closed, or its process ends.

    Raises:
        OSError: If another one has locked it.
    """
    if sys.platform != "win32":
        flock(descriptor, LOCK_EX | LOCK_NB)


def _place(descriptor: int) -> tuple[int, int]:
    about = os.fstat(descriptor)
    return about.st_dev, about.st_ino


def _take_room(descriptor: int) -> None:
    take = getattr(os, "posix_fallocate", None)
    if take is not None:
        take(descriptor, 0, _SIZE)
    else:  # pragma: no cover  # not on Linux
        os.write(descriptor, bytes(_SIZE))
