"""Models as a table for people."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from resilient_ai.cli import terminal

if TYPE_CHECKING:
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


def table(models: "Sequence[ModelInfo]", *, with_status: bool, width: int) -> Table:
    """Return a row per model; where there is no room for all, what is neither an id nor a price stands below the id."""
    rows = [_cells(model) for model in models]
    beside = ["Kind"] if len({model.kind for model in models}) > 1 else []
    beside += ["Status"] if with_status else []
    prices = ["In", "Out"] if any(row["In"] for row in rows) else ["Out"]
    heads = ["Model", *beside, "Context", *prices]
    needed = sum(max(len(head), *(len(row[head]) for row in rows)) + _BETWEEN for head in heads)
    if needed + min(_LEAST_ABILITIES, max(len(head) for head in ("Can", *(row["Can"] for row in rows)))) <= width:
        heads.append("Can")
    else:
        heads = ["Model", *prices]
    grid = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _BETWEEN, 0, 0))
    for head in heads:
        _add_column(grid, "Price" if prices == ["Out"] and head == "Out" else head, folded="Can" not in heads)
    for model, row in zip(models, rows, strict=True):
        shown = row if "Can" in heads else _folded(model, row, beside)
        grid.add_row(*(shown[head] for head in heads), style="dim" if model.retired else "")
    return grid


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
    per_steps = "" if steps is None else f" and {steps} step{'s' if steps > 1 else ''}"
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
        "Out": f"{paid_out} / {unit}" if unit else paid_out,
        "Can": " ".join(name for name in ABILITIES if getattr(model, name)),
    }


def _folded(model: "ModelInfo", row: Mapping[str, str], beside: Sequence[str]) -> dict[str, str | Text]:
    paid_in, paid_out, unit = prices_of(model)
    context = f"{row['Context']} tokens" if row["Context"] else ""
    facts = [*(row[head] for head in beside), f"per {unit}" if unit else "", context, row["Can"]]
    below = Text("\n" + " · ".join(fact for fact in facts if fact), "dim") if any(facts) else Text()
    return {"Model": Text(row["Model"]).append_text(below), "In": paid_in, "Out": paid_out}


def _price(amount: Decimal | None) -> str:
    if amount is None:
        return ""
    return f"{amount:.2f}" if amount == round(amount, 2) else f"{amount.normalize():f}"
