"""What `configure` has set up, to be flushed and ended."""

import atexit
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

from resilient_ai.core.call import Middleware
from resilient_ai.core.checks import check_seconds
from resilient_ai.middleware.metrics import Metrics
from resilient_ai.middleware.tracing import Tracing
from resilient_ai.observability._ending import Ending

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from resilient_ai.observability._destinations import Destination

_log = logging.getLogger("resilient_ai")


class Telemetry:
    """What `configure` has set up. Use it as `with`, or call `shutdown()`; at the end of the process that happens by itself.

    Both `flush` and `shutdown` wait for what takes telemetry, so a coroutine calls them by `asyncio.to_thread`.

    Attributes:
        service: The name of the service.
        tracer_provider: Where spans go; None where nothing takes any. So are the other two.
        meter_provider: Where figures go.
        logger_provider: Where log records go.
        prometheus_port: Where figures can be scraped, if they can.
        trace_file: Where spans are written, if they are.
        trace_backends: What `Tracing(backends=...)` needs to know of the backends.
    """

    def __init__(
        self,
        service: str,
        *,
        tracer_provider: "TracerProvider | None" = None,
        meter_provider: "MeterProvider | None" = None,
        logger_provider: "LoggerProvider | None" = None,
        prometheus_port: int | None = None,
        trace_file: Path | None = None,
        trace_backends: Sequence[str] = (),
        destinations: "Sequence[Destination]" = (),
        ending: Ending,
        on_shutdown: Sequence[Callable[[], object]] = (),
    ) -> None:
        self.service = service
        self.tracer_provider = tracer_provider
        self.meter_provider = meter_provider
        self.logger_provider = logger_provider
        self.prometheus_port = prometheus_port
        self.trace_file = trace_file
        self.trace_backends = tuple(trace_backends)
        self._destinations = list(destinations)
        self._ending = ending
        self._on_shutdown = list(on_shutdown)
        atexit.register(self._at_exit)

    def flush(self, timeout: float = 10.0) -> bool:
        """Send what is waiting to be sent.

        Args:
            timeout: Seconds to wait for it at most.

        Returns:
            Whether it could be handed over in time. What a backend has refused is logged by its exporter.
        """
        check_seconds("timeout", timeout)
        if self._ending.is_begun:
            return self._ending.wait_as_well(timeout)
        return _all_within(timeout, [one.force_flush for one in self._providers()])

    def shutdown(self, timeout: float = 10.0) -> bool:
        """Send what is waiting, and end everything that was set up; what calls report afterwards goes nowhere.

        At the end of the process that happens by itself, with the same time for everything together. Where something takes two
        seconds, a warning says what is waited for, and at last one says what was lost.

        Args:
            timeout: Seconds to wait for it at most.

        Returns:
            Whether it was done in time. Whoever comes second, from another thread, from a signal handler or after an interrupt,
            waits for what the first one has begun, and no longer than that one does.
        """
        check_seconds("timeout", timeout)
        for one in self._destinations:
            one.apart = True
        if not self._ending.begin():
            return self._ending.wait_as_well(timeout)
        try:
            atexit.unregister(self._at_exit)
            return self._ending.wait(timeout)
        finally:
            for end in self._on_shutdown:
                with suppress(Exception):  # the others are ended all the same
                    end()

    def applied_to(self, stack: Sequence[Middleware]) -> list[Middleware]:
        """Return a stack whose `Tracing` and `Metrics` report here, whatever is set up for the whole process.

        It is for `configure(..., globally=False)`:

            AsyncClient(stack=telemetry.applied_to(default_stack()))

        Args:
            stack: Middleware, outermost first; those that report to a provider of their own are left as they are.
        """
        return [self._applied(layer) for layer in stack]

    def _applied(self, layer: Middleware) -> Middleware:
        if isinstance(layer, Tracing) and layer.tracer_provider is None and self.tracer_provider is not None:
            backends = self.trace_backends if layer.backends is None else layer.backends
            logs = layer.logger_provider or self.logger_provider
            return replace(layer, tracer_provider=self.tracer_provider, logger_provider=logs, backends=backends)
        if isinstance(layer, Metrics) and layer.meter_provider is None and self.meter_provider is not None:
            backends = self.trace_backends if layer.backends is None else layer.backends
            return replace(layer, meter_provider=self.meter_provider, backends=backends)
        return layer

    def _at_exit(self) -> None:
        # Whatever is raised here would be printed, with a traceback, when everything is over: an interrupt as well.
        with suppress(BaseException):
            self.shutdown()

    def _providers(self) -> list[Any]:
        found = (self.tracer_provider, self.meter_provider, self.logger_provider)
        return [provider for provider in found if provider is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    @override
    def __repr__(self) -> str:
        about = {"prometheus_port": self.prometheus_port, "trace_file": self.trace_file}
        shown = [f"{name}={value!r}" for name, value in about.items() if value is not None]
        return f"Telemetry({', '.join([repr(self.service), *shown])})"


def _all_within(timeout: float, work: Sequence[Callable[[], object]]) -> bool:
    """Do all of it at once and wait; what the SDK takes for a timeout does not bound all that it does."""
    results: list[bool] = []

    def do(one: Callable[[], object]) -> None:
        try:
            results.append(one() is not False)
        except Exception as fault:  # noqa: BLE001 - an exporter that raises must not fail the application at its end
            _log.warning("telemetry could not be handed over: %s", type(fault).__name__)
            results.append(False)

    threads = [threading.Thread(target=do, args=(one,), name="resilient-ai-telemetry", daemon=True) for one in work]
    end = time.monotonic() + timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return len(results) == len(work) and all(results)
