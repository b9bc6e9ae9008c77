"""The table, and its place in a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.resilience.rows import ROWS

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_EMPTY_PAGE = f"# Resilience\n\n{BEGIN}\n{END}\n"


def verdict(text: str, *, holds: bool) -> str:
    """Return a cell of ours, which says whether the aim was reached.

    >>> verdict("1 probe", holds=True)
    '1 probe: holds'
    """
    return f"{text}: {'holds' if holds else 'FALLS SHORT'}"


def table(columns: Sequence[str], cells: Mapping[str, Sequence[str]]) -> str:
    """Return the table, a line per row that was measured.

    Args:
        columns: The heading of each contender.
        cells: What was measured of each contender, by the key of the row.
    """
    lines = [("what happens", "aim", *columns), ("---",) * (len(columns) + 2)]
    lines += [(row.title, row.goal, *cells[row.key]) for row in ROWS if row.key in cells]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def placed(page: str, content: str) -> str:
    """Return a page with `content` between its two markers.

    Raises:
        ValueError: If the page has not both markers, in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def write(path: Path, content: str) -> None:
    """Put `content` into the page, which is made if there is none."""
    page = path.read_text(encoding="utf-8") if path.exists() else _EMPTY_PAGE
    path.write_text(placed(page, content), encoding="utf-8")
