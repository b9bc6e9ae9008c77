import io

import pytest
from rich.console import Console

from resilient_ai.cli.demo.stage import Line, Stage, UnexpectedError, expect
from resilient_ai.client import AsyncClient
from resilient_ai.core.errors import AttemptTimeout, Overloaded
from resilient_ai.core.events import BatchDone, ModelSkipped, RetryScheduled

pytestmark = pytest.mark.anyio


def shown(line):
    console = Console(file=io.StringIO(), width=100)
    console.print(line)
    return console.file.getvalue()


def stage(*, terminal):
    console = Console(file=io.StringIO(), width=100, force_terminal=terminal, no_color=True)
    return Stage(console), console.file


@pytest.mark.parametrize("terminal", [True, False])
async def test_step_ends_with_its_fact(terminal):
    """A step that went well has a tick, its fact and its notes, on a terminal and off it."""
    set_up, output = stage(terminal=terminal)

    async def act(line):
        line.show("under way")
        line.note("something happened")
        return "it worked"

    outcome = await set_up.perform(AsyncClient(api_key="k", stack=[]), "Step", act)
    assert (outcome.ok, outcome.fact) == (True, "it worked")
    assert all(text in output.getvalue() for text in ("✓", "Step", "it worked", "something happened"))


@pytest.mark.parametrize("error", [UnexpectedError("no"), Overloaded("no", status=503), OSError("no")])
async def test_step_that_fails_is_marked(error):
    """A failure is the fact of its step, and the tour goes on."""
    set_up, output = stage(terminal=False)

    async def act(_):
        raise error

    outcome = await set_up.perform(AsyncClient(api_key="k", stack=[]), "Step", act)
    assert (outcome.ok, outcome.fact) == (False, f"{type(error).__name__}: no")
    assert "✗" in output.getvalue()


async def test_fault_of_the_tour_is_raised():
    """An error nobody foresaw is not shown as a failing step."""
    set_up, _ = stage(terminal=False)

    async def act(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await set_up.perform(AsyncClient(api_key="k", stack=[]), "Step", act)


def test_events_become_notes():
    """What a reader would want to know is noted, the rest is not."""
    line = Line("Step")
    common = {"call_id": "c", "model": "m"}
    timeout = AttemptTimeout(timer="attempt", elapsed=1.0)
    line.heard(RetryScheduled(**common, attempt=1, wait=0.25, error=Overloaded("x", status=503), retry_after=None))
    line.heard(RetryScheduled(**common, attempt=1, wait=2.0, error=timeout, retry_after=None))
    line.heard(ModelSkipped(**common, next_model="n", error=timeout))
    line.heard(BatchDone(**common, done=1, total=2))
    assert line.notes == [
        "Overloaded (503): tried again after 250 ms",
        "AttemptTimeout: tried again after 2.0 s",
        "m cannot serve: the next one is asked",
    ]


def test_too_many_notes_are_counted():
    """A step cannot flood the screen."""
    line = Line("Step")
    for number in range(11):
        line.note(f"note {number}")
    assert "note 7" in shown(line)
    assert "note 8" not in shown(line)
    assert "and 3 more of these" in shown(line)


def test_expect_raises_only_what_does_not_hold():
    """An expectation that holds says nothing."""
    expect(True, "never said")
    with pytest.raises(UnexpectedError, match="because"):
        expect(False, "because")
