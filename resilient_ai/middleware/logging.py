"""One log line per call, and one per fact an operator must know, by structlog on the standard library."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, TypeVar

from resilient_ai.core.call import FOR_NOTHING, Call, Next
from resilient_ai.core.checks import check_kind
from resilient_ai.core.collector import collecting_if, outside_of_collector
from resilient_ai.core.events import Event
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.results import Result
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._log_lines import (
    CALL,
    COMMON_FIELDS,
    ERROR_FIELDS,
    LOG_EVENTS,
    NOTABLE,
    Fields,
    LogEvent,
    error_fields,
    fields_of,
    name_of,
)
from resilient_ai.middleware._log_writer import inside, is_heard, span_ids, writer
from resilient_ai.middleware._outcome import STREAM_OUTCOMES, Outcome, is_leaked, outcome_of, stream_outcome
from resilient_ai.middleware._telemetry_faults import passed_over

R = TypeVar("R")

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

    def __call__(self, call: Call[R], proceed: Next[R], /) -> Awaitable[R]:
        """Log a call when it is over, and what happens on its way; where nobody hears, no coroutine of ours is in its way."""
        target = self._target
        if (target.isEnabledFor(logging.ERROR) or target.isEnabledFor(self.level)) and is_heard(target):
            return self._logged(target, call, proceed)
        return proceed(call)

    async def _logged(self, target: logging.Logger, call: Call[R], proceed: Next[R]) -> R:
        line = _Line(self, target, call)
        try:
            result = await proceed(call.replace(listeners=(*call.listeners, line)))
        except BaseException as error:
            with collecting_if(error):
                line.failed(error)
            raise
        if isinstance(result, StreamResult):
            result.on_end(line.stream_ended)
        else:
            line.succeeded(result)
        return result


class _Line:
    """The log line of one call, while it is being gathered.

    Attributes:
        hears: The events that may have a line of their own at the level that is written; None for all.
        writes_lines: Says to parts of the stack that would write one themselves that facts have their line.
    """

    __slots__ = ("call", "hears", "ids", "level", "started", "target")
    writes_lines: ClassVar[bool] = True

    def __init__(self, settings: Logging, target: logging.Logger, call: Call[Any]) -> None:
        self.target = target
        self.level = settings.level
        self.call = call
        self.started = call.clock.monotonic()
        self.hears = None if target.isEnabledFor(logging.DEBUG) else NOTABLE
        # Taken now: at the end of a stream no span is current any more.
        self.ids = _safe_ids(call.span)

    def __call__(self, event: Event) -> None:
        """Write a notable fact at once."""
        name = name_of(event)
        if name is not None and self.target.isEnabledFor(level := LOG_EVENTS[name].level):
            about = {"model": event.model, "call_id": event.call_id}
            self.write(level, name, lambda: about | fields_of(event, name))

    def succeeded(self, result: object) -> None:
        """Write the line of a call that gave a result."""
        self.over("success", None, result if isinstance(result, Result) else None)

    def failed(self, error: BaseException) -> None:
        """Write the line of a call that raised."""
        self.over(outcome_of(error), error, None)

    def stream_ended(self, end: StreamEnd) -> None:
        """Write the line of a stream, with what it delivered."""
        outcome, error = stream_outcome(end)
        leaked = {"leaked": True} if is_leaked(end) else {}
        self.over(outcome, error, end.answer, stream=STREAM_OUTCOMES[outcome], **leaked)

    def over(self, outcome: Outcome, error: BaseException | None, result: Result | None, **more: Any) -> None:
        """Write the line of the call."""
        level = logging.WARNING if outcome in {"error", "refused"} else self.level
        if self.target.isEnabledFor(level):
            self.write(level, CALL, lambda: self.fields(outcome, error, result) | more)

    def fields(self, outcome: Outcome, error: BaseException | None, result: Result | None) -> Fields:
        """Return all that is known at the end; what is not known has no field."""
        call, record = self.call, self.call.record
        usage = result.usage if result is not None and record.cache not in FOR_NOTHING else None
        cost = record.cost_of(result)
        found: Fields = {
            "model": call.model,
            "served_by": result.served_by if result and result.served_by != call.model else None,
            "kind": call.operation.kind,
            "outcome": outcome,
            **error_fields(error),
            "attempts": record.sends,
            "cache": record.cache,
            "cache_age": None if record.age is None else round(record.age, 3),
            "cost": None if cost is None else float(cost.amount),
            "cost_complete": False if (record.costs if cost is None else not cost.complete) else None,
            "saved": None if record.saved is None else float(record.saved),
            "input_tokens": usage and usage.input_tokens,
            "output_tokens": usage and usage.output_tokens,
            "duration": round(call.clock.monotonic() - self.started, 6),
            "call_id": call.id,
            "tags": dict(call.tags),
        }
        return {name: value for name, value in found.items() if value not in (None, "", {})}

    def write(self, level: int, name: str, fields: Callable[[], Fields]) -> None:
        """Hand a line to structlog; one that cannot be written is left out, and the call goes on."""

        def put() -> None:
            with inside(self.call.span):
                writer(self.target)(level, name, **line)

        try:  # a clock whose loop is gone, a result of the user's own making
            line = fields() | self.ids
        except FAULTS as fault:  # telemetry never fails a call
            passed_over("logging", "put a line together", fault)
        else:
            # Handlers take locks, which whoever the garbage collector has interrupted may hold.
            outside_of_collector(_safely, put)


def _safe_ids(span: object | None) -> dict[str, str]:
    try:
        return span_ids(span)
    except FAULTS as fault:  # a span of somebody else's making, which must not fail a call
        passed_over("logging", "name a span", fault)
        return {}


def _safely(put: Callable[[], None]) -> None:
    try:
        put()
    except FAULTS as fault:  # a handler that raises, which must not fail a call
        passed_over("logging", "write a line", fault)


__all__ = ["COMMON_FIELDS", "ERROR_FIELDS", "LOG_EVENTS", "LogEvent", "Logging"]
