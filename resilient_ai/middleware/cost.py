"""What every send costs: one row in the ledger and one entry in the call's record, however it ends."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal, TypeVar

from resilient_ai.core.call import Call, Next, new_id
from resilient_ai.core.checks import check_able, check_callable
from resilient_ai.core.collector import outside_of_collector
from resilient_ai.core.errors import CallRejected, ProviderError, StatusError
from resilient_ai.core.events import SendSettled
from resilient_ai.core.protocols import Ledger, PriceBook, SendClosed, SendOpened
from resilient_ai.core.results import CostSource, Result, Usage
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._pricing import estimate_usage, price, price_of_result

R = TypeVar("R")
T = TypeVar("T")
State = Literal["settled", "estimated", "unknown", "never_sent"]

_log = logging.getLogger("resilient_ai")


@dataclass(frozen=True)
class CostAccounting:
    """Write down every send before it leaves, and what it cost when it ends, in whichever way it ends.

    A try that failed may be billed too, so what a call cost is the sum over its sends, and each send has a row of its own. The
    row is opened before bytes leave and closed exactly once: by the answer, an error, a cancellation, or the end of a
    stream, also of one that nobody closed.

    The state of a row says how far its cost can be trusted: "settled" is the service's own figure; "estimated" comes from the
    price table, for a broken stream from counted characters (4 to a token); "unknown" may have cost something that nobody
    told us; "never_sent" cost nothing. An unknown cost is None, never zero.

    Accounting never fails a call: a ledger or a price book that raises is logged by name and passed over.

    Args:
        ledger: Where rows are written; None writes none.
        prices: Prices for sends of which the service tells no cost; None knows none.
        on_settled: Called with the `SendSettled` of every send; it must be quick and must not raise.

    Raises:
        ValueError: If an option cannot do its work, such as the path of a ledger in place of a ledger.

    >>> CostAccounting()
    CostAccounting(ledger=None, prices=None, on_settled=None)
    """

    ledger: Ledger | None = None
    prices: PriceBook | None = None
    on_settled: Callable[[SendSettled], None] | None = None
    inside_of: ClassVar[Mapping[str, str]] = {
        "Cache": "an answer from the cache is no send and has no row",
        "Resume": "a stream that is asked for again is a send with a row of its own",
        "Routing": "every model that is asked is a send with a row and a price of its own",
        "Batching": "every batch is a send with a row of its own",
        "Retry": "every try is a send with a row of its own, and the failed ones may be billed too",
    }

    def __post_init__(self) -> None:
        """Check the options."""
        check_able("ledger", self.ledger, "opened", "closed")
        check_able("prices", self.prices, "chat_cost", "embedding_cost", "image_cost")
        check_callable("on_settled", self.on_settled)

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Open a row, send, and see to it that the row is closed."""
        send = _Send(self, call)
        try:
            result = await proceed(call)
        except BaseException as error:
            send.failed(error)
            raise
        if isinstance(result, StreamResult):
            result.on_end(send.stream_ended)
        elif isinstance(result, Result):
            send.succeeded(result)
        else:
            send.charge(None, "provider", used=True)
            send.close("unknown", None)
        return result

    async def aclose(self) -> None:
        """Write what is pending and close the ledger."""
        if self.ledger is not None:
            await self.ledger.aclose()


