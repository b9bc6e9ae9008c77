"""Compares what an operation needs with what is known of a model."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from resilient_ai.core.messages import AnyMessage, AssistantMessage, AudioPart, ImagePart, Part, TextPart
from resilient_ai.core.operations import Complete, Conversation, Embed, Image, Kind, Operation, Sampling
from resilient_ai.deepinfra.catalogue.models import ModelInfo, ModelKind

_TEXT: Final[frozenset[ModelKind]] = frozenset({"chat", "completion", "ocr"})
_SERVING: Final[Mapping[Kind, frozenset[ModelKind]]] = MappingProxyType(
    {
        "chat": _TEXT,
        "stream": _TEXT,
        "complete": _TEXT,
        "embed": frozenset({"embedding"}),
        "image": frozenset({"image"}),
    }
)
_JSON_FORMATS = frozenset({"json_object", "json_schema"})

# English has about four characters to a token. Above six a text is too long in whatever language, unless it is mostly blanks.
_MOST_CHARACTERS_PER_TOKEN = 6


def missing(model: ModelInfo, operation: Operation[Any]) -> Iterator[str]:
    """Name everything that `operation` needs and `model` is known not to have."""
    if model.kind not in _SERVING[operation.kind]:
        yield f"{operation.kind}, as it is made for {model.kind}"
    if isinstance(operation, Sampling):
        yield from _missing_of_text(model, operation)
    if isinstance(operation, Conversation):
        yield from _missing_of_chat(model, operation)
    if isinstance(operation, Embed) and (operation.dimensions or 0) > (model.dimensions or float("inf")):
        yield f"{operation.dimensions} dimensions, as it has {model.dimensions}"
    if isinstance(operation, Image) and operation.images and "image" not in (model.input_modalities or ("image",)):
        yield "source images"


def _missing_of_text(model: ModelInfo, operation: Sampling[Any]) -> Iterator[str]:
    wanted = operation.response_format
    if wanted is not None and wanted.type in _JSON_FORMATS and model.json is False:
        yield "JSON mode"
    if model.context_length is not None:
        tokens = _characters(operation) // _MOST_CHARACTERS_PER_TOKEN + (operation.max_tokens or 0)
        if tokens > model.context_length:
            yield f"context for at least {tokens} tokens, as it has {model.context_length}"


def _missing_of_chat(model: ModelInfo, operation: Conversation[Any]) -> Iterator[str]:
    if operation.tools and operation.tool_choice != "none" and model.tools is False:
        yield "tools"
    parts = [part for message in operation.messages for part in _parts(message)]
    if model.vision is False and any(isinstance(part, ImagePart) for part in parts):
        yield "vision"
    if model.audio_input is False and any(isinstance(part, AudioPart) for part in parts):
        yield "audio input"


def _parts(message: AnyMessage) -> Sequence[str | Part]:
    content = message.content or ()
    return (content,) if isinstance(content, str) else content


def _characters(operation: Sampling[Any]) -> int:
    if isinstance(operation, Conversation):
        return sum(_characters_of(message) for message in operation.messages)
    return len(operation.prompt) if isinstance(operation, Complete) else 0


def _characters_of(message: AnyMessage) -> int:
    texts = [part.text if isinstance(part, TextPart) else part for part in _parts(message)]
    said = sum(len(text) for text in texts if isinstance(text, str))
    calls = message.tool_calls if isinstance(message, AssistantMessage) else ()
    return said + sum(len(call.arguments) for call in calls)
