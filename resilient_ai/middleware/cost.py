"""What every send costs: one row in the ledger and one entry in the call's record, however it ends."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar, Concatenate, Literal, ParamSpec, TypeVar

from resilient_ai.core.call import Call, Next, new_id
from resilient_ai.core.checks import check_able, check_callable
from resilient_ai.core.collector import outside_of_collector
from resilient_ai.core.errors import CallRejected, ProviderError, StatusError
from resilient_ai.core.events import SendSettled
from resilient_ai.core.health import PriceState
from resilient_ai.core.ledger import Ledger, SendClosed, SendOpened
from resilient_ai.core.operations import Operation
from resilient_ai.core.protocols import PriceBook
from resilient_ai.core.results import CostSource, Result, Usage
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._price_watch import PriceWatch
from resilient_ai.middleware._pricing import PromptSizes, estimate_usage, price, price_of_result

R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")
State = Literal["settled", "estimated", "unknown", "never_sent"]

_SERVER_FAULT = 500

_log = logging.getLogger("resilient_ai")


@dataclass(frozen=True)
class CostAccounting:
    """Write down every send before it leaves, and what it cost when it ends, in whichever way it ends.

    A try that failed may be billed too, so what a call cost is the sum over its sends, and each send has a row of its own. The
    row is opened before bytes leave and closed exactly once: by the answer, an error, a cancellation, or the end of a
    stream, also of one that nobody closed.

    The state of a row says how far its cost can be trusted: "settled" is the service's own figure; "estimated" comes from the
    price table, for a broken stream from tokens that were counted; "unknown" may have cost something that nobody told us;
    "never_sent" cost nothing. An unknown cost is None, never zero.

    The price table is asked for every answer, also where the service named its own figure. Where the two are more than 1 %
    apart, and more than a figure with six decimals may be rounded off, `PriceDrifted` tells of the send, `health()` has a
    decaying ratio for the model, and one warning an hour goes to the log.

    Accounting never fails a call: a ledger or a price book that raises is logged by name and passed over.

    Args:
        ledger: Where rows are written; None writes none.
        prices: What the price list says, for sends of which the service tells no cost, and to compare with what it tells; None
            knows none.
        on_settled: Called with the `SendSettled` of every send; it must be quick and must not raise.

    Raises:
        ValueError: If an option cannot do its work, such as the path of a ledger in place of a ledger.

    >>> CostAccounting()
    CostAccounting(ledger=None, prices=None, on_settled=None)
    """

    ledger: Ledger | None = None
    prices: PriceBook | None = None
    on_settled: Callable[[SendSettled], None] | None = None
    _watch: PriceWatch = field(init=False, repr=False, compare=False, default_factory=PriceWatch)
    _sizes: PromptSizes = field(init=False, repr=False, compare=False, default_factory=PromptSizes)
    inside_of: ClassVar[Mapping[str, str]] = {
        "Budgets": "a budget is told by it what each send cost",
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
        send = _Send(self, self._watch, self._sizes, call)
        try:
            result = await proceed(call)
        except BaseException as error:
            send.failed(error)
            raise
        if isinstance(result, StreamResult):
            send.handed_over(result)
        else:
            send.answered(result)
        return result

    def health(self) -> tuple[PriceState, ...]:
        """Return how what is billed differs from the price table, for every model of which both are known."""
        return self._watch.states()

    async def aclose(self) -> None:
        """Write what is pending and close the ledger."""
        if self.ledger is not None:
            await self.ledger.aclose()


class _Send:
    """One request from before it leaves to its end."""

    __slots__ = ("accounting", "call", "departed", "id", "pid", "sizes", "started", "used", "watch")

    def __init__(self, accounting: CostAccounting, watch: PriceWatch, sizes: PromptSizes, call: Call[Any]) -> None:
        self.accounting = accounting
        self.watch = watch
        self.sizes = sizes
        self.call = call
        self.id = new_id()
        self.departed = call.departed.count
        self.pid = os.getpid()
        self.used = False
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
            try:
                ledger.opened(row)
            except Exception as error:  # noqa: BLE001 - accounting never fails a call
                _passed_over(ledger, error)

    def answered(self, result: object) -> None:
        """Close the row with what an answer cost."""
        self.used = self.call.claim()
        if not isinstance(result, Result):
            self.close("unknown")
            return
        cost, usage, tier = result.cost, result.usage, result.service_tier
        self.learn(usage)
        listed = self.listed(price_of_result, result)
        if cost is not None and cost.source == "provider":
            self.close("settled", cost.amount, listed=listed, usage=usage, tier=tier)
        else:
            self.close_by_table(listed, usage=usage, tier=tier)

    def failed(self, error: BaseException) -> None:
        """Close the row of a send that gave no answer."""
        if not self.may_be_billed(error):
            self.close("never_sent", error=error)
        elif isinstance(error, StatusError) and not (error.in_answer and error.status >= _SERVER_FAULT):
            # The service refused, and bills nothing for that; one that failed while it answered may bill what it had done.
            self.close("settled", Decimal(0), error=error)
        else:
            self.close("unknown", error=error)

    def may_be_billed(self, error: BaseException) -> bool:
        """Return whether bytes of the request may have reached the service."""
        if isinstance(error, ProviderError | CallRejected):
            return error.sent
        # A cancellation, or a fault of ours: then it matters whether bytes left since the row was opened.
        return self.call.departed.count > self.departed

    def handed_over(self, stream: StreamResult) -> None:
        """Close the row when the stream ends."""
        self.used = self.call.claim()
        stream.on_end(self.stream_ended)

    def stream_ended(self, end: StreamEnd) -> None:
        """Close the row of a stream with what was reported, or else with what was counted."""
        self.used = self.used and end.how in {"completed", "closed"} and end.error is None
        operation, finished = self.call.operation, end.transcript.finished
        if finished is not None:
            usage, tier, cost = finished.usage, finished.service_tier, finished.cost
            self.learn(usage)
            listed = self.listed(price, usage, tier)
            if cost is not None:
                self.close("settled", cost.amount, listed=listed, usage=usage, tier=tier, error=end.error)
            else:
                # Where the usage of a whole answer got lost it is not guessed at: the caller sees its cost, and would take it
                # for the truth.
                self.close_by_table(listed, usage=usage, tier=tier, error=end.error)
            return
        counted = None
        if end.how != "completed":
            counted = _or_none(lambda: estimate_usage(operation, end.transcript, self.sizes), self)
        listed = self.listed(price, counted)
        usage = None if listed is None else counted
        self.close_by_table(listed, usage=usage, error=end.error, source="estimate")

    def listed(
        self,
        ask: "Callable[Concatenate[PriceBook, Operation[Any], P], Decimal | None]",
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Decimal | None:
        """Ask the price table, which may know nothing."""
        prices = self.accounting.prices
        if prices is None:
            return None
        try:
            return ask(prices, self.call.operation, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - accounting never fails a call
            _passed_over(prices, error)
            return None

    def learn(self, usage: Usage | None) -> None:
        """Take note of how many tokens the prompt had, for streams that will break off."""
        try:
            self.sizes.learn(self.call.operation, usage)
        except Exception as error:  # noqa: BLE001 - accounting never fails a call
            _passed_over(self.sizes, error)

    def close_by_table(
        self,
        listed: Decimal | None,
        *,
        usage: Usage | None,
        tier: str | None = None,
        error: BaseException | None = None,
        source: CostSource = "table",
    ) -> None:
        """Close the row with what the price table says, which may be nothing."""
        state: State = "unknown" if listed is None else "estimated"
        self.close(state, listed, source=source, listed=listed, usage=usage, tier=tier, error=error)

    def close(
        self,
        state: State,
        cost: Decimal | None = None,
        *,
        source: CostSource = "provider",
        listed: Decimal | None = None,
        usage: Usage | None = None,
        tier: str | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Close the row, and tell the call and whoever counts or listens."""
        if self.pid != os.getpid():
            return  # a forked child's copy: the row is the parent's
        call, accounting = self.call, self.accounting
        if state != "never_sent":
            call.record.costs.append((cost, source, self.used))
        row = SendClosed(
            send_id=self.id,
            state=state,
            cost=cost,
            list_cost=listed,
            used=self.used,
            usage=usage,
            service_tier=tier,
            error=None if error is None else type(error).__name__,
            elapsed=self.elapsed(),
        )
        told = call.on_send_closed if accounting.ledger is None else (accounting.ledger.closed, *call.on_send_closed)
        for tell in told:
            try:
                tell(row)
            except Exception as fault:  # noqa: BLE001 - accounting never fails a call
                _passed_over(tell, fault)
        if state == "settled" and cost is not None and listed is not None:
            self.watch.compare(call, self.id, cost, listed)
        if call.listeners or accounting.on_settled is not None:
            self.tell(state, row)

    def tell(self, state: State, row: SendClosed) -> None:
        """Tell whoever listens what the row says."""
        event = SendSettled(
            call_id=self.call.id,
            model=self.call.model,
            send_id=self.id,
            state=state,
            cost=row.cost,
            usage=row.usage,
            error=row.error,
            elapsed=row.elapsed,
            kind=self.call.operation.kind,
            used=row.used,
            origin=self.call.origin,
        )
        self.call.emit(event)
        on_settled = self.accounting.on_settled
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
