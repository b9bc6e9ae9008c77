"""Reserve what a send can cost at most, and refuse it where a budget has not as much left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args

from resilient_ai.core.budgets import BudgetBook, dollars, units
from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_able, check_count
from resilient_ai.core.clock import Clock
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.health import BudgetState
from resilient_ai.core.kinds import noun_of
from resilient_ai.core.ledger import CostBook
from resilient_ai.core.log import Log
from resilient_ai.core.protocols import Abilities, PriceBook
from resilient_ai.core.streams import when_done
from resilient_ai.middleware._budget_counter import Counter
from resilient_ai.middleware._budget_refusals import Held, first_hard, left_of, named, priceless, refusal, unasked
from resilient_ai.middleware._budget_reservation import Reservation
from resilient_ai.middleware._budget_survey import survey
from resilient_ai.middleware._budget_tally import Tally
from resilient_ai.middleware._machines.budget_window import Slot
from resilient_ai.middleware._worst_cost import worst_cost
from resilient_ai.middleware.budget import Budget

R = TypeVar("R")
Unreachable = Literal["refuse", "allow"]

# No counter holds more, and nothing costs as much.
_MOST_UNITS = 2**62
_MOST_DOLLARS = 1_000_000

_log = Log()


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """Keep what calls cost within budgets.

    Before each request its worst case is added to the counters of all budgets it counts against, in one step: every one has
    room for it, or nothing is added and nothing sent. Once its true cost is known, that takes the place of the worst case; a
    request that was never sent gives all of it back, and one of unknown cost keeps it. As the money is reserved before, no
    number of calls at once, in any number of processes that share the book, can spend more than a hard limit. Retries, hedges,
    batches and fallbacks are requests as well, and each is reserved and settled by itself.

    The worst case counts a token for each byte of the prompt, which no tokenizer exceeds, and `max_tokens` for each answer. So a
    budget with little left refuses calls that would have fitted; calls with a small `max_tokens` reserve little.

    It needs `CostAccounting` inside of it, which tells what each request cost. Without it everything that was sent costs its
    worst case.

    Args:
        budgets: Any number; a call counts against all whose scope it is in.
        book: Where counters are kept, such as `MemoryBudgets()` for this process; it is closed along with the stack.
        prices: What tokens and pictures cost.
        abilities: How long the answers of a model can be, for calls without `max_tokens`; None knows of none.
        unpriced: US dollars that a request counts with while no price of its model is known. With None a hard budget refuses it
            with `PriceUnknown`, and a soft one counts it once its cost is known.
        unreachable: What becomes of calls of hard budgets while the book cannot be asked: "refuse" with `BudgetUnavailable`, or
            "allow", which counts them later.
        answer_tokens: Tokens of an answer that neither `max_tokens` nor `abilities` bound, at least 1.

    Raises:
        ValueError: If an option cannot do its work; the message says which and what was given.
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Cache": "an answer from the cache costs nothing",
        "Coalesce": "callers that share a request pay for it once",
        "Resume": "a stream that is asked for again is a request that costs by itself",
        "Routing": "every model has a price of its own",
        "Batching": "every batch is a request that costs by itself",
        "Retry": "every try is a request that may cost, and a refused call is not tried again",
        "CircuitBreaker": "a call that is not let through would keep money that others need",
        "RateLimit": "a call that waits for its turn would keep money that others need",
        "ConcurrencyLimit": "a call that waits in line would keep money that others need",
    }

    budgets: Sequence[Budget]
    book: BudgetBook
    prices: PriceBook
    abilities: Abilities | None = None
    unpriced: Decimal | None = None
    unreachable: Unreachable = "refuse"
    answer_tokens: int = 16_384
    _tally: Tally = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "budgets", _checked_budgets(self.budgets))
        for name, part in (("book", self.book), ("prices", self.prices)):
            if cast("object", part) is None:
                raise ValueError(f"{name} must be given, got None")
        check_able("book", self.book, "charge", "settle", "spent", "aclose")
        check_able("prices", self.prices, "chat_cost", "embedding_cost", "image_cost")
        check_able("abilities", self.abilities, "output_limit")
        object.__setattr__(self, "unpriced", _checked_dollars(self.unpriced))
        if self.unreachable not in get_args(Unreachable):
            raise ValueError(f"unreachable must be 'refuse' or 'allow', got {self.unreachable!r}")
        check_count("answer_tokens", self.answer_tokens, 1)
        object.__setattr__(self, "_tally", Tally(self.budgets))

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Reserve the worst case, send, and see to it that it is settled."""
        counters = self._tally.match(call)
        if not counters:
            return await proceed(call)
        reservation = await self._reserve(call, counters)
        try:
            result = await proceed(call.replace(on_send_closed=(*call.on_send_closed, reservation.send_closed)))
        except BaseException as error:
            reservation.failed(error)
            raise
        when_done(result, reservation.over)
        return result

    def stands_against(self, call: Call[Any]) -> str | None:
        """Return why the call would be refused, by what this process has seen of the counters last."""
        counters = [counter for counter in self._tally.match(call) if counter.hard is not None]
        if not counters:
            return None
        worst = self._worst(call)
        if worst is None:
            return f"no price of it for {noun_of(call.operation.kind)} is known, which a hard budget needs"
        for counter, slot in zip(counters, self._tally.slots(counters, call.clock), strict=True):
            limit, spent = counter.limit or 0, counter.spending.known(slot) or 0
            if worst > limit:
                return f"it could cost up to {dollars(worst):f} USD, more than the whole budget {named(counter)}"
            if spent + worst > limit:
                return f"the budget {named(counter)} has {left_of(counter, spent):f} USD left"
        return None

    def health(self) -> list[BudgetState]:
        """Return what this process has seen last of the counters that it has used, and of those it has asked about."""
        return self._tally.states()

    async def state(
        self,
        tags: Mapping[str, str] | None = None,
        *,
        clock: Clock | None = None,
        costs: CostBook | None = None,
    ) -> tuple[BudgetState, ...]:
        """Ask the book what is spent of each budget.

        The answer is known from then on, as if a request of this process had seen it: `health` tells it, and a router puts
        models behind for which it leaves too little. Of budgets for each value of a tag this process keeps those that it uses
        itself, those of "model" and "kind", and those whose value is given.

        Of a budget for each value of a tag, the value given in `tags` counts, or else every value with which something was sent
        in the window, as `costs` tells, and every one that this process has seen.

        Args:
            tags: Only budgets against which a call with exactly these tags may count; all without any. "model" and "kind" may be
                named as if they were tags; where they are not, any counts.
            clock: Tells which windows are now; that of the last call by default.
            costs: The ledger that knows the values of tags; by default the book, where that is a ledger. It knows those of
                "model", "kind", "tenant", "user", "feature" and "environment".

        Returns:
            A state for each budget; of one for each value of a tag, a state for each of these.

        Raises:
            BookUnavailable: If the book cannot be asked.
            InvalidInput: If `tags` name a kind that there is not.
        """
        asked = costs or (cast("CostBook", self.book) if hasattr(self.book, "by") else None)
        found = await survey(self._tally, self.book, tags=tags, clock=clock or self._tally.clock, costs=asked)
        return found.states

    async def aclose(self) -> None:
        """Close the book."""
        await self.book.aclose()

    async def _reserve(self, call: Call[Any], counters: Sequence[Counter]) -> Reservation:
        worst = self._worst(call)
        if worst is None and (hard := first_hard(counters)) is not None:
            raise priceless(call, hard)
        slots = self._tally.slots(counters, call.clock)
        held, lives = await self._charge(call, counters, slots, worst or 0)
        return Reservation(call, self.book, self._tally, counters, slots, worst=worst, held=held, lives=lives)

    async def _charge(
        self, call: Call[Any], counters: Sequence[Counter], slots: Sequence[Slot], amount: int
    ) -> tuple[int, tuple[int, ...]]:
        """Return what was added to the counters, and their lives.

        That is the amount, or nothing where the book cannot be asked and calls may go.
        """
        charges = [counter.charge(slot, amount) for counter, slot in zip(counters, slots, strict=True)]
        asked = self._tally.ask(counters, slots)
        try:
            admission = await self.book.charge(charges)
        except Exception as error:
            if not isinstance(error, BookUnavailable):
                _log.warning("the charge of %s raised %s", type(self.book).__name__, type(error).__name__)
            hard = first_hard(counters)
            if hard is not None and self.unreachable == "refuse":
                raise unasked(hard) from error
            return 0, ()
        added = amount if admission.admitted else 0
        spent = [before + added for before in admission.spent]
        self._tally.saw(counters, slots, spent, asked=asked, held=added, lives=admission.lives)
        if not admission.admitted:
            reserved = self._tally.reserved(counters, slots)
            parts = [(admission.parts or {}).get(counter.key, {}) for counter in counters]
            raise refusal(call, list(map(Held, counters, slots, admission.spent, reserved, parts)), amount)
        return amount, admission.lives

    def _longest_answer(self, model: str) -> int:
        known = None if self.abilities is None else self.abilities.output_limit(model)
        return known or self.answer_tokens

    def _worst(self, call: Call[Any]) -> int | None:
        """Return the worst case of a send as counters hold it, None where no price is known."""
        try:
            cost = worst_cost(self.prices, call.operation, lambda: self._longest_answer(call.model))
        except Exception as error:  # noqa: BLE001 - a price list that fails knows no price
            _log.warning("budgets passed over a price list or abilities that raised %s", type(error).__name__)
            cost = None
        if cost is None:
            cost = self.unpriced
        return None if cost is None else min(units(cost), _MOST_UNITS)


def _checked_budgets(given: object) -> tuple[Budget, ...]:
    found = tuple(cast("Sequence[object]", given)) if isinstance(given, list | tuple) else None
    if found is None or not all(isinstance(one, Budget) for one in found):
        raise ValueError(f"budgets must be a list of Budget, got {given!r}")
    return cast("tuple[Budget, ...]", found)


def _checked_dollars(given: object) -> Decimal | None:
    if given is None:
        return None
    amount = Decimal(given) if isinstance(given, Decimal | int) and not isinstance(given, bool) else None
    if amount is None or not amount.is_finite() or not 0 < amount <= _MOST_DOLLARS:
        shown = f"a {type(given).__name__}" if amount is None else f"{amount:.3g}"
        raise ValueError(
            f"unpriced must be None or US dollars above 0 as a Decimal, such as Decimal('0.01'), got {shown}"
        )
    return amount