class _Send:
    """One request from before it leaves to its end."""

    __slots__ = ("accounting", "call", "departed", "id", "pid", "started")

    def __init__(self, accounting: CostAccounting, call: Call[Any]) -> None:
        self.accounting = accounting
        self.call = call
        self.id = new_id()
        self.departed = call.departed.count
        self.pid = os.getpid()
        self.started = call.clock.monotonic()
        ledger = accounting.ledger
        if ledger is not None:
            row = SendOpened(
                send_id=self.id,
                call_id=call.id,
                at=call.clock.wall(),
                kind=call.operation.kind,
                model=call.model,
                attempt=call.attempt,
                tags=call.tags,
            )
            _or_none(lambda: ledger.opened(row), ledger)

    def succeeded(self, result: Result) -> None:
        """Close the row with what an answer cost."""
        cost = result.cost
        if cost is not None and cost.source == "provider":
            self.charge(cost.amount, "provider", used=True)
            self.close("settled", cost.amount, usage=result.usage)
            return
        amount = self.priced(lambda prices: price_of_result(prices, self.call.operation, result))
        self.charge(amount, "provider" if amount is None else "table", used=True)
        self.close("unknown" if amount is None else "estimated", amount, usage=result.usage)

    def failed(self, error: BaseException) -> None:
        """Close the row of a send that gave no answer."""
        if not self.may_be_billed(error):
            self.close("never_sent", None, error=error)
        elif isinstance(error, StatusError):  # the service refused, and bills nothing for that
            self.charge(Decimal(0), "provider", used=False)
            self.close("settled", Decimal(0), error=error)
        else:
            self.charge(None, "provider", used=False)
            self.close("unknown", None, error=error)

    def may_be_billed(self, error: BaseException) -> bool:
        """Return whether bytes of the request may have reached the service."""
        if isinstance(error, ProviderError | CallRejected):
            return error.sent
        # A cancellation, or a fault of ours: then it matters whether bytes left since the row was opened.
        return self.call.departed.count > self.departed

    def stream_ended(self, end: StreamEnd) -> None:
        """Close the row of a stream with what was reported, or else with what was counted."""
        transcript = end.transcript
        finished = transcript.finished
        usage = finished.usage if finished is not None else None
        used = end.how in {"completed", "closed"} and end.error is None
        if finished is not None and finished.cost is not None:
            self.charge(finished.cost.amount, finished.cost.source, used=used)
            self.close("settled", finished.cost.amount, usage=usage, error=end.error)
            return
        # A whole answer whose usage got lost is not guessed at: the caller sees its cost, and would take it for the truth.
        counted = usage
        if usage is None and end.how != "completed":
            counted = _or_none(lambda: estimate_usage(self.call.operation, transcript), self)
        tier = finished.service_tier if finished is not None else None
        amount = self.priced(lambda prices: price(prices, self.call.operation, counted, tier))
        self.charge(amount, "provider" if amount is None else "table", used=used)
        if amount is None:
            self.close("unknown", None, usage=usage, error=end.error)
        else:
            self.close("estimated", amount, usage=counted, error=end.error)

    def priced(self, ask: Callable[[PriceBook], Decimal | None]) -> Decimal | None:
        """Ask the price table, which may know nothing."""
        prices = self.accounting.prices
        return None if prices is None else _or_none(lambda: ask(prices), prices)

    def charge(self, amount: Decimal | None, source: CostSource, *, used: bool) -> None:
        """Tell the call what the send cost."""
        self.call.record.costs.append((amount, source, used))

    def close(
        self, state: State, cost: Decimal | None, *, usage: Usage | None = None, error: BaseException | None = None
    ) -> None:
        """Close the row and tell whoever listens."""
        if self.pid != os.getpid():
            return  # a forked child's copy: the row is the parent's
        call = self.call
        name = None if error is None else type(error).__name__
        elapsed = self.elapsed()
        ledger, on_settled = self.accounting.ledger, self.accounting.on_settled
        if ledger is not None:
            row = SendClosed(send_id=self.id, state=state, cost=cost, usage=usage, error=name, elapsed=elapsed)
            _or_none(lambda: ledger.closed(row), ledger)
        if on_settled is None and not call.listeners:
            return
        event = SendSettled(
            call_id=call.id,
            model=call.model,
            send_id=self.id,
            state=state,
            cost=cost,
            usage=usage,
            error=name,
            elapsed=elapsed,
        )
        call.emit(event)
        if on_settled is not None:
            outside_of_collector(lambda: _tell(on_settled, event))

    def elapsed(self) -> float:
        """Return the seconds since the row was opened; 0 where the clock has stopped with its loop."""
        try:
            return self.call.clock.monotonic() - self.started
        except RuntimeError:
            return 0.0


def _tell(on_settled: Callable[[SendSettled], None], event: SendSettled) -> None:
    _or_none(lambda: on_settled(event), on_settled)


def _or_none(ask: Callable[[], T], part: object) -> T | None:
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - accounting never fails a call
        _passed_over(part, error)
        return None


def _passed_over(part: object, error: Exception) -> None:
    name = getattr(part, "__qualname__", type(part).__name__)
    _log.warning("cost accounting passed over %s, which raised %s", name, type(error).__name__)
