"""Files that the sends of a ledger are written to, some at a time: .csv and .parquet."""

import asyncio
import csv
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, TextIO, TypeVar

from typing_extensions import override

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.ledger import LedgerSend
from resilient_ai.stores._ledger_filters import TAG_COLUMNS

T = TypeVar("T")

# Digits, and those behind the point, of an amount in a Parquet file. Most readers know no more than 38.
_PRECISION, _SCALE = 38, 18
# A group of rows is what a reader of Parquet takes at once, so it is larger than what a scan brings.
_GROUP = 20_000


class NotExactError(Exception):
    """An amount has more digits than its column holds."""


class SendsFile(ABC):
    """A new file of sends. Its methods wait for the disk, so they run in a thread.

    Args:
        path: Where; nothing may be there.
        exact: Whether amounts are numbers, which hold so many digits, and not text.
    """

    def __init__(self, path: Path, *, exact: bool = True) -> None:
        self.path = path
        self.exact = exact

    @classmethod
    @abstractmethod
    def check(cls) -> None:
        """Raise `ConfigurationError` where a package is missing."""

    @abstractmethod
    def open(self) -> None:
        """Make the file."""

    @abstractmethod
    def write(self, sends: Sequence[LedgerSend]) -> None:
        """Add rows.

        Raises:
            NotExactError: If an amount does not fit into its column.
        """

    @abstractmethod
    def close(self) -> None:
        """Write what is left, and close the file."""

    @abstractmethod
    def abandon(self) -> None:
        """Close the file as it is; for one that nobody will read."""


class CSVFile(SendsFile):
    """A line of names, then one line per send; what is not known is empty."""

    _file: TextIO | None = None

    @classmethod
    @override
    def check(cls) -> None:
        pass

    @override
    def open(self) -> None:
        self._file = self.path.open("x", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(_FIELDS)

    @override
    def write(self, sends: Sequence[LedgerSend]) -> None:
        self._writer.writerows([_cell(field(send)) for field in _FIELDS.values()] for send in sends)

    @override
    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    @override
    def abandon(self) -> None:
        with suppress(OSError):  # a full disk, of which whoever writes has heard
            self.close()


class ParquetFile(SendsFile):
    """One column per field, amounts as decimal128(38, 18), or as text where they are not to be numbers."""

    _file: Any = None
    _writer: Any = None

    def __init__(self, path: Path, *, exact: bool = True) -> None:
        super().__init__(path, exact=exact)
        self._waiting: list[LedgerSend] = []

    @classmethod
    @override
    def check(cls) -> None:
        _package("pyarrow.parquet")

    @override
    def open(self) -> None:
        self._pa: Any = _package("pyarrow")
        self._schema = self._pa.schema([(name, self._type_of(name)) for name in _FIELDS])
        self._file = self.path.open("xb")
        self._writer = _package("pyarrow.parquet").ParquetWriter(self._file, self._schema)

    @override
    def write(self, sends: Sequence[LedgerSend]) -> None:
        self._waiting += sends
        if len(self._waiting) >= _GROUP:
            self._write_group()

    @override
    def close(self) -> None:
        if self._waiting:
            self._write_group()
        self._writer.close()
        self._file.close()

    @override
    def abandon(self) -> None:
        # A disk that is full makes each of the two fail, of which whoever writes has heard.
        for file in (self._writer, self._file):
            if file is not None:
                with suppress(Exception):
                    file.close()

    def _write_group(self) -> None:
        waiting, self._waiting = self._waiting, []
        columns: list[Any] = []
        for name, field in _FIELDS.items():
            values = [field(send) for send in waiting]
            if name in {"cost", "list_cost"} and not self.exact:
                values = [None if value is None else format(value, "f") for value in values]
            try:
                columns.append(self._pa.array(values, self._schema.field(name).type))
            except self._pa.ArrowInvalid as error:
                raise NotExactError(str(error)) from error
        self._writer.write_table(self._pa.table(columns, schema=self._schema))

    def _type_of(self, name: str) -> Any:
        pa = self._pa
        if name in {"cost", "list_cost"}:
            return pa.decimal128(_PRECISION, _SCALE) if self.exact else pa.string()
        if name == "attempt" or name.endswith("_tokens"):
            return pa.int64()
        return {"at": pa.timestamp("us", "UTC"), "used": pa.bool_(), "elapsed": pa.float64()}.get(name, pa.string())


def _tag(name: str, send: LedgerSend) -> str | None:
    return send.tags.get(name)


def _other_tags(send: LedgerSend) -> str | None:
    tags = {name: value for name, value in send.tags.items() if name not in TAG_COLUMNS}
    return json.dumps(tags, ensure_ascii=False, sort_keys=True) if tags else None


# The columns in their order, and what stands in each.
_FIELDS: dict[str, Callable[[LedgerSend], Any]] = {
    **{name: attrgetter(name) for name in LedgerSend.__slots__ if name != "tags"},
    "at": lambda send: datetime.fromtimestamp(send.at, UTC),
    **{name: partial(_tag, name) for name in TAG_COLUMNS},
    "tags": _other_tags,
}
FORMATS: dict[str, type[CSVFile] | type[ParquetFile]] = {".csv": CSVFile, ".parquet": ParquetFile}


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise ConfigurationError(
            f"the package {missing} is missing; install it with: pip install 'resilient-ai[parquet]'"
        ) from None


async def write_sends(scan: AsyncIterator[Sequence[LedgerSend]], file: SendsFile) -> int:
    """Write all that a scan brings into a new file, which is closed whatever happens, and return how many there were."""
    rows = 0
    try:
        await in_thread(file.open)
        async for sends in scan:
            await in_thread(partial(file.write, sends))
            rows += len(sends)
        await in_thread(file.close)
    except BaseException:
        file.abandon()
        raise
    return rows


async def in_thread(work: Callable[[], T]) -> T:
    """Do something in a thread, and wait for its end also where whoever asked is cancelled: its file is closed then."""
    done = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        while not done.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([done])
        raise
