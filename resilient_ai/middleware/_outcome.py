"""How a call ended, in the few words that traces and logs share."""

import asyncio
from typing import Literal

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

OTHER = "_OTHER"

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


def delay_source(event: RetryScheduled) -> str:
    """Return what the wait for a retry comes from: "backoff", the server's "retry_after", or the "circuit_breaker"."""
    if event.retry_after is None:
        return "backoff"
    asked = isinstance(event.error, StatusError) and event.error.retry_after == event.retry_after
    return "retry_after" if asked else "circuit_breaker"
