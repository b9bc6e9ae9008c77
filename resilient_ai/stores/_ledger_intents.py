"""Rows of sends that are about to leave, kept where the death of the process does not take them, until they are written."""

import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from resilient_ai.core.ledger import SendOpened
from resilient_ai.core.log import Log
from resilient_ai.stores._intent_file import IntentFile, is_left, owner_of, read
from resilient_ai.stores._private import make_private
from resilient_ai.stores._process import identity

_log = Log("resilient_ai.stores")
_AGAIN = 60.0  # seconds after which a file that could not be made is tried again
_LOOK_EVERY = 1.0  # seconds
_TELL_EVERY = 60.0
_DAMAGED_FOR = 60.0  # seconds after which a file that does not say whose it is belongs to nobody
_FILES, _ROWS = 100, 10_000  # brought in together
_VERSION = 1
_PARTS = 3  # of what tells a process from all others: boot, namespace, moment of its start
_LARGEST = 2**31  # what the column of a PostgreSQL takes
_LINE = orjson.OPT_APPEND_NEWLINE
_dumps = orjson.dumps


class Intents:
    """Keeps each row from before its bytes leave until the ledger has it.

    Ledgers write rows in a thread behind the call, some milliseconds later. A process that is killed in these would leave
    requests of which no row tells. So each is first stored, in microseconds and without waiting for a disk, in a file that
    whoever opens the ledger next reads: see `left_behind`.

    Nothing here fails a call. A row for which there is no slot, as thousands wait to be written, is only counted, and told of in
    the log once a minute.

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
        self._look_at = self._tell_at = float("-inf")
        self._held: list[str] = []

    def put(self, row: SendOpened) -> None:
        """Keep a row; takes microseconds, but for the first one, which makes the file."""
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
                line = _dumps((row.send_id, row.call_id, row.at, row.kind, row.model, row.attempt, tags), None, _LINE)
            except TypeError:
                line = _cleaned(row)
            if not file.put(row.send_id, line) and not (tags and file.put(row.send_id, _without_tags(row))):
                self._skip()
        except Exception:  # noqa: BLE001  # the row itself is not lost by it
            self._skip()

    def drop(self, reports: Iterable[object]) -> None:
        """Keep rows no longer, as the ledger has them; anything else among the reports has no row here.

        Where somebody has deleted the file, which is looked for at most once a second, the next row begins a new one.
        """
        file = self._file
        if file is None:
            return
        file.free(report.send_id for report in reports if isinstance(report, SendOpened))
        if self._held:
            file.free(self._held)
            self._held = []
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_EVERY
            if not file.is_there():
                self._file = None

    def hold(self, reports: Iterable[object]) -> None:
        """Keep rows that are only in memory until something is dropped again, as by then they are in the ledger, too."""
        if self._file is not None:
            places = self._file.places
            self._held += [each.send_id for each in reports if isinstance(each, SendOpened) and each.send_id in places]

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
        file, self._file, self._held = self._file, None, []
        if file is not None:
            with suppress(OSError):
                file.leave(_owner("nobody"))

    def _skip(self) -> None:
        self.skipped += 1
        if time.monotonic() >= self._tell_at:
            self._tell_at = time.monotonic() + _TELL_EVERY
            _log.warning(
                "%s: no room for %d sends so far, of which no row will tell if the process is killed before they are written",
                self._place,
                self.skipped,
            )

    def _begin(self) -> IntentFile | None:
        if time.monotonic() < self._again_at:
            return None
        with self._making:
            if self._file is None:
                try:
                    self._place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    name = f"{self._place.name}-{os.getpid()}-{secrets.token_hex(4)}"
                    self._file = IntentFile(self._place.with_name(name), _owner(identity(os.getpid()) or ""))
                except OSError as error:
                    self._trouble = error
                    self._again_at = time.monotonic() + _AGAIN
            return self._file


def left_behind(place: Path) -> Iterator[list[tuple[Path, list[SendOpened]]]]:
    """Yield the files of processes that are dead, and the rows in them; who has written those removes the files.

    Many come together, so that they can be written in one transaction.

    Args:
        place: What the paths of the files begin with.
    """
    group: list[tuple[Path, list[SendOpened]]] = []
    count = 0
    for path, rows in _dead_files(place):
        group.append((path, rows))
        count += len(rows)
        if len(group) >= _FILES or count >= _ROWS:
            yield group
            group, count = [], 0
    if group:
        yield group


def remove(files: Iterable[tuple[Path, object]]) -> None:
    """Remove files whose rows are written."""
    for path, _ in files:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def intents_of(path: str) -> Path:
    """Return what the paths of the files of a ledger in a file begin with."""
    return Path(f"{path}-intents")


def _owner(process: str) -> tuple[int, int, str]:
    return _VERSION, os.getpid(), process


def _dead_files(place: Path) -> Iterator[tuple[Path, list[SendOpened]]]:
    try:
        names = sorted(name for name in os.listdir(place.parent) if name.startswith(f"{place.name}-"))  # noqa: PTH208
    except OSError:
        return
    for name in names:
        path = place.with_name(name)
        with suppress(OSError):  # it is somebody else's, or another process has just removed it
            make_private(path)
            # In this order: while it lives it may store more.
            if _is_dead(owner_of(path), path):
                yield path, _rows(path)


def _is_dead(owner: Any, path: Path) -> bool:
    match owner:
        case [int(version), int(pid), str(process)]:
            if version != _VERSION or identity(pid) == process:
                return False
            # Numbers of another namespace say nothing here, but its processes lock their files as all others.
            return not _is_elsewhere(process) or is_left(path)
        case _:
            # It was killed before it could say who it is, or the file is damaged.
            number = path.name.rsplit("-", 2)[1]
            if not number.isdecimal():
                return False
            return identity(int(number)) is None or time.time() - path.stat().st_mtime > _DAMAGED_FOR


def _is_elsewhere(process: str) -> bool:
    """Tell whether a process is, or was, one of this boot in another namespace."""
    ours = (identity(os.getpid()) or "").split("/")
    theirs = process.split("/")
    return len(ours) == len(theirs) == _PARTS and ours[0] == theirs[0] and ours[1] != theirs[1]


def _rows(path: Path) -> list[SendOpened]:
    contents = read(path)
    rows = [row for row in map(_row, contents) if row is not None]
    if len(rows) < len(contents):
        _log.warning("%s has %d rows that cannot be understood, which are passed over", path, len(contents) - len(rows))
    return rows


def _row(content: Any) -> SendOpened | None:
    match content:
        case [str(send_id), str(call_id), float(at) | int(at), str(kind), str(model), int(attempt), tags] if abs(
            attempt
        ) < _LARGEST and _are_tags(tags):
            return SendOpened(
                send_id=send_id, call_id=call_id, at=float(at), kind=kind, model=model, attempt=attempt, tags=tags or {}
            )
        case _:
            return None


def _are_tags(tags: Any) -> bool:
    match tags:
        case None:
            return True
        case {**known}:
            return all(isinstance(value, str) for value in known.values())
        case _:
            return False


def _without_tags(row: SendOpened) -> bytes:
    try:
        return _dumps((row.send_id, row.call_id, row.at, row.kind, row.model, row.attempt, None), None, _LINE)
    except TypeError:
        return _cleaned(replace(row, tags={}))


def _cleaned(row: SendOpened) -> bytes:
    """Return a row with question marks for what UTF-8 cannot say."""
    names = (_clean(row.send_id), _clean(row.call_id), row.at, _clean(row.kind), _clean(row.model), row.attempt)
    return _dumps((*names, {_clean(name): _clean(value) for name, value in row.tags.items()}), None, _LINE)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
