"""The tries of one call."""

from typing import TYPE_CHECKING, Generic, Literal, TypeVar, cast

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
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.log import Log
from resilient_ai.middleware._extra_sends import ExtraSends
from resilient_ai.middleware._machines.backoff import Backoff
from resilient_ai.middleware._race import race

if TYPE_CHECKING:
    from resilient_ai.middleware.retry import Retry

R = TypeVar("R")
_Reason = Literal["budget", "ceiling", "deadline", "wait", "circuit"]

# A server that asks for more than a minute is answered by failing now, with its `retry_after` on the error.
LONGEST_HINT = 60.0
# Seconds for which an open circuit is waited for at most; who has to wait longer is better told so.
PATIENCE = 6.0
_RATE_LIMIT_MAX = 30.0
# Statuses with which the service turns a request away before it begins to work on it.
_NOT_BEGUN = frozenset({425, 429, 503, 529})

_log = Log()


class Tries(Generic[R]):
    """The tries of one call, told to tenacity.

    Args:
        first_failure: That of a try which has been made already and is worth repeating; None where none was made.
    """

    def __init__(
        self, retry: "Retry", extra: ExtraSends, call: Call[R], proceed: Next[R], first_failure: Exception | None = None
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
        return isinstance(error, Exception) and is_worth_repeating(self._retry, self._call, error)

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
        elif circuit is not None and not _waits_for(self._call, circuit):
            self._suppress(error, "circuit", f"the circuit has opened for {circuit:.1f} s")
        elif hint is not None and hint > LONGEST_HINT:
            longest = f"which is longer than {LONGEST_HINT:g} s"
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
            except FAULTS as fault:  # an observer's fault must never become the call's
                _log.warning("on_retry raised %s", type(fault).__name__)


def is_worth_repeating(retry: "Retry", call: Call[R], error: Exception) -> bool:
    """Return whether an error may not come again, by the rules that `Retry` states."""
    if retry.retry_on is not None:
        return retry.retry_on(error)
    if isinstance(error, CircuitOpen):
        return _waits_for(call, error.retry_after)
    if not isinstance(error, ProviderError) or not error.retryable:
        return False
    if call.operation.kind not in retry.costly or not error.sent:
        return True
    return isinstance(error, StatusError) and error.status in _NOT_BEGUN


def _patience(call: Call[R]) -> float | None:
    """Return the seconds for which a call may wait for its circuit, None for not at all."""
    if call.has_alternative:
        return None
    remaining = call.remaining()
    return PATIENCE if remaining is None else min(PATIENCE, remaining / 10)


def _waits_for(call: Call[R], circuit: float) -> bool:
    patience = _patience(call)
    return patience is not None and circuit <= patience


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
