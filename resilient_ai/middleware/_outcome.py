"""How a call and its attempts went, in the few words that spans, metrics and log lines share."""

import asyncio
from collections.abc import Container, Mapping
from functools import lru_cache
from typing import Any, Literal

from resilient_ai.core._told import LONGEST_NAME, told_name
from resilient_ai.core.call import Call
from resilient_ai.core.errors import (
    AttemptTimeout,
    BudgetExceeded,
    BudgetUnavailable,
    CallRejected,
    CircuitOpen,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidResponse,
    LimitReached,
    NoModelAvailable,
    OutputInvalid,
    PriceUnknown,
    StatusError,
    StreamInterrupted,
)
from resilient_ai.core.events import RetryScheduled
from resilient_ai.core.streams import StreamEnd

Outcome = Literal["success", "error", "refused", "cancelled", "abandoned"]
StreamOutcome = Literal["completed", "interrupted", "cancelled", "abandoned"]
AttemptKind = Literal["initial", "retry", "hedge", "fallback"]
AttemptOutcome = Literal["success", "error", "cancelled", "abandoned", "won", "lost"]

OTHER = "_OTHER"

# How a stream ended, by the outcome of its call. None is refused, as it has begun. One that its reader left early is "abandoned",
# as it is for the conventions, whether that was said or the garbage collector found it.
STREAM_OUTCOMES: Mapping[str, StreamOutcome] = {
    "success": "completed",
    "error": "interrupted",
    "cancelled": "cancelled",
    "abandoned": "abandoned",
}

_LIMITS = {"rate": "rate_limit_local", "concurrency": "queue_full"}

# In this order: the first that fits.
_TYPES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    ((AttemptTimeout, DeadlineExceeded, TimeoutError), "timeout"),
    (ConnectionFailed, "connection_error"),
    (StreamInterrupted, "stream_interrupted"),
    ((InvalidResponse, OutputInvalid), "invalid_response"),
    (CircuitOpen, "circuit_open"),
    (BudgetExceeded, "budget_exceeded"),
    (BudgetUnavailable, "budget_unavailable"),
    (PriceUnknown, "price_unknown"),
    (NoModelAvailable, "no_route"),
    ((asyncio.CancelledError, GeneratorExit), "cancelled"),
)


def error_type(error: BaseException) -> str:
    """Return the word for an error out of a short closed list, so that it can be counted by.

    It is the HTTP status where there is one, and "_OTHER" for whatever is not on the list.

    >>> from resilient_ai.core.errors import RateLimited
    >>> error_type(RateLimited("slow down", status=429)), error_type(TimeoutError()), error_type(KeyError("secret"))
    ('429', 'timeout', '_OTHER')
    """
    if isinstance(error, StatusError):
        return str(error.status)
    if isinstance(error, LimitReached):
        return _LIMITS.get(error.limiter or "", "limit_reached")
    return next((word for types, word in _TYPES if isinstance(error, types)), OTHER)


def outcome_of(error: BaseException) -> Outcome:
    """Return how a call ended that raised `error`; "refused" is what we did not even send."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return "refused" if isinstance(error, CallRejected) and not error.sent else "error"


def ended_by(call: Call[Any], error: BaseException) -> BaseException:
    """Return what an attempt has failed with: where a timer of the stack has cancelled it, that it took too long."""
    return TimeoutError() if isinstance(error, asyncio.CancelledError) and call.is_cut_off() else error


def stream_outcome(end: StreamEnd) -> tuple[Outcome, BaseException | None]:
    """Return how a stream ended, and the error that counts as its own.

    A reader who leaves has what was wanted. An error in the reader's own code makes it leave, and is not the stream's.
    """
    if end.how == "completed":
        return "success", None
    if end.how == "failed" and end.error is not None:
        return "error", end.error
    if isinstance(end.error, asyncio.CancelledError):
        return "cancelled", end.error
    return "abandoned", None


def is_leaked(end: StreamEnd) -> bool:
    """Return whether nobody closed a stream, and the garbage collector found it."""
    return end.how == "abandoned"


def attempt_kind(call: Call[Any], fallbacks: Container[str] | None) -> AttemptKind:
    """Return what an attempt is.

    Args:
        call: What is sent.
        fallbacks: The models that are asked because another one could not serve, None for none.
    """
    if call.hedge:
        return "hedge"
    if fallbacks is not None and call.operation.model in fallbacks:
        return "fallback"
    return "retry" if call.attempt > 1 else "initial"


def attempt_outcome(outcome: Outcome, raced: bool, came_late: bool) -> AttemptOutcome:  # noqa: FBT001 - by name costs more
    """Return how an attempt ended. What lost a race did not fail, whether it was cancelled or came second.

    Args:
        outcome: How it would have ended alone. Next to the provider nothing is refused: what ends a request there has failed it.
        raced: Whether another attempt ran for the same answer, or it is such a second one.
        came_late: Whether the answer of another one had come before.
    """
    if outcome == "refused":
        return "error"
    if came_late and outcome != "error":
        return "lost"
    return "won" if raced and outcome == "success" else outcome


@lru_cache(maxsize=512)
def _of_few(text: str) -> str | None:
    return told_name(text)


def told_word(text: str) -> str | None:
    """Return the same as `told_name`, sooner: for names that come again and again."""
    return _of_few(text) if len(text) <= LONGEST_NAME else None


def delay_source(event: RetryScheduled) -> str:
    """Return what the wait for a retry comes from: "backoff", the server's "retry_after", or the "circuit_breaker"."""
    if event.retry_after is None:
        return "backoff"
    asked = isinstance(event.error, StatusError) and event.error.retry_after == event.retry_after
    return "retry_after" if asked else "circuit_breaker"
