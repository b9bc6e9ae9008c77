"""The file of `resilient-ai cache export`: gzip, JSON lines, the first of which names the format."""

import base64
import binascii
import gzip
import re
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import orjson

from resilient_ai.cli._files import replacing
from resilient_ai.cli.failures import WrongUseError

_HEAD = {"format": "resilient-ai cache", "version": 1}
_KEY = re.compile(r"[0-9a-f]{96}")
_LONGEST = 8 << 20  # a value of 4 MiB takes 5.4 MiB as base64
_LEVEL = 1  # vectors hardly get smaller, however long one tries


class Writable(Protocol):
    """What entries are written to."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""
        ...


class NotACacheFileError(WrongUseError):
    """A file that `cache export` has not written."""


class DamagedCacheFileError(NotACacheFileError):
    """A file that `cache export` has written, and that is not whole any more, or was not written to its end."""


@contextmanager
def dump(path: Path) -> Generator[Writable]:
    """Write a file that only this user can read, and that takes its name once it is whole."""
    with replacing(path) as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_LEVEL, filename="") as file:
        file.write(orjson.dumps(_HEAD, option=orjson.OPT_APPEND_NEWLINE))
        yield file


def add(file: Writable, entries: Mapping[str, bytes]) -> None:
    """Write entries to a dump."""
    for key, value in entries.items():
        record = {"key": key, "value": base64.b64encode(value).decode()}
        file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


def load(path: Path) -> Iterator[tuple[str, bytes] | None]:
    """Return the entries of a dump one by one, None for a line that is none.

    Raises:
        NotACacheFileError: If it is something else, or of a later version.
        DamagedCacheFileError: If it was cut short or damaged; what stands before that was returned.
        OSError: If it cannot be read.
    """
    with path.open("rb") as raw, gzip.GzipFile(fileobj=raw, mode="rb") as zipped:
        file = cast("BinaryIO", zipped)
        _check_head(path, file)
        try:
            while line := file.readline(_LONGEST):
                yield _entry(line)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise DamagedCacheFileError(f"{path}: was cut short or damaged") from None


def _check_head(path: Path, file: BinaryIO) -> None:
    try:
        head = orjson.loads(file.readline(_LONGEST))
    except (orjson.JSONDecodeError, EOFError, zlib.error, gzip.BadGzipFile):
        head = None
    if not isinstance(head, dict) or cast("dict[str, object]", head).get("format") != _HEAD["format"]:
        raise NotACacheFileError(f"{path}: is no export of a cache")
    version = cast("dict[str, object]", head).get("version")
    if version != _HEAD["version"]:
        raise NotACacheFileError(f"{path}: is an export of version {version!r}, this is for {_HEAD['version']}")


def _entry(line: bytes) -> tuple[str, bytes] | None:
    try:
        record = orjson.loads(line)
        key, value = record["key"], base64.b64decode(record["value"], validate=True)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, binascii.Error):
        return None
    return (key, value) if isinstance(key, str) and _KEY.fullmatch(key) else None
