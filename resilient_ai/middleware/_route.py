"""The way of one call through the models of a list."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from resilient_ai.core.call import Call, Next
from resilient_ai.core.errors import (
    BudgetExceeded,
    CircuitOpen,
    FeatureNotSupported,
    InvalidResponse,
    LimitReached,
    ModelNotFound,
    ModelUnfit,
    NoModelAvailable,
    PermissionDenied,
    PriceUnknown,
    ProviderError,
    ServerFailed,
)
from resilient_ai.core.events import ModelSkipped
from resilient_ai.core.operations import Embed
from resilient_ai.core.results import EmbedResult, Result
from resilient_ai.middleware._route_measures import Measures

R = TypeVar("R")

_NEXT_MODEL = (
    BudgetExceeded,
    CircuitOpen,
    FeatureNotSupported,
    InvalidResponse,
    LimitReached,
    ModelNotFound,
    ModelUnfit,
    PermissionDenied,
    PriceUnknown,
    ServerFailed,
)


class Route(Generic[R]):
    """The way of one call through the models of its list.

    Args:
        call: The call.
        proceed: The rest of the stack.
        models: The models, in the order in which they are asked.
        unfit: What models are known to lack, None where they were left out; these are passed over.
        left_out_by: The function that left them out.
        max_sends: Requests of the call over all models.
        dimensions: The length that vectors of all but the first must have, None where any will do.
        measures: What takes note of every model that is asked, None for nothing.

    Attributes:
        served_by: The model that answered.
    """

    def __init__(
        self,
        call: Call[R],
        proceed: Next[R],
        models: Sequence[str],
        *,
        unfit: Mapping[str, str | None],
        max_sends: int,
        dimensions: int | None,
        left_out_by: str | None = None,
        measures: Measures | None = None,
    ) -> None:
        self._call = call
        self._proceed = proceed
        self._models = models
        self._unfit = unfit
        self._left_out_by = left_out_by
        self._max_sends = max_sends if call.sends_left is None else min(max_sends, call.sends_left)
        self._dimensions = dimensions
        self._measures = measures
        self._sent_before = call.record.sends
        self._refused: dict[str, Exception] = {}
        self.served_by = ""

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
        raise self._failure(self._refused[last])

    async def _ask(self, position: int, *, insist: bool = False) -> R:
        model = self._models[position]
        if model in self._unfit:
            lacks = self._unfit[model]
            raise ModelUnfit(model=model, lacks=lacks, left_out_by=self._left_out_by if lacks is None else None)
        result = await self._send(self._call_of(position, insist=insist))
        if position > 0:
            self._check_vectors(model, result)
        self._note_served(model)
        return _named(result, model)

    async def _send(self, call: Call[R]) -> R:
        if self._measures is None:
            return await self._proceed(call)
        asked = self._measures.ask(call)
        try:
            result = await self._proceed(asked.call)
        except BaseException as error:
            asked.failed(error)
            raise
        asked.answered(result)
        return result

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
        asked = self._asked()
        waits = {model: error.retry_after for model, error in asked.items() if isinstance(error, CircuitOpen)}
        if self._sent() or not waits or len(waits) < len(asked):
            return None
        nearest = min(waits, key=waits.__getitem__)
        # One that was isolated by hand is to be left alone.
        return nearest if waits[nearest] < math.inf else None

    def _asked(self) -> dict[str, Exception]:
        """Return the errors of the models that were not passed over."""
        return {model: error for model, error in self._refused.items() if not isinstance(error, ModelUnfit)}

    def _failure(self, last: Exception) -> Exception:
        """Return the error of the call: that of a budget where nothing else is in the way, else one that names all models."""
        errors = self._asked().values()
        spent = [error for error in errors if isinstance(error, BudgetExceeded)]
        if spent and len(spent) == len(errors):
            self._refused.clear()  # else the error and its frames would hold each other
            return min(reversed(spent), key=_wait_of)
        failure = NoModelAvailable(self._refused)
        failure.__cause__ = last
        return failure

    def _check_vectors(self, model: str, result: R) -> None:
        expected = self._dimensions
        if expected is not None and isinstance(result, EmbedResult) and result.dimensions != expected:
            raise InvalidResponse(
                f"{model!r} answered with vectors of {result.dimensions} dimensions in place of {expected}", model=model
            )

    def _refuse(self, model: str, error: Exception) -> None:
        self._refused[model] = error
        note_refused(self._call, model, error)

    def _tell_of_next(self, position: int, error: Exception) -> None:
        if position + 1 < len(self._models):
            model, next_model = self._models[position : position + 2]
            self._call.emit(ModelSkipped(call_id=self._call.id, model=model, next_model=next_model, error=error))

    def _note_served(self, model: str) -> None:
        self.served_by = model
        record = self._call.record
        if record.refused:
            record.refused = {name: why for name, why in record.refused.items() if name != model} or None
        # The frames of an error hold this object, which would hold the error: a cycle with the whole call in it.
        self._refused.clear()


def note_refused(call: Call[Any], model: str, error: Exception) -> None:
    """Write down why a model could not serve a call."""
    call.record.refused = (call.record.refused or {}) | {model: f"{type(error).__name__}: {error}"}


def _may_next_do_better(error: Exception) -> bool:
    if isinstance(error, BudgetExceeded) and error.sent:
        return False  # batches were paid, which another model would be paid for once more
    return isinstance(error, _NEXT_MODEL) or (isinstance(error, ProviderError) and error.retryable)


def _wait_of(error: BudgetExceeded) -> float:
    return math.inf if error.retry_after is None else error.retry_after


def _named(result: R, model: str) -> R:
    # A cache outside takes an answer that names no model for one of the first, and would keep it as such.
    if isinstance(result, Result) and not result.served_by:
        return cast("R", result.model_copy(update={"served_by": model}))
    return result
