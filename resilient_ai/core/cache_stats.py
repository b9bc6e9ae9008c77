"""What a cache has done since it was made."""

from dataclasses import dataclass
from decimal import Decimal

from resilient_ai.core.protocols import StoreUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What a cache has done since it was made, and what its stores hold. Vectors count one by one.

    Args:
        hits: Entries found that were an answer, stale ones included.
        stale: Those of them that had outlived their time.
        misses: Entries looked up in vain.
        kept: Entries written.
        refreshed: Entries that were fetched anew behind an answer.
        errors: How often a store failed, or took too long, so that it was a miss.
        saved: US dollars that the hits would have cost, as far as that is known.
        stores: What the stores hold; those that cannot say are left out.
    """

    hits: int = 0
    stale: int = 0
    misses: int = 0
    kept: int = 0
    refreshed: int = 0
    errors: int = 0
    saved: Decimal = Decimal(0)
    stores: tuple[StoreUsage, ...] = ()

    @property
    def hit_ratio(self) -> float | None:
        """The part of all entries looked up that was found, from 0 to 1; None before the first."""
        looked_up = self.hits + self.misses
        return self.hits / looked_up if looked_up else None
