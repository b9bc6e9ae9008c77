"""Messages of a conversation, their parts, and tools."""

import base64
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import orjson
from pydantic import BaseModel, Field, ValidationError, field_validator

from resilient_ai.core._base import FrozenModel, explain
from resilient_ai.core.errors import InvalidInput, OutputInvalid
from resilient_ai.core.media import media_type_of

MAX_IMAGE_BYTES = 20 * 1024 * 1024
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")


class TextPart(FrozenModel):
    """Text inside a message of several parts."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(FrozenModel):
    """An image inside a user message, as a URL the service fetches or as a data URI.

    The client never fetches the URL itself.

    >>> ImagePart.of("https://example.org/plan.png").url
    'https://example.org/plan.png'
    """

    type: Literal["image"] = "image"
    url: str
    detail: Literal["auto", "low", "high"] | None = None

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        if url.startswith("data:"):
            head, _, payload = url.partition(",")
            if not payload or ";base64" not in head:
                raise ValueError("a data URI of an image needs ';base64,' and data")
            try:
                data = base64.b64decode(payload, validate=True)
            except ValueError as error:
                raise ValueError("the data URI is not valid base64") from error
            _check_image(data)
        elif not url.startswith(("https://", "http://")) or any(character.isspace() for character in url):
            raise ValueError("an image is an http(s) URL, a data URI, bytes or a path")
        return url

    @classmethod
    def of(cls, source: str | bytes | Path, *, detail: Literal["auto", "low", "high"] | None = None) -> "ImagePart":
        """Make a part from a URL, a data URI, the bytes of an image, or a path of a file.

        Args:
            source: A `str` that begins with `http://`, `https://` or `data:` is a URL; any other `str` is a path.
            detail: Passed on to the service, which may ignore it.

        Raises:
            InvalidInput: If the bytes are not a PNG, JPEG, WebP or GIF, or are larger than 20 MiB, or the file is missing.
        """
        if isinstance(source, str) and source.startswith(("http://", "https://", "data:")):
            url = source
        else:
            try:
                data = source if isinstance(source, bytes) else Path(source).read_bytes()
                url = f"data:{_check_image(data)};base64,{base64.b64encode(data).decode()}"
            except OSError as error:
                reason = f"image: {source!s} cannot be read ({error.strerror})"
                raise InvalidInput(reason, field="image", value=str(source)) from error
            except ValueError as error:
                raise InvalidInput(f"image: {error}", field="image", value=type(source).__name__) from error
        try:
            return cls(url=url, detail=detail)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InvalidInput(f"image: {message}", field="image", value=url[:80]) from error


class AudioPart(FrozenModel):
    """Recorded speech inside a user message.

    Args:
        data: The recording in base64.
        format: "wav" or "mp3".
    """

    type: Literal["audio"] = "audio"
    data: str = Field(min_length=1)
    format: Literal["wav", "mp3"] = "wav"


Part = Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")]


class ToolCall(FrozenModel):
    """The model's wish to have a function called.

    Args:
        id: The service's name of the call, sent back unchanged with the result.
        name: The function.
        arguments: JSON text as the model wrote it; it may be invalid.
    """

    id: str
    name: str
    arguments: str = "{}"

    def parsed(self) -> dict[str, Any]:
        """Return the arguments as a dictionary; empty text counts as no arguments.

        Raises:
            OutputInvalid: If they are not a JSON object.

        >>> ToolCall(id="1", name="tides", arguments='{"port": "Kiel"}').parsed()
        {'port': 'Kiel'}
        """
        try:
            value = orjson.loads(self.arguments or "{}")
        except orjson.JSONDecodeError as error:
            raise OutputInvalid(
                f"the arguments for tool {self.name!r} are not JSON: {error}", raw=self.arguments
            ) from error
        if not isinstance(value, dict):
            raise OutputInvalid(f"the arguments for tool {self.name!r} are not a JSON object", raw=self.arguments)
        return cast("dict[str, Any]", value)


class SystemMessage(FrozenModel):
    """Instructions that hold for the whole conversation."""

    role: Literal["system"] = "system"
    content: str | tuple[TextPart, ...]
    name: str | None = None
    cache_control: Mapping[str, Any] | None = None


class UserMessage(FrozenModel):
    """What the user says and shows."""

    role: Literal["user"] = "user"
    content: str | tuple[Part, ...]
    name: str | None = None
    cache_control: Mapping[str, Any] | None = None

    @field_validator("content")
    @classmethod
    def _not_empty(cls, content: str | tuple[Part, ...]) -> str | tuple[Part, ...]:
        if not content or (isinstance(content, str) and not content.strip()):
            raise ValueError("a user message must not be empty")
        return content


class AssistantMessage(FrozenModel):
    """What the model said; as the last message it is what the model shall continue."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None


class ToolMessage(FrozenModel):
    """The result of a tool call."""

    role: Literal["tool"] = "tool"
    content: str
    tool_call_id: str


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]
AnyMessage = SystemMessage | UserMessage | AssistantMessage | ToolMessage


