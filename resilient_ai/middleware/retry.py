"""Try a failed call again."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar, cast

from tenacity import AsyncRetrying, RetryCallState

from resilient_ai.core.call import Call, Next
from resilient_ai.core.errors import (
    CircuitOpen,
    InvalidResponse,
    LimitReached,
    ProviderError,
    RateLimited,
    StatusError,
)
from resilient_ai.core.events import RetryScheduled
from resilient_ai.middleware._checks import check_at_least, check_seconds
from resilient_ai.middleware._machines.backoff import Backoff

R = TypeVar("R")

# A server that asks for more than a minute is answered by failing now, with its `retry_after` on the error.
_LONGEST_HINT = 60.0
_RATE_LIMIT_MAX = 30.0

_log = logging.getLogger("resilient_ai")


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Try a failed call again, waiting longer each time.

    Retrying helps with faults that pass by themselves. It makes a lasting overload worse, so the attempts are few, the waits
    grow, and a random part keeps many clients from returning at the same moment. Tried again is what the error itself calls
    `retryable`, with three exceptions: an answer that cannot be read is asked for once more and not twice; a picture that may
    have been drawn is not paid for again (only errors that came with a status are repeated); and a wait that would outlast
    the deadline, or a server's wait of more than 60 s, fails now with the error at hand. A stream is not repeated once it has
    been handed over.

    After attempt n the wait is, in seconds, `uniform(0, 1) * min(wait_max, wait_initial * 2 ** (n - 1))`. After a 429 it is
    `uniform(0, 1) * min(max(30, wait_max), 2 * wait_initial * 2 ** (n - 1))`. It is never shorter than a wait that the server
    named, to which up to a tenth is added, at most 1 s.

    Args:
        attempts: Calls in total, the first included. At least 1; with 1 nothing is retried.
        wait_initial: Seconds after the first failure when chance is at its highest.
        wait_max: Upper bound of a computed wait, in seconds; at least `wait_initial`. A server's wait may be longer.
        retry_on: Decides in place of the rules above which errors are tried again; None for those rules.
        on_retry: Told of every retry before its wait; what it raises is logged by name and changes nothing.

    Raises:
        ValueError: If a number is out of its range; the message says which and what was given.

    >>> Retry(attempts=2)
    Retry(attempts=2, wait_initial=0.5, wait_max=8.0)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Deadline": "a deadline inside of it would not see the waits between tries",
        "Routing": "every model of a route is tried several times before the next one is asked",
        "Batching": "a batch that failed is sent again alone, not together with those that succeeded",
    }

    attempts: int = 3
    wait_initial: float = 0.5
    wait_max: float = 8.0
    retry_on: Callable[[Exception], bool] | None = field(default=None, repr=False)
    on_retry: Callable[[RetryScheduled], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_at_least("attempts", self.attempts, 1)
        check_seconds("wait_initial", self.wait_initial)
        check_seconds("wait_max", self.wait_max)
        if self.wait_max < self.wait_initial:
            raise ValueError(f"wait_max must be >= wait_initial, got {self.wait_max!r} < {self.wait_initial!r}")

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call, and send it again while that is worth it."""
        # Most calls succeed at once, so tenacity is only built for those that do not.
        try:
            return await proceed(call)
        except Exception as error:
            if self.attempts == 1 or not _is_worth_repeating(self, call, error):
                raise
            tries = _Tries(self, call, proceed, error)
        return await tries.run()


class _Tries(Generic[R]):
    """The tries of one call after its first has failed, told to tenacity."""

    def __init__(self, retry: Retry, call: Call[R], proceed: Next[R], first_failure: Exception) -> None:
        self._retry = retry
        self._call = call
        self._proceed = proceed
        self._first_failure: Exception | None = first_failure
        self._number = 0
        self._failures: list[Exception] = []
        self._unreadable = 0
        self._backoff = Backoff(initial=retry.wait_initial, longest=retry.wait_max)
        self._backoff_429 = Backoff(initial=2 * retry.wait_initial, longest=max(_RATE_LIMIT_MAX, retry.wait_max))

    async def run(self) -> R:
        """Return the first success, or raise the last failure."""
        # One object per call: tenacity keeps its state per thread, so tasks would share it.
        retrying = AsyncRetrying(
            sleep=self._call.clock.sleep,
            retry=self._is_worth_repeating,
            wait=self._wait,
            stop=self._is_over,
            before_sleep=self._announce,
            reraise=True,
        )
        result = cast("R", await retrying(self._attempt))
        for failure in self._failures:
            # Whoever keeps the error would keep every frame of the call alive with it, and so a stream that is left behind.
            failure.__traceback__ = None
        return result

    async def _attempt(self) -> R:
        self._number += 1
        if self._first_failure is not None:  # tenacity counts the try that has been made without it
            try:
                raise self._first_failure
            finally:
                self._first_failure = None
        return await self._proceed(self._call.replace(attempt=self._number))

    def _is_worth_repeating(self, state: RetryCallState) -> bool:
        error = _error_of(state)
        if self._retry.retry_on is None and isinstance(error, InvalidResponse):
            self._unreadable += 1
            if self._unreadable > 1:
                return False
        if self._number == 1:  # asked before tenacity was built
            return True
        return isinstance(error, Exception) and _is_worth_repeating(self._retry, self._call, error)

    def _wait(self, state: RetryCallState) -> float:
        error = _failure_of(state)
        backoff = self._backoff_429 if isinstance(error, RateLimited) else self._backoff
        return backoff.wait(state.attempt_number, self._call.clock.random(), _hint_of(error))

    def _is_over(self, state: RetryCallState) -> bool:
        if state.attempt_number >= self._retry.attempts:
            return True
        error, remaining = _failure_of(state), self._call.remaining()
        hint = _hint_of(error)
        if remaining is not None and state.upcoming_sleep >= remaining:
            reason = f"the wait of {state.upcoming_sleep:.2f} s does not fit the {remaining:.2f} s left to the call"
        elif hint is not None and hint > _LONGEST_HINT:
            reason = f"the server asked to wait {hint:g} s, which is longer than {_LONGEST_HINT:g} s"
        else:
            return False
        error.add_note(f"not tried again: {reason}")
        return True

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


def _is_worth_repeating(retry: Retry, call: Call[R], error: Exception) -> bool:
    if retry.retry_on is not None:
        return retry.retry_on(error)
    if not isinstance(error, ProviderError) or not error.retryable:
        return False
    return call.operation.kind != "image" or isinstance(error, StatusError) or not error.sent


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _failure_of(state: RetryCallState) -> Exception:
    # Waits and their end are only asked for once `_is_worth_repeating` has seen the error.
    return cast("Exception", _error_of(state))


def _hint_of(error: Exception) -> float | None:
    return error.retry_after if isinstance(error, StatusError | CircuitOpen | LimitReached) else None
