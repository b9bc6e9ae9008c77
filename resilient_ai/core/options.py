"""The keyword options of each operation, as a type checker and an editor see them.

Every key is a field of the operation of the same name, where its unit and range are described.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import TypedDict

from resilient_ai.core.messages import ToolSource

if TYPE_CHECKING:
    from resilient_ai.core.operations import ResponseFormat

ServiceTier = Literal["default", "priority", "flex"]
OnInterrupt = Literal["raise", "restart", "continue"]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class SamplingOptions(TypedDict, total=False):
    """What chat and text completion share; see `Sampling`."""

    temperature: float | None
    top_p: float | None
    min_p: float | None
    top_k: int | None
    max_tokens: int | None
    stop: str | Sequence[str]
    n: int
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    seed: int | None
    user: str | None
    prompt_cache_key: str | None
    service_tier: ServiceTier | None
    response_format: "ResponseFormat | Literal['text', 'json_object'] | Mapping[str, Any] | None"
    fallbacks: Sequence[str]
    extra: Mapping[str, Any]


class ChatOptions(SamplingOptions, total=False):
    """What `Chat` and `Stream` take beside the model and the messages; see `Conversation`."""

    tools: Sequence[ToolSource]
    tool_choice: str | None
    logprobs: bool | None
    top_logprobs: int | None
    reasoning_effort: ReasoningEffort | None
    chat_template_kwargs: Mapping[str, Any] | None


class StreamOptions(ChatOptions, total=False):
    """What `Stream` takes beside the model and the messages; see `Conversation` and `Stream`."""

    on_interrupt: OnInterrupt | None


class CompleteOptions(SamplingOptions, total=False):
    """What `Complete` takes beside the model and the prompt."""

    echo: bool | None
    logprobs: int | None


class EmbedOptions(TypedDict, total=False):
    """What `Embed` takes beside the model and the texts."""

    dimensions: int | None
    normalize: bool | None
    encoding: Literal["float", "base64"]
    service_tier: Literal["default", "priority"] | None
    fallbacks: Sequence[str]
    extra: Mapping[str, Any]


class ImageOptions(TypedDict, total=False):
    """What `Image` takes beside the model and the prompt."""

    size: str | None
    aspect_ratio: str | None
    n: int
    seed: int | None
    steps: int | None
    guidance_scale: float | None
    negative_prompt: str | None
    images: bytes | Sequence[bytes]
    mask: bytes | None
    route: Literal["auto", "native", "openai"]
    user: str | None
    fallbacks: Sequence[str]
    extra: Mapping[str, Any]
