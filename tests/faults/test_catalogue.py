"""The table of faults tells the truth about the tests."""

import ast
import functools
import re
from pathlib import Path

FOLDER = Path(__file__).parent
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


@functools.cache
def names_in(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_of_the_table_exists():
    """Each fault is held by a test that is there."""
    named = NAMED.findall((FOLDER / "README.md").read_text(encoding="utf-8"))
    missing = [f"{path}::{name}" for path, name in named if name not in names_in(FOLDER.parent / path)]

    assert len(named) > 100
    assert missing == []


def test_every_test_of_this_folder_is_in_the_table():
    """Whoever adds a fault names it."""
    named = set(NAMED.findall((FOLDER / "README.md").read_text(encoding="utf-8")))
    here = {(f"faults/{path.name}", name) for path in FOLDER.glob("test_*_faults.py") for name in names_in(path)}

    assert here - named == set()
