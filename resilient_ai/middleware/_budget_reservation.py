"""What one send has reserved, until it is known what it cost."""

import os
from collections.abc import Sequence
from typing import Any

from resilient_ai.core.budgets import BudgetBook, units
from resilient_ai.core.call import Call
from resilient_ai.core.ledger import SendClosed
from resilient_ai.core.log import Log
from resilient_ai.middleware._budget_counter import Counter
from resilient_ai.middleware._budget_tally import Tally
from resilient_ai.middleware._machines.budget_window import Slot

_log = Log()


class Reservation:
    """The worst case of a send, which counts as spent until its true cost takes its place, once.

    Args:
        call: The send; whoever accounts for it tells its end to `send_closed`.
        book: Where the counters are kept.
        tally: What this process knows of them, which is told what changes.
        counters: What it counts against.
        slots: The slices of time it was reserved in, in which it is settled as well.
        worst: What it can cost at most, None where no price is known.
        held: What of it was added to the counters.
        lives: The lives of the counters it was added to, as the book told; empty where it told none.
    """

    __slots__ = ("_book", "_call", "_counters", "_departed", "_held", "_lives", "_pid", "_slots", "_tally", "_worst")

    def __init__(
        self,
        call: Call[Any],
        book: BudgetBook,
        tally: Tally,
        counters: Sequence[Counter],
        slots: Sequence[Slot],
        *,
        worst: int | None,
        held: int,
        lives: Sequence[int] = (),
    ) -> None:
        self._call = call
        self._book = book
        self._tally = tally
        self._counters = counters
        self._slots = slots
        self._worst = worst
        self._lives: Sequence[int | None] = lives if len(lives) == len(counters) else [None] * len(counters)
        # Taken out by whoever settles first: a list, as that is one step, whichever thread the garbage collector runs in.
        self._held = [held]
        self._departed = call.departed.count
        self._pid = os.getpid()

    def send_closed(self, row: SendClosed) -> None:
        """Put what the send cost in the place of what it had reserved; of an unknown cost the worst case is kept."""
        if row.state == "never_sent":
            self._settle(0)
        elif row.state == "unknown" or row.cost is None or not row.cost.is_finite():
            self._settle(self._worst or 0)
        else:
            self._settle(units(row.cost))

    def failed(self, error: BaseException) -> None:
        """See to a send that failed without anybody having accounted for it."""
        self._end(sent=self._call.may_have_left(error, self._departed))

    def over(self, _: object) -> None:
        """See to a send that ended without anybody having accounted for it."""
        self._end(sent=self._call.departed.count > self._departed)

    def _end(self, *, sent: bool) -> None:
        if self._held:
            self._settle((self._worst or 0) if sent else 0)

    def _settle(self, cost: int) -> None:
        if self._pid != os.getpid():
            return  # a forked child's copy: the reservation is the parent's
        try:
            held = self._held.pop()
        except IndexError:  # a second send of the same call, which had reserved nothing
            held = 0
        if cost or held:
            self._change(cost - held, held)
            self._tally.settled(
                self._call, self._counters, self._slots, amount=cost - held, held=held, lives=self._lives
            )

    def _change(self, amount: int, held: int) -> None:
        if not amount and self._lives[0] is None:
            return
        # Also where it cost what was reserved: the counter may have been lost, and another one does not hold that.
        parts = zip(self._counters, self._slots, self._lives, strict=True)
        try:
            self._book.settle([counter.charge(slot, amount, held=held, life=life) for counter, slot, life in parts])
        except Exception as error:  # noqa: BLE001 - what a book does wrong must not keep the call from its answer
            _log.warning("the settle of %s raised %s", type(self._book).__name__, type(error).__name__)
