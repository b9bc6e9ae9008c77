"""`resilient-ai budgets`: what is spent of each budget, and what is left."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from resilient_ai.cli import terminal
from resilient_ai.cli._budget_states import states_of
from resilient_ai.cli._stacked import NARROWEST_NAME, facts, longest_word, stacked
from resilient_ai.cli.options import Json, filters_of, meant_by

if TYPE_CHECKING:
    from rich.console import RenderableType

    from resilient_ai.core.health import BudgetState
    from resilient_ai.inspection import Survey

_WIDE = 110  # columns of a terminal in which everything of a budget has one line
_BETWEEN = 2  # spaces from one column to the next
_BAR = 10
_MOST = 20  # lines of one budget for each value of a tag
_NEARLY = Decimal("0.8")
_HINT = """no budget is set. In the file that RESILIENT_AI_CONFIG names:

  [[budgets]]
  limit = "25 USD"
  per = "day"
  scope = { tenant = "acme" }

or RESILIENT_AI_BUDGETS='[{"limit": "25 USD", "per": "day"}]'

Budgets that a program gives to its client itself are not seen here; its ai.budgets() shows them."""


def budgets(
    *,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            metavar="NAME=VALUE",
            help="Only budgets against which a call with this tag and no other counts, such as tenant=acme. May be repeated.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show the budgets of the settings: what is spent of each, what is left, and until when.

    What is reserved for requests under way counts as spent. Windows are in UTC. Of a budget for each value of a tag those are
    shown with which something was sent in its window. Budgets that a program gives to its client itself are not seen.
    """
    from resilient_ai.settings import Settings  # noqa: PLC0415 - slow to import

    settings = Settings()
    tags = filters_of(tag)
    with terminal.err().status("counting"):
        found = asyncio.run(states_of(settings, tags, most=None if json else _MOST))
    if json:
        terminal.write_json([_document(state) for state in found.states])
        return
    if found.states:
        screen = terminal.out()
        screen.print(_table(found.states, width=screen.width))
    elif not settings.budgets:
        terminal.say(_HINT, "dim")
    elif not found.unlisted:
        none = f"no budget counts such calls{meant_by(tags)}"
        terminal.say(none if tags else "no call has counted against a budget yet", "dim")
    for text in _remarks(found):
        terminal.say(text, "dim")


def _remarks(found: "Survey") -> Iterator[str]:
    if found.hidden:
        yield f"and {found.hidden:,} more, of which less is spent; --tag shows one, --json all of them"
    for budget, missing in found.unlisted:
        names = " ".join(f"--tag {name}=..." for name in missing)
        yield f"{budget.title}: there is one for each {' and '.join(missing)}; {names} shows it"


def _table(states: "Sequence[BudgetState]", *, width: int) -> "RenderableType":
    word = max(NARROWEST_NAME, longest_word(_name(state).plain for state in states))
    wide = width >= max(_WIDE, word + _room(states, wide=True))
    if not wide and width < word + _room(states, wide=False):
        return stacked((_name(state), _below(state)) for state in states)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _BETWEEN, 0, 0))
    table.add_column("Budget", overflow="fold")
    for head in ("Spent", "Limit", "Left") if wide else ("Spent", "Left"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("Used", no_wrap=True)
    if wide:
        table.add_column("Until", no_wrap=True)
        table.add_column("", no_wrap=True)
    for state in states:
        used, colour, name = _share(state), _colour(state), _name(state)
        amounts = _amounts(state)
        if wide:
            bar = Text("█" * min(_BAR, int(used * _BAR)), colour).append("░" * max(0, _BAR - int(used * _BAR)), "dim")
            table.add_row(name, *amounts, bar.append(f" {_percent(used)}", colour), _until(state), _kind(state))
        else:
            name.append(f"\n{_note(state)}", "dim")
            table.add_row(name, amounts[0], amounts[2], Text(_percent(used), colour))
    return table


def _below(state: "BudgetState") -> Text:
    spent, _, left = _amounts(state)
    numbers = facts({"Spent": spent, "Left": left, "Used": _percent(_share(state))})
    numbers.stylize(_colour(state))
    return numbers.append(f"\n{_note(state)}", "dim")


def _room(states: "Sequence[BudgetState]", *, wide: bool) -> int:
    """Return the columns of a terminal that everything beside the names takes."""
    spent, limits, left = zip(*map(_amounts, states), strict=True)
    columns = [("Spent", *spent), ("Left", *left), ("Used", *(_percent(_share(one)) for one in states))]
    if wide:
        columns += [("Limit", *limits), ("Until", *map(_until, states)), tuple(map(_kind, states))]
    return sum(max(map(len, column)) + _BETWEEN for column in columns) + (_BAR + 1 if wide else 0)


def _name(state: "BudgetState") -> Text:
    return Text(terminal.one_line(state.key[1])).append(f" {terminal.one_line(state.key[2])}".rstrip(), "cyan")


def _amounts(state: "BudgetState") -> tuple[str, str, str]:
    # Nobody shall count on what is not left, nor believe that nothing was spent.
    return terminal.usd(state.spent), terminal.usd(state.limit), terminal.usd(state.left, down=True)


def _note(state: "BudgetState") -> str:
    until = _until(state)
    end = f"until {until}" if until and not state.rolling else until
    return ", ".join(part for part in (f"of {terminal.usd(state.limit)}", _kind(state), end) if part)


def _kind(state: "BudgetState") -> str:
    return "hard" if state.hard else "soft"


def _colour(state: "BudgetState") -> str:
    used = _share(state)
    return "red" if used >= 1 else "yellow" if used >= _NEARLY else "green"


def _share(state: "BudgetState") -> Decimal:
    return state.spent / state.limit


def _percent(share: Decimal) -> str:
    """Return a share as people read it: what is not all used, or not unused, never looks as if it were.

    >>> _percent(Decimal("0.9999")), _percent(Decimal("0.0001")), _percent(Decimal(0)), _percent(Decimal(12))
    ('99 %', '<1 %', '0 %', '1,200 %')
    """
    if 0 < share < Decimal("0.01"):
        return "<1 %"
    if share < 1:
        share = min(share, Decimal("0.99"))
    return f"{share * 100:,.0f} %"


def _until(state: "BudgetState") -> str:
    if state.until is None:
        return "rolling" if state.rolling else ""
    there, here = datetime.fromtimestamp(state.until, UTC), datetime.fromtimestamp(state.until).astimezone()
    local = "" if here.utcoffset() == there.utcoffset() else f" ({here:%H:%M} here)"
    return f"{there:%Y-%m-%d %H:%M} UTC{local}"


def _document(state: "BudgetState") -> dict[str, Any]:
    return {
        "name": state.key[1],
        "scope": state.key[2],
        "spent": state.spent,
        "limit": state.limit,
        "left": state.left,
        "hard": state.hard,
        "rolling": state.rolling,
        "until": None if state.until is None else datetime.fromtimestamp(state.until, UTC).isoformat(),
    }
