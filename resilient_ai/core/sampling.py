"""What chat and text completion share: sampling, conversations, and the form of an answer."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, field_validator, model_validator
from typing_extensions import TypeVar

from resilient_ai.core._base import FrozenModel
from resilient_ai.core.messages import Message, Tool
from resilient_ai.core.operation import Operation
from resilient_ai.core.options import ReasoningEffort, ServiceTier

R = TypeVar("R", covariant=True, default=Any)


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


def _known_role(message: Any) -> Any:
    # OpenAI's newer name for the same role, which the service refuses.
    if isinstance(message, Mapping):
        fields = cast("Mapping[str, Any]", message)
        return {**fields, "role": "system"} if fields.get("role") == "developer" else fields
    return message


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
