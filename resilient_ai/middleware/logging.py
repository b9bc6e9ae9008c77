"""One log line per call, and one per fact an operator must know, by structlog on the standard library."""

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from resilient_ai.core.call import FOR_NOTHING, Call, Next
from resilient_ai.core.checks import check_kind
from resilient_ai.core.errors import ProviderError, StatusError
from resilient_ai.core.events import (
    CacheLookedUp,
    CacheRefreshed,
    CallJoined,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    Event,
    HedgeSent,
    KeyRefused,
    ModelSkipped,
    RetryScheduled,
    RetrySuppressed,
    StreamResumed,
)
from resilient_ai.core.results import Result
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._outcome import Outcome, error_type, outcome_of, stream_outcome

R = TypeVar("R")

Fields = dict[str, Any]
Write = Callable[..., Any]

# Names that a LogRecord has already; a field of such a name would make the standard library raise.
_RESERVED = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})
# What the application may have bound to its own log context, and what must not be in a line of ours.
_SECRETS = frozenset(
    {"authorization", "api_key", "x-api-key", "cookie", "password", "secret", "token"}
    | {"prompt", "messages", "content", "input", "output", "arguments", "texts"}
)
_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
_LIBRARY_LOGGER = "resilient_ai"

logging.getLogger(_LIBRARY_LOGGER).addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Logging:
    """Write one line per call, when it is over, and one line per notable fact: a retry, a breaker, a skipped model.

    The lines go to the standard library's logger "resilient_ai" as constant events with fields (`extra`), so an application
    decides by its own logging configuration whether, where and in which form they appear. Nothing is configured globally
    and no handler is installed but a `NullHandler`. A call that failed is written as a warning, every other at `level`.

    No prompt, answer, key or exception message is written: errors show by class, kind and HTTP status.

    Args:
        logger: The standard library's logger to write to; None means "resilient_ai".
        level: Level of the line of a call that did not fail, such as `logging.INFO`.

    Raises:
        ValueError: If the level is not one of the standard library's five, or the logger is none, such as its name.

    >>> Logging(level=logging.DEBUG)
    Logging(logger=None, level=10)
    """

    logger: logging.Logger | None = None
    _: KW_ONLY
    level: int = logging.INFO
    _target: logging.Logger = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the options."""
        check_kind("logger", self.logger, logging.Logger, None)
        if self.level not in _LEVELS:
            raise ValueError(f"level must be one of {_LEVELS}, got {self.level!r}")
        object.__setattr__(self, "_target", self.logger or logging.getLogger(_LIBRARY_LOGGER))

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Log a call when it is over, and what happens on its way."""
        target = self._target
        if not target.isEnabledFor(logging.ERROR) and not target.isEnabledFor(self.level):
            return await proceed(call)
        line = _Line(self, target, call)
        try:
            result = await proceed(call.replace(listeners=(*call.listeners, line.noted)))
        except BaseException as error:
            line.failed(error)
            raise
        if isinstance(result, StreamResult):
            result.on_end(line.stream_ended)
        else:
            line.succeeded(result)
        return result


