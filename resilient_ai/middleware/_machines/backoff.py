"""How long to wait before the next try."""

import math
from dataclasses import dataclass

# Above 2 ** 1000 every wait is far beyond any bound, and 2.0 ** 1024 is an error.
_STEEPEST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits that double up to a bound, with full jitter.

    After try n the wait is `chance * min(longest, initial * 2 ** (n - 1))` seconds. A wait that the server asked for is a
    lower bound: `retry_after + chance * min(1, retry_after / 10)`, so that many clients told "5" do not return in step.

    Args:
        initial: Seconds before the first retry when chance is at its highest; at least 0.
        longest: Upper bound of a computed wait, in seconds. A server's wait may be longer.

    >>> backoff = Backoff(initial=0.5, longest=8.0)
    >>> [backoff.wait(tries, 1.0) for tries in (1, 2, 3, 9)]
    [0.5, 1.0, 2.0, 8.0]
    >>> backoff.wait(1, 0.5, retry_after=5.0)
    5.25
    """

    initial: float
    longest: float

    def wait(self, tries: int, chance: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait after `tries` failed tries: finite, and at least 0.

        Args:
            tries: How many have failed, from 1.
            chance: A number from 0 to 1.
            retry_after: Seconds the server asked for; ignored where it is no finite positive number.
        """
        bound = min(self.longest, self.initial * 2.0 ** min(tries - 1, _STEEPEST))
        computed = chance * bound
        if retry_after is None or not 0 < retry_after < math.inf:
            return computed
        return max(computed, retry_after + chance * min(1.0, retry_after / 10))
