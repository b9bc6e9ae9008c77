"""Models as a table for people."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from resilient_ai.cli import terminal
from resilient_ai.cli._stacked import NARROWEST_NAME, facts, stacked

if TYPE_CHECKING:
    from rich.console import RenderableType

    from resilient_ai.deepinfra.catalogue import ModelInfo

ABILITIES = ("tools", "json", "vision", "reasoning", "code")
_BETWEEN = 2  # spaces from one column to the next
_LEAST_ABILITIES = 10  # columns of a terminal, in which each ability has a line to itself
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


def table(models: "Sequence[ModelInfo]", *, with_status: bool, width: int) -> "RenderableType":
    """Return a row per model; where there is no room for all, what is neither an id nor a price stands below the id."""
    rows = [_cells(model) for model in models]
    beside = ["Kind"] if len({model.kind for model in models}) > 1 else []
    beside += ["Status"] if with_status else []
    prices = [head for head in ("In", "Out", "Price") if any(row[head] for row in rows)]
    heads = ["Model", *beside, "Context", *prices]
    if (
        _room(heads, rows) + min(_LEAST_ABILITIES, max(len(head) for head in ("Can", *(row["Can"] for row in rows))))
        <= width
    ):
        heads.append("Can")
    else:
        heads = ["Model", *prices]
        folded = [_folded(model, row, beside) for model, row in zip(models, rows, strict=True)]
        if width < _room(prices, folded) + max(NARROWEST_NAME, *(len(row["Model"]) for row in rows)):
            return stacked((Text(row["Model"]), _below(row, prices)) for row in folded)
        rows = folded
    grid = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _BETWEEN, 0, 0))
    for head in heads:
        _add_column(grid, head, folded="Can" not in heads)
    for model, row in zip(models, rows, strict=True):
        name = Text(row["Model"])
        if row.get("Below"):
            name.append(f"\n{row['Below']}", "dim")
        grid.add_row(name, *(row[head] for head in heads[1:]), style="dim" if model.retired else "")
    return grid


def unit_of(models: "Sequence[ModelInfo]") -> str:
    """Return in what prices are, as far as it does not stand beside them.

    >>> unit_of([])
    'US dollars'
    """
    priced = [(bool(paid_in), bool(unit)) for paid_in, _, unit in map(prices_of, models)]
    if not any(by_tokens for by_tokens, _ in priced):
        return "US dollars"
    others = ", or per what is named" if any(by_unit for _, by_unit in priced) else ""
    return f"US dollars per million tokens{others}"


def tokens(count: int | None) -> str:
    """Return a number of tokens at a glance.

    >>> tokens(131_072), tokens(1_048_576), tokens(None)
    ('131k', '1.05M', '')
    """
    if count is None:
        return ""
    if count >= 1_000_000:
        return f"{count / 1_000_000:.3g}M"
    return f"{count / 1000:.0f}k" if count >= 1000 else str(count)


def prices_of(model: "ModelInfo") -> tuple[str, str, str]:
    """Return the prices of input and of output, and the unit of the latter where that is not a million tokens."""
    pricing = model.pricing
    unit = pricing.image or pricing.per_unit
    if unit is None:
        return _price(pricing.input_per_1m), _price(pricing.output_per_1m), ""
    steps = pricing.image.base_steps if pricing.image is not None else None
    per_steps = "" if steps is None else f", {steps} step{'s' if steps > 1 else ''}"
    return "", _price(unit.usd_per_unit), f"{_UNITS.get(unit.unit, unit.unit)}{per_steps}"


def _add_column(grid: Table, head: str, *, folded: bool) -> None:
    if head == "Can":
        grid.add_column(head, style="dim")
    elif head == "Model" and folded:
        grid.add_column(head, overflow="fold")
    else:
        grid.add_column(head, justify="right" if head in {"Context", "In", "Out", "Price"} else "left", no_wrap=True)


def _cells(model: "ModelInfo") -> dict[str, str]:
    paid_in, paid_out, unit = prices_of(model)
    return {
        "Model": terminal.one_line(model.id),
        "Kind": model.kind,
        "Status": model.status.replace("_", " "),
        "Context": tokens(model.context_length or model.max_input_tokens),
        "In": paid_in,
        "Out": "" if unit else paid_out,
        "Price": f"{paid_out} / {unit}" if unit else "",
        "Can": " ".join(name for name in ABILITIES if getattr(model, name)),
    }


def _room(heads: Sequence[str], rows: Sequence[Mapping[str, str]]) -> int:
    return sum(max(len(head), *(len(row[head]) for row in rows)) + _BETWEEN for head in heads)


def _below(row: Mapping[str, str], prices: Sequence[str]) -> Text:
    paid = facts({head: row[head] for head in prices})
    return paid.append(" · " if paid and row["Below"] else "").append(row["Below"], "dim")


def _folded(model: "ModelInfo", row: Mapping[str, str], beside: Sequence[str]) -> dict[str, str]:
    paid_in, paid_out, unit = prices_of(model)
    context = f"{row['Context']} tokens" if row["Context"] else ""
    others = [*(row[head] for head in beside), f"per {unit}" if unit else "", context, row["Can"]]
    prices = {"In": paid_in, "Out": "" if unit else paid_out, "Price": paid_out if unit else ""}
    return {"Model": row["Model"], "Below": " · ".join(fact for fact in others if fact), **prices}


def _price(amount: Decimal | None) -> str:
    if amount is None:
        return ""
    return f"{amount:.2f}" if amount == round(amount, 2) else f"{amount.normalize():f}"
