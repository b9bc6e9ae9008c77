"""The few things of the OpenTelemetry API that tracing uses, imported when they are needed."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from resilient_ai._version import __version__
from resilient_ai.core.call import Call, Next
from resilient_ai.middleware._semconv import SCHEMA_URL, SCOPE
from resilient_ai.middleware._span_attributes import Attributes

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer, TracerProvider

R = TypeVar("R")

_log = logging.getLogger("resilient_ai")


class Otel(NamedTuple):
    """A tracer, and the functions and constants around it."""

    tracer: "Tracer"
    attach: "Callable[[Context], Any]"
    detach: Callable[[Any], None]
    context_of: "Callable[[Span], Context]"
    current_span: "Callable[[], Span]"
    client: Any
    internal: Any
    failed: Any

    def start(self, name: str, kind: Any, attributes: Attributes) -> "Span | None":
        """Start a span, without making it current; None where the provider fails."""
        try:
            return self.tracer.start_span(name, kind=kind, attributes=attributes)
        except Exception as fault:  # noqa: BLE001 - telemetry never fails a call
            _log.warning("tracing could not start a span: %s", type(fault).__name__)
            return None


def load(tracer_provider: "TracerProvider | None") -> Otel:
    """Import the API and ask the provider for a tracer."""
    from opentelemetry import context, trace  # noqa: PLC0415 - costs 40 ms, and most processes that import us never trace

    return Otel(
        trace.get_tracer(SCOPE, __version__, tracer_provider=tracer_provider, schema_url=SCHEMA_URL),
        context.attach,
        context.detach,
        trace.set_span_in_context,
        trace.get_current_span,
        trace.SpanKind.CLIENT,
        trace.SpanKind.INTERNAL,
        trace.StatusCode.ERROR,
    )


async def inside(otel: Otel, span: "Span", call: Call[R], proceed: Next[R]) -> R:
    """Proceed while `span` is current.

    It is attached and detached in one coroutine of one task; across the reads of a stream nothing is ever attached.
    """
    token = otel.attach(otel.context_of(span))
    try:
        return await proceed(call)
    finally:
        otel.detach(token)


class Ending:
    """A span that ends once, whatever happens while its last attributes are put together."""

    __slots__ = ("ended", "otel", "span")

    def __init__(self, otel: Otel, span: "Span") -> None:
        self.otel = otel
        self.span = span
        self.ended = False

    def finish(self, attributes: Callable[[], Attributes], *, failed: bool) -> None:
        """Set the last attributes and end the span. A fault in here is logged, and never becomes the call's."""
        self.ended = True
        try:
            self.span.set_attributes(attributes())
            if failed:
                self.span.set_status(self.otel.failed)
        except Exception as fault:  # noqa: BLE001 - telemetry never fails a call
            _log.warning("tracing could not describe a call: %s", type(fault).__name__)
        finally:
            self.end()

    def end(self) -> None:
        """End the span; an exporter that raises stays among itself."""
        try:
            self.span.end()
        except Exception as fault:  # noqa: BLE001 - telemetry never fails a call
            _log.warning("tracing could not end a span: %s", type(fault).__name__)
