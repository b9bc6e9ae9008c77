"""Traces, metrics and log lines set up in one call, for applications that have nothing of their own for it.

A client needs none of it to report: it reports to whatever the application has set up. Importing this package imports no SDK;
calling `configure` does.
"""

from resilient_ai.observability import backends
from resilient_ai.observability.backends import Backend
from resilient_ai.observability.configuration import configure
from resilient_ai.observability.log_lines import log_formatter
from resilient_ai.observability.telemetry import Telemetry

__all__ = ["Backend", "Telemetry", "backends", "configure", "log_formatter"]
