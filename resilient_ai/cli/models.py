"""`resilient-ai models`: what there is, what it can do, what it costs."""

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli._models_known import kept, refreshed, show_changes, tell_news
from resilient_ai.cli._models_table import ABILITIES, table, unit_of
from resilient_ai.cli._price_file import prices_of_file
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.options import BaseUrl, Json, catalogue_kinds, one_of

if TYPE_CHECKING:
    from resilient_ai.deepinfra.catalogue import ModelInfo, ModelKind

_CHEAPEST = 10


def models(
    *,
    kind: Annotated[
        str | None,
        typer.Option("--kind", "-k", help="Such as chat, embedding, image; or of calls: embed, stream, complete."),
    ] = None,
    search: Annotated[str | None, typer.Option("--search", "-s", help="Part of the id.")] = None,
    tools: Annotated[bool, typer.Option("--tools", help="Calls functions.")] = False,
    vision: Annotated[bool, typer.Option("--vision", help="Reads pictures.")] = False,
    json_mode: Annotated[bool, typer.Option("--json-mode", help="Answers in JSON.")] = False,
    reasoning: Annotated[bool, typer.Option("--reasoning", help="Thinks before it answers.")] = False,
    code: Annotated[bool, typer.Option("--code", help="Made for code.")] = False,
    max_input_price: Annotated[
        float | None,
        typer.Option("--max-input-price", metavar="USD", min=0, help="US dollars per million input tokens."),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option("--context", metavar="N", min=0, help="Room for so many tokens. Also called --min-context."),
    ] = None,
    min_context: Annotated[int | None, typer.Option("--min-context", min=0, hidden=True)] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Retired models as well.")] = False,
    cheapest: Annotated[
        bool,
        typer.Option("--cheapest", help="The ten with the lowest known prices; chat models where no --kind is given."),
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", metavar="N", min=1, help="Most models.")] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask the service for its lists first, and keep them.")
    ] = False,
    changes: Annotated[
        bool,
        typer.Option(
            "--changes",
            help="What has changed since the packaged data, or with --refresh since the last time, instead.",
        ),
    ] = False,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """List models, their abilities and prices.

    The cheapest of each kind come first. Prices are in US dollars per million tokens where nothing else is said.

    They are those of the package or of the last --refresh, and before all those of your own price file. What narrows the list
    narrows --changes as well.
    """
    from resilient_ai.deepinfra.catalogue.changes import prices_of  # noqa: PLC0415 - data that other commands need not read
    from resilient_ai.deepinfra.catalogue.models import KINDS  # noqa: PLC0415 - as above
    from resilient_ai.settings import Settings  # noqa: PLC0415 - slow to import

    if kind is None:
        kinds = ("chat",) if cheapest else KINDS
    else:
        kinds = tuple(one_of("--kind", one, KINDS) for one in catalogue_kinds(kind))
    if changes and (cheapest or limit is not None):
        raise WrongUseError("--changes shows all of them: leave --cheapest and --limit out")
    known = refreshed(base_url) if refresh else kept()
    if known.news is not None and not json and not changes:
        tell_news(known.news)
    catalogue = known.catalogue
    found = catalogue.find(
        cast("ModelKind", kinds[0]) if len(kinds) == 1 else None,
        tools=tools or None,
        vision=vision or None,
        json=json_mode or None,
        reasoning=reasoning or None,
        code=code or None,
        status=None if everything or changes else "active",
        max_input_price=max_input_price,
        min_context=context if min_context is None else max(min_context, context or 0),
        text=search,
    )
    found = tuple(model for model in found if model.kind in kinds)
    if changes:
        narrowed = len(found) < len(catalogue)
        show_changes(known, json=json, only={model.id for model in found} if narrowed else None)
        return
    # A price per minute is neither more nor less than one per token.
    fit = sorted((one for one in found if not cheapest or prices_of(one)), key=lambda model: KINDS.index(model.kind))
    shown = fit[: limit or (_CHEAPEST if cheapest else None)]
    if json:
        terminal.write_json([_details(model) for model in shown])
        return
    if shown:
        screen = terminal.out()
        screen.print(table(shown, with_status=everything, width=screen.width))
    of_those = f" of {len(fit)} that fit," if len(shown) < len(fit) else ""
    prices = (
        f"prices in {unit_of(shown)}, as of {catalogue.as_of}{prices_of_file(Settings(), (one.id for one in shown))}"
    )
    terminal.say(f"{len(shown)}{of_those} of {len(catalogue)} models; {prices}", "dim")


def _details(model: "ModelInfo") -> dict[str, Any]:
    pricing = model.pricing
    unit = pricing.image or pricing.per_unit
    return {
        "id": model.id,
        "kind": model.kind,
        "status": model.status,
        "replaced_by": model.replaced_by,
        "context_length": model.context_length,
        "max_input_tokens": model.max_input_tokens,
        "max_output_tokens": model.max_output_tokens,
        "dimensions": model.dimensions,
        **{name: getattr(model, name) for name in ABILITIES},
        "input_per_1m": pricing.input_per_1m,
        "output_per_1m": pricing.output_per_1m,
        "cached_input_per_1m": pricing.cached_input_per_1m,
        "per_unit": None if unit is None else {"unit": unit.unit, "usd": unit.usd_per_unit},
        "price_as_of": model.price_as_of,
    }
