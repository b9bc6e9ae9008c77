"""The few things of the OpenTelemetry API that tracing uses, imported when they are needed, and spans that end once."""

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from resilient_ai._version import __version__
from resilient_ai.core.call import Call, Next
from resilient_ai.core.clock import Clock
from resilient_ai.core.collector import outside_of_collector
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.semconv import SCOPE
from resilient_ai.middleware._span_attributes import Attribute, Attributes
from resilient_ai.middleware._telemetry_faults import passed_over

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, Tracer, TracerProvider

R = TypeVar("R")

# What others write into the context: everything is to be left alone; or somebody around us describes this call already.
_LEAVE_ALONE = "suppress_instrumentation"
_DESCRIBED = (
    "suppress_language_model_instrumentation",
    "opentelemetry.genai.client.inference.context",
    "opentelemetry.genai.client.embedding.context",
)
_WRITTEN = frozenset({_LEAVE_ALONE, *_DESCRIBED})


def _new_process() -> None:
    global _process  # noqa: PLW0603 - one per process: a system call for every span would cost more than the rest
    _process = object()


_process = object()
if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
    os.register_at_fork(after_in_child=_new_process)


class Otel(NamedTuple):
    """A tracer, and the functions and constants around it.

    Args:
        tracer: Starts spans.
        api: The module that keeps the global provider, None where the tracer is of another one.
    """

    tracer: "Tracer"
    api: ModuleType | None
    attach: "Callable[[Context], Any]"
    detach: Callable[[Any], None]
    context_of: "Callable[[Span, Context | None], Context]"
    current: "Callable[[], Context]"
    link: "Callable[[SpanContext, Attributes], Link]"
    suppress_key: str
    client: "SpanKind"
    internal: "SpanKind"
    failed: "StatusCode"

    def is_idle(self) -> bool:
        """Whether no provider is set, so that spans are nothing. Asking for one to find that out costs ten times as much."""
        api = self.api
        # Where it is kept is not promised; should it ever be elsewhere, spans are asked for.
        return api is not None and getattr(api, "_TRACER_PROVIDER", api) is None

    def start(  # noqa: PLR0917 - by names costs more
        self,
        name: str,
        kind: "SpanKind",
        attributes: Mapping[str, Attribute],
        at: int,
        parent: "Context | None" = None,
        links: "Sequence[Link]" = (),
    ) -> "Span | None":
        """Start a span at a time in nanoseconds, without making it current; None where the provider fails."""
        try:
            return self.tracer.start_span(name, parent, kind, attributes, links, at)
        except FAULTS as fault:  # telemetry never fails a call
            passed_over("tracing", "start a span", fault)
            return None

    def suppressed(self, context: "Context") -> Literal["all", "described"] | None:
        """Return what must not be reported, by what others have written into a context."""
        # Nearly always there is nothing but a span, or nothing at all.
        if not context or (self.suppress_key not in context and _WRITTEN.isdisjoint(context)):
            return None
        if context.get(self.suppress_key) or context.get(_LEAVE_ALONE):
            return "all"
        return "described" if any(context.get(key) for key in _DESCRIBED) else None


def load(tracer_provider: "TracerProvider | None", schema_url: str | None) -> Otel:
    """Import the API and ask the provider for a tracer."""
    from opentelemetry import context, trace  # noqa: PLC0415 - costs 40 ms, and most processes that import us never trace

    return Otel(
        trace.get_tracer(SCOPE, __version__, tracer_provider=tracer_provider, schema_url=schema_url),
        trace if tracer_provider is None else None,
        context.attach,
        context.detach,
        trace.set_span_in_context,
        context.get_current,
        trace.Link,
        getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", _LEAVE_ALONE),
        trace.SpanKind.CLIENT,
        trace.SpanKind.INTERNAL,
        trace.StatusCode.ERROR,
    )


def is_recorded(span: "Span") -> bool | None:
    """Return whether a span is recorded; None where there is nothing that others could be told of, or it fails and is ended."""
    try:
        if span.is_recording():
            return True
        return False if span.get_span_context().is_valid else None
    except FAULTS as fault:  # telemetry never fails a call
        passed_over("tracing", "ask a span", fault)
        with suppress(Exception):
            span.end()
        return None


