"""The span that an entry of the cache was filled by: as bytes in the entry, as text in an event, and as what a link wants."""

import re
from typing import TYPE_CHECKING, Any

from resilient_ai.core.faults import FAULTS

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

# A trace id and a span id.
ORIGIN_SIZE = 24

_TRACE_SIZE = 16
_SAMPLED = 1
_NOWHERE = bytes(ORIGIN_SIZE)
_FORM = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-01")


def origin_of(span: object | None) -> bytes:
    """Return the ids of a span; nothing where there is none, or none that anybody keeps.

    Args:
        span: What a call knows its span by.
    """
    ask: Any = getattr(span, "get_span_context", None)
    if ask is None:
        return b""
    try:
        told = ask()
        if not told.is_valid or not told.trace_flags & _SAMPLED:
            return b""
        trace_id: int = told.trace_id
        span_id: int = told.span_id
        return trace_id.to_bytes(16, "big") + span_id.to_bytes(8, "big")
    except FAULTS:  # a span of somebody else's making must not keep an answer out of the cache
        return b""


def traceparent(origin: bytes) -> str | None:
    """Return ids as the header `traceparent` has them, None where there are none.

    >>> traceparent(bytes(15) + b"a" + bytes(7) + b"b")
    '00-00000000000000000000000000000061-0000000000000062-01'
    """
    if len(origin) != ORIGIN_SIZE or origin == _NOWHERE:
        return None
    return f"00-{origin[:_TRACE_SIZE].hex()}-{origin[_TRACE_SIZE:].hex()}-01"


def span_context(traceparent: str) -> "SpanContext | None":
    """Return what a link wants, None where the text is of another form."""
    found = _FORM.fullmatch(traceparent)
    if found is None:
        return None
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 - whoever has a span has imported it

    return SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=TraceFlags(_SAMPLED))
