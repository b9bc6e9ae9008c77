"""Ask the next model where one cannot serve."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from resilient_ai.core.call import Call, Next
from resilient_ai.core.errors import (
    CircuitOpen,
    FeatureNotSupported,
    InvalidInput,
    LimitReached,
    ModelNotFound,
    NoModelAvailable,
    ProviderError,
)
from resilient_ai.core.events import ModelSkipped

R = TypeVar("R")

_AUTO = "auto"
_NEXT_MODEL = (CircuitOpen, FeatureNotSupported, LimitReached, ModelNotFound)


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Ask the models of an operation in turn until one serves.

    The next model is asked where another may do better: after failures that may pass, where a model is gone or lacks a
    feature, where its circuit is open or its limit reached. It is not asked where it would refuse as well, or where it would
    be wrong to: bad requests, keys, balance, budgets, the deadline, cancellation. Which model answered is `served_by`.

    Vectors of different models cannot be compared, so an `Embed` may not name several.

    Args:
        models: What the model "auto" stands for, in order; each once.
        embed_across_models: Whether an `Embed` may fall back to another model all the same.

    Raises:
        ValueError: If a model is named twice or "auto" stands for itself.

    >>> Routing(models=["large", "small"])
    Routing(models=('large', 'small'), embed_across_models=False)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Cache": "the key holds the route that was asked for, not the model that happened to serve",
    }

    models: tuple[str, ...] = ()
    embed_across_models: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", tuple(self.models))
        if len(set(self.models)) != len(self.models):
            raise ValueError(f"models must name each model once, got {self.models!r}")
        if _AUTO in self.models:
            raise ValueError(f"models must not name {_AUTO!r}, which stands for them, got {self.models!r}")

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call to one model after the other, until one serves."""
        models = self._models_for(call)
        if models == (call.model,):
            return await proceed(call)
        refused: dict[str, Exception] = {}
        for position, model in enumerate(models, 1):
            try:
                return await proceed(call.replace(operation=call.operation.on(model)))
            except Exception as error:
                if len(models) == 1 or not _may_next_do_better(error):
                    raise
                refused[model] = error
                if position < len(models):
                    skipped = ModelSkipped(call_id=call.id, model=model, next_model=models[position], error=error)
                    call.emit(skipped)
        raise NoModelAvailable(refused) from refused[models[-1]]

    def _models_for(self, call: Call[R]) -> tuple[str, ...]:
        operation = call.operation
        models = operation.models
        if operation.model == _AUTO:
            models = tuple(dict.fromkeys((*self.models, *operation.fallbacks)))
            if not models:
                raise InvalidInput("model: 'auto' needs Routing(models=[...])", field="model", value=_AUTO)
        if len(models) > 1 and operation.kind == "embed" and not self.embed_across_models:
            raise InvalidInput(
                f"Embed: fallbacks: vectors of different models cannot be compared, got {models!r};"
                " Routing(embed_across_models=True) allows it",
                field="fallbacks",
                value=models[1:],
            )
        return models


def _may_next_do_better(error: Exception) -> bool:
    return isinstance(error, _NEXT_MODEL) or (isinstance(error, ProviderError) and error.retryable)