def trace_headers(span: "Span") -> dict[str, str]:
    """Return the W3C trace headers that tell a server of a span; never baggage, which may hold anything.

    They are written here, as the propagator of the API takes five times as long.
    """
    try:
        told = span.get_span_context()
        # In this form it takes half the time of an f-string.
        parent = "00-%032x-%016x-%02x" % (told.trace_id, told.span_id, told.trace_flags)  # noqa: UP031
        headers = {"traceparent": parent}
        state = told.trace_state
        # It comes from whoever called us, and one that cannot be sent must not fail the request.
        if state and (text := state.to_header()).isascii() and text.isprintable():
            headers["tracestate"] = text
    except FAULTS as fault:  # telemetry never fails a call
        passed_over("tracing", "write trace headers", fault)
        return {}
    else:
        return headers


async def inside(otel: Otel, context: "Context", call: Call[R], proceed: Next[R]) -> R:
    """Proceed while `context` is current.

    It is attached and detached in one coroutine of one task; across the reads of a stream nothing is ever attached.
    """
    token = otel.attach(context)
    try:
        return await proceed(call)
    finally:
        let_go(otel, token)


def let_go(otel: Otel, token: Any) -> None:
    """Make current again what was before, also after a failure.

    A coroutine whose loop has died is closed by the garbage collector, in whatever context that happens to run. What was
    attached is gone with the context of its task then, and `detach` would complain.
    """
    variable = getattr(token, "var", None)
    if variable is None:  # not a context variable: somebody has set a runtime context of their own
        otel.detach(token)
        return
    with suppress(ValueError):
        variable.reset(token)


class Times:
    """The time of the spans of one call, in nanoseconds since 1970: the wall clock at its start, and what has passed since.

    So a wall clock that is set meanwhile makes no span end before it began.

    >>> from resilient_ai.testing import ManualClock
    >>> clock = ManualClock(); times = Times(clock); clock.now += 1.5
    >>> clock.offset -= 3600; times.now() - times.start
    1500000000
    """

    __slots__ = ("_clock", "_since", "last", "start")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self.start = self.last = int(clock.wall() * 1e9)

    def now(self) -> int:
        """Return the time; the last that was known where the clock has stopped with its loop."""
        try:
            passed = self._clock.monotonic() - self._since
        except RuntimeError:
            return self.last
        self.last = self.start + int(passed * 1e9)
        return self.last


class Ending:
    """A span that ends once, whatever happens while its last attributes are put together."""

    __slots__ = ("_process", "ended", "otel", "span", "times")

    def __init__(self, otel: Otel, span: "Span", times: Times) -> None:
        self.otel = otel
        self.span = span
        self.times = times
        self.ended = False
        self._process = _process

    def finish(self, outcome: str, about: Any, error: BaseException | None, at: int | None = None) -> None:
        """Set the last attributes and end the span. A fault in here is counted, and never becomes the call's.

        Args:
            outcome: How it went.
            about: What came of it, None for nothing.
            error: What went wrong, which gives the span the status of an error; None for nothing.
            at: When it has ended, in nanoseconds since 1970; None for now.
        """
        if self.ended or self._process is not _process:  # a forked child's copy: the span is the parent's
            return
        self.ended = True
        # Processors and exporters take locks, which whoever the garbage collector has interrupted may hold.
        outside_of_collector(self._close, self.times.now() if at is None else at, outcome, about, error)

    @abstractmethod  # by the word alone: an ABC makes `isinstance` slower, which is asked for every request
    def describe(self, outcome: str, about: Any, error: BaseException | None) -> Attributes:
        """Return the last attributes; the arguments are those of `finish`."""

    def before_end(self) -> None:
        """End what must not outlive the span."""

    def _close(self, at: int, outcome: str, about: Any, error: BaseException | None) -> None:
        span = self.span
        self.before_end()
        if error is not None:
            try:
                span.set_status(self.otel.failed)
            except FAULTS as fault:  # telemetry never fails a call
                passed_over("tracing", "set a status", fault)
        try:
            span.set_attributes(self.describe(outcome, about, error))
        except FAULTS as fault:  # as above
            passed_over("tracing", "describe a span", fault)
        try:
            span.end(at)
        except FAULTS as fault:  # as above
            passed_over("tracing", "end a span", fault)
