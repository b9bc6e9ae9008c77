"""What was said, on spans and as events: only where that is asked for, and never before a redactor has seen it."""

import json
import os
from typing import TYPE_CHECKING, Any, Literal, get_args

import orjson

from resilient_ai.core import semconv as names
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.log import Log
from resilient_ai.core.results import Result
from resilient_ai.middleware._span_attributes import Attributes
from resilient_ai.middleware._span_records import RecordWriter
from resilient_ai.middleware._telemetry_faults import passed_over

if TYPE_CHECKING:
    from resilient_ai.middleware._call_span import CallSpan
    from resilient_ai.middleware.redactor import Redactor

Capture = Literal["none", "spans", "events", "both"]

# What the conventions tell of an event.
_TOLD = ("gen_ai.", "server.", "error.")
_SWITCH = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_WORDS: dict[str, Capture] = {
    "": "none",
    "false": "none",
    "no_content": "none",
    "span_only": "spans",
    "event_only": "events",
    "span_and_event": "both",
}

_log = Log()


def capture_of(chosen: Capture | None) -> Capture:
    """Return where content goes: as was chosen; for None as the environment says, which is nowhere where it says nothing.

    Raises:
        ValueError: If there is no such place.
    """
    if chosen is None:
        word = os.environ.get(_SWITCH, "").strip().lower()
        if word == "true":
            _log.warning("%s=true is taken for SPAN_ONLY", _SWITCH)
            return "spans"
        if word not in _WORDS:
            _log.warning("%s holds an unknown word, so no content is captured", _SWITCH)
        return _WORDS.get(word, "none")
    if chosen not in get_args(Capture):
        raise ValueError(f"capture must be None or one of {get_args(Capture)}, got {chosen!r}")
    return chosen


class ContentWriter:
    """Writes what was said to a span, to an event, or to both.

    Args:
        capture: Where to; not "none".
        redactor: Sees all of it first; None for the usual one.
        cap: Characters of one part of a message; the rest is cut off.
        records: Writes events.
    """

    def __init__(self, capture: Capture, redactor: "Redactor | None", cap: int, records: RecordWriter) -> None:
        from resilient_ai.middleware import _content  # noqa: PLC0415 - few capture content
        from resilient_ai.middleware.redactor import Redactor  # noqa: PLC0415 - as above

        self._content = _content
        self._redactor = Redactor() if redactor is None else redactor
        self._cap = cap
        self.on_spans = capture in {"spans", "both"}
        self._on_events = capture in {"events", "both"}
        self._records = records

    def write(self, trace: "CallSpan", result: Result | None, attributes: Attributes) -> Attributes:
        """Emit the event of a call, and return what its span is to have; nothing where the content cannot be described."""
        try:
            content = self._content.describe_content(trace.call.operation, result, self._redactor, self._cap)
            parts: dict[str, Any] = {
                names.INPUT_MESSAGES: content.inputs,
                names.OUTPUT_MESSAGES: content.outputs,
                names.TOOL_DEFINITIONS: content.tool_definitions,
            }
            parts = {name: part for name, part in parts.items() if part}
            if self._on_events:
                told = {name: value for name, value in (attributes | parts).items() if name.startswith(_TOLD)}
                self._records.emit(names.EVENT_DETAILS, told, trace.context, trace.times.last, "INFO")
            return {name: as_json(part) for name, part in parts.items()} if self.on_spans else {}
        except FAULTS as fault:  # telemetry never fails a call
            passed_over("tracing", "describe what was said", fault)
            return {}

    def of_tool(self, arguments: str, output: str | None) -> Attributes:
        """Return what the span of a function is to have: what went in, and what came out of it."""
        given = self._content.described_arguments(arguments, self._redactor, self._cap)
        told = None if output is None else self._content.described_text(output, self._redactor, self._cap)
        found: Attributes = {} if given is None else {names.TOOL_ARGUMENTS: as_json(given)}
        return found if told is None else {**found, names.TOOL_RESULT: told}


def as_json(part: object) -> str:
    """Return a part as compact JSON."""
    try:
        return orjson.dumps(part).decode()
    except TypeError:  # half of a surrogate pair, or a number that orjson has no room for
        return json.dumps(part, separators=(",", ":"))
