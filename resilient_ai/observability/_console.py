"""One line of text for each span."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from resilient_ai.core import semconv as names

# What is worth a place in a line, and the word for it there.
_SHOWN: Mapping[str, str] = {
    names.ERROR_TYPE: "error",
    names.OUTCOME: "outcome",
    names.ATTEMPTS: "attempts",
    names.ATTEMPT_NUMBER: "number",
    names.ATTEMPT_KIND: "kind",
    names.ATTEMPT_MODEL: "model",
    names.CACHE_OUTCOME: "cache",
    names.USAGE_INPUT_TOKENS: "in",
    names.USAGE_OUTPUT_TOKENS: "out",
    names.COST_AMOUNT: "usd",
}
_SUCCESS = (names.OUTCOME, "success")


def line_of(span: ReadableSpan) -> str:
    """Return a span as one line: when it began, its name, how long it took, what it was, and its trace."""
    begun, ended = span.start_time or 0, span.end_time or 0
    at = datetime.fromtimestamp(begun / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3]
    attributes: Mapping[str, Any] = span.attributes or {}
    about = [
        f"{word}={attributes[name]}"
        for name, word in _SHOWN.items()
        if name in attributes and (name, attributes[name]) != _SUCCESS
    ]
    context = span.get_span_context()
    trace = [] if context is None else [f"trace={context.trace_id:032x}"]
    name = f"{'  ' if span.parent else ''}{span.name}"
    # Names come from anywhere; a line is a line.
    return " ".join([at, name, f"{(ended - begun) / 1e6:.1f}ms", *about, *trace]).replace("\n", " ") + "\n"
