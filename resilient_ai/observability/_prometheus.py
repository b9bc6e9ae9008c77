"""Figures for a Prometheus that comes and fetches them."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.observability._exporters import needed

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader
    from prometheus_client import CollectorRegistry


def reader_for(
    registry: "CollectorRegistry | None",
) -> "tuple[MetricReader, CollectorRegistry, Callable[[], None]]":
    """Return what collects figures whenever a registry is asked; the registry, a new one for None; and what ends that."""
    needed("opentelemetry.exporter.prometheus", "prometheus")
    from prometheus_client import CollectorRegistry  # noqa: PLC0415 - of an extra

    from resilient_ai.observability._prometheus_reader import Reader, Turnstile  # noqa: PLC0415 - of an extra

    if registry is None:
        registry = CollectorRegistry()
    # Scope labels would stand on every series, and say the same of all.
    reader: Any = Reader(scope_info_enabled=False, registry=cast("CollectorRegistry", Turnstile(registry)))

    def forget() -> None:
        with suppress(KeyError):  # where its provider was ended before
            reader.shutdown()

    return reader, registry, forget


def serve(registry: "CollectorRegistry", host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Serve a registry over HTTP, in a thread; return the port, and what ends it.

    Raises:
        ConfigurationError: If the address cannot be listened on.
    """
    from resilient_ai.observability._prometheus_server import Server  # noqa: PLC0415 - of an extra

    try:
        server = Server(registry, host, port)
    except OSError as error:
        raise ConfigurationError(
            f"prometheus: {host}:{port} cannot be listened on: {error.strerror or error}"
        ) from None
    return server.port, server.end
