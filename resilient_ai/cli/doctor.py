"""`resilient-ai doctor`: is everything there that a call needs?"""

from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from resilient_ai.cli import terminal
from resilient_ai.cli.failures import FAILED
from resilient_ai.cli.options import BaseUrl, Json

if TYPE_CHECKING:
    from resilient_ai.cli.checkup import Findings

_MARKS = {"good": "[green]✓[/green]", "doubtful": "[yellow]![/yellow]", "wrong": "[red]✗[/red]"}


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
    table = Table.grid(padding=(0, 2, 0, 0))
    for check in findings.checks:
        table.add_row(_MARKS[check.status], f"[bold]{check.name}[/bold]", escape(check.detail))
    screen.print(table)
    if findings.stack is not None:
        layers = Table("Stack", "Settings", box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for layer in findings.stack:
            layers.add_row(layer.name, f"[dim]{escape(layer.settings)}[/dim]")
        screen.print()
        screen.print(layers)
    screen.print()
    if findings.all_well:
        screen.print("[green]everything is in order[/green]")
    else:
        screen.print("[red]something is wrong: see the lines marked ✗[/red]")
