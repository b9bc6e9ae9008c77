"""The closed vocabulary of the log: every line there can be, its level and its fields."""

import logging
from collections.abc import Container, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from resilient_ai.core._told import told_name
from resilient_ai.core.errors import ProviderError, StatusError
from resilient_ai.core.events import (
    BudgetRefused,
    BudgetThresholdReached,
    CacheLookedUp,
    CacheRefreshed,
    CallJoined,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    HedgeSent,
    HedgeSettled,
    KeyRefused,
    LimitChanged,
    ModelSkipped,
    PriceDrifted,
    RetryScheduled,
    RetrySuppressed,
    SendSettled,
    StreamResumed,
)
from resilient_ai.middleware._outcome import error_type

Fields = dict[str, Any]

CALL = "resilient_ai.call"
# In every line; the last two where the call is traced.
COMMON_FIELDS = ("model", "call_id", "trace_id", "span_id")
ERROR_FIELDS = ("error_type", "error_class", "status", "request_id")


class LogEvent(NamedTuple):
    """What lines of one name have in common.

    Args:
        level: A level of the standard library. The line of a call that failed is a WARNING.
        fields: What they may say beside `COMMON_FIELDS`. What is not known has no field.
    """

    level: int
    fields: tuple[str, ...] = ()


LOG_EVENTS: Mapping[str, LogEvent] = {
    CALL: LogEvent(
        logging.INFO,
        (
            *(
                "kind",
                "outcome",
                "served_by",
                "attempts",
                "cache",
                "cache_age",
                "saved",
                "cost",
                "cost_complete",
                "input_tokens",
            ),
            *("output_tokens", "duration", "stream", "leaked", "tags", *ERROR_FIELDS),
        ),
    ),
    "resilient_ai.attempt": LogEvent(logging.DEBUG, ("state", "cost", "elapsed", "used", "error_class")),
    "resilient_ai.retry": LogEvent(logging.WARNING, ("attempt", "wait", "retry_after", *ERROR_FIELDS)),
    "resilient_ai.retry_suppressed": LogEvent(logging.WARNING, ("reason", *ERROR_FIELDS)),
    "resilient_ai.hedge_sent": LogEvent(logging.INFO, ("after",)),
    "resilient_ai.hedge_settled": LogEvent(logging.DEBUG, ("outcome",)),
    "resilient_ai.stream_resumed": LogEvent(logging.WARNING, ("how", "number", *ERROR_FIELDS)),
    "resilient_ai.model_skipped": LogEvent(logging.WARNING, ("next_model", *ERROR_FIELDS)),
    "resilient_ai.key_refused": LogEvent(logging.ERROR, ("status", "retry_after")),
    "resilient_ai.circuit_opened": LogEvent(logging.ERROR, ("retry_after",)),
    "resilient_ai.circuit_half_opened": LogEvent(logging.WARNING),
    "resilient_ai.circuit_closed": LogEvent(logging.INFO),
    "resilient_ai.limit_changed": LogEvent(logging.DEBUG, ("limit",)),
    "resilient_ai.budget_refused": LogEvent(
        logging.ERROR, ("budget", "spent", "reserved", "limit", "until", "retry_after")
    ),
    "resilient_ai.budget_threshold": LogEvent(logging.WARNING, ("budget", "threshold", "spent", "limit", "until")),
    "resilient_ai.price_drifted": LogEvent(logging.WARNING, ("cost", "list_cost", "send_id")),
    "resilient_ai.cache_looked_up": LogEvent(logging.DEBUG, ("outcome", "hits", "misses", "saved", "age")),
    "resilient_ai.cache_failed": LogEvent(logging.WARNING, ("misses",)),
    "resilient_ai.cache_refresh_failed": LogEvent(logging.WARNING, ERROR_FIELDS),
    "resilient_ai.call_joined": LogEvent(logging.DEBUG, ("leader",)),
}

_NAMES: dict[type[Event], str] = {
    SendSettled: "resilient_ai.attempt",
    RetryScheduled: "resilient_ai.retry",
    RetrySuppressed: "resilient_ai.retry_suppressed",
    HedgeSent: "resilient_ai.hedge_sent",
    HedgeSettled: "resilient_ai.hedge_settled",
    StreamResumed: "resilient_ai.stream_resumed",
    ModelSkipped: "resilient_ai.model_skipped",
    KeyRefused: "resilient_ai.key_refused",
    CircuitOpened: "resilient_ai.circuit_opened",
    CircuitHalfOpened: "resilient_ai.circuit_half_opened",
    CircuitClosed: "resilient_ai.circuit_closed",
    LimitChanged: "resilient_ai.limit_changed",
    BudgetRefused: "resilient_ai.budget_refused",
    BudgetThresholdReached: "resilient_ai.budget_threshold",
    PriceDrifted: "resilient_ai.price_drifted",
    CacheLookedUp: "resilient_ai.cache_looked_up",
    CacheRefreshed: "resilient_ai.cache_refresh_failed",
    CallJoined: "resilient_ai.call_joined",
}

# Those that tell of more than that a call goes its way.
NOTABLE: Container[type[Event]] = frozenset(_NAMES) - {SendSettled}


def name_of(event: Event) -> str | None:
    """Return the name of the line that tells of an event, None where none does."""
    if isinstance(event, CacheLookedUp) and event.outcome == "error":
        return "resilient_ai.cache_failed"
    if isinstance(event, CacheRefreshed) and event.error is None:
        return None
    if isinstance(event, PriceDrifted) and event.repeated:
        return None
    return _NAMES.get(type(event))


def fields_of(event: Event, name: str) -> Fields:
    """Return what the line of this name tells of an event; what is not known has no field."""
    found = {field: getattr(event, field, None) for field in LOG_EVENTS[name].fields}
    error: object = getattr(event, "error", None)
    if isinstance(error, BaseException):
        found |= error_fields(error)
    elif isinstance(event, SendSettled):
        found["error_class"] = event.error
    return {field: _plain(value) for field, value in found.items() if value is not None}


def error_fields(error: BaseException | None) -> Fields:
    """Return what may be told of an error: never its message, which may quote a prompt, an answer or an address."""
    if error is None:
        return {}
    fields: Fields = {"error_type": error_type(error), "error_class": type(error).__name__}
    if isinstance(error, StatusError):
        fields["status"] = error.status
    if isinstance(error, ProviderError) and (request_id := told_name(error.request_id)) is not None:
        fields["request_id"] = request_id
    return fields


def _plain(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else value
