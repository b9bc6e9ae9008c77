"""Which calls the budgets of the settings refuse even where nothing is spent of them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resilient_ai.core.call import Call
    from resilient_ai.core.results import Considered
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


def shorter_fits(
    found: "Sequence[Considered]", call: "Call[Any]", refuses: "Callable[[Call[Any]], str | None]"
) -> bool:
    """Return whether a budget refuses the call on some model only for how long its answer may be."""
    from resilient_ai.core.operations import Sampling  # noqa: PLC0415 - slow to import

    if not isinstance(call.operation, Sampling):
        return False
    whole, short = call.operation, call.operation.model_copy(update={"max_tokens": 1})
    return any(
        refuses(call.replace(operation=whole.on(one.model))) is not None
        and refuses(call.replace(operation=short.on(one.model))) is None
        for one in found
    )
