"""Which calls the budgets of the settings refuse even where nothing is spent of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resilient_ai.core.call import Call
    from resilient_ai.deepinfra.catalogue import Catalogue
    from resilient_ai.settings import Settings


def refuses_always(settings: "Settings", catalogue: "Catalogue") -> "Callable[[Call[Any]], str | None]":
    """Return what tells why a call never fits a hard budget of the settings; it tells None where it may."""
    from resilient_ai.deepinfra.catalogue import CatalogueAbilities, PriceTable  # noqa: PLC0415 - slow to import
    from resilient_ai.middleware import Budgets  # noqa: PLC0415 - as above
    from resilient_ai.stores import MemoryBudgets  # noqa: PLC0415 - as above

    return Budgets(
        budgets=settings.budgets,
        book=MemoryBudgets(),  # in which nothing is spent
        prices=PriceTable(catalogue),
        abilities=CatalogueAbilities(catalogue),
        unpriced=settings.budget_unpriced,
    ).stands_against
