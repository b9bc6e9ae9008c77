"""The reader of the SDK's exporter, kept from telling the same figure twice.

It puts whatever is collected into a queue that the next scrape empties. A flush would put figures there that nobody has asked
for, and of two scrapes at once one would get both, the older value of each series first, and the other nothing.
"""

import threading
from collections.abc import Iterable

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override


class Reader(PrometheusMetricReader):
    """Collects figures when it is scraped, and at no other time."""

    @override
    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Whoever wants figures fetches them."""
        return True


class Turnstile:
    """Registers collectors with a registry so that they are asked by one scrape at a time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._passing: dict[int, _OneByOne] = {}

    def register(self, collector: Collector) -> None:
        """Let a registry ask a collector."""
        one = self._passing[id(collector)] = _OneByOne(collector)
        self._registry.register(one)

    def unregister(self, collector: Collector) -> None:
        """Let it ask the collector no more."""
        self._registry.unregister(self._passing[id(collector)])


class _OneByOne(Collector):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._lock = threading.Lock()

    @override
    def collect(self) -> Iterable[Metric]:
        with self._lock:
            return list(self._collector.collect())
