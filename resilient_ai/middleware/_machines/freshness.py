"""Says what an entry of a cache is good for at its age."""

import math
from dataclasses import dataclass
from typing import Literal

Worth = Literal["fresh", "due", "stale", "spare", "over"]

# Seconds by which two clocks that write the same store may disagree.
CLOCK_SKEW = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """The limits that a call sets to the age of what it takes, in seconds.

    Args:
        max_age: Age above which an entry is no answer any more, whatever its own time; only where asking again fails it may be.
        stale_while_revalidate: Time after its end for which an entry is still an answer, while a new one is fetched.
        stale_if_error: Time after its end for which an entry is an answer where asking again fails.
        early: How eagerly an entry is fetched anew before its end; 0 is never.

    >>> limits = Freshness(stale_while_revalidate=10)
    >>> limits.worth(age=59, ttl=60), limits.worth(age=69, ttl=60), limits.worth(age=71, ttl=60)
    ('fresh', 'stale', 'over')
    """

    max_age: float = math.inf
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    early: float = 1.0

    def worth(self, *, age: float, ttl: float, made_in: float = 0.0, chance: float = 0.0) -> Worth:
        """Return what an entry is good for.

        It is an answer while it is "fresh" or "due", and "due" means that it should be fetched anew behind the answer. The nearer
        its end and the longer it takes to make, the sooner one of many calls finds it due: where
        `early * made_in * -ln(1 - chance)` is at least the time it has left (Vattani and others, "Optimal probabilistic cache
        stampede prevention"). A "stale" entry is an answer, and is fetched anew; a "spare" one is an answer where that fails.

        Args:
            age: Seconds since it was made; one that was made in the future is "over".
            ttl: Seconds it lives.
            made_in: Seconds it took to make.
            chance: A number in [0, 1) from the clock.
        """
        if not age >= -CLOCK_SKEW:
            return "over"
        late = age - ttl
        if age <= self.max_age:
            if late <= 0:
                hurry = self.early * made_in
                return "due" if hurry and late >= hurry * math.log(1.0 - chance) else "fresh"
            if late <= self.stale_while_revalidate:
                return "stale"
        return "spare" if max(late, age - self.max_age) <= self.stale_if_error else "over"
