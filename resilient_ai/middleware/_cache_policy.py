"""What a call may do with the cache."""

import math
from dataclasses import dataclass
from typing import Any, cast

from resilient_ai.core.cache_control import CacheControl
from resilient_ai.core.call import Call
from resilient_ai.core.errors import StatusError
from resilient_ai.core.operations import Embed, Image, Sampling
from resilient_ai.middleware._machines.freshness import Freshness

_FAULTS_OF_THE_REQUEST = frozenset({400, 404, 405, 413, 422})
# The part of the time that is left in which the service is asked, where an old answer is in hand.
PART_FOR_ASKING = 0.9


@dataclass(frozen=True, slots=True)
class Policy:
    """What one call may do with the cache, and how old what it finds may be.

    Args:
        reads: Whether what is kept may answer it.
        keeps: Whether its answer is kept.
        ttl: Seconds for which it is then fresh, infinite for ever.
        limits: How old what it finds may be.
    """

    reads: bool
    keeps: bool
    ttl: float
    limits: Freshness

    @property
    def lasts(self) -> float | None:
        """Seconds for which a store must keep an entry of it; None until it is evicted."""
        extra = max(self.limits.stale_while_revalidate, self.limits.stale_if_error)
        return None if math.isinf(self.ttl) else self.ttl + extra


def policy_of(defaults: CacheControl, asked: CacheControl | None, early: float) -> Policy | None:
    """Return what a call that asks for `asked` may do; None where the cache has nothing to do with it."""
    if asked is None:
        asked = defaults
    mode = asked.mode or defaults.mode
    if mode in {None, "off"}:
        return None
    limits = Freshness(
        max_age=_first(asked.max_age, defaults.max_age, math.inf),
        stale_while_revalidate=_first(asked.stale_while_revalidate, defaults.stale_while_revalidate, 0.0),
        stale_if_error=_first(asked.stale_if_error, defaults.stale_if_error, 0.0),
        early=early,
    )
    return Policy(mode in {"on", "read"}, mode != "read", _first(asked.ttl, defaults.ttl, math.inf), limits)


def why_it_may_differ(call: Call[Any]) -> str | None:
    """Return why asking again may give another answer, None where it gives the same."""
    operation = call.operation
    if isinstance(operation, Embed):
        return None
    if isinstance(operation, Image):
        return None if operation.seed is not None else "there is no seed"
    sampling = cast("Sampling[Any]", operation)
    if sampling.temperature == 0 or sampling.seed is not None:
        return None
    return "temperature is not 0 and there is no seed"


def is_fault_of_the_request(error: Exception) -> bool:
    """Return whether an error speaks of what was asked, so that an old answer would only hide what is wrong with it."""
    return isinstance(error, StatusError) and error.status in _FAULTS_OF_THE_REQUEST


def is_shared(call: Call[Any], *, always: bool) -> bool:
    """Return whether what a call asks may be answered by what another one was answered."""
    asked = call.cache and call.cache.mode
    return asked != "off" and (always or asked is not None or why_it_may_differ(call) is None)


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
