"""`resilient-ai models`: what there is, what it can do, what it costs."""

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from resilient_ai.cli import terminal
from resilient_ai.cli._models_known import kept, refreshed, show_changes, tell_news
from resilient_ai.cli.options import BaseUrl, Json, one_of

if TYPE_CHECKING:
    from resilient_ai.deepinfra.catalogue import ModelInfo, ModelKind

_ABILITIES = ("tools", "json", "vision", "reasoning", "code")
_CHEAPEST = 10
_UNITS = {
    "image": "image",
    "image_unit": "megapixel",
    "image_token": "image token",
    "second": "second",
    "provider_unit": "unit",
    "minute": "minute",
    "1m_characters": "1M characters",
    "output_second": "second",
}


def models(
    *,
    kind: Annotated[str | None, typer.Option("--kind", "-k", help="Such as chat, embedding, image.")] = None,
    search: Annotated[str | None, typer.Option("--search", "-s", help="Part of the id.")] = None,
    tools: Annotated[bool, typer.Option("--tools", help="Calls functions.")] = False,
    vision: Annotated[bool, typer.Option("--vision", help="Reads pictures.")] = False,
    json_mode: Annotated[bool, typer.Option("--json-mode", help="Answers in JSON.")] = False,
    reasoning: Annotated[bool, typer.Option("--reasoning", help="Thinks before it answers.")] = False,
    code: Annotated[bool, typer.Option("--code", help="Made for code.")] = False,
    max_input_price: Annotated[
        float | None, typer.Option("--max-input-price", min=0, help="US dollars per million input tokens.")
    ] = None,
    min_context: Annotated[int | None, typer.Option("--min-context", "--context", min=0, help="Tokens.")] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Retired models as well.")] = False,
    cheapest: Annotated[
        bool,
        typer.Option("--cheapest", help="The ten with the lowest known prices; chat models where no --kind is given."),
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Most models.")] = None,
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

    The cheapest come first. Prices are in US dollars per million tokens where nothing else is said. They are those of the
    package or of the last --refresh, and before all those of your own price file.
    """
    from resilient_ai.deepinfra.catalogue.changes import prices_of  # noqa: PLC0415 - data that other commands need not read
    from resilient_ai.deepinfra.catalogue.models import KINDS  # noqa: PLC0415 - as above

    if kind is not None:
        one_of("--kind", kind, KINDS)
    known = refreshed(base_url) if refresh else kept()
    if changes:
        show_changes(known, json=json)
        return
    if known.news is not None and not json:
        tell_news(known.news)
    catalogue = known.catalogue
    found = catalogue.find(
        cast("ModelKind | None", kind or ("chat" if cheapest else None)),
        tools=tools or None,
        vision=vision or None,
        json=json_mode or None,
        reasoning=reasoning or None,
        code=code or None,
        status=None if everything else "active",
        max_input_price=max_input_price,
        min_context=min_context,
        text=search,
    )
    if cheapest:
        found = tuple(model for model in found if prices_of(model))
    found = found[: limit or (_CHEAPEST if cheapest else None)]
    if json:
        terminal.write_json([_details(model) for model in found])
        return
    if found:
        terminal.out().print(_table(found, with_status=everything))
    terminal.say(f"{len(found)} of {len(catalogue)} models; prices as of {catalogue.as_of}", "dim")


def _table(found: "Sequence[ModelInfo]", *, with_status: bool) -> Table:
    with_kind = len({model.kind for model in found}) > 1
    with_input = any(model.pricing.input_per_1m is not None for model in found)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Model", no_wrap=True)
    if with_kind:
        table.add_column("Kind")
    if with_status:
        table.add_column("Status")
    for name in ("Context", "In", "Out") if with_input else ("Context", "Price"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Can", style="dim")
    for model in found:
        cells = [terminal.one_line(model.id)]
        cells += [model.kind] if with_kind else []
        cells += [model.status.replace("_", " ")] if with_status else []
        prices = _prices(model)
        cells += [_tokens(model.context_length or model.max_input_tokens), *(prices if with_input else prices[1:])]
        cells.append(" ".join(name for name in _ABILITIES if getattr(model, name)))
        table.add_row(*cells, style="dim" if model.retired else "")
    return table


def _tokens(count: int | None) -> str:
    if count is None:
        return ""
    if count >= 1_000_000:
        return f"{count / 1_000_000:.3g}M"
    return f"{count / 1000:.0f}k" if count >= 1000 else str(count)


def _prices(model: "ModelInfo") -> tuple[str, str]:
    """Return the prices of input and of output; other units stand where the price of the output stands."""
    pricing = model.pricing
    unit = pricing.image or pricing.per_unit
    if unit is None:
        return _price(pricing.input_per_1m), _price(pricing.output_per_1m)
    steps = pricing.image.base_steps if pricing.image is not None else None
    per_steps = "" if steps is None else f" and {steps} step{'s' if steps > 1 else ''}"
    return "", f"{_price(unit.usd_per_unit)} / {_UNITS.get(unit.unit, unit.unit)}{per_steps}"


def _price(amount: Decimal | None) -> str:
    if amount is None:
        return ""
    return f"{amount:.2f}" if amount == round(amount, 2) else f"{amount.normalize():f}"


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
        **{name: getattr(model, name) for name in _ABILITIES},
        "input_per_1m": pricing.input_per_1m,
        "output_per_1m": pricing.output_per_1m,
        "cached_input_per_1m": pricing.cached_input_per_1m,
        "per_unit": None if unit is None else {"unit": unit.unit, "usd": unit.usd_per_unit},
        "price_as_of": model.price_as_of,
    }
