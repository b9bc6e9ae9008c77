"""Ask the next model where one cannot serve."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar, cast

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_able, check_count, check_kind, check_names
from resilient_ai.core.errors import (
    CircuitOpen,
    FeatureNotSupported,
    InvalidInput,
    InvalidResponse,
    LimitReached,
    ModelNotFound,
    ModelUnfit,
    NoModelAvailable,
    PermissionDenied,
    ProviderError,
    ServerFailed,
)
from resilient_ai.core.events import ModelSkipped
from resilient_ai.core.operations import Embed, Operation
from resilient_ai.core.pipeline import WorstCase
from resilient_ai.core.protocols import Abilities
from resilient_ai.core.results import EmbedResult, Result

R = TypeVar("R")
OperationT = TypeVar("OperationT")
KnownT = TypeVar("KnownT")

_AUTO = "auto"
_NEXT_MODEL = (
    CircuitOpen,
    FeatureNotSupported,
    InvalidResponse,
    LimitReached,
    ModelNotFound,
    ModelUnfit,
    PermissionDenied,
    ServerFailed,
)

_log = logging.getLogger("resilient_ai")


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Ask the models of an operation in turn until one serves.

    The next model is asked where another may do better: after failures that may pass, where a model is gone, lacks a
    feature or is not allowed to this key, where its circuit is open or its limit reached. It is not asked where it would refuse
    as well, or where it would be wrong to: bad requests, wrong keys, no balance, budgets, the deadline, cancellation, a stream
    that broke after content had been handed over. Which model answered is `served_by`, and why others did not is `refused`.

    A model of a list that is known to lack what the call needs is passed over without being asked. A model that is named
    alone is always asked, and so is one of which nothing is known.

    Where the circuits of all models are open and nothing has been sent, the one that is nearest to its probe is asked once
    more, so that the breaker may probe it ahead of time.

    Vectors of different models cannot be compared. An `Embed` may name several where all are known to give vectors of one
    length; one call never mixes them, and `served_by` tells whose they are.

    Model n of N may send `max(1, max_sends - sends so far - (N - n))` requests, of which every try is one.

    Args:
        models: What the model "auto" stands for, in order; each once.
        abilities: What models can do; None passes over none, and an `Embed` then names one model.
        max_sends: Requests of a call over all models of its list, at least 1; every model gets one at least. Ignored where a
            call names one model, and where an `Embed` has several texts, which may go out in many batches.
        embed_across_models: Whether an `Embed` may fall back to any other model all the same.

    Raises:
        ValueError: If a model is named twice, "auto" stands for itself, or `max_sends` is below 1.

    >>> Routing(models=["large", "small"])
    Routing(models=('large', 'small'), abilities=None, max_sends=6, embed_across_models=False)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Resume": "a stream that broke may be served by another model of the list",
        "Cache": "the key holds the route that was asked for, not the model that happened to serve",
    }

    models: tuple[str, ...] = ()
    abilities: Abilities | None = None
    max_sends: int = 6
    embed_across_models: bool = False

    def __post_init__(self) -> None:
        check_names("models", self.models)
        object.__setattr__(self, "models", tuple(self.models))
        if len(set(self.models)) != len(self.models):
            raise ValueError(f"models must name each model once, got {self.models!r}")
        if _AUTO in self.models:
            raise ValueError(f"models must not name {_AUTO!r}, which stands for them, got {self.models!r}")
        check_able("abilities", self.abilities, "lacks", "dimensions")
        check_count("max_sends", self.max_sends, 1)
        check_kind("embed_across_models", self.embed_across_models, bool)

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call to one model after the other, until one serves."""
        models = self._models_for(call.operation)
        if len(models) == 1:
            alone = models[0] == call.model
            return await proceed(call if alone else call.replace(operation=call.operation.on(models[0])))
        dimensions = self._dimensions(call.operation, models)
        unfit = {model: lack for model in models if (lack := self._lack(call.operation.on(model))) is not None}
        route = _Route(call, proceed, models, unfit=unfit, max_sends=self.max_sends, dimensions=dimensions)
        return await route.run()

    def worst_case(self, inner: WorstCase) -> WorstCase:
        """Every model in turn, as slow as can be, and `max_sends` requests unless there are more models."""
        if inner.models == 1:
            return inner
        sends = max(inner.models, min(self.max_sends, inner.sends * inner.models))
        return replace(inner, sends=sends, seconds=inner.seconds * inner.models)

    def _models_for(self, operation: Operation[R]) -> tuple[str, ...]:
        if operation.model != _AUTO:
            return operation.models
        models = tuple(dict.fromkeys((*self.models, *operation.fallbacks)))
        if not models:
            raise InvalidInput("model: 'auto' needs Routing(models=[...])", field="model", value=_AUTO)
        return models

    def _lack(self, operation: Operation[R]) -> str | None:
        return None if self.abilities is None else _known(self.abilities.lacks, operation)

    def _dimensions(self, operation: Operation[R], models: tuple[str, ...]) -> int | None:
        """Return the length that vectors of fallbacks must have, None where any will do."""
        if not isinstance(operation, Embed):
            return None
        if self.embed_across_models:
            return operation.dimensions
        book = self.abilities
        lengths = {model: None if book is None else _known(book.dimensions, operation.on(model)) for model in models}
        first = lengths[models[0]]
        if first is not None and set(lengths.values()) == {first}:
            return operation.dimensions or first
        told = ", ".join(f"{model!r} gives {length or 'unknown'} dimensions" for model, length in lengths.items())
        raise InvalidInput(
            f"Embed: fallbacks: vectors of different models cannot be compared, and {told};"
            " Routing(embed_across_models=True) allows it",
            field="fallbacks",
            value=models[1:],
        )


