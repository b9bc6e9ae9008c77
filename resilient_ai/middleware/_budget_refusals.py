"""Why a budget refuses a call, as errors that say what is left and until when."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

from resilient_ai.core.budgets import dollars
from resilient_ai.core.call import Call
from resilient_ai.core.errors import BudgetExceeded, PriceUnknown
from resilient_ai.middleware._budget_counter import Counter
from resilient_ai.middleware._machines.budget_window import Slot
from resilient_ai.middleware.budget import Budget


def exceeded(call: Call[Any], found: Sequence[tuple[Counter, Slot, int]], amount: int) -> BudgetExceeded:
    """Return the error that names the budget which takes longest until it has room again.

    Args:
        call: What was refused.
        found: The counters of the call, with what counts now and what they hold.
        amount: What the call could cost, as counters hold it.
    """
    full = [one for one in found if one[0].limit is not None and one[2] + amount > one[0].limit]
    # A book that refuses what would fit counts something that it has not told of.
    full = full or [one for one in found if one[0].hard is not None]
    counter, slot, spent = max(full, key=lambda one: math.inf if one[1].ends is None else one[1].ends)
    hard = _hard(counter)
    left = left_of(counter, spent)
    # What does not fit into the whole budget need not be tried again.
    wait = None if slot.ends is None or amount > hard.units else max(0.0, slot.ends - call.clock.wall())
    return BudgetExceeded(
        f"the budget {named(counter)} has {left:f} of {hard.dollars:f} USD left{_until(hard, slot)},"
        f" and the call could cost {dollars(amount):f} USD; nothing was sent",
        spent=dollars(spent),
        limit=hard.dollars,
        left=left,
        budget=counter.label(hard),
        retry_after=wait,
    )


def unasked(counter: Counter) -> BudgetExceeded:
    """Return the error of a hard budget whose book cannot be asked."""
    hard = _hard(counter)
    return BudgetExceeded(
        f"the book of budgets cannot be asked, so that nobody knows what the budget {named(counter)} has left; nothing was sent",
        spent=None,
        limit=hard.dollars,
        budget=counter.label(hard),
    )


def priceless(call: Call[Any], counter: Counter) -> PriceUnknown:
    """Return the error of a hard budget for a model without a price."""
    return PriceUnknown(
        f"no price of {call.model!r} is known, so that the budget {named(counter)} cannot count it; nothing was sent."
        " Budgets(unpriced=...) says what to count",
        model=call.model,
    )


def first_hard(counters: Sequence[Counter]) -> Counter | None:
    """Return the first counter that refuses calls, None where none does."""
    return next((counter for counter in counters if counter.hard is not None), None)


def named(counter: Counter) -> str:
    """Return the name of the budget that refuses calls, as it stands in a sentence."""
    return repr(counter.label(_hard(counter)))


def left_of(counter: Counter, spent: int) -> Decimal:
    """Return the US dollars that are left."""
    return dollars(max(0, _hard(counter).units - spent))


def _hard(counter: Counter) -> Budget:
    return cast("Budget", counter.hard)


def _until(hard: Budget, slot: Slot) -> str:
    if slot.ends is None:
        return ""
    at = f"{datetime.fromtimestamp(slot.ends, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return f" until its window moves on at {at}" if hard.rolling else f" until {at}"
