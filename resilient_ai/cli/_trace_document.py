"""Calls of a trace as a document for programs: times are in seconds from the start of their call, amounts are exact."""

from typing import Any

from resilient_ai.cli._trace_model import Attempt, Call, Found, Mark, Other, Part, Wait
from resilient_ai.cli._trace_words import date_of, speed_of


def document(found: Found) -> dict[str, Any]:
    """Return everything for programs."""
    return {
        "calls": [_call(call) for call in found.shown if not call.is_tool],
        "tools": [_tool(call) for call in found.shown if call.is_tool],
        "found": {"calls": found.calls, "matching": found.matching, "spans_left_out": found.left_out},
        "remarks": list(found.remarks),
    }


def _tool(call: Call) -> dict[str, Any]:
    return {
        **_place(call),
        "name": call.title,
        "failed": call.failed,
        "error": call.error,
        "error_class": call.error_class,
        "others": [_other(part, call.start) for part in call.parts if isinstance(part, Other)],
    }


def _place(call: Call) -> dict[str, Any]:
    return {
        "trace_id": call.trace,
        "span_id": call.span,
        "within": call.above,
        "service": call.service,
        "started": date_of(call.start).removesuffix(" UTC").replace(" ", "T") + "Z",
        "duration": (call.end - call.start) / 1e9,
    }


def _call(call: Call) -> dict[str, Any]:
    stream = call.stream
    return {
        **_place(call),
        "call_id": call.id,
        "operation": call.operation,
        "model": call.title,
        "served_by": call.served_by,
        "complete": call.complete,
        "outcome": call.outcome,
        "failed": call.failed,
        "error": call.error,
        "error_class": call.error_class,
        "attempts": call.attempts,
        "cache": call.cache,
        "cache_age": call.cache_age,
        "shares_answer_of": None if call.leader is None else {"trace_id": call.leader[0], "span_id": call.leader[1]},
        "tokens": {
            "input": call.tokens.input,
            "output": call.tokens.output,
            "cached": call.tokens.cached,
            "reasoning": call.tokens.reasoning,
            "discarded_input": call.tokens.discarded_input,
            "discarded_output": call.tokens.discarded_output,
        },
        "cost": call.money.amount,
        "wasted": call.money.wasted,
        "cost_source": call.money.source,
        "cost_complete": call.money.complete if call.money.amount is not None else None,
        "stream": None
        if stream is None
        else {
            "outcome": stream.outcome,
            "chunks": stream.chunks,
            "first_chunk": stream.first_chunk,
            "first_content": stream.first_content,
            "tokens_per_second": speed_of(call),
        },
        "details": call.details,
        "parts": [_part(part, call.start) for part in call.parts],
    }


def _part(part: Part, begin: int) -> dict[str, Any]:
    if isinstance(part, Attempt):
        return {
            "part": "attempt",
            "number": part.number,
            "kind": part.kind,
            "model": part.model,
            **_times(part, begin),
            "outcome": part.outcome,
            "error": part.error,
            "error_class": part.error_class,
            "status": part.status,
            "cost": part.cost,
            "others": [_other(other, begin) for other in part.others],
        }
    if isinstance(part, Wait):
        facts = {"kind": part.kind, "source": part.source, "error": part.error, "model": part.model}
        return {"part": "wait", **facts, **_times(part, begin)}
    if isinstance(part, Mark):
        return {"part": part.kind, "at": (part.at - begin) / 1e9, "text": part.text, "error": part.error}
    return {"part": "other", **_other(part, begin)}


def _other(part: Other, begin: int) -> dict[str, Any]:
    return {
        "name": part.name,
        "depth": part.depth,
        **_times(part, begin),
        "failed": part.failed,
        "status": part.status,
    }


def _times(part: Attempt | Wait | Other, begin: int) -> dict[str, float]:
    return {"start": (part.start - begin) / 1e9, "duration": (part.end - part.start) / 1e9}
