"""How the tour is shown: one line per step, alive while it runs, with what happens on the way beneath it."""

import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from resilient_ai.cli.failures import sentence
from resilient_ai.cli.terminal import one_line, seconds
from resilient_ai.client import AsyncClient
from resilient_ai.core.errors import ResilientAIError
from resilient_ai.core.events import (
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    ModelSkipped,
    RetryScheduled,
)

_MOST_NOTES = 8
_WIDTH = 100


class UnexpectedError(Exception):
    """A step did not show what it is there to show."""


def expect(holds: bool, otherwise: str) -> None:
    """Let the step fail unless something holds.

    Raises:
        UnexpectedError: With the sentence `otherwise`.
    """
    if not holds:
        raise UnexpectedError(otherwise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a step ended."""

    title: str
    ok: bool
    fact: str
    elapsed: float


@dataclass
class Line:
    """The line of one step."""

    title: str
    fact: str = ""
    notes: list[str] = field(default_factory=list[str])
    outcome: Outcome | None = None
    _spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))
    _left_out: int = 0

    def show(self, fact: str) -> None:
        """Show what the step is doing now."""
        self.fact = one_line(fact)

    def note(self, text: str) -> None:
        """Add a line beneath the step."""
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(one_line(text))
        else:
            self._left_out += 1

    def heard(self, event: Event) -> None:
        """Add a note on an event of the client that is worth one."""
        match event:
            case RetryScheduled():
                self.note(f"{_failure(event.error)}: tried again after {seconds(event.wait)}")
            case ModelSkipped():
                self.note(f"{event.model} cannot serve: the next one is asked")
            case CircuitOpened():
                self.note(f"breaker: closed → open, for {seconds(event.retry_after)}")
            case CircuitHalfOpened():
                self.note("breaker: open → half-open, one probe goes through")
            case CircuitClosed():
                self.note("breaker: half-open → closed")
            case _:
                pass

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the line out in the width there is."""
        mark: RenderableType = self._spinner
        elapsed = ""
        if self.outcome is not None:
            mark = Text("✓", "green") if self.outcome.ok else Text("✗", "bold red")
            elapsed = seconds(self.outcome.elapsed)
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(width=17)
        grid.add_column(width=max(20, min(options.max_width, _WIDTH) - 30), overflow="fold")
        grid.add_column(width=8, justify="right", style="dim")
        notes = [Text(note, "dim") for note in self.notes]
        if self._left_out:
            notes.append(Text(f"and {self._left_out} more of these", "dim"))
        grid.add_row(mark, Text(self.title, "bold"), Group(Text(self.fact), *notes), elapsed)
        yield grid


class Stage:
    """Where steps are performed.

    Args:
        console: Where their lines appear.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    async def perform(self, ai: AsyncClient, title: str, act: Callable[[Line], Awaitable[str]]) -> Outcome:
        """Run one step; what it returns is the fact that stands on its line."""
        line = Line(title)
        unsubscribe = ai.subscribe(line.heard)
        started = time.monotonic()
        # Off a terminal nothing is overwritten: the line appears once, when it is whole.
        alive = Live(line, console=self.console, refresh_per_second=12) if self.console.is_terminal else nullcontext()
        with alive:
            try:
                line.show(await act(line))
                ok = True
            except (UnexpectedError, ResilientAIError, OSError) as error:
                line.show(f"{type(error).__name__}: {sentence(error)}")
                ok = False
            finally:
                unsubscribe()
            outcome = line.outcome = Outcome(title=title, ok=ok, fact=line.fact, elapsed=time.monotonic() - started)
        if not self.console.is_terminal:
            self.console.print(line)
        return outcome


def _failure(error: Exception) -> str:
    status = getattr(error, "status", None)
    return type(error).__name__ if status is None else f"{type(error).__name__} ({status})"