class _Line:
    """The log line of one call, while it is being gathered."""

    __slots__ = ("call", "ids", "level", "started", "target")

    def __init__(self, settings: Logging, target: logging.Logger, call: Call[Any]) -> None:
        self.target = target
        self.level = settings.level
        self.call = call
        self.started = call.clock.monotonic()
        # Taken now: at the end of a stream the span of the call is current no more.
        self.ids = _span_ids()

    def noted(self, event: Event) -> None:
        """Write a notable fact at once."""
        described = _describe(event)
        if described is not None:
            level, name, fields = described
            if self.target.isEnabledFor(level):
                self.write(level, name, {"model": event.model, "call_id": event.call_id, **fields})

    def succeeded(self, result: object) -> None:
        """Write the line of a call that gave a result."""
        self.over("success", None, result if isinstance(result, Result) else None)

    def failed(self, error: BaseException) -> None:
        """Write the line of a call that raised."""
        self.over(outcome_of(error), error, None)

    def stream_ended(self, end: StreamEnd) -> None:
        """Write the line of a stream, with what it delivered."""
        outcome, error = stream_outcome(end)
        with contextlib.suppress(Exception):
            self.over(outcome, error, end.answer, stream=end.how)

    def over(self, outcome: Outcome, error: BaseException | None, result: Result | None, **more: Any) -> None:
        """Write the line of the call."""
        level = logging.WARNING if outcome in {"error", "refused"} else self.level
        if self.target.isEnabledFor(level):
            with contextlib.suppress(Exception):  # a clock whose loop is gone, a result of the user's own making
                self.write(level, "resilient_ai.call", self.fields(outcome, error, result) | more)

    def fields(self, outcome: Outcome, error: BaseException | None, result: Result | None) -> Fields:
        """Return all that is known at the end; what is not known has no field."""
        call, record = self.call, self.call.record
        usage = result.usage if result is not None and record.cache not in FOR_NOTHING else None
        cost = record.cost() or (result.cost if result is not None else None)
        found: Fields = {
            "model": call.model,
            "served_by": result.served_by if result and result.served_by != call.model else None,
            "kind": call.operation.kind,
            "outcome": outcome,
            **_error_fields(error),
            "attempts": record.sends,
            "cache": record.cache,
            "cache_age": None if record.age is None else round(record.age, 3),
            "cost": None if cost is None else float(cost.amount),
            "saved": None if record.saved is None else float(record.saved),
            "input_tokens": usage and usage.input_tokens,
            "output_tokens": usage and usage.output_tokens,
            "duration": round(call.clock.monotonic() - self.started, 6),
            "call_id": call.id,
            "tags": dict(call.tags),
        }
        return {name: value for name, value in found.items() if value not in (None, "", {})}

    def write(self, level: int, event: str, fields: Fields) -> None:
        """Hand a line to structlog; one that cannot be written is left out, and the call goes on."""
        with contextlib.suppress(Exception):
            _writer(self.target)(level, event, **fields, **self.ids)


def _describe(event: Event) -> tuple[int, str, Fields] | None:
    match event:
        case RetryScheduled():
            fields = {"attempt": event.attempt, "wait": event.wait, **_error_fields(event.error)}
            if event.retry_after is not None:
                fields["retry_after"] = event.retry_after
            return logging.WARNING, "resilient_ai.retry", fields
        case ModelSkipped():
            fields = {"next_model": event.next_model, **_error_fields(event.error)}
            return logging.WARNING, "resilient_ai.model_skipped", fields
        case RetrySuppressed():
            return (
                logging.WARNING,
                "resilient_ai.retry_suppressed",
                {"reason": event.reason, **_error_fields(event.error)},
            )
        case HedgeSent():
            return logging.INFO, "resilient_ai.hedge_sent", {"after": event.after}
        case StreamResumed():
            fields = {"how": event.how, "number": event.number, **_error_fields(event.error)}
            return logging.WARNING, "resilient_ai.stream_resumed", fields
        case KeyRefused():
            fields = {"status": event.status, "retry_after": event.retry_after}
            return logging.ERROR, "resilient_ai.key_refused", fields
        case CircuitOpened():
            return logging.ERROR, "resilient_ai.circuit_opened", {"retry_after": event.retry_after}
        case CircuitHalfOpened():
            return logging.WARNING, "resilient_ai.circuit_half_opened", {}
        case CircuitClosed():
            return logging.INFO, "resilient_ai.circuit_closed", {}
        case CacheRefreshed(error=Exception() as error):
            return logging.WARNING, "resilient_ai.cache_refresh_failed", _error_fields(error)
        case CallJoined():
            return logging.DEBUG, "resilient_ai.call_joined", {"leader": event.leader}
        case CacheLookedUp(outcome="error"):
            return logging.WARNING, "resilient_ai.cache_failed", {"misses": event.misses}
        case _:
            return None


def _error_fields(error: BaseException | None) -> Fields:
    if error is None:
        return {}
    fields: Fields = {"error_type": error_type(error), "error_class": type(error).__name__}
    if isinstance(error, StatusError):
        fields["status"] = error.status
    if isinstance(error, ProviderError) and error.request_id is not None:
        fields["request_id"] = error.request_id
    return fields


def _span_ids() -> Mapping[str, str]:
    if "opentelemetry.trace" not in sys.modules:  # then nobody has a span, and importing it would cost 40 ms
        return {}
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - it is imported already, or not needed

    context = get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


@lru_cache(maxsize=16)
def _writer(target: logging.Logger) -> Write:
    import structlog  # noqa: PLC0415 - costs 40 ms, and nothing is written in most processes that import us

    logger: Any = structlog.wrap_logger(
        target,
        processors=[structlog.contextvars.merge_contextvars, _presentable, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    ).bind()
    write: Write = logger.log
    return write


def _presentable(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    shown = {name: value for name, value in event.items() if name.lower() not in _SECRETS}
    return {f"{name}_" if name in _RESERVED else name: value for name, value in shown.items()}