def system(content: str) -> SystemMessage:
    """Return a system message."""
    return SystemMessage(content=content)


def user(*content: "str | bytes | Path | TextPart | ImagePart | AudioPart") -> UserMessage:
    """Return a user message of text and images: `str` is text, bytes and paths are images, parts are themselves.

    Raises:
        InvalidInput: If there is nothing in it, or an image cannot be used.

    >>> user("Do both drawings show the same floor?").content
    'Do both drawings show the same floor?'
    """
    alone = content[0] if len(content) == 1 else None
    parts = alone if isinstance(alone, str) else tuple(_part(item) for item in content)
    try:
        return UserMessage(content=parts)
    except ValidationError as error:
        raise explain("user", error, hidden={"content"}) from None


def assistant(content: str) -> AssistantMessage:
    """Return an assistant message."""
    return AssistantMessage(content=content)


def _part(item: "str | bytes | Path | TextPart | ImagePart | AudioPart") -> "TextPart | ImagePart | AudioPart":
    if isinstance(item, str):
        return TextPart(text=item)
    return ImagePart.of(item) if isinstance(item, bytes | Path) else item


class Tool(FrozenModel):
    """A function the model may ask for.

    Args:
        name: 1 to 128 letters, digits, `_`, `-`, `.` or `:`.
        description: What it does, for the model to read.
        parameters: JSON schema of its arguments, an object.
        function: What `run_tools` calls with the arguments; not sent.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    function: Callable[..., Any] | None = Field(default=None, exclude=True, repr=False)

    @field_validator("name")
    @classmethod
    def _valid_name(cls, name: str) -> str:
        if not _TOOL_NAME.fullmatch(name):
            raise ValueError("a tool's name has 1 to 128 letters, digits, '_', '-', '.' or ':'")
        return name

    @classmethod
    def of(cls, source: "ToolSource") -> "Tool":
        """Make a tool from a function with type hints, a pydantic model, a JSON schema in the wire's form, or a tool.

        The description is the docstring; the schema comes from the annotations.

        >>> def tides(port: str, days: int = 1) -> str:
        ...     "Look up the tide times of a port."
        >>> tool = Tool.of(tides)
        >>> tool.name, tool.description, sorted(tool.parameters["properties"])
        ('tides', 'Look up the tide times of a port.', ['days', 'port'])
        """
        if isinstance(source, Tool):
            return source
        schema = _mapping(source)
        if schema is not None:
            return cls._of_schema(schema)
        model = _model_class(source)
        if model is not None:
            description = inspect.getdoc(model) or ""
            return cls(
                name=model.__name__, description=description, parameters=model.model_json_schema(), function=model
            )
        if callable(cast("object", source)):
            return cls._of_function(cast("Callable[..., Any]", source))
        message = f"tools: a function, a pydantic model, a schema or a Tool, got {source!r}"
        raise InvalidInput(message, field="tools", value=cast("object", source))

    @classmethod
    def _of_schema(cls, source: Mapping[str, Any]) -> "Tool":
        inner = source.get("function", source)
        if not isinstance(inner, Mapping) or "name" not in inner:
            raise InvalidInput("tools: a JSON schema of a tool needs a 'name'", field="tools", value=source)
        fields = cast("Mapping[str, Any]", inner)
        return cls(
            name=fields["name"],
            description=fields.get("description") or "",
            parameters=fields.get("parameters") or {"type": "object", "properties": {}},
        )

    @classmethod
    def _of_function(cls, function: Callable[..., Any]) -> "Tool":
        from pydantic import TypeAdapter  # noqa: PLC0415 - only tools made from functions need it

        try:
            schema = cast("Callable[..., TypeAdapter[Any]]", TypeAdapter)(function).json_schema()
        except Exception as error:
            name = getattr(function, "__name__", repr(function))
            raise InvalidInput(f"tools: no schema for {name!r}: {error}", field="tools", value=name) from error
        named = _unwrapped(function)
        description = inspect.getdoc(named) or ""
        return cls(name=named.__name__, description=description, parameters=schema, function=function)


ToolSource = Tool | Callable[..., Any] | type[BaseModel] | Mapping[str, Any]
MessagesInput = str | AnyMessage | Sequence[AnyMessage | Mapping[str, Any]]


def _unwrapped(function: Any) -> Any:
    return function.func if isinstance(function, functools.partial) else function


def _mapping(source: object) -> Mapping[str, Any] | None:
    return cast("Mapping[str, Any]", source) if isinstance(source, Mapping) else None


def _model_class(source: object) -> type[BaseModel] | None:
    return source if isinstance(source, type) and issubclass(source, BaseModel) else None


def _check_image(data: bytes) -> str:
    media_type = media_type_of(data)
    if media_type not in _IMAGE_TYPES:
        raise ValueError("the bytes are not a PNG, JPEG, WebP or GIF image")
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"an image may have at most {MAX_IMAGE_BYTES} bytes, got {len(data)}")
    return media_type
