"""Keeps what the provider's lists said in a file of this user alone, from one process to the next."""

import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import orjson

from resilient_ai.core.log import Log
from resilient_ai.deepinfra.catalogue._data import model_of
from resilient_ai.deepinfra.catalogue._plain_file import NOFOLLOW, open_plain
from resilient_ai.deepinfra.catalogue.changes import Suspicion
from resilient_ai.deepinfra.catalogue.models import ModelInfo

_FORMAT = "resilient_ai catalogue"
_VERSION = 2
_LIMIT = 64 << 20  # bytes
_TOLERANCE = 3600.0  # seconds by which the clocks of two machines with one home folder may differ
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_user = getattr(os, "geteuid", lambda: 0)

_log = Log()


@dataclass(frozen=True, slots=True)
class Kept:
    """Records as they stood at a moment, in seconds since 1970, and what the lists said that was not believed."""

    fetched_at: float
    by_id: dict[str, ModelInfo]
    doubts: tuple[Suspicion, ...] = ()


def load(path: Path, now: float) -> Kept | None:
    """Return what the file holds; None where there is none, or, with a warning, where it cannot be trusted.

    Args:
        path: The file.
        now: Seconds since 1970; what says that it was fetched more than an hour later is not believed.
    """
    try:
        return _kept(_bytes_of(path), now + _TOLERANCE)
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - whatever stands in that file, the packaged data still works
        _log.warning("the catalogue in %s is ignored: %s", path, str(error) or type(error).__name__)
        return None


def save(path: Path, kept: Kept) -> None:
    """Write the file in one step, so that nobody ever reads half of it; only this user can.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    rows, doubts = [_row(model) for model in kept.by_id.values()], [_row(doubt) for doubt in kept.doubts]
    head = {"format": _FORMAT, "version": _VERSION, "fetched_at": kept.fetched_at, "digest": _digest(rows, doubts)}
    content = orjson.dumps({**head, "suspicious": doubts, "models": rows})
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _bytes_of(path: Path) -> bytes:
    with open_plain(path, NOFOLLOW) as file:
        about = os.fstat(file.fileno())
        if about.st_uid != _user() or about.st_mode & _OTHERS_WRITE:
            raise ValueError("another user could have written it")
        content = file.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise ValueError(f"it is longer than {_LIMIT} bytes")
    return content


def _kept(content: bytes, latest: float) -> Kept:
    document = orjson.loads(content)
    if not isinstance(document, dict) or cast("dict[str, Any]", document).get("format") != _FORMAT:
        raise ValueError("it is no catalogue")
    document = cast("dict[str, Any]", document)
    if document.get("version") != _VERSION:
        raise ValueError(f"it has version {document.get('version')!r}, and {_VERSION} can be read")
    if document["digest"] != _digest(document["models"], document["suspicious"]):
        raise ValueError("it is damaged")
    fetched_at = document["fetched_at"]
    if isinstance(fetched_at, bool) or not isinstance(fetched_at, int | float) or not 0 <= fetched_at <= latest:
        raise ValueError("it was not fetched at a time that has been")
    records = [model_of(row) for row in document["models"]]
    doubts = tuple(Suspicion(**row) for row in document["suspicious"])
    return Kept(float(fetched_at), {record.id: record for record in records}, doubts)


def _digest(rows: object, doubts: object) -> str:
    return hashlib.blake2b(orjson.dumps([rows, doubts]), digest_size=16).hexdigest()


def _row(record: Any) -> Mapping[str, Any]:
    """Return the known fields of a record, prices as texts, as a JSON number is no exact decimal."""
    row = {field.name: _value(getattr(record, field.name)) for field in fields(record)}
    return {name: value for name, value in row.items() if value is not None}


def _value(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    return _row(value) if is_dataclass(value) else value
