"""`resilient-ai costs`: what was spent, from the book of costs."""

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli._costs_book import Question, merged, moment, opened, period_of
from resilient_ai.cli._costs_files import Files
from resilient_ai.cli._costs_over_time import over_time
from resilient_ai.cli._costs_picture import NARROWEST, can_draw, can_show, most_steps, picture
from resilient_ai.cli._costs_table import document, remarks, table
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.options import Json, filters_of, meant_by, one_of

if TYPE_CHECKING:
    from resilient_ai.cli._costs_over_time import OverTime
    from resilient_ai.core.ledger import Column, LedgerRow, LedgerTotal, SavedTotal

_COLUMNS = ("model", "kind", "day", "tenant", "user", "feature", "environment", "state")


def costs(
    *,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", "-b", help=f"{', '.join(_COLUMNS[:-1])} or state. May be repeated. \\[default: model]"),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="7d|24h|DATE", help="A period until now, or a date in UTC.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="DATE|1d", help="Only what was sent before that moment.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            metavar="NAME=VALUE",
            help="Only what was sent with it, such as tenant=acme; model and kind count as tags. May be repeated.",
        ),
    ] = None,
    wasted: Annotated[
        bool,
        typer.Option("--wasted", help="Sort by, and draw, what was spent on answers nobody got."),
    ] = False,
    saved: Annotated[
        bool, typer.Option("--saved", help="Say what the cache has saved, even if that is nothing.")
    ] = False,
    plot: Annotated[
        bool | None,
        typer.Option(
            "--plot/--no-plot",
            help="Draw spend over time. \\[default: in a terminal that is wide enough]",
            show_default=False,
        ),
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="Draw spend over time into a PNG file.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write every request into a .csv or .parquet file."),
    ] = None,
    json: Json = False,
) -> None:
    """Show what was spent, by model, day, tenant or another tag.

    The dearest come first, and days in their order. Costs that nobody told us are shown as unknown.
    """
    columns = cast("tuple[Column, ...]", tuple(one_of("--by", column, _COLUMNS) for column in by or ["model"]))
    question = Question(
        columns=columns,
        since=None if since is None else moment("--since", since),
        until=None if until is None else moment("--until", until),
        last=period_of(since),
        tags=filters_of(tag),
    )
    if question.since is not None and question.until is not None and question.since >= question.until:
        raise WrongUseError(f"--until: {until} must be later than --since: {since}")
    if json and plot:
        raise WrongUseError("--plot and --json both write to standard output; give one of them")
    screen = terminal.out()
    drawn = not json and (plot if plot is not None else _has_room(screen))
    files = Files(png=png, export=export)
    found = asyncio.run(_find(question, files, most=most_steps(screen.width) if drawn else None, wasted=wasted))
    if json:
        terminal.write_json(document(found.total, found.rows, found.saved, question))
    else:
        _show(found, question, screen, wasted=wasted, saved=saved)
    for line in found.said:
        terminal.say(line, "dim")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    place: str
    total: "LedgerTotal"
    rows: "list[LedgerRow]"
    saved: "SavedTotal"
    drawn: "OverTime | None"
    said: list[str]


async def _find(question: Question, files: Files, *, most: int | None, wasted: bool) -> _Found:
    """Ask the book everything that is to be shown, and write what is to be written."""
    async with opened() as (book, place):
        rows = merged(await book.by(*question.columns, **question.which))
        return _Found(
            place=place,
            total=await book.total(**question.which),
            rows=rows if "day" in question.columns else sorted(rows, key=partial(_dearest_first, wasted=wasted)),
            saved=await book.saved(**question.which),
            drawn=None if most is None else await over_time(book, question, most=most, wasted=wasted),
            said=await files.write(book, question, wasted=wasted),
        )


def _dearest_first(row: "LedgerRow", *, wasted: bool) -> tuple[Decimal, str]:
    return -((row.wasted if wasted else row.cost) or Decimal(0)), str(row.key)


def _show(found: _Found, question: Question, screen: terminal.Screen, *, wasted: bool, saved: bool) -> None:
    if found.total.sends:
        screen.print(table(found.total, found.rows, question.columns, wasted=wasted, width=screen.width))
    else:
        terminal.say(f"nothing was sent{question.limits}{meant_by(question.tags)}; the book is {found.place}", "dim")
    for text, style in remarks(found.total, found.saved, question, always=saved):
        terminal.say(text, style)
    if found.drawn is not None:
        screen.print()
        screen.print(picture(found.drawn, screen))


def _has_room(screen: terminal.Screen) -> bool:
    """Whether a picture nobody has asked for would look well."""
    return screen.is_terminal and screen.width >= NARROWEST and can_show(screen) and can_draw()
