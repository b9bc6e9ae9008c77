"""The state behind the routes: options, books, faults, prefix cache."""

from collections import OrderedDict

from resilient_ai.simulator.bill import Books, Stats
from resilient_ai.simulator.faults import FaultPlan
from resilient_ai.simulator.settings import Settings

_BLOCK = 64  # guess: tokens that are cached or missed together; the service's own block size is not known.


class Simulator:
    """A running simulation: what it counted, and what shall go wrong.

    Args:
        settings: How the service behaves; the defaults are those of the service.

    >>> Simulator().stats().requests
    0
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.faults = FaultPlan()
        self.books = Books()
        self.prefixes = PrefixCache()
        self.url = ""

    @property
    def base_url(self) -> str:
        """The address that clients take as their base."""
        return f"{self.url}/v1"

    def stats(self) -> Stats:
        """What has been counted since the start or the last reset."""
        return self.books.stats()

    def reset(self) -> None:
        """Forget faults, counts, costs and cached prefixes."""
        self.faults.clear()
        self.books.reset()
        self.prefixes.clear()


class PrefixCache:
    """Remembers the prompts of a model and account in blocks of 64 tokens.

    Args:
        capacity: Blocks kept; the ones that were not used for longest are forgotten first.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[tuple[str, str, int], None] = OrderedDict()

    def clear(self) -> None:
        """Forget every prompt."""
        self._blocks = OrderedDict()

    def cached_tokens(self, key: str, model: str, pieces: list[str]) -> int:
        """How many leading tokens were seen before; all full blocks are remembered from now on.

        The last token is never counted, since a model has to compute at least one.
        """
        hits, unbroken, digest = 0, True, 0
        for start in range(0, len(pieces) - _BLOCK, _BLOCK):
            digest = hash((digest, *pieces[start : start + _BLOCK]))
            block = (key, model, digest)
            unbroken = unbroken and block in self._blocks
            hits += unbroken
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return hits * _BLOCK
