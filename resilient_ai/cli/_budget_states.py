"""What is spent of the budgets of the settings, those for each value of a tag included."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from resilient_ai.cli._costs_book import opened

if TYPE_CHECKING:
    from resilient_ai.middleware._budget_survey import Survey
    from resilient_ai.settings import Settings


async def states_of(settings: "Settings", tags: Mapping[str, str], *, most: int | None) -> "Survey":
    """Return the budgets against which a call with exactly these tags may count, those first of which most is used.

    Of a budget for each value of a tag there is one for each value with which something was sent in its window, and `most` of
    them at most.

    Raises:
        BookUnavailable: If what was spent cannot be asked for.
    """
    # All of these are slow to import.
    from resilient_ai.core.clock import SystemClock  # noqa: PLC0415
    from resilient_ai.middleware._budget_survey import Survey, survey  # noqa: PLC0415
    from resilient_ai.middleware._budget_tally import Tally  # noqa: PLC0415
    from resilient_ai.stores import RedisBudgets  # noqa: PLC0415

    if not settings.budgets:
        return Survey()
    async with opened() as (ledger, _):
        url = settings.budget_redis_url
        book = ledger if url is None else RedisBudgets(url.get_secret_value())
        try:
            found = await survey(Tally(settings.budgets), book, tags=tags, clock=SystemClock(), costs=ledger, most=most)
        finally:
            if url is not None:
                await book.aclose()
    states = sorted(found.states, key=lambda state: (-state.spent / state.limit, state.key))
    return Survey(tuple(states), found.hidden, found.unlisted)
