"""What can be asked of a model: each operation is a value that names the type of its result."""

import re
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Self, Unpack, cast

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from typing_extensions import TypeVar, override

from resilient_ai.core._base import FrozenModel, explain
from resilient_ai.core.media import media_type_of
from resilient_ai.core.messages import Message, MessagesInput, Tool
from resilient_ai.core.options import (
    ChatOptions,
    CompleteOptions,
    EmbedOptions,
    ImageOptions,
    OnInterrupt,
    ReasoningEffort,
    ServiceTier,
    StreamOptions,
)
from resilient_ai.core.results import ChatResult, EmbedResult, ImageResult
from resilient_ai.core.streams import StreamResult

R = TypeVar("R", covariant=True, default=Any)
Kind = Literal["chat", "stream", "complete", "embed", "image"]


_SIZE = re.compile(r"[1-9]\d{1,4}x[1-9]\d{1,4}")
_RATIO = re.compile(r"[1-9]\d?:[1-9]\d?")
_CONTENT = frozenset(
    {
        "messages",
        "prompt",
        "texts",
        "images",
        "mask",
        "tools",
        "negative_prompt",
        "extra",
        "stop",
        "chat_template_kwargs",
    }
)


def _is_path(model: str) -> str:
    # An id is a part of the address on some routes, which it must not lead away from.
    if any(part in {"", ".", ".."} for part in model.split("/")):
        raise ValueError("an id must not hold an empty part, '.' or '..' between its slashes")
    return model


_ModelId = Annotated[str, Field(min_length=1, pattern=r"^[^\s\x00-\x1f\x7f-\x9f]+$"), AfterValidator(_is_path)]


class _Size:
    def __init__(self, value: Sized | None) -> None:
        self._size = 0 if value is None else len(value)

    @override
    def __repr__(self) -> str:
        return f"<{self._size}>"


class Operation(FrozenModel, Generic[R]):
    """One thing asked of one model, or of the first of several that can.

    Args:
        model: The id, exactly as the service spells it. A list means: the first, and the others as `fallbacks`.
        fallbacks: Models to try in turn where `model` cannot serve; needs `Routing` in the stack.
        extra: Fields of the wire that this version does not know, sent as they are.

    Raises:
        InvalidInput: If a field is wrong; the sentence names the field and the value.
    """

    kind: ClassVar[Kind]
    model: _ModelId
    fallbacks: tuple[_ModelId, ...] = ()
    extra: Mapping[str, Any] = Field(default_factory=dict)

    if not TYPE_CHECKING:  # pragma: no branch  # tests are never run by a type checker

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise explain(type(self).__name__, error, known=type(self).model_fields, hidden=_CONTENT) from None

    @override
    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        # Content stays out of logs and tracebacks: it shows by its size alone.
        for name, value in super().__repr_args__():
            if name in self.model_fields_set and name in _CONTENT:
                yield name, _Size(value)
            elif name in self.model_fields_set:
                yield name, value

    @model_validator(mode="before")
    @classmethod
    def _split_models(cls, data: Any) -> Any:
        values = cast("dict[str, Any]", data if isinstance(data, dict) else {})
        if isinstance(values.get("model"), list | tuple):
            models: Sequence[Any] = values["model"]
            if not models:
                raise ValueError("model: a list of models must name at least one")
            if values.get("fallbacks"):
                raise ValueError("model and fallbacks: give a list of models or fallbacks, not both")
            return {**values, "model": models[0], "fallbacks": tuple(models[1:])}
        return cast("Any", data)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if self.fallbacks and len(set(self.models)) != len(self.models):
            raise ValueError(f"model: each model once, got {list(self.models)!r}")
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """All models in the order they may serve."""
        return (self.model, *self.fallbacks)

    def on(self, model: str) -> Self:
        """Return the same operation for `model` alone."""
        return self.model_copy(update={"model": model, "fallbacks": ()})


def _known_role(message: Any) -> Any:
    # OpenAI's newer name for the same role, which the service refuses.
    if isinstance(message, Mapping):
        fields = cast("Mapping[str, Any]", message)
        return {**fields, "role": "system"} if fields.get("role") == "developer" else fields
    return message


