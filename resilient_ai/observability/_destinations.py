"""Batches and reports of the SDK, each to one destination, that can be ended apart from their provider.

A provider ends them one after the other. One that is not answered would use up the time of all others.
"""

from typing import Any, cast

from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from typing_extensions import override


class SpanBatches(BatchSpanProcessor):
    """Sends spans in batches."""

    # Whether its provider finds nothing to end any more.
    apart = False

    @override
    def shutdown(self) -> None:
        """Send what is waiting, and end."""
        if not self.apart:
            self.end()

    def end(self) -> None:
        """Do that also where the provider is to find nothing."""
        self.apart = True
        cast("Any", super()).shutdown()


class RecordBatches(BatchLogRecordProcessor):
    """Sends log records in batches."""

    apart = False

    @override
    def shutdown(self) -> None:
        """Send what is waiting, and end."""
        if not self.apart:
            self.end()

    def end(self) -> None:
        """Do that also where the provider is to find nothing."""
        self.apart = True
        cast("Any", super()).shutdown()


class Reports(PeriodicExportingMetricReader):
    """Sends figures from time to time."""

    apart = False

    @override
    def shutdown(self, timeout_millis: float = 30_000, **more: Any) -> None:
        """Send the last figures, and end."""
        if not self.apart:
            self.apart = True
            cast("Any", super()).shutdown(timeout_millis, **more)

    def end(self) -> None:
        """Do that also where the provider is to find nothing."""
        self.apart = True
        cast("Any", super()).shutdown()


Destination = SpanBatches | RecordBatches | Reports