class _Route(Generic[R]):
    """The way of one call through the models of its list."""

    def __init__(
        self,
        call: Call[R],
        proceed: Next[R],
        models: tuple[str, ...],
        *,
        unfit: Mapping[str, str],
        max_sends: int,
        dimensions: int | None,
    ) -> None:
        self._call = call
        self._proceed = proceed
        self._models = models
        self._unfit = unfit
        self._max_sends = max_sends if call.sends_left is None else min(max_sends, call.sends_left)
        self._dimensions = dimensions
        self._sent_before = call.record.sends
        self._refused: dict[str, Exception] = {}

    async def run(self) -> R:
        """Return the answer of the first model that can serve."""
        for position, model in enumerate(self._models):
            try:
                return await self._ask(position)
            except Exception as error:
                if not _may_next_do_better(error):
                    raise
                self._refuse(model, error)
                self._tell_of_next(position, error)
        last = self._models[-1]
        nearest = self._nearest_open()
        if nearest is not None:
            last = nearest
            try:
                return await self._ask(self._models.index(last), insist=True)
            except Exception as error:
                if not _may_next_do_better(error):
                    raise
                self._refuse(last, error)
        raise NoModelAvailable(self._refused) from self._refused[last]

    async def _ask(self, position: int, *, insist: bool = False) -> R:
        model = self._models[position]
        if model in self._unfit:
            raise ModelUnfit(model=model, lacks=self._unfit[model])
        result = await self._proceed(self._call_of(position, insist=insist))
        if position > 0:
            self._check_vectors(model, result)
        self._note_served(model)
        return _named(result, model)

    def _call_of(self, position: int, *, insist: bool) -> Call[R]:
        call, operation = self._call, self._call.operation.on(self._models[position])
        ahead = 0 if insist else sum(later not in self._unfit for later in self._models[position + 1 :])
        call = call.replace(operation=operation) if position == 0 else call.with_body(operation, f"m{position}")
        return call.replace(
            sends_left=self._sends_left(ahead),
            has_alternative=ahead > 0 or (not insist and self._nearest_open() is not None),
            insist=insist,
        )

    def _sends_left(self, ahead: int) -> int | None:
        operation = self._call.operation
        if isinstance(operation, Embed) and len(operation.texts) > 1:
            return self._call.sends_left
        return max(1, self._max_sends - self._sent() - ahead)

    def _sent(self) -> int:
        return self._call.record.sends - self._sent_before

    def _nearest_open(self) -> str | None:
        """Return the model that may serve first, where circuits alone refused and nothing was sent; else None."""
        asked = {model: error for model, error in self._refused.items() if not isinstance(error, ModelUnfit)}
        waits = {model: error.retry_after for model, error in asked.items() if isinstance(error, CircuitOpen)}
        if self._sent() or not waits or len(waits) < len(asked):
            return None
        nearest = min(waits, key=waits.__getitem__)
        # One that was isolated by hand is to be left alone.
        return nearest if waits[nearest] < math.inf else None

    def _check_vectors(self, model: str, result: R) -> None:
        expected = self._dimensions
        if expected is not None and isinstance(result, EmbedResult) and result.dimensions != expected:
            raise InvalidResponse(
                f"{model!r} answered with vectors of {result.dimensions} dimensions in place of {expected}", model=model
            )

    def _refuse(self, model: str, error: Exception) -> None:
        self._refused[model] = error
        record = self._call.record
        record.refused = (record.refused or {}) | {model: f"{type(error).__name__}: {error}"}

    def _tell_of_next(self, position: int, error: Exception) -> None:
        if position + 1 < len(self._models):
            model, next_model = self._models[position : position + 2]
            self._call.emit(ModelSkipped(call_id=self._call.id, model=model, next_model=next_model, error=error))

    def _note_served(self, model: str) -> None:
        record = self._call.record
        if record.refused:
            record.refused = {name: why for name, why in record.refused.items() if name != model} or None
        # The frames of an error hold this object, which would hold the error: a cycle with the whole call in it.
        self._refused.clear()


def _may_next_do_better(error: Exception) -> bool:
    return isinstance(error, _NEXT_MODEL) or (isinstance(error, ProviderError) and error.retryable)


def _named(result: R, model: str) -> R:
    # A cache outside takes an answer that names no model for one of the first, and would keep it as such.
    if isinstance(result, Result) and not result.served_by:
        return cast("R", result.model_copy(update={"served_by": model}))
    return result


def _known(ask: Callable[[OperationT], KnownT | None], operation: OperationT) -> KnownT | None:
    try:
        return ask(operation)
    except Exception as error:  # noqa: BLE001 - not to know what a model can do must never fail a call
        _log.warning("abilities raised %s", type(error).__name__)
        return None
