"""The parts of an answer that whole answers and streams share: text, reasoning, tool calls, log probabilities."""

from collections.abc import Callable, Mapping
from typing import Any

from resilient_ai.core.messages import ToolCall
from resilient_ai.core.results import ChatResult, Choice, TokenLogprob
from resilient_ai.deepinfra.wire.payload import (
    Malformed,
    as_list,
    as_object,
    as_text,
    dump,
    provider_cost,
    request_id_of,
)
from resilient_ai.deepinfra.wire.usage import read_usage

MAX_CHOICES = 128
MAX_TOOL_CALLS = 1024


def read_answer(
    body: Mapping[str, Any],
    read_one: Callable[[Mapping[str, Any], int], Choice],
    *,
    model: str,
    headers: Mapping[str, str],
) -> ChatResult:
    """Return the result of a body with `choices`, each of which `read_one` reads, given its index.

    Raises:
        Malformed: If there is no choice, or one is not an object.
    """
    items = as_list(body.get("choices"))
    if not items:
        raise Malformed("it has no choices")
    choices: list[Choice] = []
    for position, item in enumerate(items[:MAX_CHOICES]):
        fields = as_object(item)
        if fields is None:
            raise Malformed(f"choice {position} is not an object")
        choices.append(read_one(fields, choice_index(fields, position)))
    usage, cost = read_usage(as_object(body.get("usage")))
    return ChatResult(
        model=as_text(body.get("model")) or model,
        served_by=model,
        usage=usage,
        cost=provider_cost(cost, model=model),
        request_id=request_id_of(body, headers),
        service_tier=as_text(body.get("service_tier")),
        choices=tuple(sorted(choices, key=lambda choice: choice.index)),
    )


def choice_index(fields: Mapping[str, Any], position: int) -> int:
    """Return the index of a choice, which is its position where it names none that makes sense.

    Whoever asks reads no more than `MAX_CHOICES` positions, so that no index is larger.
    """
    index = fields.get("index")
    return index if type(index) is int and 0 <= index < MAX_CHOICES else position


def text_of(value: Any) -> str:
    """Return content as one text; null is empty, a list of parts is joined.

    Raises:
        Malformed: If it is something else, which must not be lost in silence.

    >>> text_of(None), text_of("Bern."), text_of([{"type": "text", "text": "Bern."}])
    ('', 'Bern.', 'Bern.')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = as_list(value)
    if parts is None:
        raise Malformed("the content is neither a text nor null")
    return "".join(as_text((as_object(part) or {}).get("text")) or "" for part in parts)


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    """Return the reasoning that stands in a field of its own; there are two names for it."""
    return as_text(message.get("reasoning_content")) or as_text(message.get("reasoning"))


def arguments_of(function: Mapping[str, Any]) -> str:
    """Return the arguments of a tool call as JSON text; null is empty, a JSON value is written out."""
    value = function.get("arguments")
    return value if isinstance(value, str) else "" if value is None else dump(value)


def read_tool_calls(value: Any) -> tuple[ToolCall, ...]:
    """Return the tool calls of a whole message; one without a name cannot be answered and is left out.

    Raises:
        Malformed: If there are more than `MAX_TOOL_CALLS`.
    """
    items = as_list(value) or []
    if len(items) > MAX_TOOL_CALLS:
        raise too_many_tool_calls()
    calls: list[ToolCall] = []
    for position, item in enumerate(items):
        fields = as_object(item) or {}
        function = as_object(fields.get("function")) or {}
        name = as_text(function.get("name"))
        if name is not None:
            identity = as_text(fields.get("id")) or f"call_{position}"
            calls.append(ToolCall(id=identity, name=name, arguments=arguments_of(function)))
    return tuple(calls)


def too_many_tool_calls() -> Malformed:
    """Return the error for an answer that calls more tools than anybody means."""
    return Malformed(f"an answer has more than {MAX_TOOL_CALLS} tool calls")


def read_logprobs(value: Any) -> tuple[TokenLogprob, ...] | None:
    """Return the log probabilities of a choice or a chunk; None where there are none.

    >>> read_logprobs({"content": [{"token": "Bern", "logprob": -0.5}]})
    (TokenLogprob(token='Bern', logprob=-0.5, top=()),)
    """
    read: list[TokenLogprob] = []
    for item in as_list((as_object(value) or {}).get("content")) or []:
        fields = as_object(item) or {}
        pair = _pair(fields)
        if pair is not None:
            others = [_pair(as_object(other) or {}) for other in as_list(fields.get("top_logprobs")) or []]
            top = tuple(other for other in others if other is not None)
            read.append(TokenLogprob(token=pair[0], logprob=pair[1], top=top))
    return tuple(read) or None


def _pair(fields: Mapping[str, Any]) -> tuple[str, float] | None:
    token, logprob = fields.get("token"), fields.get("logprob")
    if isinstance(token, str) and isinstance(logprob, int | float) and not isinstance(logprob, bool):
        return token, float(logprob)
    return None
