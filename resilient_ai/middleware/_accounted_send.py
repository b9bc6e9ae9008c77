"""One send in the books: a row that is opened before bytes leave and closed exactly once."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeVar

from resilient_ai.core.call import Call, given_out_here, new_id
from resilient_ai.core.collector import outside_of_collector
from resilient_ai.core.errors import StatusError
from resilient_ai.core.events import SendSettled
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.ledger import Ledger, SendClosed, SendOpened, SendOutcome, WhichSend
from resilient_ai.core.log import Log
from resilient_ai.core.protocols import PriceBook
from resilient_ai.core.results import CostSource, Result, Usage
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._price_watch import PriceWatch
from resilient_ai.middleware._pricing import PromptSizes, estimate_usage, price, price_of_result

T = TypeVar("T")

_SERVER_FAULT = 500

_log = Log()


class Accounts:
    """What the sends of one accounting have in common.

    Args:
        ledger: Where rows go, None for nowhere.
        prices: The price table, None for none.
        on_settled: Told of every end, None for nobody.
    """

    __slots__ = ("ledger", "on_settled", "prices", "sizes", "watch")

    def __init__(
        self, ledger: Ledger | None, prices: PriceBook | None, on_settled: Callable[[SendSettled], None] | None
    ) -> None:
        self.ledger = ledger
        self.prices = prices
        self.on_settled = on_settled
        self.watch = PriceWatch()
        self.sizes = PromptSizes()


class AccountedSend:
    """One request from before it leaves to its end."""

    __slots__ = ("accounts", "call", "departed", "id", "started", "used")

    def __init__(self, accounts: Accounts, call: Call[Any]) -> None:
        self.accounts = accounts
        self.call = call
        self.id = new_id()
        self.departed = call.departed.count
        self.used = False
        self.started = call.clock.monotonic()
        ledger = accounts.ledger
        if ledger is not None:
            row = SendOpened(
                self.id, call.id, call.clock.wall(), call.operation.kind, call.model, call.attempt, call.tags
            )
            try:
                ledger.opened(row)
            except FAULTS as error:  # accounting never fails a call
                _passed_over(ledger, error)

    def answered(self, result: object) -> None:
        """Close the row with what an answer cost."""
        self.used = self.call.claim()
        if not isinstance(result, Result):
            self.close("unknown")
            return
        cost, usage, tier = result.cost, result.usage, result.service_tier
        if self.accounts.sizes.is_due(self.call.operation.model):
            self.learn(usage)
        listed = self.listed(usage, tier, result)
        if cost is not None and cost.source == "provider":
            self.close("settled", cost.amount, listed=listed, usage=usage, tier=tier)
        else:
            self.close_by_table(listed, usage=usage, tier=tier)

    def failed(self, error: BaseException) -> None:
        """Close the row of a send that gave no answer."""
        if not self.call.may_have_left(error, self.departed):
            self.close("never_sent", error=error)
        elif isinstance(error, StatusError) and not (error.in_answer and error.status >= _SERVER_FAULT):
            # The service refused, and bills nothing for that; one that failed while it answered may bill what it had done.
            self.close("settled", Decimal(0), error=error)
        else:
            self.close("unknown", error=error)

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
            if self.accounts.sizes.is_due(self.call.operation.model):
                self.learn(usage)
            listed = self.listed(usage, tier)
            if cost is not None and cost.source == "provider":
                self.close("settled", cost.amount, listed=listed, usage=usage, tier=tier, error=end.error)
            else:
                # Where the usage of a whole answer got lost it is not guessed at: the caller sees its cost, and would take it
                # for the truth.
                self.close_by_table(listed, usage=usage, tier=tier, error=end.error)
            return
        counted = None
        if end.how != "completed":
            counted = _or_none(lambda: estimate_usage(operation, end.transcript, self.accounts.sizes), self)
        listed = self.listed(counted)
        usage = None if listed is None else counted
        self.close_by_table(listed, usage=usage, error=end.error, source="estimate")

    def listed(self, usage: Usage | None, tier: str | None = None, result: Result | None = None) -> Decimal | None:
        """Ask the price table, which may know nothing."""
        prices = self.accounts.prices
        if prices is None:
            return None
        try:
            operation = self.call.operation
            if result is not None and operation.kind == "image":
                return price_of_result(prices, operation, result)
            return price(prices, operation, usage, tier)
        except FAULTS as error:  # accounting never fails a call
            _passed_over(prices, error)
            return None

    def learn(self, usage: Usage | None) -> None:
        """Take note of how many tokens the prompt had, for streams that will break off."""
        try:
            self.accounts.sizes.learn(self.call.operation, usage)
        except FAULTS as error:  # accounting never fails a call
            _passed_over(self.accounts.sizes, error)

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
        state: SendOutcome = "unknown" if listed is None else "estimated"
        self.close(state, listed, source=source, listed=listed, usage=usage, tier=tier, error=error)

    def close(
        self,
        state: SendOutcome,
        cost: Decimal | None = None,
        *,
        source: CostSource = "provider",
        listed: Decimal | None = None,
        usage: Usage | None = None,
        tier: str | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Close the row, and tell the call and whoever counts or listens."""
        if not given_out_here(self.id):
            return  # a forked child's copy: the row is the parent's
        call, accounts = self.call, self.accounts
        if state != "never_sent":
            call.record.costs.append((cost, source, self.used))
        name = None if error is None else type(error).__name__
        which = self.which() if call.on_send_closed else None
        row = SendClosed(self.id, state, cost, listed, self.used, usage, tier, name, self.elapsed(), which)
        told = call.on_send_closed if accounts.ledger is None else (accounts.ledger.closed, *call.on_send_closed)
        for tell in told:
            try:
                tell(row)
            except FAULTS as fault:  # accounting never fails a call
                _passed_over(tell, fault)
        if state == "settled" and cost is not None and listed is not None:
            self.accounts.watch.compare(call, self.id, cost, listed)
        if accounts.on_settled is not None or call.is_heard(SendSettled):
            self.tell(row)

    def which(self) -> WhichSend:
        """Return which request it is."""
        call = self.call
        return WhichSend(call.id, call.operation.kind, call.model, call.part, call.attempt, call.hedge)

    def tell(self, row: SendClosed) -> None:
        """Tell whoever listens what the row says."""
        event = SendSettled(
            **self.which()._asdict(),
            send_id=row.send_id,
            state=row.state,
            cost=row.cost,
            usage=row.usage,
            error=row.error,
            elapsed=row.elapsed,
            used=row.used,
            origin=self.call.origin,
        )
        self.call.emit(event)
        on_settled = self.accounts.on_settled
        if on_settled is not None:
            outside_of_collector(_tell, on_settled, event)

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
    except FAULTS as error:  # accounting never fails a call
        _passed_over(part, error)
        return None


def _passed_over(part: object, error: BaseException) -> None:
    name = getattr(part, "__qualname__", type(part).__name__)
    _log.warning("cost accounting passed over %s, which raised %s", name, type(error).__name__)
