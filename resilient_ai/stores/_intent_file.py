"""A file of slots that is mapped into memory: what is stored there outlives the process, however that ends."""

import mmap
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from zlib import adler32

import orjson

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has none
_HEAD = struct.Struct("<II")  # how long the content of a slot is, and its check value
_EMPTY = bytes(_HEAD.size)
# Bytes of a slot: most rows take half of a small one, and the large ones are for many or long tags.
_SMALL, _LARGE = 512, 8192
_SMALL_SLOTS, _LARGE_SLOTS = 4096, 64
_LARGE_FROM = _SMALL * (1 + _SMALL_SLOTS)  # in front of all others is the slot that names the owner
_SIZE = _LARGE_FROM + _LARGE * _LARGE_SLOTS
_FITS_SMALL = _SMALL - _HEAD.size
_fill_small = struct.Struct(f"<II{_FITS_SMALL}s").pack_into
LONGEST = _LARGE - _HEAD.size
_fill_large = struct.Struct(f"<II{LONGEST}s").pack_into


class IntentFile:
    """Slots in a file of this process's own.

    A shared mapping is the kernel's: what was stored there the death of the process does not take, and storing is no system call.
    A slot that was half written is known by its check value. Slots may be filled by several threads, and are freed by one.

    Args:
        path: The file, which must not exist.
        owner: What a reader is told first.

    Attributes:
        places: Where the slots are that are filled, by name.

    Raises:
        OSError: If it cannot be made, or has no room. All of it is taken at once, as storing what the disk has no room for would
            end the process.
        ValueError: If the file system has no mappings.
    """

    __slots__ = ("_large", "_map", "_small", "path", "places")

    def __init__(self, path: Path, owner: Any) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600)
        try:
            _take_room(descriptor)
            self._map = mmap.mmap(descriptor, _SIZE)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        self.places: dict[str, int] = {}
        self._small = deque(range(_SMALL, _LARGE_FROM, _SMALL))
        self._large = deque(range(_LARGE_FROM, _SIZE, _LARGE))
        self._name(owner)

    def put(self, name: str, content: bytes) -> bool:
        """Fill a slot, by a name that none has; False if there is none left that is large enough."""
        # The one freed last is taken next, so that few pages of the file are ever touched.
        try:
            if len(content) <= _FITS_SMALL:
                place = self._small.pop()
                _fill_small(self._map, place, len(content), adler32(content), content)
            elif len(content) > LONGEST:
                return False
            else:
                place = self._large.pop()
                _fill_large(self._map, place, len(content), adler32(content), content)
        except IndexError:
            return False
        self.places[name] = place
        return True

    def free(self, names: Iterable[str]) -> None:
        """Empty the slots of these names, as far as there are any."""
        for name in names:
            place = self.places.pop(name, None)
            if place is not None:
                self._map[place : place + 8] = _EMPTY
                (self._small if place < _LARGE_FROM else self._large).append(place)

    def leave(self, owner: Any) -> None:
        """Let nobody fill a slot any more; where none is filled the file is removed, else it is left to another owner."""
        empty = sum(_drained(free) for free in (self._small, self._large))
        if empty < _SMALL_SLOTS + _LARGE_SLOTS:
            self._name(owner)
            return
        self._map.close()
        self.path.unlink(missing_ok=True)

    def _name(self, owner: Any) -> None:
        content = orjson.dumps(owner)
        _fill_small(self._map, 0, len(content), adler32(content), content)


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
        content = file.read(_SIZE)
    found = (_content(content, place, size) for place, size in _slots())
    return [each for each in found if each is not None]


def _slots() -> Iterator[tuple[int, int]]:
    yield from ((place, _SMALL) for place in range(_SMALL, _LARGE_FROM, _SMALL))
    yield from ((place, _LARGE) for place in range(_LARGE_FROM, _SIZE, _LARGE))


def _content(whole: bytes, place: int, size: int) -> Any:
    if len(whole) < place + _HEAD.size:
        return None
    length, check = _HEAD.unpack_from(whole, place)
    if not 0 < length <= size - _HEAD.size:
        return None
    content = whole[place + _HEAD.size : place + _HEAD.size + length]
    if adler32(content) != check:
        return None
    try:
        return orjson.loads(content)
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


def _take_room(descriptor: int) -> None:
    take = getattr(os, "posix_fallocate", None)
    if take is not None:
        take(descriptor, 0, _SIZE)
    else:  # pragma: no cover  # not on Linux
        os.write(descriptor, bytes(_SIZE))
