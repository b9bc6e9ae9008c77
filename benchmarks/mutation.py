"""How many changes to the state machines, the classifier of errors and the reader of events the tests notice.

mutmut changes a copy of the tree, one place at a time: a `<` into a `<=`, a 1 into a 2, an `and` into an `or`. A change that
some test notices is killed; so is one that makes the tests run for ever or brings their process down. Which files are changed,
and which tests are asked, stands in `[tool.mutmut]` of pyproject.toml. The shares go into docs/resilience.md; the survivors are
printed, to be looked at with `mutmut show` in the folder that `--keep` leaves behind.

`make mutation`, or `python -m benchmarks.mutation --children 4 --keep /tmp/mutation`.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "resilience.md"
BEGIN, END = "<!-- mutation: begin -->", "<!-- mutation: end -->"
NEEDED = ("resilient_ai", "tests", "docs", "pyproject.toml", "README.md")
GOAL = 0.9
KILLED = frozenset({"killed", "timeout", "segfault"})
ALIVE = frozenset({"survived", "no tests"})

Counts = dict[str, tuple[int, int]]


def run(folder: Path, children: int) -> dict[str, str]:
    """Return what became of every mutant, by its name; mutmut works in `folder`, in a copy of the tree."""
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    mutmut = [sys.executable, "-m", "mutmut"]
    subprocess.run([*mutmut, "run", "--max-children", str(children)], cwd=folder, check=True)
    listed = subprocess.run(
        [*mutmut, "results", "--all", "true"], cwd=folder, check=True, capture_output=True, text=True
    )
    return read(listed.stdout.splitlines())


def read(lines: Iterable[str]) -> dict[str, str]:
    """Return the fate of each mutant, from lines such as `package.module.x_function__mutmut_1: killed`."""
    return dict(line.strip().split(": ", 1) for line in lines if ": " in line)


def counted(fates: Mapping[str, str]) -> Counts:
    """Return how many mutants each file has and how many of them were killed.

    Raises:
        ValueError: If the fate of a mutant is not known, as after a run that was stopped.

    >>> counted({"a.b.x_f__mutmut_1": "killed", "a.b.x_f__mutmut_2": "survived"})
    {'a/b.py': (2, 1)}
    """
    counts: Counts = {}
    for name, fate in sorted(fates.items()):
        if fate not in KILLED | ALIVE:
            raise ValueError(f"{name} is neither dead nor alive: {fate}")
        file = name.rpartition(".")[0].replace(".", "/") + ".py"
        mutants, killed = counts.get(file, (0, 0))
        counts[file] = mutants + 1, killed + (fate in KILLED)
    return counts


def summed(counts: Counts) -> tuple[int, int]:
    """Return how many mutants there are, and how many were killed."""
    return sum(mutants for mutants, _ in counts.values()), sum(killed for _, killed in counts.values())


def table(counts: Counts) -> str:
    """Return the table: a line for each file, and one for all."""
    rows = [(f"`{file.removeprefix('resilient_ai/')}`", *numbers) for file, numbers in counts.items()]
    lines = [f"| {name} | {mutants:,} | {killed:,} | {killed / mutants:.1%} |" for name, mutants, killed in rows]
    mutants, killed = summed(counts)
    head = ["| file | mutants | killed | share |", "| --- | --: | --: | --: |"]
    return "\n".join([*head, *lines, f"| all | {mutants:,} | {killed:,} | {killed / mutants:.1%} |"])


def placed(page: str, content: str) -> str:
    """Return a page with `content` between its two markers.

    Raises:
        ValueError: If the page has not both markers, in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main() -> None:
    """Run mutmut, print the table and put it into the page; exit with 1 where too many survive."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--children", type=int, default=2, help="mutants that are tried at once")
    options.add_argument("--keep", type=Path, help="an empty folder to work in, kept afterwards")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        fates = run(folder, chosen.children)
    counts = counted(fates)
    print("\n".join(f"{name}: {fate}" for name, fate in sorted(fates.items()) if fate in ALIVE))
    print(table(counts))
    PAGE.write_text(placed(PAGE.read_text(), table(counts)))
    mutants, killed = summed(counts)
    if killed < GOAL * mutants:
        sys.exit(f"fewer than {GOAL:.0%} were noticed")


if __name__ == "__main__":
    main()
