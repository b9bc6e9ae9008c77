"""What a terminal shows while a file is embedded."""

from collections.abc import Generator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from typing_extensions import override

from resilient_ai.cli import terminal
from resilient_ai.cli._embed_job import Totals

_PERIOD = 60.0  # seconds over which the rate is taken, since texts come in batches


class Facts(ProgressColumn):
    """How many texts of all, how many in a second, and what they cost."""

    @override
    def render(self, task: Task) -> Text:
        facts = [] if task.total is None else [f"{task.completed:,.0f}/{task.total:,.0f}"]
        facts += [f"{task.speed:,.0f} texts/s"] if task.speed else []
        facts += [task.fields["paid"]] if task.fields["paid"] else []
        return Text(" · ".join(facts))


class Bar:
    """A bar for one phase after the other; see `Watch`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = self._begin("starting", None, 0)

    def phase(self, name: str, total: int | None = None, done: int = 0) -> None:
        """Begin something of `total` texts, `done` of which are there already."""
        self._progress.remove_task(self._task)
        self._task = self._begin(name, total, done)

    def at(self, done: int) -> None:
        """Show that `done` texts of this phase are done."""
        self._progress.update(self._task, completed=done)

    def paid(self, totals: Totals) -> None:
        """Show what was paid in this run."""
        self._progress.update(self._task, paid=money(totals))

    def say(self, text: str, style: str) -> None:
        """Write one line for people, above the bar."""
        self._progress.console.print(Text(text, style=style), soft_wrap=True)

    def _begin(self, name: str, total: int | None, done: int) -> TaskID:
        return self._progress.add_task(name, total=total, completed=done, paid="")


@contextmanager
def bar() -> Generator[Bar]:
    """Show a bar on standard error where that is a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), Facts(), TimeRemainingColumn())
    screen = terminal.err()
    with Progress(
        *columns, console=screen, transient=True, disable=not screen.is_terminal, speed_estimate_period=_PERIOD
    ) as progress:
        yield Bar(progress)


def money(totals: Totals) -> str:
    """Return a cost as people read it.

    >>> from decimal import Decimal
    >>> money(Totals(cost=Decimal("0.5"))), money(Totals(cost=Decimal("0.5"), complete=False)), money(Totals(complete=False))
    ('$0.50', 'at least $0.50', 'unknown')
    """
    known = terminal.usd(totals.known_cost)
    return known if totals.complete or totals.known_cost is None else f"at least {known}"
