"""Vectors of a few texts, on standard output: a preview for people, JSON lines for programs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from resilient_ai.cli import terminal
from resilient_ai.cli._lines import Line
from resilient_ai.cli._vector_files import jsonl

if TYPE_CHECKING:
    from resilient_ai.core.results import EmbedResult

_SHOWN = 20


def show(lines: Sequence[Line], result: "EmbedResult") -> None:
    """Write what standard output is for."""
    if not terminal.out().is_terminal:
        for row, line in enumerate(lines):
            terminal.write(jsonl(line, result.vectors[row]).decode())
        return
    table = Table("Text", "Vector", box=None, header_style="bold", pad_edge=False)
    for row, line in enumerate(lines[:_SHOWN]):
        numbers = " ".join(f"{number:+.3f}" for number in result.vectors[row][:5])
        table.add_row(terminal.one_line(line.text, 50), f"[dim]{numbers} …[/dim]")
    terminal.out().print(table)
    if len(lines) > _SHOWN:
        terminal.say(f"… and {len(lines) - _SHOWN} more; --output keeps them all", "dim")
