"""Chat completions: the body of a request, and a whole answer."""

from collections.abc import Mapping
from typing import Any

from resilient_ai.core.messages import (
    AnyMessage,
    AssistantMessage,
    AudioPart,
    ImagePart,
    TextPart,
    Tool,
    ToolMessage,
)
from resilient_ai.core.operations import Conversation, ResponseFormat, Sampling
from resilient_ai.core.results import ChatResult, Choice
from resilient_ai.core.thinking import split_thinking
from resilient_ai.deepinfra.wire.choices import read_answer, read_logprobs, read_tool_calls, reasoning_of, text_of
from resilient_ai.deepinfra.wire.errors import malformed
from resilient_ai.deepinfra.wire.payload import Malformed, as_object, as_text, load_object, with_extra

_SAMPLING = (
    "temperature",
    "top_p",
    "min_p",
    "top_k",
    "max_tokens",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "user",
    "prompt_cache_key",
    "service_tier",
)
_CONVERSATION = ("logprobs", "top_logprobs", "reasoning_effort", "chat_template_kwargs")


# The request


def chat_body(operation: Conversation[Any], *, stream: bool) -> dict[str, Any]:
    """Return the body of a chat request. What the caller left open is left out, so that the service decides.

    Args:
        operation: A `Chat` or a `Stream`.
        stream: Whether the answer shall come in pieces; usage is asked for then, which the service else may leave out.

    Raises:
        InvalidInput: If `extra` changes `stream`.

    >>> from resilient_ai.core.operations import Chat
    >>> chat_body(Chat(model="m", messages="hi", temperature=0.3), stream=False)
    {'model': 'm', 'messages': [{'role': 'user', 'content': 'hi'}], 'temperature': 0.3}
    """
    body: dict[str, Any] = {"model": operation.model, "messages": [_message(one) for one in operation.messages]}
    body |= sampling_fields(operation)
    body |= _given(operation, _CONVERSATION)
    if operation.tools:
        body["tools"] = [_tool(tool) for tool in operation.tools]
    choice = operation.tool_choice
    if choice is not None:
        named = choice not in {"auto", "none", "required"}
        body["tool_choice"] = {"type": "function", "function": {"name": choice}} if named else choice
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return with_extra(body, operation.extra)


def sampling_fields(operation: Sampling[Any]) -> dict[str, Any]:
    """Return the fields that chat and text completion share, as far as they were given."""
    fields = _given(operation, _SAMPLING)
    if operation.stop:
        fields["stop"] = list(operation.stop)
    if operation.n != 1:
        fields["n"] = operation.n
    if operation.response_format is not None:
        fields["response_format"] = _response_format(operation.response_format)
    return fields


def _given(operation: Sampling[Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(operation, name)) is not None}


def _response_format(form: ResponseFormat) -> dict[str, Any]:
    if form.type == "json_schema":
        schema = {"name": form.name, "schema": form.json_schema, "strict": form.strict}
        return {"type": "json_schema", "json_schema": schema}
    return {"type": "regex", "regex": form.regex} if form.type == "regex" else {"type": form.type}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _message(message: AnyMessage) -> dict[str, Any]:
    if isinstance(message, ToolMessage):
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
    fields: dict[str, Any]
    if isinstance(message, AssistantMessage):
        fields = _assistant(message)
    else:
        content = message.content
        parts = content if isinstance(content, str) else [_part(part) for part in content]
        fields = {"role": message.role, "content": parts}
        if message.cache_control is not None:
            fields["cache_control"] = message.cache_control
    if message.name is not None:
        fields["name"] = message.name
    return fields


def _assistant(message: AssistantMessage) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": "assistant", "content": message.content or ""}
    if message.tool_calls:
        fields["content"] = message.content or None
        fields["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.reasoning:
        fields["reasoning_content"] = message.reasoning
    return fields


def _part(part: TextPart | ImagePart | AudioPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, AudioPart):
        return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
    image = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
    return {"type": "image_url", "image_url": image}


# The answer


def read_chat(data: bytes, *, model: str, headers: Mapping[str, str]) -> ChatResult:
    """Return the answer of a chat request that was not streamed.

    Args:
        data: The body of an answer with status 200.
        model: The model that was asked.
        headers: Headers of the answer.

    Raises:
        StatusError: If the body tells of a failure in spite of its status.
        InvalidResponse: If it holds no answer that can be read.

    >>> body = b'{"id": "1", "choices": [{"message": {"content": "Bern."}, "finish_reason": "stop"}]}'
    >>> read_chat(body, model="m", headers={}).text
    'Bern.'
    """
    body = load_object(data, model=model, headers=headers)
    try:
        return read_answer(body, _choice, model=model, headers=headers)
    except Malformed as error:
        raise malformed(error, body, data, headers, model=model) from error


def _choice(fields: Mapping[str, Any], index: int) -> Choice:
    message = as_object(fields.get("message"))
    if message is None:
        raise Malformed(f"choice {index} has no message")
    text, reasoning = split_thinking(text_of(message.get("content")), reasoning_of(message))
    return Choice(
        index=index,
        text=text,
        reasoning=reasoning,
        tool_calls=read_tool_calls(message.get("tool_calls")),
        finish_reason=as_text(fields.get("finish_reason")),
        logprobs=read_logprobs(fields.get("logprobs")),
    )
