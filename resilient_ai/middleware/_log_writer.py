"""Writes lines by structlog on the standard library, with the application's log context and inside of the call's span."""

import logging
import sys
from collections.abc import Callable, Generator, MutableMapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

Write = Callable[..., Any]
Line = MutableMapping[str, Any]

# Names that a LogRecord has already; a field of such a name would make the standard library raise.
_RESERVED = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})
# Of our own fields those that callers and servers fill; all others are known to be harmless.
_FOREIGN = ("budget", "model", "next_model", "request_id", "served_by", "tags")


def is_heard(logger: logging.Logger) -> bool:
    """Whether anybody would see a line, as far as that can be told without one."""
    found = False
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            if not isinstance(handler, logging.NullHandler):
                return True
            found = True
        current = current.parent if current.propagate else None
    return not found  # then the standard library has a last resort


def span_ids(span: object | None) -> dict[str, str]:
    """Return the ids of a span, of the current one for None; nothing where there is none."""
    if "opentelemetry.trace" not in sys.modules:  # then nobody has a span, and importing it would cost 40 ms
        return {}
    from opentelemetry.trace import Span, get_current_span  # noqa: PLC0415 - it is imported already, or not needed

    context = (span if isinstance(span, Span) else get_current_span()).get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


@contextmanager
def inside(span: object | None) -> Generator[None]:
    """Make a span current while a line is written, so that handlers which ask for it find the one of the call."""
    if "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import context, trace  # noqa: PLC0415 - as above

    if not isinstance(span, trace.Span) or trace.get_current_span() is span:
        yield
        return
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        context.detach(token)


@lru_cache(maxsize=16)
def writer(target: logging.Logger) -> Write:
    """Return the function that writes to a logger; it takes a level, the name of a line, and its fields."""
    import structlog  # noqa: PLC0415 - costs 40 ms, and nothing is written in most processes that import us

    from resilient_ai.middleware._log_fields import presentable  # noqa: PLC0415 - as above

    def with_context(_: Any, __: str, line: Line) -> Line:
        foreign = {name: line[name] for name in _FOREIGN if name in line}
        return {**presentable(structlog.contextvars.get_contextvars()), **line, **presentable(foreign)}

    logger: Any = structlog.wrap_logger(
        target,
        processors=[with_context, _renamed, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    ).bind()
    write: Write = logger.log
    return write


def _renamed(_: Any, __: str, line: Line) -> Line:
    return {f"{name}_" if name in _RESERVED else name: value for name, value in line.items()}
