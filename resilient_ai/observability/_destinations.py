"""Batches and reports of the SDK, each to one destination, that can be ended apart from their provider.

A provider ends them one after the other. One that is not answered would use up the time of all others.
"""

from typing import Any, cast

from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import BatchSpanProcessor


class _Apart:
    """What can be ended apart from its provider.

    Attributes:
        apart: Whether its provider finds nothing to end any more.
    """

    apart = False

    def shutdown(self, *given: Any, **more: Any) -> None:
        """Send what is waiting, and end."""
        if not self.apart:
            self.end(*given, **more)

    def end(self, *given: Any, **more: Any) -> None:
        """Do that also where the provider is to find nothing."""
        self.apart = True
        cast("Any", super()).shutdown(*given, **more)


class SpanBatches(_Apart, BatchSpanProcessor):
    """Sends spans in batches."""


class RecordBatches(_Apart, BatchLogRecordProcessor):
    """Sends log records in batches."""


class Reports(_Apart, PeriodicExportingMetricReader):
    """Sends figures from time to time."""


Destination = SpanBatches | RecordBatches | Reports
