"""Kills processes at random moments while they share a cache: `make kills`, or `python -m benchmarks.cache_kills --kills 50`.

The exit code is 1 where anything is wrong, damaged, lost, failed, sent again without a reason, or waited for too long.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.cache_kills.clients import Place
from benchmarks.cache_kills.kills import Findings, kill_at_random
from benchmarks.cached_embeddings.private_redis import private_redis
from resilient_ai.simulator import Fault, serve

COLUMNS = (
    "kills",
    "calls",
    "failed",
    "wrong values",
    "damaged",
    "lost",
    "sent again",
    "without a kill",
    "in lists that overlap",
    "worst wait",
)
_LATENCY = 0.03


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="processes to kill on each store")
    parser.add_argument("--seed", type=int, default=1, help="of the moments, the victims, and what is asked")
    options = parser.parse_args()
    table = Table(*("store", *COLUMNS), title=f"{options.kills} kills on each store, seed {options.seed}")
    for column in table.columns[1:]:
        column.justify = "right"
    troubles: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, place, clients in _places(Path(folder)):
            with serve() as simulator:
                simulator.faults.rate(Fault.delay(_LATENCY), 1.0)
                url = simulator.base_url
                found = kill_at_random(place, url, kills=options.kills, seed=options.seed, clients=clients)
            table.add_row(name, *_cells(found))
            troubles += [f"{name}: {trouble}" for trouble in found.troubles()]
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for trouble in troubles[:20]:
        console.print(trouble)
    return 1 if troubles else 0


def _places(folder: Path) -> Iterator[tuple[str, Place, int]]:
    yield "disk", {"directory": str(folder / "one")}, 1
    yield "disk, two clients a process", {"directory": str(folder / "two")}, 2
    with private_redis(folder) as port:
        if port is None:
            print("skipped: there is no redis-server")
            return
        yield "Redis", {"redis": f"redis://127.0.0.1:{port}/0"}, 1


def _cells(found: Findings) -> list[str]:
    whole = (
        found.kills,
        found.calls,
        len(found.failed),
        len(found.wrong),
        found.corrupt,
        len(found.lost),
        found.repeated - found.overlapping,
        len(found.unexcused),
        found.overlapping,
    )
    return [*(f"{number:,}" for number in whole), f"{found.wait:.2f} s"]


if __name__ == "__main__":
    sys.exit(main())
