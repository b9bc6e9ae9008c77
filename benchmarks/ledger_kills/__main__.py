"""Kills processes at random moments while they share a ledger: `python -m benchmarks.ledger_kills --kills 50`.

The exit code is 1 where an acknowledged row is lost, a send has no end after the restart, the file is damaged, or a budget holds
something that cannot be.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.ledger_kills.kills import Findings, kill_at_random


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="processes to kill")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the victims")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = kill_at_random(Path(folder) / "ledger.db", kills=options.kills, seed=options.seed)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_table(found, options.seed))
    for trouble in found.troubles()[:20]:
        console.print(trouble)
    return 1 if found.troubles() else 0


def _table(found: Findings, seed: int) -> Table:
    table = Table("what", "how many", title=f"{found.kills} kills, seed {seed}")
    table.columns[1].justify = "right"
    for name, value in (
        ("rounds that were acknowledged", found.rounds),
        ("sends in the book", found.rows),
        ("of these acknowledged", found.acknowledged),
        ("acknowledged and lost", len(found.lost)),
        ("without an end", found.endless),
        ("charges that were admitted", found.charges),
    ):
        table.add_row(name, f"{value:,}")
    table.add_row("integrity", found.integrity)
    return table


if __name__ == "__main__":
    sys.exit(main())
