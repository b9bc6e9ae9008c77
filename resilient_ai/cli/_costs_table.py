"""The sums of the book, as a table for people and as a document for programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from resilient_ai.cli import terminal
from resilient_ai.cli._stacked import facts, stacked

if TYPE_CHECKING:
    from rich.console import RenderableType

    from resilient_ai.cli._costs_book import Question
    from resilient_ai.core.ledger import LedgerRow, LedgerTotal, SavedTotal

_BETWEEN = 2  # spaces from one column to the next


def table(
    total: "LedgerTotal", rows: "Sequence[LedgerRow]", columns: Sequence[str], *, wasted: bool, width: int
) -> "RenderableType":
    """Return a line per group and their sum; what was wasted is shown where it is asked for, or where there is any.

    Where not all of it has room in one line, names stand above their numbers.
    """
    shown = _Shown(wasted=wasted or bool(total.wasted), unknown=bool(total.unknown))
    keys = [[_key(key) for key in row.key] for row in rows]
    if width < _room_for_names(columns, keys) + _room_for_numbers([total, *rows], shown) - _BETWEEN:
        names = [*(Text(", ").join(key) for key in keys), Text("Total", "bold")]
        return stacked((name, facts(shown.of(row))) for name, row in zip(names, [*rows, total], strict=True))
    grid = Table(
        box=None,
        header_style="bold",
        pad_edge=False,
        padding=(0, _BETWEEN, 0, 0),
        show_footer=True,
        footer_style="bold",
    )
    for position, head in enumerate(columns):
        grid.add_column(head.capitalize(), "" if position else "Total", no_wrap=True)
    for name, value in shown.of(total).items():
        grid.add_column(name, value, justify="right", no_wrap=True)
    for key, row in zip(keys, rows, strict=True):
        grid.add_row(*key, *shown.of(row).values())
    return grid


def remarks(total: "LedgerTotal", saved: "SavedTotal", question: "Question", *, always: bool) -> list[tuple[str, str]]:
    """Return what is to be said below the table, each with its style."""
    said: list[tuple[str, str]] = [(question.period, "dim")] if total.sends and question.period else []
    if total.unknown:
        unknown = terminal.counted(total.unknown, "request")
        said.append((f"the cost of {unknown} is unknown and not in the sums", "yellow"))
    if saved.calls or always:
        of_unknown = (
            f", not counting {terminal.counted(saved.unknown, 'call')} of unknown cost" if saved.unknown else ""
        )
        calls = terminal.counted(saved.calls, "call")
        said.append(
            (f"the cache and shared requests saved {terminal.usd(saved.saved)} in {calls}{of_unknown}", "green")
        )
    return said


def document(
    total: "LedgerTotal", rows: "Sequence[LedgerRow]", saved: "SavedTotal", question: "Question"
) -> dict[str, Any]:
    """Return everything for programs."""
    columns = question.columns
    return {
        "since": _iso(question.since),
        "until": _iso(question.until),
        "tags": dict(question.tags),
        "by": list(columns),
        "rows": [dict(zip(columns, row.key, strict=True)) | _sums(row) for row in rows],
        "total": _sums(total),
        "saved": {"calls": saved.calls, "hits": saved.hits, "saved": saved.saved, "unknown": saved.unknown},
    }


def _room_for_names(columns: Sequence[str], keys: Sequence[Sequence[Text]]) -> int:
    names = zip(*([key.cell_len for key in row] for row in keys), strict=True)
    widths: list[int] = [max(len(head), *found) for head, found in zip(columns, names, strict=True)]
    return max(widths[0], len("Total")) + sum(widths[1:]) + len(widths) * _BETWEEN


def _room_for_numbers(rows: "Sequence[LedgerTotal]", shown: "_Shown") -> int:
    columns = zip(*(shown.of(row).items() for row in rows), strict=True)
    return sum(max(max(len(name), len(value)) for name, value in column) + _BETWEEN for column in columns)


def _key(key: str | None) -> Text:
    # Never a plain string, in which rich would read [brackets].
    return Text("(none)", style="dim") if key is None else Text(terminal.one_line(key))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """Which numbers a table has."""

    wasted: bool
    unknown: bool

    def of(self, row: "LedgerTotal") -> dict[str, str]:
        numbers = {
            "Requests": f"{row.sends:,}",
            "Tokens in": f"{row.input_tokens:,}",
            "Tokens out": f"{row.output_tokens:,}",
            "Cost": "unknown" if row.unknown and not row.cost else terminal.usd(row.cost),
        }
        if self.wasted:
            numbers["Wasted"] = terminal.usd(row.wasted)
        if self.unknown:
            numbers["Unknown"] = f"{row.unknown:,}" if row.unknown else ""
        return numbers


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def _sums(row: "LedgerTotal") -> dict[str, Any]:
    return {
        "requests": row.sends,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cost": row.cost,
        "wasted": row.wasted,
        "unknown": row.unknown,
    }
