"""What can be asked of a model: each operation is a value that names the type of its result."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Unpack

from pydantic import Field, field_validator, model_validator

from resilient_ai.core.media import media_type_of
from resilient_ai.core.messages import MessagesInput
from resilient_ai.core.operation import Kind, Operation
from resilient_ai.core.options import (
    ChatOptions,
    CompleteOptions,
    EmbedOptions,
    ImageOptions,
    OnInterrupt,
    StreamOptions,
)
from resilient_ai.core.results import ChatResult, EmbedResult, ImageResult
from resilient_ai.core.sampling import Conversation, ResponseFormat, Sampling
from resilient_ai.core.streams import StreamResult

_SIZE = re.compile(r"[1-9]\d{1,4}x[1-9]\d{1,4}")
_RATIO = re.compile(r"[1-9]\d?:[1-9]\d?")


class Chat(Conversation[ChatResult]):
    """Ask a language model for a whole answer.

    >>> Chat(model="meta-llama/Llama-3.3-70B-Instruct-Turbo", messages="Name three tides.").messages[0].role
    'user'
    >>> Chat(model="m", messages="hi", temperature=3)
    Traceback (most recent call last):
    resilient_ai.core.errors.InvalidInput: Chat: temperature: input should be less than or equal to 2, got 3
    """

    kind: ClassVar[Kind] = "chat"

    if TYPE_CHECKING:  # what may be given is wider than what is kept

        def __init__(
            self, *, model: str | Sequence[str], messages: MessagesInput, **options: Unpack[ChatOptions]
        ) -> None: ...


class Stream(Conversation[StreamResult]):
    """Ask a language model for an answer in pieces, as they are made.

    Args:
        on_interrupt: What shall happen where the stream breaks after its first content: "raise" an error; "restart" from the
            beginning, which a `Restarted` event tells; or "continue" where it broke. The last two need `Resume` in the stack;
            None is what `Resume` says. It is never sent.
    """

    kind: ClassVar[Kind] = "stream"
    on_interrupt: OnInterrupt | None = None

    if TYPE_CHECKING:  # what may be given is wider than what is kept

        def __init__(
            self, *, model: str | Sequence[str], messages: MessagesInput, **options: Unpack[StreamOptions]
        ) -> None: ...


class Complete(Sampling[ChatResult]):
    """Ask a language model to continue a raw text, without a chat template.

    Args:
        prompt: The text to continue, not empty.
        echo: Whether the prompt comes back in front of the answer.
        logprobs: How many alternatives to return for each token, 0 to 20.
    """

    kind: ClassVar[Kind] = "complete"
    prompt: str = Field(min_length=1)
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=20)

    if TYPE_CHECKING:  # what may be given is wider than what is kept

        def __init__(self, *, model: str | Sequence[str], prompt: str, **options: Unpack[CompleteOptions]) -> None: ...


class Embed(Operation[EmbedResult]):
    """Ask an embedding model for one vector per text.

    Args:
        texts: At least one text, none of them empty; a `str` is one text.
        dimensions: Length of the vectors, at least 32, for models that can shorten them; None is the model's own.
        normalize: Whether the service scales every vector to length 1; uses the native route, which alone knows it.
        encoding: How vectors travel: "float", which every model speaks, or "base64", which is smaller and exact to 4 bytes.
        service_tier: "priority" costs 1.5 times.
    """

    kind: ClassVar[Kind] = "embed"
    texts: tuple[str, ...] = Field(min_length=1)
    dimensions: int | None = Field(default=None, ge=32)
    normalize: bool | None = None
    encoding: Literal["float", "base64"] = "float"
    service_tier: Literal["default", "priority"] | None = None

    if TYPE_CHECKING:  # what may be given is wider than what is kept

        def __init__(
            self, *, model: str | Sequence[str], texts: str | Sequence[str], **options: Unpack[EmbedOptions]
        ) -> None: ...

    @field_validator("texts", mode="before")
    @classmethod
    def _one_text(cls, texts: Any) -> Any:
        return (texts,) if isinstance(texts, str) else texts

    @field_validator("texts")
    @classmethod
    def _no_empty_text(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(texts):
            raise ValueError(f"text {texts.index('')} is empty")
        return texts


class Image(Operation[ImageResult]):
    """Ask an image model for pictures, from words or from pictures.

    Args:
        prompt: What to draw; may be empty only for a variation.
        size: "WIDTHxHEIGHT" in pixels, for models that take a size.
        aspect_ratio: Such as "16:9", for models that take a ratio; at most one of the two is given.
        n: 1 to 4 pictures.
        seed: Makes the picture repeatable, 0 to 2**64 - 1; native route.
        steps: Inference steps, 1 to 512; native route.
        guidance_scale: How closely to follow the prompt, 0 to 20; native route.
        negative_prompt: What not to draw; native route.
        images: Source pictures, as bytes; with a prompt they are edited, without one varied.
        mask: PNG with transparency where the edit may paint.
        route: "native", "openai", or "auto": the OpenAI route for edits and variations, else the native one.
    """

    kind: ClassVar[Kind] = "image"
    prompt: str = ""
    size: str | None = None
    aspect_ratio: str | None = None
    n: int = Field(default=1, ge=1, le=4)
    seed: int | None = Field(default=None, ge=0, lt=2**64)
    steps: int | None = Field(default=None, ge=1, le=512)
    guidance_scale: float | None = Field(default=None, ge=0, le=20)
    negative_prompt: str | None = None
    images: tuple[bytes, ...] = ()
    mask: bytes | None = None
    route: Literal["auto", "native", "openai"] = "auto"
    user: str | None = None

    if TYPE_CHECKING:  # what may be given is wider than what is kept

        def __init__(
            self, *, model: str | Sequence[str], prompt: str = "", **options: Unpack[ImageOptions]
        ) -> None: ...

    @field_validator("size")
    @classmethod
    def _is_size(cls, size: str | None) -> str | None:
        if size is not None and not _SIZE.fullmatch(size):
            raise ValueError("a size is WIDTHxHEIGHT in pixels, such as '1024x768'")
        return size

    @field_validator("aspect_ratio")
    @classmethod
    def _is_ratio(cls, ratio: str | None) -> str | None:
        if ratio is not None and not _RATIO.fullmatch(ratio):
            raise ValueError("an aspect ratio is like '16:9'")
        return ratio

    @field_validator("images", mode="before")
    @classmethod
    def _one_image(cls, images: Any) -> Any:
        return (images,) if isinstance(images, bytes) else images

    @field_validator("images")
    @classmethod
    def _real_images(cls, images: tuple[bytes, ...]) -> tuple[bytes, ...]:
        for index, data in enumerate(images):
            if media_type_of(data) is None:
                raise ValueError(f"source image {index} is not a PNG, JPEG, WebP, GIF or SVG")
        return images

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.prompt.strip() and not self.images:
            raise ValueError("prompt: must not be empty without source images")
        if self.size and self.aspect_ratio:
            raise ValueError("size and aspect_ratio: give one of the two")
        if self.mask is not None and (not self.images or media_type_of(self.mask) != "image/png"):
            raise ValueError("mask: a PNG, together with a source image")
        return self

    @property
    def width_and_height(self) -> tuple[int, int] | None:
        """The size in pixels, or None where none was asked for."""
        if self.size is None:
            return None
        width, height = self.size.split("x")
        return int(width), int(height)


__all__ = [
    "Chat",
    "Complete",
    "Conversation",
    "Embed",
    "Image",
    "Kind",
    "OnInterrupt",
    "Operation",
    "ResponseFormat",
    "Sampling",
    "Stream",
]
