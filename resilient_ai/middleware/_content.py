"""What was said in a call, as lists of JSON objects in the shapes of the conventions: redacted first, then cut to size."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import orjson

from resilient_ai.core.faults import FAULTS
from resilient_ai.core.media import media_type_of
from resilient_ai.core.messages import (
    AnyMessage,
    AssistantMessage,
    AudioPart,
    ImagePart,
    TextPart,
    ToolCall,
    ToolMessage,
)
from resilient_ai.core.operations import Complete, Conversation, Image, Operation
from resilient_ai.core.results import ChatResult, ImageResult, Result
from resilient_ai.core.results import Image as Picture
from resilient_ai.middleware._telemetry_faults import passed_over

if TYPE_CHECKING:
    from resilient_ai.middleware.redactor import Redactor

Given = TypeVar("Given")
Told = TypeVar("Told")
Json = dict[str, Any]

CAP = 8192
STRIPPED_BYTES = "resilient_ai.stripped_bytes"

# What the conventions call them; every other reason is told as the service said it, redacted as all that it says.
_FINISH_REASONS: dict[str | None, str] = {
    **{reason: reason for reason in ("stop", "length", "content_filter")},
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    None: "error",
}
_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}


class Content(NamedTuple):
    """What was said in a call; a list is empty where there is nothing to say.

    Args:
        inputs: The messages that were sent, as `gen_ai.input.messages` has them.
        outputs: One message for each answer, as `gen_ai.output.messages` has them.
        tool_definitions: Type and name of each tool, as `gen_ai.tool.definitions` has them.
    """

    inputs: list[Json]
    outputs: list[Json]
    tool_definitions: list[Json]


def describe_content(operation: Operation[Any], result: Result | None, redactor: "Redactor", cap: int = CAP) -> Content:
    """Return what was said in a call, as far as the conventions have a place for it: nothing of embeddings.

    A part on which the redactor fails is left out. Of pictures and recordings only their kind and size are told.

    Args:
        operation: What was asked.
        result: What came back, be it a partial answer; None where nothing did.
        redactor: Sees every text before it is cut.
        cap: Characters that are kept of one part.

    >>> from resilient_ai.core.operations import Chat
    >>> from resilient_ai.middleware.redactor import Redactor
    >>> describe_content(Chat(model="m", messages="Write to a@b.de"), None, Redactor()).inputs
    [{'role': 'user', 'parts': [{'type': 'text', 'content': 'Write to [email]'}]}]
    """
    writer = _Writer(redactor, cap)
    tools = operation.tools if isinstance(operation, Conversation) else ()
    return Content(
        inputs=[writer.message(role, parts, name) for role, name, parts in _asked(operation)],
        outputs=[
            writer.message("assistant", parts) | {"finish_reason": writer.finish_reason(reason)}
            for reason, parts in _answered(result)
        ],
        tool_definitions=[{"type": "function", "name": tool.name} for tool in tools],
    )


def described_text(text: str, redactor: "Redactor", cap: int = CAP) -> str | None:
    """Return a text redacted and cut, None where the redactor fails."""
    return _safely(_Writer(redactor, cap).text, text)


def described_arguments(arguments: str, redactor: "Redactor", cap: int = CAP) -> object:
    """Return the arguments of a tool call redacted and cut, None where the redactor fails.

    They are JSON values, or text where the model wrote no JSON or more than may be kept.
    """
    return _safely(_Writer(redactor, cap).arguments, arguments)


class _Writer:
    __slots__ = ("cap", "redactor")

    def __init__(self, redactor: "Redactor", cap: int) -> None:
        self.redactor = redactor
        self.cap = cap

    def message(self, role: str, parts: Iterable[Json], name: str | None = None) -> Json:
        told = [_safely(self.part, part) for part in parts]
        named = None if name is None else _safely(self.text, name)
        author = {} if named is None else {"name": named}
        return {"role": role, **author, "parts": [part for part in told if part is not None]}

    def finish_reason(self, reason: str | None) -> str:
        known = _FINISH_REASONS.get(reason)
        return known or _safely(self.text, reason or "") or "error"

    def part(self, part: Json) -> Json:
        cleaned = {key: self.text(value) if key in _TEXTS else value for key, value in part.items()}
        if "arguments" in part:
            cleaned["arguments"] = self.arguments(part["arguments"])
        return cleaned

    def text(self, text: str) -> str:
        return self.cut(self.redactor.text(text))

    def arguments(self, arguments: str) -> object:
        try:
            value = orjson.loads(arguments or "{}")
        except orjson.JSONDecodeError:
            return self.text(arguments)
        cleaned = self.redactor.value(value)
        written = orjson.dumps(cleaned, default=str).decode()
        return cleaned if len(written) <= self.cap else self.cut(written)

    def cut(self, text: str) -> str:
        beyond = len(text) - self.cap
        return text if beyond <= 0 else f"{text[: self.cap]}…[truncated {beyond} chars]"


# What of a part is text that somebody wrote.
_TEXTS = frozenset({"content", "id", "name", "response", "uri"})


def _asked(operation: Operation[Any]) -> Iterator[tuple[str, str | None, Iterable[Json]]]:
    if isinstance(operation, Conversation):
        for message in operation.messages:
            name = None if isinstance(message, ToolMessage) else message.name
            yield message.role, name, _parts_of_message(message)
    elif isinstance(operation, Complete):
        yield "user", None, [_text(operation.prompt)]
    elif isinstance(operation, Image):
        texts = [_text(text) for text in (operation.prompt,) if text]
        yield "user", None, texts + [_blob("image", media_type_of(data), len(data)) for data in operation.images]


def _answered(result: Result | None) -> Iterator[tuple[str | None, Iterable[Json]]]:
    if isinstance(result, ChatResult):
        for choice in result.choices:
            yield choice.finish_reason, _parts_of_answer(choice.reasoning, choice.text, choice.tool_calls)
    elif isinstance(result, ImageResult):
        yield "stop", [part for picture in result.images for part in _parts_of_picture(picture)]


def _parts_of_message(message: AnyMessage) -> Iterable[Json]:
    if isinstance(message, ToolMessage):
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": message.content}]
    if isinstance(message, AssistantMessage):
        return _parts_of_answer(message.reasoning, message.content, message.tool_calls)
    if isinstance(message.content, str):
        return [_text(message.content)]
    return map(_part, message.content)


def _parts_of_answer(reasoning: str | None, text: str | None, calls: Iterable[ToolCall]) -> Iterator[Json]:
    if reasoning:
        yield {"type": "reasoning", "content": reasoning}
    if text:
        yield _text(text)
    for call in calls:
        yield {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}


def _parts_of_picture(picture: Picture) -> Iterator[Json]:
    if picture.revised_prompt:
        yield _text(picture.revised_prompt)
    yield _blob("image", picture.media_type, len(picture.data))


def _part(part: TextPart | ImagePart | AudioPart) -> Json:
    if isinstance(part, TextPart):
        return _text(part.text)
    if isinstance(part, AudioPart):
        return _blob("audio", _AUDIO_TYPES[part.format], _decoded_size(part.data))
    if part.url.startswith("data:"):
        head, _, payload = part.url.partition(",")
        return _blob("image", head[5:].partition(";")[0] or None, _decoded_size(payload))
    return {"type": "uri", "modality": "image", "uri": part.url}


def _text(text: str) -> Json:
    return {"type": "text", "content": text}


def _blob(modality: str, media_type: str | None, size: int) -> Json:
    kind = {} if media_type is None else {"mime_type": media_type}
    return {"type": "blob", "modality": modality, **kind, "content": "", STRIPPED_BYTES: size}


def _decoded_size(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")


def _safely(describe: Callable[[Given], Told], given: Given) -> Told | None:
    try:
        return describe(given)
    except FAULTS as fault:  # what cannot be redacted must not be told, and fails no call
        passed_over("tracing", "redact what was said", fault)
        return None
