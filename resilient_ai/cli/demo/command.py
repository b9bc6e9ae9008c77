"""`resilient-ai demo`: a tour with everything that can happen."""

import asyncio
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli.failures import FAILED, WrongUseError
from resilient_ai.cli.options import Json

if TYPE_CHECKING:
    from resilient_ai.cli.demo.closing import Closing


def demo(
    live: Annotated[bool, typer.Option("--live", help="Use DeepInfra itself, with your key.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending money with --live.")] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the picture and the spans are written.")
    ] = Path("demo-output"),
    json: Json = False,
) -> None:
    """Tour everything the client does, in half a minute.

    The client is the real one with its default stack; the service is simulated, and fails now and then. With --live it is
    DeepInfra itself, and the steps that need it to fail are left out.
    """
    output.mkdir(parents=True, exist_ok=True)
    if live:
        _agree(yes=yes)
    closing = asyncio.run(_tour(live=live, output=output, quiet=json))
    if json:
        terminal.write_json(closing.document())
    else:
        closing.show(terminal.out())
    if not closing.all_well:
        raise typer.Exit(FAILED)


async def _tour(*, live: bool, output: Path, quiet: bool) -> "Closing":
    from resilient_ai.cli.demo import tour  # noqa: PLC0415 - half a second that other commands need not wait for

    console = terminal.err() if quiet else terminal.out()
    return await (tour.live if live else tour.simulated)(console, output)


def _agree(*, yes: bool) -> None:
    """Say what the tour can cost at most, and go on only if that is wanted."""
    from resilient_ai.cli.demo.plan import most_it_can_cost  # noqa: PLC0415 - as above
    from resilient_ai.deepinfra.catalogue import catalogue  # noqa: PLC0415 - as above

    costs = most_it_can_cost()
    unknown = [step for step, cost in costs.items() if cost is None]
    known = sum((cost for cost in costs.values() if cost is not None), Decimal(0))
    beyond = f", plus {', '.join(unknown)}, whose price is not known" if unknown else ""
    terminal.say(
        f"this tour can cost at most {terminal.usd(known)}{beyond}: list prices of {catalogue.as_of}, the longest answers, "
        "and every request paid for three times"
    )
    if yes:
        return
    if not sys.stdin.isatty():
        raise WrongUseError("--live asks before it spends money, and nobody is here to answer; --yes agrees")
    typer.confirm("go on?", abort=True, err=True)
