"""Request bodies with the ranges that the service checks."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Stop = str | Annotated[list[str], Field(max_length=16)] | None


class Text(BaseModel):
    type: Literal["text"]
    text: str


class ImageURL(BaseModel):
    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(BaseModel):
    type: Literal["image_url"]
    image_url: ImageURL


class InputAudio(BaseModel):
    data: str
    format: Literal["wav", "mp3"] = "wav"


class AudioPart(BaseModel):
    type: Literal["input_audio"]
    input_audio: InputAudio


class Function(BaseModel):
    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: str
    function: Function


class SystemMessage(BaseModel):
    role: Literal["system"]
    content: str | list[Text]
    name: str | None = None
    cache_control: dict[str, Any] | None = None


class UserMessage(BaseModel):
    role: Literal["user"]
    content: str | list[Annotated[Text | ImagePart | AudioPart, Field(discriminator="type")]]
    name: str | None = None
    cache_control: dict[str, Any] | None = None


class AssistantMessage(BaseModel):
    role: Literal["assistant"]
    content: str | list[Text] | None = None
    reasoning_content: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None


class ToolMessage(BaseModel):
    role: Literal["tool"]
    content: str | list[Text]
    tool_call_id: str


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionDefinition(BaseModel):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    type: Literal["function"] = "function"
    function: FunctionDefinition


class NamedFunction(BaseModel):
    name: str


class NamedTool(BaseModel):
    type: Literal["function"] = "function"
    function: NamedFunction


class TextFormat(BaseModel):
    type: Literal["text"]


class JsonObjectFormat(BaseModel):
    type: Literal["json_object"]


class JsonSchema(BaseModel):
    name: str
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(BaseModel):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class RegexFormat(BaseModel):
    type: Literal["regex"]
    regex: str


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat, Field(discriminator="type")]


class StreamOptions(BaseModel):
    include_usage: bool = True
    continuous_usage_stats: bool = False


class ReasoningSettings(BaseModel):
    effort: Literal["low", "medium", "high"] | None = None
    enabled: bool | None = None


class Sampling(BaseModel):
    """What chat and text completions have in common."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    top_k: int = Field(default=0, ge=0, lt=1000)
    # The declared minimum is 0, yet 0 is refused in practice.
    max_tokens: int | None = Field(default=None, gt=0, le=1_000_000)
    stop: Stop = None
    n: int = Field(default=1, ge=1, le=4)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=5)
    response_format: ResponseFormat | None = None
    seed: Seed | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["default", "priority", "flex"] | None = None

    @property
    def stops(self) -> list[str]:
        """The stop sequences as a list."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop


class ChatRequest(Sampling):
    messages: list[Message] = Field(min_length=1)  # guess: an empty list is refused.
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    logprobs: bool | None = None
    # guess: the range is documented, whether it is checked is not known.
    top_logprobs: int | None = Field(default=None, ge=1, le=20)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    reasoning: ReasoningSettings | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class MultiModalData(BaseModel):
    image: list[str]


class CompletionRequest(Sampling):
    prompt: str | list[int]
    logprobs: int | None = None
    echo: bool | None = None
    stop_token_ids: list[int] | None = None
    return_tokens_as_token_ids: bool | None = None
    data: MultiModalData | None = None


class EmbeddingsRequest(BaseModel):
    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=1024)]  # guess: an empty list is refused.
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=32)
    service_tier: Literal["default", "priority", "flex"] | None = None


class NativeEmbeddingsRequest(BaseModel):
    inputs: list[str] = Field(min_length=1, max_length=1024)
    normalize: bool = True  # guess: the default is not documented.
    dimensions: int | None = Field(default=None, ge=32)
    image: str | None = None
    service_tier: Literal["default", "priority", "flex"] | None = None
    webhook: str | None = None


class RerankRequest(BaseModel):
    query: str | None = None
    queries: list[str] | None = None
    documents: list[str] = Field(min_length=1)
    instruction: str | None = None
    service_tier: Literal["default", "priority", "flex"] | None = None
    webhook: str | None = None


class NativeTextRequest(BaseModel):
    input: str
    stream: bool = False
    max_new_tokens: int | None = Field(default=None, gt=0, le=1_000_000)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, lt=1000)
    stop: Annotated[list[str], Field(max_length=16)] = []
    num_responses: int = Field(default=1, ge=1, le=4)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=5)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    webhook: str | None = None
