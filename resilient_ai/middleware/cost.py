"""What every send costs: one row in the ledger and one entry in the call's record, however it ends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_able, check_callable
from resilient_ai.core.collector import collecting_if
from resilient_ai.core.events import SendSettled
from resilient_ai.core.health import PriceState
from resilient_ai.core.ledger import Ledger
from resilient_ai.core.protocols import PriceBook
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware._accounted_send import AccountedSend, Accounts

R = TypeVar("R")


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
    decaying ratio for the model, and one warning an hour goes to the log: a line of `Logging`, or one of its own without that.

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
    _accounts: Accounts = field(init=False, repr=False, compare=False)
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
        check_able("ledger", self.ledger, "opened", "closed", "aclose")
        check_able("prices", self.prices, "chat_cost", "embedding_cost", "image_cost")
        check_callable("on_settled", self.on_settled)
        object.__setattr__(self, "_accounts", Accounts(self.ledger, self.prices, self.on_settled))

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Open a row, send, and see to it that the row is closed."""
        send = AccountedSend(self._accounts, call)
        try:
            result = await proceed(call)
        except BaseException as error:
            with collecting_if(error):
                send.failed(error)
            raise
        if isinstance(result, StreamResult):
            send.handed_over(result)
        else:
            send.answered(result)
        return result

    def health(self) -> tuple[PriceState, ...]:
        """Return how what is billed differs from the price table, for every model of which both are known."""
        return self._accounts.watch.states()

    async def aclose(self) -> None:
        """Write what is pending and close the ledger."""
        if self.ledger is not None:
            await self.ledger.aclose()
