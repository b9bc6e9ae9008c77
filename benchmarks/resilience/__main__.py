"""Measures every scenario and writes the table: `make resilience`, or `python -m benchmarks.resilience --only trickle`.

First our own scenarios on real sockets, one after the other on a machine that does nothing else; then those in virtual time and
the peers side by side. The whole page is written only where every row was measured. The exit code is 1 where one of ours
falls short.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.resilience.bench import Finding
from benchmarks.resilience.contenders import Peers, ours
from benchmarks.resilience.rows import PEERS, ROWS
from benchmarks.resilience.table import table, verdict, write

_ROOT = Path(__file__).parent.parent.parent
_PAGE = _ROOT / "docs" / "resilience.md"
_VIRTUAL = frozenset({"outage", "recovery", "capacity"})
_AT_ONCE = 3


@contextmanager
def hostile_server() -> Iterator[str]:
    """Run the server in a process of its own and give its address."""
    command = [sys.executable, "-m", "benchmarks.resilience.server"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin
    assert server.stdout
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    finally:
        server.stdin.close()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:  # it still answers somebody who hangs
            server.kill()


def measure(keys: Sequence[str], peers: Peers | None, url: str) -> tuple[dict[str, Finding], dict[str, list[str]]]:
    """Return what was found of ours, and of the peers, by row."""
    found = {key: _told(key, ours(key, url)) for key in keys if key not in _VIRTUAL}
    with ThreadPoolExecutor(_AT_ONCE) as workers:
        virtual = {key: workers.submit(ours, key, url) for key in keys if key in _VIRTUAL}
        others = {
            key: [workers.submit(peers.measure, key, peer, url) for peer in PEERS] if peers else [] for key in keys
        }
        found |= {key: _told(key, future.result()) for key, future in virtual.items()}
        return found, {key: [future.result() for future in futures] for key, futures in others.items()}


def _told(key: str, finding: Finding) -> Finding:
    print(f"{key:<16}{verdict(finding.text, holds=finding.holds)}", flush=True)
    return finding


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=[row.key for row in ROWS], help="rows to measure; nothing is written"
    )
    parser.add_argument("--no-peers", action="store_true", help="measure ours alone; nothing is written")
    parser.add_argument("--peers", type=Path, default=_ROOT / ".venv-peers", help="the environment of the peers")
    options = parser.parse_args()
    keys: list[str] = options.only or [row.key for row in ROWS]
    peers = None if options.no_peers else Peers(options.peers)
    with hostile_server() as url:
        found, others = measure(keys, peers, url)
    columns = ["resilient_ai", *([peers.heading(peer) for peer in PEERS] if peers else [])]
    cells = {key: [verdict(found[key].text, holds=found[key].holds), *others[key]] for key in keys}
    content = table(columns, cells)
    print(f"\n{content}")
    if peers and not options.only:
        write(_PAGE, content)
    return 0 if all(finding.holds for finding in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
