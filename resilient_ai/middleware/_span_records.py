"""Events as log records, by the OpenTelemetry API."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from resilient_ai._version import __version__
from resilient_ai.core.semconv import SCOPE

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.context import Context

Severity = Literal["INFO", "WARN", "ERROR"]


class RecordWriter:
    """Writes records that belong to a span.

    Args:
        logger_provider: Where they go; None means the application's global provider, also one that is set later.
        schema_url: Which conventions they follow.
    """

    def __init__(self, logger_provider: "LoggerProvider | None", schema_url: str | None) -> None:
        self._logger_provider = logger_provider
        self._schema_url = schema_url

    def emit(self, name: str, attributes: Mapping[str, Any], context: "Context", at: int, severity: Severity) -> None:
        """Write a record of something that happened inside of `context` at a time in nanoseconds."""
        from opentelemetry import _logs  # noqa: PLC0415 - few events are records

        logger = _logs.get_logger(SCOPE, __version__, self._logger_provider, self._schema_url)
        record = _logs.LogRecord(
            timestamp=at,
            observed_timestamp=at,
            context=context,
            severity_number=_logs.SeverityNumber[severity],
            severity_text=severity,
            attributes=attributes,
            event_name=name,
        )
        logger.emit(record)
