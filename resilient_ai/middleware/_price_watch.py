"""Bills beside the price table, for every model."""

from decimal import Decimal
from typing import Any

from resilient_ai.core.call import Call
from resilient_ai.core.clock import time_of
from resilient_ai.core.events import PriceDrifted
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.health import PriceState
from resilient_ai.core.log import Log
from resilient_ai.middleware._machines.bounded import make_room
from resilient_ai.middleware._machines.price_drift import PriceDrift, differs
from resilient_ai.middleware._machines.turns import Turns

# At so many models a quarter is forgotten: those of which the fewest sends are known.
_MOST_MODELS = 1024

_log = Log()


class PriceWatch:
    """Tells where the service bills other prices than the price table has. Safe to use from several threads."""

    def __init__(self) -> None:
        self._drifts: dict[tuple[str, str], PriceDrift] = {}
        self._turns = Turns()
        self._turns.forked = self._drifts.clear

    def compare(self, call: Call[Any], send_id: str, billed: Decimal, listed: Decimal) -> None:
        """Take in what one send was billed, and tell the listeners where it differs."""
        key = (call.origin, call.model)
        drift = self._drifts.get(key)
        if drift is None:
            with self._turns:
                make_room(self._drifts, _MOST_MODELS, lambda known: known.sends)
                drift = self._drifts[key] = PriceDrift()
        # Without a turn: two threads at once may lose one of their sends from an average, which is not worth waiting for.
        drift.record(billed, listed)
        if not differs(billed, listed):
            return
        is_news = drift.try_warn(time_of(call.clock))
        if is_news and not _is_written_down(call):
            _log.warning("%s is billed at %.3g times what the price table says", call.model, drift.ratio)
        if call.listeners:
            call.emit(
                PriceDrifted(
                    call_id=call.id,
                    model=call.model,
                    send_id=send_id,
                    cost=billed,
                    list_cost=listed,
                    repeated=not is_news,
                )
            )

    def states(self) -> tuple[PriceState, ...]:
        """Return what is known of every model."""
        with self._turns:
            return tuple(
                PriceState(key=key, drift=drift.ratio, sends=drift.sends) for key, drift in self._drifts.items()
            )


def _is_written_down(call: Call[Any]) -> bool:
    """Whether a listener writes a line of the log for what it is told, so that nobody else has to."""
    try:
        return any(getattr(listener, "writes_lines", False) is True for listener in call.listeners)
    except FAULTS:  # it is somebody else's attribute
        return False
