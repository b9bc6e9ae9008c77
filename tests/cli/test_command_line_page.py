"""The page about the command line says what there is: each of its commands runs, and each command is on it."""

import re
import shlex
from pathlib import Path

import pytest

from resilient_ai.cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
BUDGETS = '[{"limit": "25 USD", "per": "day"}]'


def lines(marks):
    """Return the commands in the blocks whose first line ends with these marks."""
    blocks = re.findall(rf"^```sh{marks}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def test_the_commands_of_the_page_run_in_order(shell):
    """They do what the page says, one after the other in one folder, and its files are there afterwards."""
    pytest.importorskip("matplotlib")
    shell.env |= {"RESILIENT_AI_BUDGETS": BUDGETS}
    shown = {}
    for args in lines(""):
        result = shell.run(*args)
        assert (result.exit_code, args) == (0, args), result.output
        shown[args[0]] = result.stdout
    for name in ("lighthouse.jpg", "costs.csv", "costs.png", "entries.gz"):
        assert (shell.folder / name).stat().st_size > 0
    assert "25 USD per day" in shown["budgets"]
    assert "everything is in order" in shown["doctor"]


def test_every_command_is_on_the_page():
    """A new command is told of."""
    names = {command.callback.__name__ for command in app.registered_commands} | {"cache"}
    assert {args[0] for args in [*lines(""), *lines(" no-run")]} == names
