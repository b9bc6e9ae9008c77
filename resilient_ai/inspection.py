"""What programs around a client ask of the parts of the default stack: without a client, and without sending anything."""

from collections.abc import Mapping
from typing import Protocol

from resilient_ai.core.budgets import BudgetBook
from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.ledger import CostBook
from resilient_ai.middleware._budget_survey import Survey, survey
from resilient_ai.middleware._budget_tally import Tally
from resilient_ai.middleware._cache_key import model_part, pattern, tenant_part
from resilient_ai.middleware._tokens import TOKENS_OF_ANSWER, prompt_tokens
from resilient_ai.presets import budget_book_of
from resilient_ai.settings import Settings


class Book(CostBook, BudgetBook, Protocol):
    """A ledger that can be asked, and that budgets are counted in."""


async def survey_of(
    settings: Settings, ledger: Book, tags: Mapping[str, str], *, most: int | None, clock: Clock | None = None
) -> Survey:
    """Return what is spent of the budgets of the settings against which a call with exactly these tags may count.

    Args:
        settings: The budgets, and where they are counted.
        ledger: The book of costs, which knows with which values of tags something was sent.
        tags: Those of a call; all budgets without any.
        most: How many values of a tag one budget is asked for at most, the dearest; None for all.
        clock: Tells which windows are now.

    Raises:
        BookUnavailable: If what was spent cannot be asked for.
    """
    book = budget_book_of(settings, ledger)
    try:
        tally = Tally(settings.budgets)
        return await survey(tally, book, tags=tags, clock=clock or SystemClock(), costs=ledger, most=most)
    finally:
        if book is not ledger:
            await book.aclose()


__all__ = [
    "TOKENS_OF_ANSWER",
    "Book",
    "Survey",
    "model_part",
    "pattern",
    "prompt_tokens",
    "survey_of",
    "tenant_part",
]
