"""Try a failed call again, and have a second request beside a slow one."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, Literal, TypeVar, cast, get_args

from tenacity import AsyncRetrying, RetryCallState

from resilient_ai.core.call import Call, Next
from resilient_ai.core.errors import (
    AttemptTimeout,
    CallRejected,
    CircuitOpen,
    InvalidResponse,
    ProviderError,
    RateLimited,
    StatusError,
)
from resilient_ai.core.events import HedgeSent, RetryScheduled, RetrySuppressed
from resilient_ai.core.health import SendBudgetState
from resilient_ai.core.operations import Kind
from resilient_ai.core.pipeline import WorstCase
from resilient_ai.middleware._checks import check_at_least, check_between, check_seconds
from resilient_ai.middleware._extra_sends import ExtraSends
from resilient_ai.middleware._machines.backoff import Backoff
from resilient_ai.middleware._race import race
from resilient_ai.middleware.hedge import Hedge

R = TypeVar("R")
_Reason = Literal["budget", "ceiling", "deadline", "wait", "circuit"]

# A server that asks for more than a minute is answered by failing now, with its `retry_after` on the error.
_LONGEST_HINT = 60.0
_RATE_LIMIT_MAX = 30.0
# Seconds for which an open circuit is waited for at most; who has to wait longer is better told so.
_PATIENCE = 6.0
_COSTLY: tuple[Kind, ...] = ("image",)
# Statuses with which the service turns a request away before it begins to work on it.
_NOT_BEGUN = frozenset({425, 429, 503, 529})

_log = logging.getLogger("resilient_ai")


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

    A stream is not repeated once it has been handed over. All sends of a call carry the same idempotency key.

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
        check_at_least("attempts", self.attempts, 1)
        check_seconds("wait_initial", self.wait_initial)
        check_seconds("wait_max", self.wait_max)
        check_between("budget", self.budget, 0, 1000)
        if self.wait_max < self.wait_initial:
            raise ValueError(f"wait_max must be >= wait_initial, got {self.wait_max!r} < {self.wait_initial!r}")
        object.__setattr__(self, "costly", tuple(self.costly))
        unknown = [kind for kind in self.costly if kind not in get_args(Kind)]
        if unknown:
            raise ValueError(f"costly must name kinds of operation ({', '.join(get_args(Kind))}), got {unknown!r}")
        object.__setattr__(self, "_extra", ExtraSends(self.budget, self.hedge))

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call, and send it again while that is worth it."""
        if self.hedge is not None:
            return await _Tries(self, self._extra, call, proceed).run()
        # Most calls succeed at once, so tenacity is only built for those that do not.
        try:
            result = await proceed(call)
        except Exception as error:
            if self.attempts == 1 or not self.is_worth_repeating(call, error):
                raise
            tries = _Tries(self, self._extra, call, proceed, error)
        else:
            self._extra.answered(call)
            return result
        return await tries.run()

    def worst_case(self, inner: WorstCase, models: int) -> WorstCase:
        """Multiply what is inside by the attempts, with the longest waits between them."""
        del models
        waits = (self.attempts - 1) * (_LONGEST_HINT + 1.0)
        return replace(inner, sends=inner.sends * self.attempts, seconds=inner.seconds * self.attempts + waits)

    def health(self) -> tuple[SendBudgetState, ...]:
        """Return what is left of the extra sends of every model that has used some."""
        return self._extra.states()

    def is_worth_repeating(self, call: Call[R], error: Exception) -> bool:
        """Return whether an error may not come again."""
        if self.retry_on is not None:
            return self.retry_on(error)
        if isinstance(error, CircuitOpen):
            return error.retry_after <= _patience(call)
        if not isinstance(error, ProviderError) or not error.retryable:
            return False
        if call.operation.kind not in self.costly or not error.sent:
            return True
        return isinstance(error, StatusError) and error.status in _NOT_BEGUN


