"""Kills processes at random moments while they share a ledger: `make kills`, or `python -m benchmarks.ledger_kills --kills 50`.

Those that write are killed, on SQLite and on a PostgreSQL of this run's own; then such a PostgreSQL is, while they write. The
exit code is 1 where an acknowledged row is lost or written twice, a send whose bytes would have left has no row, one has no end
after the restart, the database is damaged, or a budget holds something that cannot be.
"""

import argparse
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.ledger_kills.audit import Findings
from benchmarks.ledger_kills.books import in_a_file, in_postgres
from benchmarks.ledger_kills.kills import kill_the_server, kill_workers
from benchmarks.ledger_kills.private_postgres import missing, private_postgres

SQLITE, POSTGRES, KILLED = LEDGERS = ("SQLite", "PostgreSQL", "PostgreSQL, itself killed")
_SLOWER = 0.3  # as it takes a moment to connect, and most would die without having written
COLUMNS = (
    "kills",
    "of the server",
    "rounds acknowledged",
    "sends",
    "acknowledged",
    "lost",
    "left",
    "without a row",
    "without an end",
    "charges admitted",
    "integrity",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="processes to kill on each ledger")
    parser.add_argument(
        "--server-kills", type=int, default=40, help="how often to kill the server, every other time all of it"
    )
    parser.add_argument("--ledger", choices=LEDGERS, help="only this one")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the victims")
    options = parser.parse_args(arguments)
    table = Table("ledger", *COLUMNS, title=f"{options.kills} kills on each ledger, seed {options.seed}")
    for column in table.columns[1:]:
        column.justify = "right"
    troubles: list[str] = []
    ledgers = [options.ledger] if options.ledger else LEDGERS
    for name, found in _found(ledgers, options.kills, options.server_kills, options.seed):
        table.add_row(name, *_cells(found))
        troubles += [f"{name}: {trouble}" for trouble in found.troubles()]
    console = Console(width=None if sys.stdout.isatty() else 190)
    console.print(table)
    for trouble in troubles[:20]:
        console.print(trouble)
    return 1 if troubles else 0


def _found(ledgers: Collection[str], kills: int, server_kills: int, seed: int) -> Iterator[tuple[str, Findings]]:
    if SQLITE in ledgers:
        with tempfile.TemporaryDirectory() as folder:
            yield SQLITE, kill_workers(in_a_file(Path(folder) / "ledger.db"), kills=kills, seed=seed)
    why = missing()
    if why is not None and {POSTGRES, KILLED} & set(ledgers):
        print(f"skipped: PostgreSQL, as {why}")
        return
    if POSTGRES in ledgers:
        with private_postgres() as server, tempfile.TemporaryDirectory() as folder:
            yield POSTGRES, kill_workers(in_postgres(server, Path(folder)), kills=kills, seed=seed, longest=_SLOWER)
    if KILLED in ledgers:
        with private_postgres() as server, tempfile.TemporaryDirectory() as folder:
            yield KILLED, kill_the_server(in_postgres(server, Path(folder)), server, kills=server_kills, seed=seed)


def _cells(found: Findings) -> list[str]:
    whole = (
        found.kills,
        found.server_kills,
        found.rounds,
        found.rows,
        found.acknowledged,
        len(found.lost),
        found.left,
        len(found.rowless),
        found.endless,
        found.charges,
    )
    return [*(f"{number:,}" for number in whole), found.integrity]


if __name__ == "__main__":
    sys.exit(main())