class ResponseFormat(FrozenModel):
    """The form an answer must have.

    Args:
        type: "text", "json_object" (any object; say so in the prompt as well), "json_schema" or "regex".
        name: Name of the schema; for "json_schema" only.
        json_schema: The JSON schema; required for "json_schema".
        strict: Whether the service shall enforce the schema.
        regex: The pattern; required for "regex".
    """

    type: Literal["text", "json_object", "json_schema", "regex"]
    name: str = "output"
    json_schema: Mapping[str, Any] | None = Field(default=None, repr=False)
    strict: bool = True
    regex: str | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("response_format: 'json_schema' needs a json_schema")
        if self.type == "regex" and not self.regex:
            raise ValueError("response_format: 'regex' needs a regex")
        return self


class Sampling(Operation[R]):
    """The fields that chat and text completion share.

    Args:
        temperature: 0 to 2; 0 is as repeatable as the service gets.
        top_p: Above 0, to 1.
        min_p: 0 to 1; 0 is off.
        top_k: 0 to 999; 0 is off.
        max_tokens: 1 to 1,000,000 tokens of output; None leaves it to the service, which most often stops at 16,384.
        stop: Up to 16 texts that end the answer, none of them empty.
        n: 1 to 4 answers.
        presence_penalty: -2 to 2.
        frequency_penalty: -2 to 2.
        repetition_penalty: 0.01 to 5; above 1 discourages repeats.
        seed: Makes sampling repeatable where the model can; no promise.
        user: Your own name of the end user, sent to the service.
        prompt_cache_key: Groups requests for the provider's prompt cache.
        service_tier: "priority" costs 1.5 times, "flex" 0.8 times and may wait for ten minutes.
    """

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=1000)
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=(), max_length=16)
    n: int = Field(default=1, ge=1, le=4)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=5)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    user: str | None = None
    prompt_cache_key: str | None = None
    service_tier: ServiceTier | None = None
    response_format: ResponseFormat | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, stop: Any) -> Any:
        return (stop,) if isinstance(stop, str) else stop

    @field_validator("response_format", mode="before")
    @classmethod
    def _short_format(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value


class Conversation(Sampling[R]):
    """The fields that `Chat` and `Stream` share.

    Args:
        messages: The conversation. A `str` is one user message, a message alone is a list of one; dictionaries with a `role` are
            messages.
        tools: Functions, pydantic models, JSON schemas or `Tool`s the model may ask for.
        tool_choice: "auto", "none", "required", or the name of one tool.
        logprobs: Whether to return log probabilities.
        top_logprobs: 1 to 20 alternatives for each token.
        reasoning_effort: How long a reasoning model may think.
        chat_template_kwargs: Passed to the model's chat template as they are.
    """

    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = Field(default=None, min_length=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=1, le=20)
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None

    @field_validator("messages", mode="before")
    @classmethod
    def _one_message(cls, messages: Any) -> Any:
        if isinstance(messages, str):
            return ({"role": "user", "content": messages},)
        if isinstance(messages, list | tuple):
            given = cast("Sequence[Any]", messages)
            return tuple(map(_known_role, given)) if given else given
        return (messages,) if isinstance(messages, FrozenModel) else messages

    @field_validator("tools", mode="before")
    @classmethod
    def _any_tools(cls, tools: Any) -> Any:
        if isinstance(tools, list | tuple):
            return tuple(Tool.of(tool) for tool in cast("Sequence[Any]", tools))
        return tools

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [tool.name for tool in self.tools]
        if len(set(names)) != len(names):
            raise ValueError(f"tools: every tool needs a name of its own, got {names!r}")
        if self.tool_choice not in {None, "auto", "none", "required", *names}:
            raise ValueError(f"tool_choice: 'auto', 'none', 'required' or one of {names!r}, got {self.tool_choice!r}")
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice: 'required' needs tools")
        return self


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
    "R",
    "ReasoningEffort",
    "ResponseFormat",
    "Sampling",
    "ServiceTier",
    "Stream",
]
