"""One span per call and one per attempt, by the OpenTelemetry API."""

import os
import sys
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from resilient_ai.core import semconv as names
from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_able, check_count, check_kind, check_names
from resilient_ai.core.clock import Clock
from resilient_ai.core.collector import collecting_if
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.messages import Tool, ToolCall
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware._attempt_span import AttemptSpans
from resilient_ai.middleware._backends import checked_backends
from resilient_ai.middleware._call_span import CallSpan, Style, without_gen_ai
from resilient_ai.middleware._conventions import Conventions, conventions_of
from resilient_ai.middleware._span_attributes import start_of
from resilient_ai.middleware._span_content import Capture, ContentWriter, capture_of
from resilient_ai.middleware._span_records import RecordWriter
from resilient_ai.middleware._spans import Otel, Times, inside, is_recorded, let_go, load
from resilient_ai.middleware._telemetry_faults import passed_over
from resilient_ai.middleware._tool_span import ToolSpan, tool_attributes

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.trace import TracerProvider

    from resilient_ai.middleware.redactor import Redactor

R = TypeVar("R")
Events = Literal["spans", "logs"]


@dataclass(frozen=True)
class Tracing:
    """Report every call to OpenTelemetry: one span for the call, one under it for each attempt.

    The span of the call covers everything the caller waited for: cache, queues, tries, fallbacks, and a stream until its end,
    however it ends. It alone carries `gen_ai.*`, so that no backend counts tokens twice. An attempt is current while its
    request is sent, so that spans of an instrumented HTTP client nest under it, and its trace headers (W3C) go to the provider.
    A second request beside a slow one, and a call that shares another one's answer, are linked to the other.

    No prompt, answer, tool argument, key or exception message reaches a span unless `capture` says so. Of the tags only "user",
    "session", "conversation" and "tenant" do, and those named in `tags`. Errors that a later try made good show on their
    attempts alone.

    Where the context says that nothing is to be instrumented, nothing is reported; where another instrumentation describes the
    call already, its span is an INTERNAL `resilient_ai.request` without `gen_ai.*`. While the application has not imported
    OpenTelemetry there is nobody to report to, and nothing is imported or done.

    Args:
        tracer_provider: Where spans go; None means the application's global provider, also one that is set later.
        provider_name: The value of `gen_ai.provider.name`.
        conventions: "1.41" for the names that were released, "latest" for those of the newest text, "both" for either. None does
            what `OTEL_SEMCONV_STABILITY_OPT_IN` says, "latest" where it holds `gen_ai_latest_experimental`, and else "1.41".
        capture: Where prompts and answers go: "none", "spans" (as JSON), "events" (log records), or "both". None does what
            `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says, and else "none".
        redactor: Sees content before anybody else does; None for the usual one. Ignored where nothing is captured.
        longest_part: Characters of one part of a message that are kept, at least 16. Ignored where nothing is captured.
        backends: Names of backends for which the span of a call has what they look for beside the conventions: "datadog",
            "grafana", "honeycomb", "langfuse", "logfire", "openinference", "openlit", "phoenix", "signoz". None means those that
            `resilient_ai.observability.configure` has set up for the process, also later; none without it.
        tags: Names of further tags of calls that spans may show, as `resilient_ai.tags`.
        propagate: Whether the provider is told of the trace, by the headers `traceparent` and `tracestate`.
        logger_provider: Where log records go; None means the application's global provider, also one that is set later.
        events: Where it is told what happened on the way, such as a retry: on the "spans" of calls as their events, or by "logs",
            which are log records of the same names that belong to these spans. Content is captured by records in any case.

    Raises:
        ValueError: If an option is of a wrong type, or there is no such thing.

    >>> Tracing(backends=["langfuse"])  # doctest: +ELLIPSIS
    Tracing(tracer_provider=None, provider_name='deepinfra', conventions=None, capture=None, ...backends=('langfuse',), ...)
    """

    tracer_provider: "TracerProvider | None" = None
    _: KW_ONLY
    provider_name: str = "deepinfra"
    conventions: Conventions | None = None
    capture: Capture | None = None
    redactor: "Redactor | None" = None
    longest_part: int = 8192
    backends: Collection[str] | None = None
    tags: Collection[str] = ()
    propagate: bool = True
    logger_provider: "LoggerProvider | None" = None
    events: Events = "spans"
    inner_half: "AttemptSpans" = field(init=False, repr=False, compare=False)
    _style: Style = field(init=False, repr=False, compare=False)
    _kept: list[Otel] = field(init=False, repr=False, compare=False, default_factory=list["Otel"])

    def __post_init__(self) -> None:
        """Check the options, and make the part that stands next to the provider."""
        check_able("tracer_provider", self.tracer_provider, "get_tracer")
        check_kind("provider_name", self.provider_name, str)
        check_able("redactor", self.redactor, "text", "value")
        check_count("longest_part", self.longest_part, 16)
        check_names("tags", self.tags)
        check_kind("propagate", self.propagate, bool)
        check_able("logger_provider", self.logger_provider, "get_logger")
        if self.events not in get_args(Events):
            raise ValueError(f"events must be one of {get_args(Events)}, got {self.events!r}")
        conventions, capture = conventions_of(self.conventions), capture_of(self.capture)
        backends = None if self.backends is None else checked_backends(self.backends)
        object.__setattr__(self, "backends", backends)
        object.__setattr__(self, "tags", tuple(self.tags))
        writer = RecordWriter(self.logger_provider, _schema_url(conventions))
        content = None if capture == "none" else ContentWriter(capture, self.redactor, self.longest_part, writer)
        records = writer if self.events == "logs" else None
        object.__setattr__(self, "_style", Style(conventions, backends, tuple(self.tags), content, records=records))
        object.__setattr__(self, "inner_half", AttemptSpans(self))

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Put a span around a call."""
        otel = self.otel()
        if otel is None:
            return await proceed(call)
        around = otel.current()
        suppressed = otel.suppressed(around)
        # Without a provider the API still hands on the span of somebody else that is current.
        if suppressed == "all" or (not around and otel.is_idle()):
            return await proceed(call)
        operation, style = call.operation, self._style
        name, begun = start_of(operation.kind, self.provider_name, operation.model, call.origin)
        kind = otel.client
        if suppressed == "described":
            style = style._replace(is_described=True)
            name, kind, begun = names.SPAN_REQUEST, otel.internal, without_gen_ai(begun)
        times = Times(call.clock)
        span = otel.start(name, kind, begun, times.start, around)
        recorded = None if span is None else is_recorded(span)
        if span is None or recorded is None:
            return await proceed(call)
        if not recorded:  # not sampled, and what is below must know it
            return await inside(otel, otel.context_of(span, around), call.replace(span=span), proceed)
        trace = CallSpan(otel, span, times, otel.context_of(span, around), self, style, call, begun)
        traced = call.replace(
            span=span,
            listeners=(*call.listeners, trace),
            on_send_closed=(*call.on_send_closed, trace.send_closed),
        )
        token = otel.attach(trace.context)
        try:
            result = await proceed(traced)
        except BaseException as error:
            let_go(otel, token)
            with collecting_if(error):
                trace.failed(error)
            raise
        otel.detach(token)
        if isinstance(result, StreamResult):
            trace.handed_over(result)
        else:
            trace.succeeded(result)
        return result

    def around_tool(
        self, call: ToolCall, tool: Tool, clock: Clock
    ) -> AbstractContextManager[Callable[[str, BaseException | None], None]] | None:
        """Return a context for a function that the model asked for, which puts a span around it; None where nobody traces.

        Args:
            call: What the model asked for.
            tool: The function.
            clock: Tells the time.
        """
        otel = self.otel()
        if otel is None or otel.suppressed(otel.current()) is not None:
            return None
        times = Times(clock)
        span = otel.start(f"{names.EXECUTE_TOOL} {tool.name}", otel.internal, tool_attributes(call, tool), times.start)
        if span is None or not is_recorded(span):
            return None
        return ToolSpan(self._style.content, call, otel, span, times)

    def otel(self) -> Otel | None:
        """Return the API, None where nobody can have set up a provider, or that has no tracer to give."""
        if self._kept:
            return self._kept[0]
        # The API costs tens of milliseconds to import. Without it no provider can be set, except by this variable.
        imported = "opentelemetry.trace" in sys.modules or "OTEL_PYTHON_TRACER_PROVIDER" in os.environ
        if self.tracer_provider is None and not imported:
            return None
        try:
            self._kept.append(load(self.tracer_provider, _schema_url(self._style.conventions)))
        except FAULTS as fault:  # telemetry never fails a call
            passed_over("tracing", "find a tracer", fault)
            return None
        return self._kept[0]


def _schema_url(conventions: Conventions) -> str | None:
    return None if conventions == "latest" else names.SCHEMA_URL  # the newest text has no version, and so no address
