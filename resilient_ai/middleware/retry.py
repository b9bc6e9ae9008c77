"""Try a failed call again, and have a second request beside a slow one."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar, get_args

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_between, check_callable, check_count, check_kind, check_names, check_seconds
from resilient_ai.core.events import RetryScheduled
from resilient_ai.core.health import SendBudgetState
from resilient_ai.core.operations import Kind
from resilient_ai.core.pipeline import WorstCase
from resilient_ai.middleware._extra_sends import ExtraSends
from resilient_ai.middleware._tries import LONGEST_HINT, Tries, is_worth_repeating
from resilient_ai.middleware.hedge import Hedge

R = TypeVar("R")
_COSTLY: tuple[Kind, ...] = ("image",)


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Try a failed call again, waiting longer each time.

    Retrying helps with faults that pass by themselves. It makes a lasting overload worse, so the attempts are few, the waits
    grow, and a random part keeps many clients from returning at the same moment. Tried again is what the error itself calls
    `retryable`, with these exceptions:

    - An answer that cannot be read is asked for once more and not twice.
    - A `costly` request that may have been billed is not paid for again: it is repeated only where nothing was sent, or where
      the service turned it away with 425, 429, 503 or 529.
    - A wait that would outlast the deadline, or a server's wait of more than 60 s, fails now with the error at hand.
    - Extra sends to a model are paid from a budget, so that an outage is not made worse: each costs 1, after a timeout 2, and
      each answer earns 0.1, each second 0.05. With the budget spent, calls fail with the error at hand. So in a lasting outage
      N calls make hardly more than N sends, while a fault that breaks a hundred requests at once is still mended.
    - A circuit that is open is waited for up to a tenth of the time left to the call, at most 6 s, and not at all while
      another model may be asked.

    A stream is not repeated once it has been handed over. All tries of one body carry the same idempotency key.

    After attempt n the wait is, in seconds, `uniform(0, 1) * min(wait_max, wait_initial * 2 ** (n - 1))`. After a 429 it is
    `uniform(0, 1) * min(max(30, wait_max), 2 * wait_initial * 2 ** (n - 1))`. It is never shorter than a wait that the server
    named, to which up to a tenth is added, at most 1 s.

    Args:
        attempts: Sends to one model in total, the first and hedges included. At least 1; with 1 nothing is sent again.
        wait_initial: Seconds after the first failure when chance is at its highest.
        wait_max: Upper bound of a computed wait, in seconds; at least `wait_initial`. A server's wait may be longer.
        budget: Extra sends that each model has saved up when all is well, 0 to 1000; 0 sends nothing extra.
        costly: Kinds of operation that are not repeated where they may have been billed; () repeats all.
        hedge: When to send a second request beside a slow one; None for never.
        retry_on: Decides in place of the rules above which errors are tried again; None for those rules.
        on_retry: Told of every retry before its wait; what it raises is logged by name and changes nothing.

    Raises:
        ValueError: If a number is out of its range; the message says which and what was given.

    >>> Retry(attempts=2)  # doctest: +ELLIPSIS
    Retry(attempts=2, wait_initial=0.5, wait_max=8.0, budget=100.0, costly=('image',), hedge=None)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Deadline": "a deadline inside of it would not see the waits between tries",
        "Resume": "a stream that broke is asked for again with tries of its own",
        "Routing": "every model of a route is tried several times before the next one is asked",
        "Batching": "a batch that failed is sent again alone, not together with those that succeeded",
    }

    attempts: int = 3
    wait_initial: float = 0.5
    wait_max: float = 8.0
    budget: float = 100.0
    costly: Collection[Kind] = _COSTLY
    hedge: Hedge | None = None
    retry_on: Callable[[Exception], bool] | None = field(default=None, repr=False)
    on_retry: Callable[[RetryScheduled], None] | None = field(default=None, repr=False)
    _extra: ExtraSends = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_count("attempts", self.attempts, 1)
        check_seconds("wait_initial", self.wait_initial)
        check_seconds("wait_max", self.wait_max)
        check_between("budget", self.budget, 0, 1000)
        if self.wait_max < self.wait_initial:
            raise ValueError(f"wait_max must be >= wait_initial, got {self.wait_max!r} < {self.wait_initial!r}")
        check_kind("hedge", self.hedge, Hedge, None)
        check_callable("retry_on", self.retry_on)
        check_callable("on_retry", self.on_retry)
        check_names("costly", self.costly)
        object.__setattr__(self, "costly", tuple(self.costly))
        unknown = [kind for kind in self.costly if kind not in get_args(Kind)]
        if unknown:
            raise ValueError(f"costly must name kinds of operation ({', '.join(get_args(Kind))}), got {unknown!r}")
        object.__setattr__(self, "_extra", ExtraSends(self.budget, self.hedge))

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call, and send it again while that is worth it."""
        if self.hedge is not None:
            return await Tries(self, self._extra, call, proceed).run()
        # Most calls succeed at once, so tenacity is only built for those that do not.
        try:
            result = await proceed(call)
        except Exception as error:
            if self.attempts == 1 or not is_worth_repeating(self, call, error):
                raise
            tries = Tries(self, self._extra, call, proceed, error)
        else:
            self._extra.answered(call)
            return result
        return await tries.run()

    def worst_case(self, inner: WorstCase) -> WorstCase:
        """Multiply what is inside by the attempts, with the longest waits between them."""
        waits = (self.attempts - 1) * max(LONGEST_HINT + 1.0, self.wait_max)
        return replace(inner, sends=inner.sends * self.attempts, seconds=inner.seconds * self.attempts + waits)

    def health(self) -> tuple[SendBudgetState, ...]:
        """Return what is left of the extra sends of every model that has used some."""
        return self._extra.states()
