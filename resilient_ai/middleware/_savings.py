"""Writing down what was not sent."""

from decimal import Decimal
from typing import Any, Literal

from resilient_ai.core.call import Call
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.ledger import CallSpared, Savings
from resilient_ai.core.log import Log

_log = Log()


def write_spared(
    savings: Savings | None,
    call: Call[Any],
    outcome: Literal["hit", "stale", "joined"],
    *,
    hits: int,
    saved: Decimal | None,
) -> None:
    """Write down that `hits` answers, or vectors, of a call were not sent; whatever fails in that is logged by name."""
    if savings is None or not hits:
        return
    try:
        savings.spared(
            CallSpared(
                call_id=call.id,
                at=call.clock.wall(),
                kind=call.operation.kind,
                model=call.model,
                outcome=outcome,
                hits=hits,
                saved=saved,
                tags=call.tags,
            )
        )
    except FAULTS as error:  # a book never fails a call
        _log.warning("%s raised %s; what a call has saved is not in it", type(savings).__name__, type(error).__name__)
