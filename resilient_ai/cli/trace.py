"""`resilient-ai trace`: what happened in calls, drawn from a file of spans."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.options import Json

if TYPE_CHECKING:
    from resilient_ai.cli._trace_model import Found
    from resilient_ai.cli._trace_search import Wanted

_LAST = 20
_MOST = 1000


def trace(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Spans, one a line: JSON of OpenTelemetry's SDK, or of OTLP. `-` reads standard input.",
        ),
    ],
    *,
    last: Annotated[
        int | None,
        typer.Option("--last", "-n", metavar="N", min=1, max=_MOST, help=f"How many calls. \\[default: {_LAST}]"),
    ] = None,
    slowest: Annotated[bool, typer.Option("--slowest", help="The slowest calls, instead of the last ones.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only calls that ended with an error.")] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="Only calls that asked a model with this in its name."),
    ] = None,
    trace_id: Annotated[
        str | None,
        typer.Option("--trace", metavar="ID", help="Only this trace, by its first digits, or the call with this id."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="OUT.html", help="Draw them into a page for a browser.")
    ] = None,
    json: Json = False,
) -> None:
    """Draw what happened in calls: attempts, waits, queues, streams, tools, and what they cost.

    Prompts and answers are not shown, though a file may hold them.
    """
    from resilient_ai.cli._trace_json import opened  # noqa: PLC0415 - slow to import
    from resilient_ai.cli._trace_search import Wanted, find  # noqa: PLC0415 - as above

    if trace_id is not None and not trace_id.strip():
        raise WrongUseError("--trace: must be the first digits of a trace, or the id of a call")
    most = last or (_LAST if trace_id is None else _MOST)
    wanted = Wanted(most=most, slowest=slowest, failed=failed, model=model, trace=trace_id)
    with opened(file) as opened_file:
        found = find(opened_file, wanted)
    if html is not None:
        _write_page(found, html)
    if json:
        from resilient_ai.cli._trace_document import document  # noqa: PLC0415 - as above

        terminal.write_json(document(found))
    elif html is None:
        _draw(found)
    _tell(found, file, wanted)


def _draw(found: "Found") -> None:
    from resilient_ai.cli._trace_draw import drawing  # noqa: PLC0415 - as above

    screen = terminal.out()
    for line in drawing(found.traces, screen, screen.width):
        screen.print(line, soft_wrap=True)


def _write_page(found: "Found", path: Path) -> None:
    from resilient_ai.cli._files import replacing  # noqa: PLC0415 - as above
    from resilient_ai.cli._trace_page import page  # noqa: PLC0415 - as above

    with replacing(path) as file:
        file.write(page(found).encode())
    terminal.say(f"wrote {path}", "dim")


def _tell(found: "Found", file: str, wanted: "Wanted") -> None:
    """Say what is shown, what is not, and what could not be read."""
    from resilient_ai.cli._trace_words import summary, uncounted  # noqa: PLC0415 - as above

    name = "standard input" if file == "-" else file
    shown = len(found.shown_calls)
    if not found.calls and not found.shown:
        terminal.say(f"there are no calls in {terminal.one_line(name)}", "dim")
    elif not found.shown:
        terminal.say(f"none of {terminal.counted(found.calls, 'call')} fits", "dim")
    else:
        which = "the slowest" if wanted.slowest else "the last"
        rest = f"; {which} of {terminal.counted(found.matching, 'call')}" if shown < found.matching else ""
        terminal.say(summary(found) + rest, "dim")
        if (missing := uncounted(found)) is not None:
            terminal.say(missing, "dim")
    if found.left_out:
        terminal.say(f"{terminal.counted(found.left_out, 'span')} had no room and are left out", "yellow")
    for line in found.remarks:
        terminal.say(line, "yellow")
