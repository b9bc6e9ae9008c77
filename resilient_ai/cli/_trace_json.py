"""JSON values out of a file of any size: one on a line, or one on many lines, torn ones told of."""

import json
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import orjson

from resilient_ai.cli.failures import WrongUseError

LONGEST = 256 * 1024 * 1024  # bytes of one value
_IN_MEMORY = 16 * 1024 * 1024  # bytes of a pipe
_GZIP = b"\x1f\x8b"
_MARK = b"\xef\xbb\xbf"  # with which some editors begin a file


@dataclass(slots=True)
class Notes:
    """What is to be said about a file.

    Attributes:
        values: How many values were read.
        unreadable: How many lines, or values of several lines, were none.
        first: The number of the first line of those.
        torn: Whether the file ends within a value, as one that is being written does.
        too_long: How many values were longer than `LONGEST`.
    """

    values: int = 0
    unreadable: int = 0
    first: int | None = None
    torn: bool = False
    too_long: int = 0

    def cannot_read(self, line: int) -> None:
        """Note a line that is no value."""
        self.unreadable += 1
        self.first = self.first or line


@contextmanager
def opened(name: str) -> Generator[BinaryIO]:
    """Open a file that can be read twice; a pipe is kept meanwhile, where nobody else can read it.

    Args:
        name: The file, `-` for standard input.

    Raises:
        OSError: If it cannot be read.
        WrongUseError: If it is compressed.
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as kept:
        if name == "-":
            shutil.copyfileobj(sys.stdin.buffer, kept)
            yield _checked(cast("BinaryIO", kept), "standard input")
            return
        with open(name, "rb") as file:  # noqa: PTH123 - a text that is shown as it was given
            if file.seekable():
                yield _checked(file, name)
                return
            shutil.copyfileobj(file, kept)
        yield _checked(cast("BinaryIO", kept), name)


def _checked(file: BinaryIO, name: str) -> BinaryIO:
    file.seek(0)
    if file.read(2) == _GZIP:
        given = "" if name == "standard input" else f" {name}"
        raise WrongUseError(f"{name} is compressed; give its text: gzip -dc{given} | resilient-ai trace -")
    return file


def values_of(file: BinaryIO, notes: Notes) -> Iterator[Any]:
    """Read the values of a file from its beginning, one after the other.

    A value that begins on a line may end many lines later, as indented JSON does. A line that is whole by itself shows that
    one before it was torn.
    """
    file.seek(0)
    for first, value, has_end in _blocks(file, notes):
        if value is not None:
            notes.values += 1
            yield value
        elif has_end:
            notes.cannot_read(first)
        else:
            notes.torn = True


def parsed(text: bytes) -> Any:
    """Return a JSON value, None where it is none.

    What Python writes for numbers that are none, and halves of characters, are beyond JSON and read all the same.

    >>> parsed(b'{"a": NaN}'), parsed(b'{"a": ')
    ({'a': nan}, None)
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _blocks(file: BinaryIO, notes: Notes) -> Iterator[tuple[int, Any, bool]]:
    """Cut a file into what may be values: the number of the first line, the value, and whether there was an end to it."""
    block = _Block()
    for number, line in _lines(file, notes):
        bare = line.strip()
        if not block.lines and not bare:
            continue
        may_be_whole = not block.lines or (line[:1] == b"{" and block.lines[0][:1] != b"[")
        value = parsed(bare) if may_be_whole else None
        if value is not None or (not block.lines and bare[-1:] not in {b"{", b"[", b","}):
            if block.lines:
                notes.cannot_read(block.first)
                block = _Block()
            yield number, value, line.endswith(b"\n")
            continue
        block.add(number, line)
        if line[:1] in {b"}", b"]"}:
            yield from block.end(notes, has_end=True)
            block = _Block()
    if block.lines:
        yield from block.end(notes, has_end=False)


class _Block:
    """Lines that may be one value together, as far as there is room for them."""

    __slots__ = ("first", "lines", "size")

    def __init__(self) -> None:
        self.first = self.size = 0
        self.lines: list[bytes] = []

    def add(self, number: int, line: bytes) -> None:
        self.first = self.first or number
        self.size += len(line)
        if self.size <= LONGEST:
            self.lines.append(line)
        else:
            self.lines[1:] = []

    def end(self, notes: Notes, *, has_end: bool) -> Iterator[tuple[int, Any, bool]]:
        if self.size > LONGEST:
            notes.too_long += 1
        else:
            yield self.first, parsed(b"".join(self.lines)), has_end


def _lines(file: BinaryIO, notes: Notes) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            notes.too_long += 1
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST)
            continue
        yield number, line.removeprefix(_MARK) if number == 1 else line
