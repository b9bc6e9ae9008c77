"""`resilient-ai boards`: a dashboard for Grafana and alert rules for Prometheus, written into a folder."""

from pathlib import Path
from typing import Annotated

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli.failures import WrongUseError

_NEXT = """next:
  1. Set the thresholds in alerts.yaml that are marked YOURS to what your service promises.
  2. Prometheus: name {folder}/alerts.yaml under `rule_files:` in prometheus.yml, and reload it.
  3. Grafana: import {folder}/dashboard.json (Dashboards, New, Import), or do as provisioning.yaml says.{runbook}"""
_RUNBOOK = """
  4. Alerts and panels lead to docs/runbook.md of the project. Put a copy where your people read, and name it with --runbook."""


def boards(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where they go; it is made if it is missing.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    runbook: Annotated[
        str | None,
        typer.Option(
            "--runbook", metavar="URL", help="Where your copy of docs/runbook.md is read.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a Grafana dashboard, Prometheus alert rules, and the file that provisions the dashboard.

    They show what `Metrics` reports; see docs/observability.md.
    """
    from resilient_ai.observability.boards import NAMES, RUNBOOK, text_of  # noqa: PLC0415 - slow to import

    try:
        texts = {folder / name: text_of(name, RUNBOOK if runbook is None else runbook) for name in NAMES}
    except ValueError as error:
        raise WrongUseError(f"--{error}") from None
    there = [path for path in texts if path.exists()]
    if there and not force:
        raise WrongUseError(f"{', '.join(map(str, there))}: there already; --force overwrites what was changed in it")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
        terminal.say(f"wrote {path}", "dim")
    terminal.say(_NEXT.format(folder=folder, runbook=_RUNBOOK if runbook is None else ""))
