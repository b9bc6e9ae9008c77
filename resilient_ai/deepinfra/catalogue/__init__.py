"""The models of DeepInfra: what they are, what they can do, what they cost, and on which day that was so.

Importing this package reads no data; the first question asked of `catalogue` does. Nothing here asks the network unless told to.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from resilient_ai.deepinfra.catalogue.abilities import CatalogueAbilities
from resilient_ai.deepinfra.catalogue.changes import CatalogueChanges, FactChange, PriceChange, Suspicion, diff
from resilient_ai.deepinfra.catalogue.lookup import Catalogue, catalogue
from resilient_ai.deepinfra.catalogue.models import (
    ImagePricing,
    ImageUnit,
    ModelInfo,
    ModelKind,
    ModelStatus,
    PriceConfidence,
    Pricing,
    Promo,
    UnitPrice,
)
from resilient_ai.deepinfra.catalogue.prices import PriceTable
from resilient_ai.deepinfra.catalogue.query import ModelQuery
from resilient_ai.deepinfra.catalogue.retirement import RetiredModelWarning, warn_if_retired

if TYPE_CHECKING:
    from resilient_ai.deepinfra.catalogue.client_catalogue import ClientCatalogue
    from resilient_ai.deepinfra.catalogue.live import LiveCatalogue
    from resilient_ai.deepinfra.catalogue.overrides import Overrides, load_overrides

# Whoever only looks a model up needs neither asyncio nor a reader of JSON lists and TOML.
_HOME_OF = {
    "ClientCatalogue": "client_catalogue",
    "LiveCatalogue": "live",
    "Overrides": "overrides",
    "load_overrides": "overrides",
}


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


__all__ = [
    "Catalogue",
    "CatalogueAbilities",
    "CatalogueChanges",
    "ClientCatalogue",
    "FactChange",
    "ImagePricing",
    "ImageUnit",
    "LiveCatalogue",
    "ModelInfo",
    "ModelKind",
    "ModelQuery",
    "ModelStatus",
    "Overrides",
    "PriceChange",
    "PriceConfidence",
    "PriceTable",
    "Pricing",
    "Promo",
    "RetiredModelWarning",
    "Suspicion",
    "UnitPrice",
    "catalogue",
    "diff",
    "load_overrides",
    "warn_if_retired",
]
