"""What the steps of the tour act with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resilient_ai.cli.demo.tally import Tally
from resilient_ai.client import AsyncClient
from resilient_ai.core.call import Middleware
from resilient_ai.core.ledger import CostBook

if TYPE_CHECKING:
    from resilient_ai.core.vectors import Vectors
    from resilient_ai.simulator import Simulator


@dataclass(kw_only=True)
class Scene:
    """The client, what stands around it, and what one step leaves for another.

    Args:
        ai: The client under way.
        stack: Its middleware, to be put around another provider.
        ledger: Its book of costs.
        base_url: Where it sends to.
        output: The folder for pictures.
        tally: Sums over the tour.
        started: Seconds since 1970 at which the tour began.
        simulator: The service, None where it is the real one.
    """

    ai: AsyncClient
    stack: Sequence[Middleware]
    ledger: CostBook
    base_url: str
    output: Path
    tally: Tally
    started: float
    simulator: "Simulator | None" = None
    vectors: "Vectors | None" = None
    picture: Path | None = None
