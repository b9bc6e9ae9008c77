"""The order in which models that could serve a call are asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from resilient_ai.core.operations import Operation
from resilient_ai.core.results import Considered
from resilient_ai.middleware._route_measures import Outlook

Preference = Literal["cheapest", "fastest", "balanced"]
PREFERENCES: frozenset[str] = frozenset({"cheapest", "fastest", "balanced"})

# Above this share of calls that failed or were slow a model goes behind the others.
_TROUBLED = 0.5
# A call that is to measure a model anew may cost so many times what the first in the order costs.
_DEARER = 2.0

# How much stands against a model: nothing, what it did lately, what is sure to refuse the call or let it wait.
FREE, TROUBLED, HELD_UP = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model that could serve a call.

    Args:
        model: Its id.
        cost: US dollars the call is expected to cost, None where nothing is known.
        seconds: Seconds until its first token, or its whole answer, None where it has answered nothing yet.
        failures: The share of its last calls that failed or were slow, 0 to 1.
        against: What stands against asking it now, such as an open circuit; None for nothing.
        samples: How many calls it has answered since the process began.
    """

    model: str
    cost: Decimal | None
    seconds: float | None
    failures: float
    against: str | None
    samples: int


Chooser = Callable[[Sequence[Candidate]], Sequence[Candidate]]


class Entry:
    """A candidate while the order is found.

    Args:
        operation: The operation of the call on this model.
        outlook: What is known of it.
        against: What is sure to refuse the call or to let it wait, None where nothing is.
        place: Its place in the order as given.
        is_preferred: Whether a rule puts it before the others.
        is_pinned: Whether it serves the conversation already.
    """

    __slots__ = ("against", "is_pinned", "is_preferred", "operation", "outlook", "place", "standing", "why")

    def __init__(
        self,
        operation: Operation[Any],
        outlook: Outlook,
        against: str | None,
        place: int,
        *,
        is_preferred: bool,
        is_pinned: bool,
    ) -> None:
        self.operation = operation
        self.outlook = outlook
        self.against = against
        self.place = place
        self.is_preferred = is_preferred
        self.is_pinned = is_pinned
        self.standing = FREE if against is None else HELD_UP
        self.why: str | None = against
        trouble = outlook.look.trouble
        if against is None and trouble > _TROUBLED:
            self.standing = TROUBLED
            self.against = self.why = f"{trouble:.0%} of its last calls failed or were slow"

    @property
    def model(self) -> str:
        """The id of the model."""
        return self.operation.model

    def candidate(self) -> Candidate:
        """Return it as a function that chooses is shown it."""
        look = self.outlook.look
        return Candidate(
            model=self.model,
            cost=_dollars(self.outlook.cost),
            seconds=self.outlook.seconds,
            failures=look.trouble,
            against=self.against,
            samples=look.answers,
        )

    def considered(self, place: int | None, why: str) -> Considered:
        """Return it as the answer tells of it."""
        outlook = self.outlook
        return Considered(
            model=self.model,
            place=place,
            why=self.why or why,
            cost=_dollars(outlook.cost),
            seconds=outlook.seconds,
        )


def order(entries: Sequence[Entry], prefer: Preference | None) -> list[Entry]:
    """Return the entries in the order in which they are to be asked.

    Those against which nothing stands come first, then those in trouble, then those that would refuse the call or let it wait.
    Of equals the one that is pinned comes first, then those that a rule prefers, then what `prefer` says, then the order given.
    """
    timed = [entry.outlook.seconds for entry in entries]
    fastest = min((seconds for seconds in timed if seconds is not None), default=1.0)

    def rank(entry: Entry) -> tuple[int, bool, bool, float, int]:
        is_pinned = entry.is_pinned and entry.standing == FREE
        score = 0.0 if prefer is None else _score(entry.outlook, prefer, fastest)
        return entry.standing, not is_pinned, not entry.is_preferred, score, entry.place

    return sorted(entries, key=rank)


def explored(ranked: Sequence[Entry]) -> Entry | None:
    """Return the entry that it is time to measure anew in place of the first; None where there is none.

    It is the one that was asked the longest ago, of those that nothing holds up, that a rule treats like the first, and that
    cost at most twice as much or nobody knows what.
    """
    first = ranked[0]
    if first.is_pinned:
        return None
    most = None if first.outlook.cost is None else first.outlook.cost * _DEARER
    fitting = [
        entry
        for entry in ranked[1:]
        if entry.standing != HELD_UP and entry.is_preferred == first.is_preferred and _costs_at_most(entry, most)
    ]
    return min(fitting, key=lambda entry: entry.outlook.look.asked, default=None)


def reason(entry: Entry, prefer: Preference | None) -> str:
    """Return why an entry stands where it does."""
    if entry.is_pinned:
        return "serves this conversation"
    by = _reason(entry.outlook, prefer)
    return f"by a rule, and {by}" if entry.is_preferred else by


def _reason(outlook: Outlook, prefer: Preference | None) -> str:
    if prefer is None:
        return "in the order given"
    if prefer == "fastest":
        return "not timed yet" if outlook.seconds is None else "by time"
    by = "price" if prefer == "cheapest" else "price and time"
    if outlook.cost is None:
        return "no price known"
    return f"by {by}, as billed lately" if outlook.is_measured else f"by {by}, as listed"


def _score(outlook: Outlook, prefer: Preference, fastest: float) -> float:
    cost = float("inf") if outlook.cost is None else outlook.cost
    seconds = outlook.seconds
    if prefer == "cheapest":
        return cost
    if prefer == "balanced":
        return cost * (fastest if seconds is None else seconds)
    if seconds is not None:
        return seconds
    return float("inf") if outlook.look.is_awaited else -1.0


def _costs_at_most(entry: Entry, most: float | None) -> bool:
    cost = entry.outlook.cost
    return most is None or cost is None or cost <= most


def _dollars(cost: float | None) -> Decimal | None:
    return None if cost is None else Decimal(f"{cost:.6g}")
