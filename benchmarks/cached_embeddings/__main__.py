"""Measures how quickly known embeddings are read again: `make bench-cache`, or `python -m benchmarks.cached_embeddings`.

Every contender lives in a process of its own, fills its cache with the same texts and vectors, and is then asked in turn to read
all of them in one go, round after round, so that a noisy machine is noisy for all. What comes back is compared with what was put
in. The exit code is 1 where an aim was missed or one of ours failed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.cached_embeddings.case import Case
from benchmarks.cached_embeddings.contenders import CONTENDERS
from benchmarks.cached_embeddings.crew import ROOT, Member
from benchmarks.cached_embeddings.meter import Reading
from benchmarks.cached_embeddings.private_redis import private_redis
from benchmarks.cached_embeddings.report import Outcome, as_json, table, troubles, verdicts

_ENOUGH = 30.0  # seconds after which a slow contender is left out of further rounds
_WIDTH = 130


def write_vectors(path: Path, count: int, dimensions: int) -> None:
    """Write numbers between -1 and 1 that four bytes hold exactly."""
    chance = np.random.default_rng(7)
    (chance.random((count, dimensions), dtype=np.float32) * 2 - 1).tofile(path)


def measure(members: dict[str, Member], count: int, rounds: int, say: Console) -> dict[str, Outcome]:
    """Fill all, read once to warm up, then read in turn."""
    readings: dict[str, list[Reading]] = {key: [] for key in members}
    for key, member in members.items():
        member.ask("fill")
        member.ask("read")
        say.print(f"{key:<18}{member.trouble or 'filled'}", highlight=False)
    for _ in range(rounds):
        for key, member in members.items():
            tired = sum(reading.seconds for reading in readings[key]) > _ENOUGH
            if not tired and (told := member.ask("read")):
                readings[key].append(Reading(**told))
    return {key: Outcome(count, readings[key], member.trouble) for key, member in members.items()}


def profile(member: Member, rounds: int) -> int:
    """Print where the time of one contender goes."""
    member.ask("fill")
    told = member.ask(f"profile {rounds}")
    print(told.get("profile", member.trouble))
    return 0 if told else 1


def versions(peers: Path | None) -> dict[str, str]:
    """Return the versions of the peers that are there."""
    python = peers / "bin" / "python" if peers else None
    if python is None or not python.exists():
        return {}
    ask = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, str] = json.loads(done.stdout)
    return {name: version for name, version in found.items() if name in {c.package for c in CONTENDERS.values()}}


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="reads of each contender that count")
    parser.add_argument("--count", type=int, default=10_000, help="texts")
    parser.add_argument("--dimensions", type=int, default=1024, help="numbers per vector")
    parser.add_argument(
        "--width", type=int, default=4, choices=(4, 8), help="bytes per number that our service answers"
    )
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="CONTENDER")
    parser.add_argument("--no-peers", action="store_true", help="leave LangChain and LiteLLM out")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-cache-peers", help="the environment of the peers")
    parser.add_argument("--profile", choices=CONTENDERS, metavar="CONTENDER", help="print where its time goes, no more")
    parser.add_argument("--json", type=Path, help="write everything to this file as well")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    given = options(arguments)
    peers = None if given.no_peers else given.peers.absolute()
    say = Console()
    say = Console(width=max(_WIDTH, say.width), soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="cached-embeddings-") as name, private_redis(Path(name)) as port:
        folder = Path(name)
        write_vectors(folder / "vectors", given.count, given.dimensions)
        members: dict[str, Member] = {}
        try:
            for key in [given.profile] if given.profile else given.only:
                case = Case(folder / "vectors", given.count, given.dimensions, folder / key, given.width, port)
                members[key] = Member(key, case, peers)
            if given.profile:
                return profile(members[given.profile], given.rounds)
            outcomes = measure(members, given.count, given.rounds, say)
        finally:
            for member in members.values():
                member.end()
    found = versions(peers)
    told = verdicts(outcomes)
    named = {"Python": sys.version.split()[0], **found}
    say.print(
        f"\n{given.count:,} texts of {given.dimensions:,} dimensions, {given.rounds} interleaved rounds, ", end=""
    )
    say.print(", ".join(f"{name} {version}" for name, version in named.items()), highlight=False)
    say.print(table(outcomes))
    for line in (*troubles(outcomes), *(verdict.line for verdict in told)):
        say.print(line, highlight=False, markup=False)
    if given.json:
        given.json.write_text(json.dumps(as_json(outcomes, found), indent=1) + "\n")
    failed = any(outcome.trouble.startswith("failed") for key, outcome in outcomes.items() if key.startswith("ours"))
    return 1 if failed or any(verdict.holds is False for verdict in told) else 0


if __name__ == "__main__":
    sys.exit(main())
