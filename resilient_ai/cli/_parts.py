"""Finished chunks of vectors, kept in files beside the output until all are there, so that a killed run goes on from them."""

import hashlib
import os
import shutil
import sys
from array import array
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

import orjson

from resilient_ai.cli._files import locked, private, put
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.core.vectors import TypeCode, Vectors

_FORMAT = "resilient-ai part 1"
_LONGEST_HEADER = 1 << 16
_LOCK = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a part says of itself, in its first line; the packed vectors follow, and the SHA-256 of everything.

    Args:
        digest: Of its texts and of how they were embedded; the name of the file, too.
        count: Vectors.
        dimensions: Numbers per vector.
        typecode: "f" for four bytes a number, "d" for eight.
        model: What the service called the model; None where nothing was sent.
        cost: US dollars paid for it, as decimal text; None where nobody knows.
        complete: False where it may have cost more.
        hits: Texts that came from the cache.
        requests: Requests that were sent.
        input_tokens: Tokens that were billed; None where nobody knows.
        byteorder: Of the machine that wrote the numbers.
        format: Name and version of this layout.
    """

    digest: str
    count: int
    dimensions: int
    typecode: TypeCode
    model: str | None
    cost: str | None
    complete: bool
    hits: int
    requests: int
    input_tokens: int | None
    byteorder: str = sys.byteorder
    format: str = _FORMAT

    @property
    def amount(self) -> Decimal | None:
        """US dollars, None where nobody knows."""
        return None if self.cost is None else Decimal(self.cost)


class Parts:
    """The parts of one output, in a folder of this user alone; a chunk is found by its digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def known(self, digest: str) -> Header | None:
        """Return what the part of this digest says, None where there is no whole one."""
        found = self.read(digest)
        return None if found is None else found[0]

    def read(self, digest: str) -> tuple[Header, Vectors] | None:
        """Return a part, None where there is no whole one; it takes as much memory as its vectors."""
        try:
            with self._path(digest).open("rb") as file:
                return _read(file, digest)
        except (FileNotFoundError, ValueError, TypeError, EOFError):  # not there, or damaged in one of many ways
            return None

    def write(self, header: Header, vectors: Vectors) -> None:
        """Put a part beside the others; it is on the disk, whole, when this returns."""
        line = orjson.dumps(asdict(header), option=orjson.OPT_APPEND_NEWLINE)
        draft = self.folder / "draft"
        with private(draft) as file:
            file.write(line)
            file.write(memoryview(vectors.buffer))
            file.write(_seal(line, vectors))
        put(draft, self._path(header.digest))

    def remove(self) -> None:
        """Remove the folder and everything in it."""
        shutil.rmtree(self.folder)

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.part"


@contextmanager
def parts_of(output: Path) -> Generator[Parts]:
    """Open the folder of parts beside `output`, for this process alone; it stays as long as there is a part in it.

    Raises:
        WrongUseError: If another process has it open.
        OSError: If it cannot be made, or could be changed by others.
    """
    from resilient_ai.stores._private import private_directory  # noqa: PLC0415 - slow to import, and only needed here

    folder = output.with_name(f".{output.name}.parts")
    private_directory(folder)
    with locked(folder / _LOCK) as alone:
        if not alone:
            raise WrongUseError(f"--output: {output} is being written by another process; wait for it, or stop it")
        try:
            yield Parts(folder)
        finally:
            if not any(folder.glob("*.part")):
                with suppress(FileNotFoundError):
                    shutil.rmtree(folder)


def packed(vectors: Vectors) -> Vectors:
    """Return the same numbers in four bytes each where that is exact, which it is for most models; otherwise as they are."""
    first = vectors.buffer[: vectors.dimensions]
    if vectors.buffer.typecode == "f" or array("d", array("f", first)) != first:
        return vectors
    narrow = array("f", vectors.buffer)
    return Vectors(narrow, vectors.dimensions) if array("d", narrow) == vectors.buffer else vectors


def _read(file: BinaryIO, digest: str) -> tuple[Header, Vectors]:
    line = file.readline(_LONGEST_HEADER)
    header = Header(**orjson.loads(line))
    if (header.format, header.byteorder, header.digest) != (_FORMAT, sys.byteorder, digest):
        raise ValueError("written otherwise")
    buffer: array[float] = array(header.typecode)
    size = header.count * header.dimensions * buffer.itemsize + hashlib.sha256().digest_size
    if os.fstat(file.fileno()).st_size != file.tell() + size:
        raise ValueError("cut short")
    buffer.fromfile(file, header.count * header.dimensions)
    vectors = Vectors(buffer, header.dimensions)
    if file.read() != _seal(line, vectors):
        raise ValueError("damaged")
    return header, vectors


def _seal(line: bytes, vectors: Vectors) -> bytes:
    digest = hashlib.sha256(line)
    digest.update(memoryview(vectors.buffer))
    return digest.digest()
