"""The table of the resilience benchmark: what is measured, how it is shown, and where it is put."""

import ast
from pathlib import Path

import pytest

from benchmarks.resilience.ours import REAL, VIRTUAL
from benchmarks.resilience.rows import PEERS, ROWS
from benchmarks.resilience.table import BEGIN, END, placed, table, verdict, write

FOLDER = Path(__file__).parent.parent.parent / "benchmarks" / "resilience"


def keys_of(path):
    """Return the names in `SCENARIOS` of a module that only the environment of the peers can import."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "SCENARIOS":
            return {key.value for key in node.value.keys}
    return set()


def test_every_row_has_a_scenario_of_ours():
    """A row without a scenario would end the whole measurement in its middle."""
    assert sorted([*REAL, *VIRTUAL]) == sorted(row.key for row in ROWS)


@pytest.mark.parametrize("peer", PEERS)
def test_every_row_has_a_word_on_each_peer(peer):
    """A peer either runs a scenario or says in words why not."""
    assert keys_of(FOLDER / f"peer_{peer.replace('-', '_')}.py") == {row.key for row in ROWS}


def test_a_cell_of_ours_says_whether_the_aim_was_reached():
    """The verdict stands at the end of the cell, where it is looked for."""
    assert verdict("2 probes", holds=False) == "2 probes: FALLS SHORT"
    assert verdict("1 probe", holds=True) == "1 probe: holds"


def test_a_table_has_a_line_for_each_row_that_was_measured():
    """Rows stand in their own order, and a bar inside of a cell does not break the line."""
    lines = table(["ours", "theirs"], {"cancels": ["a|b", "c"], "trickle": ["d", "e"]}).splitlines()

    assert lines[0] == "| what happens | aim | ours | theirs |"
    assert lines[1] == "| --- | --- | --- | --- |"
    assert [line.split(" | ")[2:] for line in lines[2:]] == [["d", "e |"], ["a/b", "c |"]]


def test_only_what_stands_between_the_markers_changes():
    """The prose around the table is written by hand."""
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"

    assert placed(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["", BEGIN, f"{END}\n{BEGIN}"])
def test_a_page_without_its_markers_is_left_alone(page):
    """A page that lost a marker is an error, not a page that lost its text."""
    with pytest.raises(ValueError, match="needs the lines"):
        placed(page, "new")


def test_a_page_is_made_where_there_is_none(tmp_path):
    """The next run finds its markers in it."""
    path = tmp_path / "page.md"

    write(path, "first")
    write(path, "second")

    assert path.read_text() == f"# Resilience\n\n{BEGIN}\nsecond\n{END}\n"
