"""What every operation has in common: a value that names a model and the type of its result."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Self, cast

from pydantic import AfterValidator, Field, ValidationError, model_validator
from typing_extensions import TypeVar, override

from resilient_ai.core._base import FrozenModel, explain

R = TypeVar("R", covariant=True, default=Any)
Kind = Literal["chat", "stream", "complete", "embed", "image"]

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

    @property
    def is_flex(self) -> bool:
        """Whether it is of the service's "flex" tier, which may hold a request for ten minutes before its first token."""
        return bool(self.extra.get("service_tier", getattr(self, "service_tier", None)) == "flex")

    def on(self, model: str) -> Self:
        """Return the same operation for `model` alone."""
        # What `model_copy` does, at half its cost: a route needs one for each of its candidates.
        copy = object.__new__(type(self))
        fill = object.__setattr__
        fill(copy, "__dict__", {**self.__dict__, "model": model, "fallbacks": ()})
        fill(copy, "__pydantic_fields_set__", {*self.__pydantic_fields_set__, "model", "fallbacks"})
        fill(copy, "__pydantic_extra__", self.__pydantic_extra__)
        fill(copy, "__pydantic_private__", None if self.__pydantic_private__ is None else {**self.__pydantic_private__})
        return copy
