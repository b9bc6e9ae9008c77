"""One line for each span, as text or as JSON."""

import json
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
    names.ATTEMPT_OUTCOME: "outcome",
    names.FALLBACK_MODEL: "served_by",
    names.CACHE_OUTCOME: "cache",
    names.USAGE_INPUT_TOKENS: "in",
    names.USAGE_OUTPUT_TOKENS: "out",
    names.COST_AMOUNT: "usd",
    names.COST_COMPLETE: "complete",
}
# An `event` as lines of the log have it, of which none has this name.
SPAN = "span"
# What is taken for granted.
_USUAL = ("outcome", "success")


def line_of(span: ReadableSpan) -> str:
    """Return a span as one line: when it began, its name, how long it took, what it was, and its trace."""
    begun, ended = span.start_time or 0, span.end_time or 0
    at = datetime.fromtimestamp(begun / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3]
    attributes: Mapping[str, Any] = span.attributes or {}
    about = [
        f"{word}={attributes[name]}"
        for name, word in _SHOWN.items()
        if name in attributes and (word, attributes[name]) != _USUAL
    ]
    context = span.get_span_context()
    trace = [] if context is None else [f"trace={context.trace_id:032x}"]
    name = f"{'  ' if span.parent else ''}{span.name}"
    # Names come from anywhere; a line is a line.
    return " ".join([at, name, f"{(ended - begun) / 1e6:.1f}ms", *about, *trace]).replace("\n", " ") + "\n"


def json_of(span: ReadableSpan) -> str:
    """Return the same as a JSON object in a line, to stand among lines of the log that are JSON: its `event` is "span"."""
    begun, ended = span.start_time or 0, span.end_time or 0
    attributes: Mapping[str, Any] = span.attributes or {}
    context = span.get_span_context()
    ids = {} if context is None else {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    line = {
        "event": SPAN,
        "level": "info",
        "logger": "resilient_ai",
        "timestamp": datetime.fromtimestamp(begun / 1e9, UTC).isoformat(),
        "name": span.name,
        "duration": (ended - begun) / 1e9,
        **{word: attributes[name] for name, word in _SHOWN.items() if name in attributes},
        **ids,
        **({"parent_id": f"{span.parent.span_id:016x}"} if span.parent else {}),
    }
    return f"{json.dumps(line, default=str)}\n"