class _Tries(Generic[R]):
    """The tries of one call, told to tenacity.

    Args:
        first_failure: That of a try which has been made already and is worth repeating; None where none was made.
    """

    def __init__(
        self, retry: Retry, extra: ExtraSends, call: Call[R], proceed: Next[R], first_failure: Exception | None = None
    ) -> None:
        self._retry = retry
        self._extra = extra
        self._call = call
        self._proceed = proceed
        self._first_failure = first_failure
        self._is_known = first_failure is not None
        self._attempts = retry.attempts if call.sends_left is None else min(retry.attempts, call.sends_left)
        self._number = 0
        self._hedges = 0
        self._failures: list[Exception] = []
        self._unreadable = 0
        self._backoff = Backoff(initial=retry.wait_initial, longest=retry.wait_max)
        self._backoff_429 = Backoff(initial=2 * retry.wait_initial, longest=max(_RATE_LIMIT_MAX, retry.wait_max))

    async def run(self) -> R:
        """Return the first success, or raise the last failure of the service."""
        # One object per call: tenacity keeps its state per thread, so tasks would share it.
        retrying = AsyncRetrying(
            sleep=self._call.clock.sleep,
            retry=self._is_worth_repeating,
            wait=self._wait,
            stop=self._is_over,
            before_sleep=self._announce,
            reraise=True,
        )
        try:
            result = cast("R", await retrying(self._attempt))
        except CallRejected as rejected:
            # What the service did says more than that it is not asked any more.
            failure = next((known for known in reversed(self._failures) if isinstance(known, ProviderError)), None)
            if failure is None or not isinstance(rejected, CircuitOpen):
                raise
            self._suppress(failure, "circuit", str(rejected))
            raise failure from None
        self._extra.answered(self._call)
        for passed in self._failures:
            # Whoever keeps the error would keep every frame of the call alive with it, and so a stream that is left behind.
            passed.__traceback__ = None
        return result

    async def _attempt(self) -> R:
        self._number += 1
        if self._first_failure is not None:  # tenacity counts the try that has been made without it
            try:
                raise self._first_failure
            finally:
                self._first_failure = None
        call = self._call.replace(attempt=self._number)
        if self._retry.hedge is None:
            return await self._proceed(call)
        return await self._hedged(call)

    async def _hedged(self, call: Call[R]) -> R:
        delay = None if call.operation.kind in self._retry.costly else self._extra.hedge_delay(call)
        started = call.clock.monotonic()

        def may_hedge() -> bool:
            if self._number + self._hedges >= self._attempts or not self._extra.try_hedge(call):
                return False
            self._hedges += 1
            call.emit(HedgeSent(call_id=call.id, model=call.model, after=call.clock.monotonic() - started))
            return True

        async def proceed(call: Call[R]) -> R:
            try:
                return await self._proceed(call)
            except ProviderError:
                self._extra.failed(call)
                raise

        result = await (proceed(call) if delay is None else race(call, proceed, delay, may_hedge))
        self._extra.took(call, call.clock.monotonic() - started)
        return result

    def _is_worth_repeating(self, state: RetryCallState) -> bool:
        error = _error_of(state)
        if self._retry.retry_on is None and isinstance(error, InvalidResponse):
            self._unreadable += 1
            if self._unreadable > 1:
                return False
        if self._number == 1 and self._is_known:
            return True
        return isinstance(error, Exception) and self._retry.is_worth_repeating(self._call, error)

    def _wait(self, state: RetryCallState) -> float:
        error = _failure_of(state)
        backoff = self._backoff_429 if isinstance(error, RateLimited) else self._backoff
        return backoff.wait(state.attempt_number, self._call.clock.random(), _hint_of(error))

    def _is_over(self, state: RetryCallState) -> bool:
        error = _failure_of(state)
        if state.attempt_number + self._hedges >= self._attempts:
            if self._attempts < self._retry.attempts:
                self._suppress(error, "ceiling", f"the call may send no more than {self._attempts} to this model")
            return True
        wait, remaining, hint = state.upcoming_sleep, self._call.remaining(), _hint_of(error)
        circuit = error.circuit_open_for if isinstance(error, ProviderError) else None
        if remaining is not None and wait >= remaining:
            self._suppress(
                error, "deadline", f"the wait of {wait:.2f} s does not fit the {remaining:.2f} s left to the call"
            )
        elif circuit is not None and circuit > _patience(self._call):
            self._suppress(error, "circuit", f"the circuit has opened for {circuit:.1f} s")
        elif hint is not None and hint > _LONGEST_HINT:
            longest = f"which is longer than {_LONGEST_HINT:g} s"
            self._suppress(error, "wait", f"the server asked to wait {hint:g} s, {longest}")
        elif not self._pay(error):
            self._suppress(error, "budget", "the budget of extra sends to this model is spent")
        else:
            return False
        return True

    def _pay(self, error: Exception) -> bool:
        if isinstance(error, CallRejected):  # nothing was sent yet
            return True
        return self._extra.try_spend(self._call, 2.0 if isinstance(error, AttemptTimeout) else 1.0)

    def _suppress(self, error: Exception, reason: _Reason, sentence: str) -> None:
        error.add_note(f"not tried again: {sentence}")
        call = self._call
        call.emit(RetrySuppressed(call_id=call.id, model=call.model, reason=reason, error=error))

    def _announce(self, state: RetryCallState) -> None:
        error = _failure_of(state)
        self._failures.append(error)
        event = RetryScheduled(
            call_id=self._call.id,
            model=self._call.model,
            attempt=state.attempt_number,
            wait=state.upcoming_sleep,
            error=error,
            retry_after=_hint_of(error),
        )
        self._call.emit(event)
        if self._retry.on_retry is not None:
            try:
                self._retry.on_retry(event)
            except Exception as fault:  # noqa: BLE001 - an observer's fault must never become the call's
                _log.warning("on_retry raised %s", type(fault).__name__)


def _patience(call: Call[R]) -> float:
    """Return the seconds for which a call may wait for its circuit; below 0 for not at all."""
    if call.alternatives:
        return -1.0
    remaining = call.remaining()
    return _PATIENCE if remaining is None else min(_PATIENCE, remaining / 10)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _failure_of(state: RetryCallState) -> Exception:
    # Waits and their end are only asked for once `_is_worth_repeating` has seen the error.
    return cast("Exception", _error_of(state))


def _hint_of(error: Exception) -> float | None:
    if isinstance(error, StatusError | CircuitOpen):
        hints = [error.retry_after, getattr(error, "circuit_open_for", None)]
        return max((hint for hint in hints if hint is not None), default=None)
    return error.circuit_open_for if isinstance(error, ProviderError) else None
