"""Reads models.json, the dated data of the package, into records."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from resilient_ai.deepinfra.catalogue.models import ImagePricing, ModelInfo, Pricing, Promo, UnitPrice

PACKAGED = Path(__file__).with_name("models.json")


class Snapshot:
    """Records as they stood on one day, by id and in the order of their ids; never changed once it is made."""

    __slots__ = ("as_of", "by_id", "models")

    def __init__(self, as_of: date, by_id: dict[str, ModelInfo]) -> None:
        self.as_of = as_of
        self.by_id = by_id
        self.models = tuple(by_id.values())


def read(path: Path = PACKAGED) -> Snapshot:
    """Read a file of records; an unknown field is an error, a missing one means unknown."""
    content = json.loads(path.read_bytes(), parse_float=Decimal)
    records = (model_of(row) for row in content["models"])
    return Snapshot(date.fromisoformat(content["as_of"]), {record.id: record for record in records})


def model_of(row: dict[str, Any]) -> ModelInfo:
    """Make a record of a row of JSON, which is taken apart on the way; prices are numbers or texts."""
    for name in ("input_modalities", "output_modalities", "service_tiers"):
        if name in row:
            row[name] = tuple(row[name])
    if "deprecated_on" in row:
        row["deprecated_on"] = date.fromisoformat(row["deprecated_on"])
    if "pricing" in row:
        row["pricing"] = _pricing(row["pricing"])
    if "promo" in row:
        promo: dict[str, Any] = row["promo"]
        as_of = date.fromisoformat(promo.pop("as_of"))
        row["promo"] = Promo(as_of=as_of, **_decimals(promo))
    return ModelInfo(**row)


def _pricing(row: dict[str, Any]) -> Pricing:
    image: dict[str, Any] | None = row.pop("image", None)
    per_unit: dict[str, Any] | None = row.pop("per_unit", None)
    return Pricing(
        image=None if image is None else ImagePricing(**_with_decimal(image)),
        per_unit=None if per_unit is None else UnitPrice(**_with_decimal(per_unit)),
        **_decimals(row),
    )


def _with_decimal(row: dict[str, Any]) -> dict[str, Any]:
    return row | _decimals({"usd_per_unit": row["usd_per_unit"]})


def _decimals(row: dict[str, Any]) -> dict[str, Any]:
    # A whole number in the file arrives as an int, which parse_float does not see.
    return {name: Decimal(number) for name, number in row.items()}
