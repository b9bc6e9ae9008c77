"""Lines of the log, as JSON for machines or in colours for people, and as log records of OpenTelemetry."""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast, get_args

from typing_extensions import override

from resilient_ai._version import __version__
from resilient_ai.core.errors import ConfigurationError
from resilient_ai.middleware._log_writer import span_ids
from resilient_ai.middleware._telemetry_faults import passed_over
from resilient_ai.middleware.redactor import Redactor

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider

Form = Literal["json", "pretty"]

LIBRARY = "resilient_ai"
_SENDER = "opentelemetry"
# Characters of a text of others, such as a traceback, that are kept.
_CAP = 16_384
_PLAIN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})


def log_formatter(form: Form, *, colors: bool = False) -> logging.Formatter:
    """Return a formatter for a handler of yours: a JSON object or a readable line for each record.

    Lines of this library are written as they are, as nothing in them is content or a key. In those of others, which have none of
    that care, keys are masked, fields named like secrets or content are left out, and the ids of the current span are added.

    Args:
        form: "json" or "pretty".
        colors: Whether pretty lines are coloured, for a terminal.

    Raises:
        ConfigurationError: If there is no such form.

    >>> record = logging.makeLogRecord({"name": "shop", "msg": "paid", "levelname": "INFO", "created": 0.0, "order": 17})
    >>> log_formatter("json").format(record)
    '{"event": "paid", "level": "info", "logger": "shop", "timestamp": "1970-01-01T00:00:00+00:00", "order": 17}'
    """
    import structlog  # noqa: PLC0415 - costs 40 ms

    if form not in get_args(Form):
        raise ConfigurationError(f"the form of log lines must be one of {get_args(Form)}, got {form!r:.40}")
    renderer: Any = structlog.processors.JSONRenderer()
    if form == "pretty":
        # Tracebacks with the values of variables would show what nobody wanted to tell.
        renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    return _Formatter(renderer)


def stream_handler(form: Form | Literal["auto"], stream: TextIO | None = None) -> logging.Handler:
    """Return a handler that writes to a stream, the error channel by default; "auto" is pretty in a terminal, and else JSON."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log_formatter(form_for(form, stream), colors=_is_terminal(stream)))
    return handler


def form_for(form: Form | Literal["auto"], stream: TextIO | None) -> Form:
    """Return how lines are written to a stream."""
    if form != "auto":
        return form
    return "pretty" if _is_terminal(stream) else "json"


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # a program without a console has none


def attach(handlers: list[logging.Handler], *, root: bool, level: int, alone: bool) -> Callable[[], None]:
    """Add handlers to the library's logger, or to that of everything; return what takes them away again.

    Args:
        handlers: What writes lines.
        root: Whether lines of everybody are meant.
        level: From which level on lines are written.
        alone: Whether lines of the library shall go to nobody else, as they would appear twice.
    """
    target = logging.getLogger(None if root else LIBRARY)
    before = target.level, target.propagate
    for handler in handlers:
        target.addHandler(handler)
    target.setLevel(level)
    if alone and not root:
        target.propagate = False
    # What sends telemetry away logs its troubles, and where nobody has said where to, the standard library would print them as
    # text among our lines.
    sender = logging.getLogger(_SENDER)
    if alone and not sender.hasHandlers():
        for handler in handlers:
            sender.addHandler(handler)

    def detach() -> None:
        for handler in handlers:
            target.removeHandler(handler)
            sender.removeHandler(handler)
            handler.close()
        target.setLevel(before[0])
        target.propagate = before[1]

    return detach


class _Formatter(logging.Formatter):
    def __init__(self, renderer: Callable[[Any, str, dict[str, Any]], str]) -> None:
        super().__init__()
        self._renderer = renderer

    @override
    def format(self, record: logging.LogRecord) -> str:
        return self._renderer(None, record.levelname, _line(record))


class RecordHandler(logging.Handler):
    """Hands lines to OpenTelemetry as log records: those of this library as events by their name."""

    def __init__(self, provider: "LoggerProvider") -> None:
        super().__init__()
        self._provider = provider

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over; one of whoever sends records away would bring the next one along."""
        from opentelemetry.context import get_value  # noqa: PLC0415 - whoever has a provider has imported it

        if record.name.startswith("opentelemetry") or get_value("suppress_instrumentation"):
            return
        try:
            self._emit(record)
        except Exception as fault:  # noqa: BLE001 - telemetry never fails a call
            passed_over("logging", "hand a line to OpenTelemetry", fault)

    def _emit(self, record: logging.LogRecord) -> None:
        from opentelemetry._logs import LogRecord, SeverityNumber  # noqa: PLC0415 - as above
        from opentelemetry.context import get_current  # noqa: PLC0415 - as above

        line = _line(record)
        event = line.pop("event")
        for known in ("level", "logger", "timestamp", "trace_id", "span_id"):
            line.pop(known, None)
        if (failure := line.pop("exception", None)) is not None:
            line["exception.stacktrace"] = failure
        severity = min(max(record.levelno // 10, 0), 5) * 4 + 1 if record.levelno >= logging.DEBUG else 1
        self._provider.get_logger(record.name, __version__ if _is_ours(record) else None).emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                context=get_current(),
                severity_text=record.levelname,
                severity_number=SeverityNumber(severity),
                body=event,  # also of ours, as many a viewer shows nothing else
                event_name=event if _is_ours(record) else None,
                attributes=line,
            )
        )


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name == LIBRARY and not record.args


def _line(record: logging.LogRecord) -> dict[str, Any]:
    from resilient_ai.middleware._log_fields import presentable  # noqa: PLC0415 - compiles its patterns

    at = datetime.fromtimestamp(record.created, UTC).isoformat()
    about = {"level": record.levelname.lower(), "logger": record.name, "timestamp": at}
    extra = {name: value for name, value in vars(record).items() if name not in _PLAIN and not name.startswith("_")}
    if _is_ours(record):
        return {"event": record.getMessage(), **about, **extra}
    event = record.getMessage()
    message: object = record.msg
    if isinstance(message, dict):  # an application whose structlog leaves rendering to the formatter
        extra |= cast("dict[str, Any]", message)
        event = str(extra.pop("event", ""))
    found = {"event": _masked(event), **about, **presentable(extra), **span_ids(None)}
    if record.exc_info and record.exc_info[0] is not None:
        found["exception"] = _masked(logging.Formatter().formatException(record.exc_info))
    return found


def _masked(text: str) -> str:
    redacted = _redactor().text(text)
    return redacted if len(redacted) <= _CAP else f"{redacted[:_CAP]}…[truncated {len(redacted) - _CAP} chars]"


@lru_cache(maxsize=1)
def _redactor() -> Redactor:
    return Redactor(builtin=["private_key", "key"])
