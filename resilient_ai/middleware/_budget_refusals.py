"""Why a budget refuses a call, as errors that say what is left and until when."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from resilient_ai.core.budgets import dollars
from resilient_ai.core.call import Call
from resilient_ai.core.errors import BudgetExceeded, BudgetUnavailable, PriceUnknown
from resilient_ai.core.events import BudgetRefused
from resilient_ai.core.kinds import noun_of
from resilient_ai.core.operations import Operation, Sampling
from resilient_ai.middleware._as_sent import as_sent
from resilient_ai.middleware._budget_counter import Counter
from resilient_ai.middleware._machines.budget_window import Slot
from resilient_ai.middleware.budget import Budget

# Requests under way end within seconds, and nobody knows which one does first.
_WAIT_UNDER_WAY = 1.0


class Held(NamedTuple):
    """What a counter holds at a moment.

    Args:
        spent: All that counts.
        reserved_by_slice: The part of it that is reserved by requests of this client under way.
        parts: All of it by slice, where its window rolls and the book tells.
    """

    counter: Counter
    slot: Slot
    spent: int
    reserved_by_slice: Mapping[int, int]
    parts: Mapping[int, int]

    @property
    def reserved(self) -> int:
        """What is reserved by requests of this client under way, in all."""
        return sum(self.reserved_by_slice.values())

    def refuses(self, amount: int) -> bool:
        """Return whether a hard budget has not as much left."""
        return self.counter.limit is not None and self.spent + amount > self.counter.limit

    def never_fits(self, amount: int) -> bool:
        """Return whether the whole hard budget is too small."""
        return amount > _hard(self.counter).units

    def frees(self, amount: int) -> bool:
        """Return whether it would fit if nothing was reserved."""
        return self.reserved > 0 and self.spent - self.reserved + amount <= _hard(self.counter).units

    def wait(self, amount: int, now: float) -> float:
        """Return the seconds until there may be room, infinite where there never is."""
        if self.never_fits(amount):
            return math.inf
        if self.frees(amount):
            return _WAIT_UNDER_WAY
        at = self.room_at(amount) or self.slot.ends
        return math.inf if at is None else max(0.0, at - now)

    def room_at(self, amount: int) -> int | None:
        """Return when so much will have left its window that there may be room; None where that is not known.

        What requests of this client under way have reserved may be free by then.
        """
        settled = {at: held - self.reserved_by_slice.get(at, 0) for at, held in self.parts.items()}
        return self.counter.window.room_at(settled, self.spent - self.reserved + amount - _hard(self.counter).units)


def refusal(call: Call[Any], found: Sequence[Held], amount: int) -> BudgetExceeded:
    """Tell of a refusal, and return its error; both name the budget which takes longest until it has room again.

    Args:
        call: What was refused.
        found: What the counters of the call hold.
        amount: What the call could cost, as counters hold it.
    """
    full = [one for one in found if one.refuses(amount)]
    # A book that refuses what would fit counts something that it has not told of.
    full = full or [one for one in found if one.counter.hard is not None]
    now = call.clock.wall()
    worst = max(full, key=lambda one: (one.never_fits(amount), one.wait(amount, now)))
    hard, wait = _hard(worst.counter), worst.wait(amount, now)
    retry_after = None if wait == math.inf else wait
    call.emit(
        BudgetRefused(
            call_id=call.id,
            model=call.model,
            budget=worst.counter.label(hard),
            spent=dollars(worst.spent),
            reserved=dollars(worst.reserved),
            limit=hard.dollars,
            until=None if hard.rolling else worst.slot.ends,
            retry_after=retry_after,
        )
    )
    return BudgetExceeded(
        f"{_reason(worst, amount)}; the request was not sent{_advice(call.operation)}",
        spent=dollars(worst.spent),
        reserved=dollars(worst.reserved),
        limit=hard.dollars,
        left=left_of(worst.counter, worst.spent),
        budget=worst.counter.label(hard),
        retry_after=retry_after,
        shown_as=hard.shown_as,
    )


def _reason(held: Held, amount: int) -> str:
    name, hard, cost = named(held.counter), _hard(held.counter), f"{dollars(amount):f} USD"
    if held.never_fits(amount):
        return f"the call could cost {cost}, which never fits into the {hard.dollars:f} USD of the budget {name}"
    frees = held.frees(amount)
    left = f"the budget {name} has {left_of(held.counter, held.spent):f} of {hard.dollars:f} USD left"
    if not frees:
        left += _until(held, amount)
    if not held.reserved:
        return f"{left}, and the call could cost {cost}"
    shares = f"{dollars(held.spent - held.reserved):f} USD are spent and {dollars(held.reserved):f} USD reserved"
    free = ", and may become free when they end" if frees else ""
    return f"{left}: {shares} by requests under way{free}; the call could cost {cost}"


def _advice(operation: Operation[Any]) -> str:
    if not isinstance(operation, Sampling) or as_sent(operation).longest is not None:
        return ""
    return ". It has no `max_tokens`, so the longest answer counts; a smaller `max_tokens` reserves less"


def unasked(counter: Counter) -> BudgetUnavailable:
    """Return the error of a hard budget whose book cannot be asked."""
    return BudgetUnavailable(
        f"the book of budgets cannot be asked, so that nobody knows what the budget {named(counter)} has left;"
        " the request was not sent",
        budget=counter.label(_hard(counter)),
        shown_as=_hard(counter).shown_as,
    )


def priceless(call: Call[Any], counter: Counter) -> PriceUnknown:
    """Return the error of a hard budget for a model without a price for what is asked of it."""
    return PriceUnknown(
        f"no price of {call.model!r} for {noun_of(call.operation.kind)} is known, so that the budget {named(counter)} cannot"
        " count it; the request was not sent. Give it a price in a `price_file`, or say what a request counts with:"
        " `budget_unpriced` of the settings, `unpriced` of Budgets",
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


def _until(held: Held, amount: int) -> str:
    at = held.room_at(amount)
    if at is not None:
        return f" until its window has moved on far enough, at {_moment(at)} at the earliest"
    if held.slot.ends is None:
        return ""
    if _hard(held.counter).rolling:
        return f" until its window moves on at {_moment(held.slot.ends)} at the earliest"
    return f" until {_moment(held.slot.ends)}"


def _moment(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
