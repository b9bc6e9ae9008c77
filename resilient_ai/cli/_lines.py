"""Texts to embed, one per line, and the chunks in which they are embedded."""

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from resilient_ai.cli.failures import WrongUseError

CHUNK_LINES = 3840
CHUNK_BYTES = 8 << 20
_LONGEST = 8 << 20
_MARK = b"\xef\xbb\xbf"  # what some editors write before the first line


class Line(NamedTuple):
    """A line: its number from 0, its text, and where the next one begins."""

    number: int
    text: str
    end: int


class Source(Protocol):
    """Something that lines are read from, as often as need be."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def lines(self, position: int = 0, number: int = 0) -> Iterator[Line]:
        """Return the lines, blank ones included, from `position` on, the first of which has the number `number`."""
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """Texts from the command line; one may hold line feeds."""

    texts: Sequence[str]
    name: str = "--text"

    def lines(self, position: int = 0, number: int = 0) -> Iterator[Line]:
        """Return the texts from `position` on."""
        for place in range(position, len(self.texts)):
            yield Line(number + place - position, self.texts[place], place + 1)


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file with one text per line, read line by line."""

    path: Path
    name: str

    def lines(self, position: int = 0, number: int = 0) -> Iterator[Line]:
        """Return the lines from byte `position` on; see `lines_of`."""
        with self.path.open("rb") as file:
            file.seek(position)
            yield from lines_of(file, self.name, position, number)


def lines_of(file: BinaryIO, name: str, position: int = 0, number: int = 0) -> Iterator[Line]:
    """Return what follows in a file, line by line.

    Raises:
        WrongUseError: If a line is not UTF-8, or longer than 8 MiB.
    """
    while raw := file.readline(_LONGEST + 1):
        position += len(raw)
        if len(raw) > _LONGEST:
            raise WrongUseError(f"{name}: line {number + 1:,} is longer than {_LONGEST >> 20} MiB")
        try:
            text = (raw if number else raw.removeprefix(_MARK)).decode()
        except UnicodeDecodeError:
            raise WrongUseError(f"{name}: line {number + 1:,} is not UTF-8 text") from None
        yield Line(number, text.removesuffix("\n").removesuffix("\r"), position)
        number += 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines that are embedded together.

    Args:
        position: Where in the source the first one begins.
        number: The number of the first one.
        span: Lines, blank ones included.
        count: Texts.
        digest: Of the texts and of how they are embedded, as hexadecimal digits. It does not tell the place in the file, so lines
            that moved are known again.
    """

    position: int
    number: int
    span: int
    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All chunks of a source; with a million lines there are about 350."""

    chunks: Sequence[Chunk]
    texts: int
    blank: int


class _Open:
    """A chunk that grows line by line."""

    def __init__(self, fingerprint: bytes, position: int, number: int) -> None:
        self._position = position
        self._number = number
        self._hash = hashlib.sha256(fingerprint)
        self._size = 0
        self.span = 0
        self.count = 0
        self.is_full = False

    def add(self, line: Line) -> None:
        self.span += 1
        if not line.text.strip():
            return
        data = line.text.encode()
        self._hash.update(len(data).to_bytes(8, "little"))
        self._hash.update(data)
        self._size += len(data)
        self.count += 1
        # The text decides where a chunk ends, so that a line more or less moves one border and not all that follow.
        border = self.count >= CHUNK_LINES // 2 and zlib.crc32(data) % (CHUNK_LINES // 4) == 0
        self.is_full = border or self.count >= CHUNK_LINES or self._size >= CHUNK_BYTES

    def close(self) -> Chunk:
        return Chunk(self._position, self._number, self.span, self.count, self._hash.hexdigest())


def plan(source: Source, fingerprint: bytes) -> Plan:
    """Read everything once and cut it into chunks of at most 3,840 texts, about 2,900 as a rule.

    Args:
        source: Where the lines are.
        fingerprint: How they are embedded; part of every digest.

    Raises:
        WrongUseError: If a line cannot be used.
    """
    chunks: list[Chunk] = []
    lines, position = 0, 0
    chunk = _Open(fingerprint, 0, 0)
    for line in source.lines():
        chunk.add(line)
        lines, position = line.number + 1, line.end
        if chunk.is_full:
            chunks.append(chunk.close())
            chunk = _Open(fingerprint, position, lines)
    if chunk.count:
        chunks.append(chunk.close())
    texts = sum(chunk.count for chunk in chunks)
    return Plan(chunks, texts, lines - texts)


def read(source: Source, chunk: Chunk, fingerprint: bytes) -> list[Line]:
    """Return the lines of a chunk that are not blank.

    Raises:
        WrongUseError: If they are not what they were when the plan was made.
    """
    again = _Open(fingerprint, chunk.position, chunk.number)
    found: list[Line] = []
    for line in islice(source.lines(chunk.position, chunk.number), chunk.span):
        again.add(line)
        if line.text.strip():
            found.append(line)
    if again.close() != chunk:
        raise WrongUseError(
            f"{source.name}: was changed while it was read; the same command begins with it as it is now"
        )
    return found
