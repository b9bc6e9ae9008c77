"""The models of DeepInfra: what they are, what they can do, what they cost, and on which day that was so.

Importing this package reads no data; the first question asked of `catalogue` does.
"""

from resilient_ai.deepinfra.catalogue.abilities import CatalogueAbilities
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
from resilient_ai.deepinfra.catalogue.retirement import RetiredModelWarning, warn_if_retired

__all__ = [
    "Catalogue",
    "CatalogueAbilities",
    "ImagePricing",
    "ImageUnit",
    "ModelInfo",
    "ModelKind",
    "ModelStatus",
    "PriceConfidence",
    "PriceTable",
    "Pricing",
    "Promo",
    "RetiredModelWarning",
    "UnitPrice",
    "catalogue",
    "warn_if_retired",
]
