"""The order in which models that could serve a call are asked."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from resilient_ai.core.results import Considered
from resilient_ai.middleware._machines.scoreboard import Look

Preference = Literal["cheapest", "fastest", "balanced"]
PREFERENCES: frozenset[str] = frozenset({"cheapest", "fastest", "balanced"})

# Above this share of calls that failed or were slow a model goes behind the others.
_TROUBLED = 0.5
# A call that is to measure a model anew may cost so many times what the first in the order costs.
_DEARER = 2.0

# How much stands against a model: nothing, what it did lately, what is sure to refuse the call or let it wait.
FREE, TROUBLED, HELD_UP = 0, 1, 2

_NOTHING = Look(length=0.0)


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


OwnOrder = Callable[[Sequence[Candidate]], Sequence[Candidate]]


class Entry:
    """A candidate while the order is found.

    What it is expected to cost and to take, and how it did lately, is told by `Measures.estimate`; until then nothing is known.

    Args:
        model: Its id.
        place: Its place in the order as given.
        against: What is sure to refuse the call or to let it wait, None where nothing is.
        is_preferred: Whether a rule puts it before the others.
        is_pinned: Whether it serves the conversation already.

    Attributes:
        standing: How much stands against it.
        why: The reason that goes before all others.
        look: How the model did lately.
        cost: US dollars that the call is expected to cost, None where that is not known.
        is_measured: Whether that is what the service billed lately, and not the list price.
        lacks_price: Whether the list of prices knows none for it, and none was billed.
        seconds: Seconds that it is expected to take, None where that is not known.
    """

    __slots__ = (
        "against",
        "cost",
        "is_measured",
        "is_pinned",
        "is_preferred",
        "lacks_price",
        "look",
        "model",
        "place",
        "seconds",
        "standing",
        "why",
    )

    def __init__(
        self,
        model: str,
        place: int = 0,
        *,
        against: str | None = None,
        is_preferred: bool = False,
        is_pinned: bool = False,
    ) -> None:
        self.model = model
        self.place = place
        self.against = against
        self.standing = FREE if against is None else HELD_UP
        self.is_preferred = is_preferred
        self.is_pinned = is_pinned
        self.why: str | None = None
        self.look = _NOTHING
        self.cost: float | None = None
        self.is_measured = False
        self.lacks_price = False
        self.seconds: float | None = None

    def did(self, look: Look) -> None:
        """Take note of how the model did lately."""
        self.look = look
        if look.trouble > _TROUBLED and self.against is None:
            self.standing = TROUBLED
            self.against = f"{look.trouble:.0%} of its last calls failed or were slow"

    @property
    def moves(self) -> bool:
        """Whether it may have another place than the one given, though nothing is preferred."""
        return self.is_pinned or self.is_preferred or self.standing != FREE

    def candidate(self) -> Candidate:
        """Return it as a function that chooses is shown it."""
        look = self.look
        return Candidate(
            model=self.model,
            cost=_dollars(self.cost),
            seconds=self.seconds,
            failures=look.trouble,
            against=self.against,
            samples=look.answers,
        )

    def considered(self, place: int | None, why: str) -> Considered:
        """Return it as the answer tells of it."""
        return Considered(
            model=self.model,
            place=place,
            why=self.why or self.against or why,
            cost=_dollars(self.cost),
            seconds=self.seconds,
        )


def rank(entries: Sequence[Entry], prefer: Preference | None) -> list[Entry]:
    """Return the entries in the order in which they are to be asked.

    Those against which nothing stands come first, then those in trouble, then those that would refuse the call or let it wait.
    Of equals the one that is pinned comes first, then those that a rule prefers, then what `prefer` says, then the order given.
    """
    timed = [entry.seconds for entry in entries]
    fastest = min((seconds for seconds in timed if seconds is not None), default=1.0)

    def key(entry: Entry) -> tuple[int, bool, bool, float, int]:
        is_pinned = entry.is_pinned and entry.standing == FREE
        score = 0.0 if prefer is None else _score(entry, prefer, fastest)
        return entry.standing, not is_pinned, not entry.is_preferred, score, entry.place

    return sorted(entries, key=key)


def explored(ranked: Sequence[Entry]) -> Entry | None:
    """Return the entry that it is time to measure anew in place of the first; None where there is none.

    It is the one that was asked the longest ago, of those that nothing holds up, that a rule treats like the first, and that
    cost at most twice as much or nobody knows what.
    """
    first = ranked[0]
    if first.is_pinned:
        return None
    most = None if first.cost is None else first.cost * _DEARER
    fitting = [
        entry
        for entry in ranked[1:]
        if entry.standing != HELD_UP and entry.is_preferred == first.is_preferred and _costs_at_most(entry, most)
    ]
    return min(fitting, key=lambda entry: entry.look.asked, default=None)


def reason(entry: Entry, prefer: Preference | None) -> str:
    """Return why an entry stands where it does, if nothing stands against it."""
    if entry.is_pinned:
        return "serves this conversation"
    by = _reason(entry, prefer)
    return f"by a rule, and {by}" if entry.is_preferred else by


def with_price(why: str, entry: Entry) -> str:
    """Return a reason that has nothing to do with the price, with a word on a price that is not known."""
    return f"{why}, no price known" if entry.lacks_price else why


def _reason(entry: Entry, prefer: Preference | None) -> str:
    if prefer is None:
        return with_price("in the order given", entry)
    if prefer == "fastest":
        return with_price("not timed yet" if entry.seconds is None else "by time", entry)
    if entry.cost is None:
        return "no price known"
    by = "price" if prefer == "cheapest" else "price and time"
    return f"by {by}, as billed lately" if entry.is_measured else f"by {by}, as listed"


def _score(entry: Entry, prefer: Preference, fastest: float) -> float:
    cost = math.inf if entry.cost is None else entry.cost
    seconds = entry.seconds
    if prefer == "cheapest":
        return cost
    if prefer == "balanced":
        return cost * (fastest if seconds is None else seconds)
    if seconds is not None:
        return seconds
    return math.inf if entry.look.is_awaited else -1.0


def _costs_at_most(entry: Entry, most: float | None) -> bool:
    return most is None or entry.cost is None or entry.cost <= most


def _dollars(cost: float | None) -> Decimal | None:
    return None if cost is None else Decimal(f"{cost:.6g}")
