"""Rows of sends that are about to leave, kept where the death of the process does not take them, until they are written."""

import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from resilient_ai.core.ledger import SendOpened
from resilient_ai.stores._intent_file import LONGEST, IntentFile, owner_of, read
from resilient_ai.stores._private import make_private
from resilient_ai.stores._process import identity

_log = logging.getLogger("resilient_ai.stores")
_AGAIN = 60.0  # seconds after which a file that could not be made is tried again
_VERSION = 1
_LARGEST = 2**31  # what the column of a PostgreSQL takes
_dumps = orjson.dumps


class Intents:
    """Keeps each row from before its bytes leave until the ledger has it.

    Ledgers write rows in a thread behind the call, some milliseconds later. A process that is killed in these would leave
    requests of which no row tells. So each is first stored, in a microsecond and without waiting, in a file that is mapped into
    memory, which whoever opens the ledger next reads: see `left_behind`.

    Nothing here fails a call. A row for which there is no slot, as thousands wait to be written, is only counted.

    Args:
        place: What the paths of the files begin with.

    Attributes:
        skipped: Rows that were not kept.
    """

    def __init__(self, place: Path) -> None:
        self.skipped = 0
        self._trouble: Exception | None = None
        self._told = False
        self._place = place
        self._file: IntentFile | None = None
        self._making = threading.RLock()
        self._again_at = float("-inf")

    def put(self, row: SendOpened) -> None:
        """Keep a row; takes a microsecond, but for the first one, which makes the file."""
        try:
            file = self._file or self._begin()
            if file is None:
                self.skipped += 1
                return
            if row.send_id in file.places:
                return
            # Written out, as a function for it would cost as much as the rest.
            tags = dict(row.tags) if row.tags else None
            try:
                content = _dumps((row.send_id, row.call_id, row.at, row.kind, row.model, row.attempt, tags))
            except TypeError:
                content = _cleaned(row)
            if len(content) > LONGEST:
                content = _dumps((row.send_id, row.call_id, row.at, row.kind, row.model, row.attempt, None))
            if not file.put(row.send_id, content):
                self.skipped += 1
        except Exception:  # noqa: BLE001  # the row itself is not lost by it
            self.skipped += 1

    def drop(self, reports: Iterable[object]) -> None:
        """Keep rows no longer, as the ledger has them; anything else among the reports has no row here."""
        if self._file is not None:
            self._file.free(report.send_id for report in reports if isinstance(report, SendOpened))

    def complain(self, ledger: str) -> None:
        """Say once where no file could be made, and why."""
        if self._trouble is not None and not self._told:
            self._told = True
            _log.warning(
                "ledger %s does not know of sends that leave in the last moment before a kill: %s",
                ledger,
                self._trouble,
            )

    def close(self) -> None:
        """Remove the file, or where it has rows that were not written leave it to whoever opens the ledger next."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.leave(_owner("nobody"))

    def _begin(self) -> IntentFile | None:
        if time.monotonic() < self._again_at:
            return None
        with self._making:
            if self._file is None:
                try:
                    self._place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    name = f"{self._place.name}-{os.getpid()}-{secrets.token_hex(4)}"
                    self._file = IntentFile(self._place.with_name(name), _owner(identity(os.getpid()) or ""))
                except (OSError, ValueError) as error:
                    self._trouble = error
                    self._again_at = time.monotonic() + _AGAIN
            return self._file


def left_behind(place: Path) -> Iterator[tuple[Path, list[SendOpened]]]:
    """Yield the files of processes that are dead, and the rows in them; who has written those removes the file.

    Args:
        place: What the paths of the files begin with.
    """
    with suppress(OSError):
        names = sorted(name for name in os.listdir(place.parent) if name.startswith(f"{place.name}-"))  # noqa: PTH208
        for name in names:
            path = place.with_name(name)
            with suppress(OSError):  # it is somebody else's, or another process has just removed it
                make_private(path)
                # In this order: while it lives it may store more.
                if _is_dead(owner_of(path), path):
                    yield path, [row for row in map(_row, read(path)) if row is not None]


def intents_of(path: str) -> Path:
    """Return what the paths of the files of a ledger in a file begin with."""
    return Path(f"{path}-intents")


def _owner(process: str) -> tuple[int, int, str]:
    return _VERSION, os.getpid(), process


def _is_dead(owner: Any, path: Path) -> bool:
    match owner:
        case [int(version), int(pid), str(process)]:
            return version == _VERSION and identity(pid) != process
        case _:
            # It was killed before it could say who it is, or the file is damaged.
            number = path.name.rsplit("-", 2)[1]
            return number.isdecimal() and identity(int(number)) is None


def _row(content: Any) -> SendOpened | None:
    match content:
        case [str(send_id), str(call_id), float(at), str(kind), str(model), int(attempt), tags] if (
            abs(attempt) < _LARGEST
        ):
            return SendOpened(
                send_id=send_id, call_id=call_id, at=at, kind=kind, model=model, attempt=attempt, tags=tags or {}
            )
        case _:
            return None


def _cleaned(row: SendOpened) -> bytes:
    """Return a row with question marks for what UTF-8 cannot say."""
    names = (_clean(row.send_id), _clean(row.call_id), row.at, _clean(row.kind), _clean(row.model), row.attempt)
    return _dumps((*names, {_clean(name): _clean(value) for name, value in row.tags.items()}))


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
