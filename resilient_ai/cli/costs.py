"""`resilient-ai costs`: what was spent, from the book of costs on this machine."""

import asyncio
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from resilient_ai.cli import terminal
from resilient_ai.cli.options import Json, one_of

if TYPE_CHECKING:
    from resilient_ai.stores import LedgerRow, LedgerTotal
    from resilient_ai.stores._ledger_queries import Column

_COLUMNS = ("model", "kind", "day", "tenant", "user", "feature", "environment", "state")
_PERIOD = re.compile(r"^(\d{1,6})([smhdw])$")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def costs(
    by: Annotated[
        list[str] | None,
        typer.Option("--by", "-b", help=f"{', '.join(_COLUMNS[:-1])} or state. May be repeated. \\[default: model]"),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="7d|24h|DATE", help="A period until now, or a date in UTC.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what was spent, by model, day, tenant or another tag.

    Costs that nobody told us are shown as unknown.
    """
    columns = [one_of("--by", column, _COLUMNS) for column in by or ["model"]]
    start = None if since is None else _moment(since)
    path = ledger_file()
    total, rows = asyncio.run(_read(path, columns, start)) if path.is_file() else (None, [])
    if json:
        terminal.write_json(_document(total, rows, columns, start))
    elif total is None or not total.sends:
        terminal.say(f"nothing was sent{'' if since is None else ' in that time'}; the book is {path}", "dim")
    else:
        terminal.out().print(_table(total, rows, columns))
        if total.unknown:
            unknown = terminal.counted(total.unknown, "request")
            terminal.say(f"the cost of {unknown} is unknown and not in the sums", "yellow")


def ledger_file() -> Path:
    """Return where the default stack keeps its book of costs, whether it is there or not."""
    from resilient_ai.presets import home_of  # noqa: PLC0415 - only two commands need it
    from resilient_ai.settings import Settings  # noqa: PLC0415 - as above

    return home_of(Settings().home) / "ledger.sqlite"


async def _read(path: Path, columns: Sequence[str], since: float | None) -> "tuple[LedgerTotal, list[LedgerRow]]":
    from resilient_ai.stores import SQLiteLedger  # noqa: PLC0415 - as above

    ledger = SQLiteLedger(path)
    try:
        rows = await ledger.by(*cast("Sequence[Column]", columns), since=since)
        return await ledger.total(since=since), sorted(rows, key=lambda row: (-row.cost, str(row.key)))
    finally:
        await ledger.aclose()


def _moment(text: str) -> float:
    """Return seconds since 1970.

    >>> _moment("2026-11-01")
    1793491200.0
    """
    period = _PERIOD.match(text)
    if period:
        return time.time() - int(period[1]) * _UNITS[period[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"must be a period such as 7d or 24h, or a date such as 2026-11-01, got {text!r}", param_hint="'--since'"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _table(total: "LedgerTotal", rows: "list[LedgerRow]", columns: Sequence[str]) -> Table:
    table = Table(
        box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0), show_footer=True, footer_style="bold"
    )
    for position, column in enumerate(columns):
        table.add_column(column.capitalize(), "" if position else "Total", overflow="fold")
    for name, value in (
        ("Requests", f"{total.sends:,}"),
        ("Tokens in", f"{total.input_tokens:,}"),
        ("Tokens out", f"{total.output_tokens:,}"),
        ("Cost", _cost(total)),
    ):
        table.add_column(name, value, justify="right", no_wrap=True)
    for row in rows:
        keys = [terminal.one_line(key) if key is not None else "[dim](none)[/dim]" for key in row.key]
        numbers = [f"{row.sends:,}", f"{row.input_tokens:,}", f"{row.output_tokens:,}", _cost(row)]
        table.add_row(*keys, *numbers)
    return table


def _cost(row: "LedgerTotal") -> str:
    if not row.unknown:
        return terminal.usd(row.cost)
    return "unknown" if not row.cost else f"{terminal.usd(row.cost)} + {row.unknown} unknown"


def _document(
    total: "LedgerTotal | None", rows: "list[LedgerRow]", columns: Sequence[str], since: float | None
) -> dict[str, Any]:
    start = None if since is None else datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    lines = [dict(zip(columns, row.key, strict=True)) | _sums(row) for row in rows]
    return {"since": start, "by": list(columns), "rows": lines, "total": _sums(total)}


def _sums(row: "LedgerTotal | None") -> dict[str, Any]:
    if row is None:
        return {"requests": 0, "input_tokens": 0, "output_tokens": 0, "cost": "0", "unknown": 0}
    return {
        "requests": row.sends,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cost": row.cost,
        "unknown": row.unknown,
    }
