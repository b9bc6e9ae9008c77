"""What is spent of the budgets of the settings, those for each value of a tag included."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from resilient_ai.cli._costs_book import opened

if TYPE_CHECKING:
    from resilient_ai.inspection import Survey
    from resilient_ai.settings import Settings


async def states_of(settings: "Settings", tags: Mapping[str, str], *, most: int | None) -> "Survey":
    """Return the budgets against which a call with exactly these tags may count, those first of which most is used.

    Of a budget for each value of a tag there is one for each value with which something was sent in its window, and `most` of
    them at most.

    Raises:
        BookUnavailable: If what was spent cannot be asked for.
        WrongUseError: If no process writes down what was spent.
    """
    from resilient_ai.inspection import Survey, survey_of  # noqa: PLC0415 - slow to import

    if not settings.budgets:
        return Survey()
    async with opened(though_off=settings.budget_redis_url is not None) as (ledger, _):
        found = await survey_of(settings, ledger, tags, most=most)
    return replace(found, states=tuple(sorted(found.states, key=lambda state: (-state.spent / state.limit, state.key))))
