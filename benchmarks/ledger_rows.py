"""How many sends a second a ledger takes, and what a report costs whoever makes it.

A row is a send that was opened and closed, its end included: the clock stops when `flush` says that all of them are in the file.
Reports come from one thread, as fast as it can, with breaks where more wait than a ledger keeps. What a report costs is
processor time of the reporting thread alone, the making of the report apart.

`python -m benchmarks.ledger_rows`; the exit code is 1 where a row is lost, or where the default ledger takes less than 20,000 a
second.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Literal

from rich.console import Console
from rich.table import Table

from resilient_ai.core.ledger import CallSpared, SendClosed, SendOpened
from resilient_ai.core.results import Usage
from resilient_ai.stores import SQLiteLedger

GOAL = 20_000
DEFAULT = "SQLite"  # what the default stack has, and what the goal is for
_ROUNDS = 5
# Reports that may wait are bounded, and a benchmark that loses some would be too fast.
_AT_ONCE = 20_000
_USAGE = Usage(input_tokens=1234, output_tokens=56, cached_tokens=1024)
_TAGS = {"tenant": "acme", "user": "u-17", "feature": "search", "environment": "production", "team": "red"}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured.

    Args:
        rows: Sends that are in the file.
        lost: Reports that are not.
        seconds: From the first report to the end of the flush.
        reporting: Microseconds of processor time that `opened`, `closed` and `spared` take together.
        making: Microseconds that making the three reports takes.
    """

    rows: int
    lost: int
    seconds: float
    reporting: float
    making: float

    @property
    def per_second(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds


async def measure(ledger: SQLiteLedger, rows: int, serial: int = 0) -> Speed:
    """Report so many sends, and wait until they are written."""
    before = (await ledger.total()).sends
    began = time.perf_counter()
    for first in range(0, rows, _AT_ONCE):
        for number in range(first, min(first + _AT_ONCE, rows)):
            ledger.opened(_opened(f"{serial}-{number}"))
            ledger.closed(_closed(f"{serial}-{number}"))
        await ledger.flush()
    seconds = time.perf_counter() - began
    written = (await ledger.total()).sends - before
    making, reporting = await _cost_of_a_report(ledger, min(rows, _AT_ONCE), serial)
    return Speed(rows=written, lost=ledger.lost, seconds=seconds, reporting=reporting, making=making)


async def _cost_of_a_report(ledger: SQLiteLedger, count: int, serial: int) -> tuple[float, float]:
    begins, ends, hits = [], [], []
    began = time.thread_time()
    for number in range(count):
        begins.append(_opened(f"again {serial}-{number}"))
        ends.append(_closed(f"again {serial}-{number}"))
        hits.append(_spared(f"again {serial}-{number}"))
    made = time.thread_time()
    for opened, closed, spared in zip(begins, ends, hits, strict=True):
        ledger.opened(opened)
        ledger.closed(closed)
        ledger.spared(spared)
    reported = time.thread_time()
    await ledger.flush()
    return (made - began) / count * 1e6, (reported - made) / count * 1e6


def _opened(name: str) -> SendOpened:
    return SendOpened(
        send_id=name, call_id=name, at=time.time(), kind="chat", model="meta-llama/Llama-3.3-70B", attempt=1, tags=_TAGS
    )


def _closed(name: str) -> SendClosed:
    cost = Decimal("0.0002876")
    return SendClosed(send_id=name, state="settled", cost=cost, list_cost=cost, usage=_USAGE, elapsed=0.8)


def _spared(name: str) -> CallSpared:
    return CallSpared(
        call_id=name, at=time.time(), kind="chat", model="m", outcome="hit", hits=1, saved=Decimal("0.0002"), tags=_TAGS
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="sends in each round")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    options = parser.parse_args(arguments)
    table = Table("ledger", "rows/s", "slowest", "µs to report", "µs to make", "lost", title=f"{options.rows:,} rows")
    for column in table.columns[1:]:
        column.justify = "right"
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name, make in _ledgers(Path(folder)).items():
            found = asyncio.run(_rounds(make, options.rows, options.rounds))
            speed = median(each.per_second for each in found)
            failed |= any(each.lost or each.rows < options.rows for each in found) or (name == DEFAULT and speed < GOAL)
            table.add_row(
                name,
                f"{speed:,.0f}",
                f"{min(each.per_second for each in found):,.0f}",
                f"{median(each.reporting for each in found):.1f}",
                f"{median(each.making for each in found):.1f}",
                str(sum(each.lost for each in found)),
            )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return int(failed)


def _ledgers(folder: Path) -> dict[str, Callable[[], SQLiteLedger]]:
    def sqlite(durability: Literal["queued", "durable"]) -> Callable[[], SQLiteLedger]:
        return lambda: SQLiteLedger(folder / f"{durability}.db", durability=durability)

    return {
        DEFAULT: sqlite("queued"),
        "SQLite, durable": sqlite("durable"),
        "SQLite in memory": lambda: SQLiteLedger(":memory:"),
    }


async def _rounds(make: Callable[[], SQLiteLedger], rows: int, rounds: int) -> list[Speed]:
    ledger = make()
    try:
        return [await measure(ledger, rows, serial) for serial in range(rounds)]
    finally:
        await ledger.aclose()


if __name__ == "__main__":
    sys.exit(main())
