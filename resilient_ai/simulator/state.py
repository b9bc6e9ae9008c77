"""The state behind the routes: options, books, faults, prefix cache."""

from collections import OrderedDict

from resilient_ai.deepinfra.catalogue import Catalogue, ModelInfo, catalogue
from resilient_ai.simulator.bill import Books, Charge, Stats
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
        self.catalogue = catalogue
        self.url = ""

    @property
    def base_url(self) -> str:
        """The address that clients take as their base."""
        return f"{self.url}/v1"

    def stats(self) -> Stats:
        """What has been counted since the start or the last reset."""
        return self.books.stats()

    def charges(self) -> list[Charge]:
        """The latest lines of the bill, at most 20,000, in the order in which they were charged."""
        return self.books.charges()

    def put_models(self, *models: ModelInfo) -> None:
        """Serve, list and bill these models from now on, each in place of the one with its id if there is one.

        >>> from dataclasses import replace
        >>> from decimal import Decimal
        >>> from resilient_ai.deepinfra.catalogue import Pricing
        >>> simulator = Simulator()
        >>> bge = simulator.catalogue.get("BAAI/bge-m3")
        >>> simulator.put_models(replace(bge, pricing=Pricing(input_per_1m=Decimal("0.02"))))
        >>> simulator.catalogue.get("BAAI/bge-m3").pricing.input_per_1m
        Decimal('0.02')
        """
        self.catalogue = self.catalogue.with_models(*models)

    def drop_models(self, *ids: str) -> None:
        """Neither serve nor list these models any more."""
        left = (model for model in self.catalogue if model.id not in ids)
        self.catalogue = Catalogue(left, as_of=self.catalogue.as_of)

    def reset(self) -> None:
        """Forget faults, counts, costs and cached prefixes, and what was done to the list of models."""
        self.faults.clear()
        self.books.reset()
        self.prefixes.clear()
        self.catalogue = catalogue


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
