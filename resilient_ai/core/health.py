"""What the parts of a stack that remember something know at a moment."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Literal

from typing_extensions import override

from resilient_ai.core.money import EXACT

CircuitState = Literal["closed", "open", "half_open", "isolated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerState:
    """What one circuit breaker knows.

    Args:
        key: Origin, model and kind of operation; without model and kind it is the circuit of the key itself, which opens when
            the account is refused.
        state: "closed", "open", "half_open", or "isolated" by hand.
        failures: Failures in the sampled time.
        throughput: Outcomes in the sampled time.
        retry_after: Seconds after which a call may be let through, 0 if one may go now.
    """

    key: tuple[str, str, str]
    state: CircuitState
    failures: int
    throughput: int
    retry_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """What one concurrency limit knows.

    Args:
        key: Origin and model.
        limit: Requests of this process that may be under way at once now.
        limit_max: What it may grow to.
        in_use: Requests under way.
        waiting: Calls in the queue of this process, or in the line of its fleet.
        shared: Whether the processes of a fleet share the limit now; False while the fleet cannot be asked and this process
            keeps to its share by itself. None without a fleet.
    """

    key: tuple[str, str]
    limit: int
    limit_max: int
    in_use: int
    waiting: int
    shared: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateState:
    """What one rate limit knows.

    Args:
        key: Origin and model.
        unit: "requests" or "tokens".
        limit: How many per `per` seconds.
        available: How many may go at once now; below 0 is a debt.
        waiting: Calls that wait for their turn.
        shared: Whether the processes of a fleet share the limit now, as in `LimitState`.
    """

    key: tuple[str, str]
    unit: Literal["requests", "tokens"]
    limit: float
    per: float
    available: float
    waiting: int
    shared: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SendBudgetState:
    """What is left of the extra sends of one model.

    Args:
        key: Origin and model.
        left: Extra sends, retries and hedges, that may still be made.
        capacity: How many there are when nothing was spent.
    """

    key: tuple[str, str]
    left: float
    capacity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """What this process knows of one budget.

    Args:
        key: The words "budget", what it is called without its scope, and the values of its scope.
        spent: US dollars spent or reserved in the window, when it was looked at last.
        limit: US dollars it allows.
        hard: Whether calls are refused beyond it.
        until: When the window ends, in seconds since 1970-01-01 UTC; None for a rolling or endless one.
        rolling: Whether the window moves with time.
        shown_as: What it is called in figures and traces: with its scope as the budget names it, "*" for what callers give.

    >>> BudgetState(key=("budget", "25 USD per day", "tenant=a"), spent=Decimal(3), limit=Decimal(25), hard=True).left
    Decimal('22')
    """

    key: tuple[str, str, str]
    spent: Decimal
    limit: Decimal
    hard: bool
    until: float | None = None
    rolling: bool = False
    shown_as: str = ""

    @property
    def name(self) -> str:
        """What it is called, with the values of its scope: the `budget` of a `BudgetExceeded`."""
        return " ".join(self.key[1:]).rstrip()

    @property
    def left(self) -> Decimal:
        """US dollars that are left, at least 0."""
        return max(Decimal(0), EXACT.subtract(self.limit, self.spent))


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceState:
    """How the prices that one model is billed at differ from the price table.

    Args:
        key: Origin and model.
        drift: What the service bills, divided by what the table says; a decaying average. 1 where both agree.
        sends: Sends of which both are known.
    """

    key: tuple[str, str]
    drift: float
    sends: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreState:
    """What one store of the cache holds, as far as it knows without looking.

    Args:
        key: The words "cache", and the store and where it is, without secrets.
        layer: Its kind: "memory", "disk" or "redis", or the first word of its name.
        entries: Entries, those included whose time is over but that are still in the way; None where it does not know.
        size: Bytes in use, None where it does not know.
    """

    key: tuple[str, str]
    layer: str
    entries: int | None
    size: int | None


PartState = StoreState | BreakerState | LimitState | RateState | SendBudgetState | BudgetState | PriceState


@dataclass(frozen=True, slots=True)
class Health:
    """Every breaker, limit, budget and store of a client that has been used; as text, a line for each.

    >>> print(Health.of([LimitState(key=("https://x", "m"), limit=32, limit_max=200, in_use=3, waiting=0)]))
    limit    m  limit=32, limit_max=200, in_use=3, waiting=0
    """

    breakers: tuple[BreakerState, ...] = ()
    limits: tuple[LimitState, ...] = ()
    rates: tuple[RateState, ...] = ()
    send_budgets: tuple[SendBudgetState, ...] = ()
    budgets: tuple[BudgetState, ...] = ()
    prices: tuple[PriceState, ...] = ()
    stores: tuple[StoreState, ...] = ()

    @classmethod
    def of(cls, parts: Iterable[PartState]) -> "Health":
        """Sort what the middleware of a stack report."""
        known = list(parts)
        return cls(
            tuple(part for part in known if isinstance(part, BreakerState)),
            tuple(part for part in known if isinstance(part, LimitState)),
            tuple(part for part in known if isinstance(part, RateState)),
            tuple(part for part in known if isinstance(part, SendBudgetState)),
            tuple(part for part in known if isinstance(part, BudgetState)),
            tuple(part for part in known if isinstance(part, PriceState)),
            tuple(part for part in known if isinstance(part, StoreState)),
        )

    @property
    def ok(self) -> bool:
        """Whether no circuit refuses calls: each is closed, or would let one through as a probe now."""
        return all(breaker.state == "closed" or breaker.retry_after == 0 for breaker in self.breakers)

    @override
    def __str__(self) -> str:
        groups = (
            ("breaker", self.breakers),
            ("limit", self.limits),
            ("rate", self.rates),
            ("retries", self.send_budgets),
            ("budget", self.budgets),
            ("price", self.prices),
            ("cache", self.stores),
        )
        lines = [f"{name:<8} {_text(part)}" for name, parts in groups for part in parts]
        return "\n".join(lines)


def _text(part: PartState) -> str:
    values = ((field.name, getattr(part, field.name)) for field in fields(part) if field.name != "key")
    values = ((name, value) for name, value in values if value is not None)
    shown = ", ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values)
    return f"{' '.join(part.key[1:]).strip() or '(the key)'}  {shown}"
