"""A latch: what was refused once is not asked for again for a while."""

import math


class Latch:
    """Holds back whoever asks after a refusal, and lets one through at growing intervals to find out whether it still holds.

    The first refusal closes it for `duration` seconds, each further one for twice as long, up to `longest`. Refusals of those who
    had asked before it closed change nothing. Who is let through holds a lease; the others wait until it ends or runs out.

    Args:
        duration: Seconds it is closed first.
        longest: Upper bound in seconds.
        lease: Seconds after which one who was let through and has not come back lets another one go.

    >>> latch = Latch(duration=2.0, longest=10.0, lease=5.0)
    >>> _ = latch.refuse(0.0); latch.try_acquire(1.9), latch.try_acquire(2.0), latch.try_acquire(2.1)
    (0, 1, 0)
    >>> latch.refuse(2.2), latch.wait(2.2)
    (True, 4.0)
    """

    __slots__ = ("_duration", "_lease", "_leased", "_longest", "_probe", "_until")

    def __init__(self, *, duration: float, longest: float, lease: float) -> None:
        self._duration = duration
        self._longest = longest
        self._lease = lease
        self._leased = False
        self._probe = 0
        self._until = -math.inf

    def refuse(self, now: float) -> bool:
        """Close, after a refusal; False if it was closed already."""
        if now < self._until and not self._leased:
            return False
        self._leased = False
        self._until = now + self._duration
        self._duration = min(self._longest, 2 * self._duration)
        return True

    def try_acquire(self, now: float) -> int:
        """Let one through, if it is time; return the number of its lease, 0 for whoever must wait."""
        if now < self._until:
            return 0
        self._leased = True
        self._probe += 1
        self._until = now + self._lease
        return self._probe

    def release(self, probe: int, now: float) -> None:
        """Take a lease back from one who came to no answer; one that has run out by now is somebody else's."""
        if self._leased and probe == self._probe:
            self._leased = False
            self._until = now

    def wait(self, now: float) -> float:
        """Return the seconds until somebody may go."""
        return max(0.0, self._until - now)
