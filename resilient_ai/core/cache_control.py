"""How a call wants the cache to be used."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from resilient_ai.core.checks import check_at_least, check_seconds

CacheMode = Literal["on", "off", "read", "write", "refresh"]

_MODES = get_args(CacheMode)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheControl:
    """What one call, or all calls of a client, ask of the cache; what is None is left to the `Cache` of the stack.

    Whoever names a mode other than "off" also has answers kept and found that would differ if they were made again.

    Args:
        mode: "on" reads and keeps; "off" does neither; "read" keeps nothing new; "write" sends, and keeps the answer;
            "refresh" does so too, and shares no request that is under way for another call.
        ttl: Seconds for which what is kept now is fresh, above 0; `math.inf` for ever.
        max_age: Seconds an entry may be old to be an answer, at least 0; older ones are sent again.
        stale_while_revalidate: Seconds after its time for which an entry is still an answer, while a new one is fetched.
        stale_if_error: Seconds after its time for which an entry is an answer where asking again fails.

    Raises:
        ValueError: If an option is out of its range.

    >>> CacheControl(max_age=60)
    CacheControl(mode=None, ttl=None, max_age=60, stale_while_revalidate=None, stale_if_error=None)
    """

    mode: CacheMode | None = None
    ttl: float | None = None
    max_age: float | None = None
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if self.mode is not None and self.mode not in _MODES:
            raise ValueError(f"mode must be one of {_MODES}, got {self.mode!r}")
        if self.ttl is not None and self.ttl != math.inf:
            check_seconds("ttl", self.ttl)
        for name in ("max_age", "stale_while_revalidate", "stale_if_error"):
            value = getattr(self, name)
            if value is not None:
                check_at_least(name, value, 0)

    @classmethod
    def of(cls, given: "CacheMode | CacheControl | None") -> "CacheControl | None":
        """Return what was given as an object; a mode alone is a shorthand.

        Raises:
            ValueError: If it is neither a mode nor a `CacheControl`.
        """
        if given is None or isinstance(given, cls):
            return given
        control = _OF_MODE.get(given) if isinstance(given, str) else None
        if control is None:
            raise ValueError(f"must be one of {_MODES} or a CacheControl, got {given!r}")
        return control


_OF_MODE = {mode: CacheControl(mode=mode) for mode in _MODES}
