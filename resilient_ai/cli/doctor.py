"""`resilient-ai doctor`: is everything there that a call needs?"""

from typing import TYPE_CHECKING

import typer
from rich.table import Column, Table
from rich.text import Text

from resilient_ai.cli import terminal
from resilient_ai.cli._stacked import stacked
from resilient_ai.cli.failures import FAILED
from resilient_ai.cli.options import BaseUrl, Json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from resilient_ai.cli.checkup import Check, Findings
    from resilient_ai.core.pipeline import Description

_MARKS = {"good": ("✓", "green"), "doubtful": ("!", "yellow"), "wrong": ("✗", "red")}
_NARROW = 60  # columns of a terminal, below which details stand below their names


def doctor(base_url: BaseUrl = None, json: Json = False) -> None:
    """Look at key, settings, folders, server and clock, and at the servers of costs, budgets and limits.

    Shows the stack that calls go through, but never the key. Nothing is sent that costs anything. The exit code is 1 if
    something is wrong.
    """
    from resilient_ai.cli.checkup import examine  # noqa: PLC0415 - half a second that other commands need not wait for

    findings = examine(base_url)
    if json:
        checks = [{"name": check.name, "status": check.status, "detail": check.detail} for check in findings.checks]
        stack = [{"name": layer.name, "settings": layer.settings} for layer in findings.stack or ()]
        terminal.write_json({"ok": findings.all_well, "checks": checks, "stack": stack})
    else:
        _show(findings)
    if not findings.all_well:
        raise typer.Exit(FAILED)


def _show(findings: "Findings") -> None:
    screen = terminal.out()
    narrow = screen.width < _NARROW
    screen.print(_checks(findings.checks, narrow=narrow))
    if findings.stack is not None:
        screen.print()
        screen.print(_layers(findings.stack, narrow=narrow))
    screen.print()
    if findings.all_well:
        screen.print("[green]everything is in order[/green]")
    else:
        screen.print("[red]something is wrong: see the lines marked ✗[/red]")


def _checks(checks: "Iterable[Check]", *, narrow: bool) -> "RenderableType":
    if narrow:
        return stacked(
            (Text.assemble(_MARKS[check.status], " ", (check.name, "bold")), Text(check.detail)) for check in checks
        )
    table = Table.grid("", "", Column(overflow="fold"), padding=(0, 2, 0, 0))
    for check in checks:
        table.add_row(Text(*_MARKS[check.status]), Text(check.name, "bold"), Text(check.detail))
    return table


def _layers(stack: "Description", *, narrow: bool) -> "RenderableType":
    if narrow:
        return stacked((Text(layer.name, "bold"), Text(layer.settings, "dim")) for layer in stack)
    settings = Column("Settings", overflow="fold")
    layers = Table("Stack", settings, box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for layer in stack:
        layers.add_row(Text(layer.name), Text(layer.settings, "dim"))
    return layers
