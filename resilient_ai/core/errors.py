"""The error tree: what the caller can do about it decides the branch.

ResilientAIError                                                                                .so_far
  ProviderError                 the service answered, or should have            .model .request_id .retryable .sent
                                                                                .circuit_open_for
    ConnectionFailed            no answer: DNS, refused, TLS, reset             .phase .local
    AttemptTimeout              none in time                                    .timer .elapsed
    InvalidResponse             an answer that cannot be read                   .excerpt
    StreamInterrupted           broken after content was handed over            .partial
    StatusError                 4xx or 5xx                                      .status .code .param .body .retry_after
      BadRequest                400 422
        ContextLengthExceeded   the prompt is longer than the model takes
      AuthenticationFailed      401
      InsufficientBalance       402
      PermissionDenied          403
      ModelNotFound             404
      FeatureNotSupported       405: this model lacks tools, JSON mode, ...
      RequestTooLarge           413
      RateLimited               429
      ServerFailed              5xx
        Overloaded              503 529
  CallRejected                  we ended it; nothing was sent unless it says so                   .sent
    CircuitOpen                 .model .retry_after
    LimitReached                .limit .retry_after
    BudgetExceeded              .spent .reserved .limit .left .budget .retry_after
    BudgetUnavailable           a hard budget whose book cannot be asked        .budget
    PriceUnknown                a hard budget cannot count this model           .model
    DeadlineExceeded            .timeout .elapsed .sent .partial
    ModelUnfit                  a model that was passed over                    .model .lacks .left_out_by
    NoModelAvailable            .refused .retry_after
    ClientClosed                the client or pipeline was closed before
  BookUnavailable               a ledger or a book of budgets cannot be asked, or not in time
  OutputInvalid                 the answer does not fit the schema or the tool that was asked for   .raw
    ToolLoopUnfinished          the model still asks for tools after the last round                 .messages
  StreamMisused                 consumed twice, read after close
  InvalidInput                  found before anything is sent; also a ValueError                    .field .value
  ConfigurationError            found when the client is built, never at the first call
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from resilient_ai.core._told import told_name

if TYPE_CHECKING:
    from resilient_ai.core.messages import AnyMessage
    from resilient_ai.core.results import ChatResult, SoFar

Phase = Literal["dns", "connect", "tls", "proxy", "send", "receive"]
Timer = Literal["connect", "first_token", "idle", "attempt"]

# The message of a list of models says so much; their errors say all.
_MOST_REASONS = 8
_LONGEST_REASON = 160

_RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})


def _rebuild(cls: type[BaseException], args: tuple[object, ...], state: dict[str, object]) -> BaseException:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ResilientAIError(Exception):
    """The base of every error this package raises on purpose.

    Attributes:
        so_far: Where a tool loop, or a chat whose answer is to fit a type, failed after its first answer: the answers it had got
            by then, what they cost, and the conversation to go on from. None for every other error.
    """

    so_far: "SoFar | None" = None

    def happened_after(self, so_far: "SoFar") -> None:
        """Take note of what had been done and paid for before it, in its message too; `sent` is true from then on."""
        self.so_far = so_far
        if isinstance(self, ProviderError | CallRejected):
            self.sent = True
        self.args = (f"{self.args[0] if self.args else type(self).__name__} ({so_far})", *self.args[1:])

    def __repr__(self) -> str:
        # What was said is in its text alone: reprs are written where nobody expects that, as by asyncio about a slow task.
        facts = {name: getattr(self, name, None) for name in ("model", "status", "request_id")}
        facts["request_id"] = told_name(facts["request_id"])  # a server may write anything there
        return f"{type(self).__name__}({', '.join(f'{name}={fact!r}' for name, fact in facts.items() if fact is not None)})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The default rebuilds from `args` alone, which keyword-only constructors refuse.
        return _rebuild, (type(self), self.args, self.__dict__)


class ProviderError(ResilientAIError):
    """The service answered with a failure, or should have answered.

    Attributes:
        model: The model that was asked, where known.
        request_id: The service's name for the request, where it gave one.
        retryable: Whether the same request may succeed when it is sent again.
        sent: Whether bytes of the request may have reached the service, so that it may be billed.
        circuit_open_for: Seconds for which the circuit breaker leaves the model alone since this failure, None where it does not.
    """

    circuit_open_for: float | None = None

    def __init__(
        self,
        message: str,
        *,
        model: str | None = None,
        request_id: str | None = None,
        retryable: bool = True,
        sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.model = model
        self.request_id = request_id
        self.retryable = retryable
        self.sent = sent


class ConnectionFailed(ProviderError):
    """No answer came: the name did not resolve, the connection was refused or reset, TLS failed.

    Attributes:
        phase: How far the request got: "dns", "connect", "tls", "proxy", "send" or "receive".
        local: Whether the fault is on this side and says nothing about the service: no file or port is left, its certificate is
            not trusted here, a proxy wants a password.
    """

    def __init__(
        self,
        message: str,
        *,
        phase: Phase,
        retryable: bool = True,
        local: bool = False,
        model: str | None = None,
    ) -> None:
        super().__init__(message, model=model, retryable=retryable, sent=phase in {"send", "receive"})
        self.phase: Phase = phase
        self.local = local


class AttemptTimeout(ProviderError):
    """One attempt took longer than one of its timers allows.

    Attributes:
        timer: Which timer: "connect", "first_token", "idle" (between content events) or "attempt".
        elapsed: Seconds until the timer fired; None where the timer was not ours.
    """

    def __init__(self, *, timer: Timer, elapsed: float | None, sent: bool = True, model: str | None = None) -> None:
        after = "" if elapsed is None else f" after {elapsed:g} s"
        super().__init__(f"no answer in time: the {timer} timer fired{after}", model=model, sent=sent)
        self.timer: Timer = timer
        self.elapsed = elapsed


class InvalidResponse(ProviderError):
    """The service answered with something that cannot be read.

    Attributes:
        excerpt: The first characters of the answer, for a human; never parsed.
    """

    def __init__(
        self,
        message: str,
        *,
        excerpt: str = "",
        model: str | None = None,
        request_id: str | None = None,
        retryable: bool = True,
    ) -> None:
        super().__init__(message, model=model, request_id=request_id, retryable=retryable)
        self.excerpt = excerpt


class StreamInterrupted(ProviderError):
    """A stream broke after content had been handed over, so it is not repeated.

    Attributes:
        partial: What had arrived, as a `ChatResult` without a finish reason; None where it never came to content.
    """

    def __init__(self, message: str, *, partial: "ChatResult | None", model: str | None = None) -> None:
        super().__init__(message, model=model, retryable=False)
        self.partial = partial


class StatusError(ProviderError):
    """The service answered with status 4xx or 5xx.

    Attributes:
        status: The HTTP status.
        code: The service's machine-readable code, often None.
        param: The field the service complains about, often None.
        body: The parsed or raw body, shortened.
        retry_after: Seconds the service asked to wait, or None.
        in_answer: Whether it was told inside of an answer that had begun with status 200, so that it may have cost something.
    """

    in_answer: bool = False

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        body: object = None,
        retry_after: float | None = None,
        model: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, model=model, request_id=request_id, retryable=status in _RETRYABLE_STATUSES)
        self.status = status
        self.code = code
        self.param = param
        self.body = body
        self.retry_after = retry_after


class BadRequest(StatusError):
    """400 or 422: the request is wrong and stays wrong."""


class ContextLengthExceeded(BadRequest):
    """The prompt is longer than the model's context."""


class AuthenticationFailed(StatusError):
    """401: the key is missing or wrong."""


class InsufficientBalance(StatusError):
    """402: the account has no balance left or has reached its own limit."""


class PermissionDenied(StatusError):
    """403: the key may not use this model."""


class ModelNotFound(StatusError):
    """404: there is no such model or deployment."""


class FeatureNotSupported(StatusError):
    """405: this model does not support what the request needs, such as tools or JSON mode."""


class RequestTooLarge(StatusError):
    """413: the body is larger than the service takes."""


class RateLimited(StatusError):
    """429: too many requests in flight, or the model is busy."""


class ServerFailed(StatusError):
    """5xx: the service failed."""


class Overloaded(ServerFailed):
    """503 or 529: the service is short of capacity."""


_BY_STATUS: Mapping[int, type[StatusError]] = {
    400: BadRequest,
    401: AuthenticationFailed,
    402: InsufficientBalance,
    403: PermissionDenied,
    404: ModelNotFound,
    405: FeatureNotSupported,
    413: RequestTooLarge,
    422: BadRequest,
    429: RateLimited,
    503: Overloaded,
    529: Overloaded,
}


def status_error_type(status: int) -> type[StatusError]:
    """Return the class for an HTTP status.

    >>> status_error_type(429).__name__, status_error_type(502).__name__, status_error_type(418).__name__
    ('RateLimited', 'ServerFailed', 'StatusError')
    """
    return _BY_STATUS.get(status, ServerFailed if status >= 500 else StatusError)


class CallRejected(ResilientAIError):
    """One of our own policies ended the call.

    Attributes:
        sent: Whether a request was under way or had been sent, so that it may be billed; False unless an error says otherwise,
            as that of one batch of texts does where others were sent, and that of a later round of a tool loop.
    """

    sent: bool = False


class CircuitOpen(CallRejected):
    """The circuit breaker of this model is open.

    Attributes:
        model: The model that is left alone.
        retry_after: Seconds until the breaker lets a call through; infinite where it was isolated by hand.
    """

    def __init__(self, *, model: str, retry_after: float) -> None:
        isolated = retry_after == math.inf
        until = "until it is reset" if isolated else f"and lets a call through in {retry_after:.1f} s"
        super().__init__(f"the circuit of {model!r} is {'isolated' if isolated else 'open'} {until}")
        self.model = model
        self.retry_after = retry_after


class LimitReached(CallRejected):
    """A limit of ours has no permit left and its queue is full or too slow.

    Attributes:
        limit: The limit that was reached.
        retry_after: Seconds after which a permit is likely, or None where nothing is known.
        limiter: What kind of limit it is, of the "rate" or of the "concurrency"; None where nobody said.
    """

    def __init__(
        self,
        message: str,
        *,
        limit: float,
        retry_after: float | None = None,
        limiter: Literal["rate", "concurrency"] | None = None,
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after = retry_after
        self.limiter = limiter


class BudgetExceeded(CallRejected):
    """The call could spend more than a budget has left.

    Attributes:
        spent: What has been spent or reserved in the window, in US dollars.
        reserved: The part of `spent` that requests of this client, which are under way, have reserved.
        limit: What the budget allows in the window, in US dollars.
        left: What may still be spent in the window, in US dollars.
        budget: The name of the budget, with the values of its scope.
        retry_after: Seconds until the window ends; for a rolling one until so much of what is known to be spent has left it that
            the call fits, at the earliest; 1 where the call would fit if requests under way had cost nothing. None where waiting
            does not help.
        shown_as: The name of the budget in figures and traces, without values of tags that callers gave.
    """

    def __init__(
        self,
        message: str,
        *,
        spent: object,
        limit: object,
        reserved: object = None,
        left: object = None,
        budget: str = "",
        retry_after: float | None = None,
        shown_as: str = "",
    ) -> None:
        super().__init__(message)
        self.spent = spent
        self.reserved = reserved
        self.limit = limit
        self.left = left
        self.budget = budget
        self.retry_after = retry_after
        self.shown_as = shown_as


class BudgetUnavailable(CallRejected):
    """The book of a hard budget could not be asked, or not in time, so nobody knows whether it has anything left.

    It says nothing about spending: the fault is the database's, and passes with it. `Budgets(unreachable="allow")` lets calls go
    meanwhile.

    Attributes:
        budget: The name of the budget, with the values of its scope.
        shown_as: The name of the budget in figures and traces, without values of tags that callers gave.
    """

    def __init__(self, message: str, *, budget: str, shown_as: str = "") -> None:
        super().__init__(message)
        self.budget = budget
        self.shown_as = shown_as


class BookUnavailable(ResilientAIError):
    """A ledger, or another book of budgets, could not be asked, or not in time.

    It comes from questions such as `ai.costs.total()`. No call fails by it: a hard budget that cannot be counted refuses with
    `BudgetUnavailable`.
    """


class PriceUnknown(CallRejected):
    """No price of the model is known for what is asked of it, so a hard budget cannot count what it would cost.

    Attributes:
        model: The model without a price; one for calls of another kind it may have.
    """

    def __init__(self, message: str, *, model: str) -> None:
        super().__init__(message)
        self.model = model


class DeadlineExceeded(CallRejected):
    """The call's own deadline passed, wherever it was: in a queue, in a wait, in an attempt or in the body.

    Attributes:
        timeout: The seconds the call was given.
        elapsed: The seconds it had taken when it was stopped.
        sent: Whether a request was under way or had been sent, so that it may be billed.
        partial: What a stream had delivered, or None.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        timeout: float,
        elapsed: float,
        sent: bool,
        partial: "ChatResult | None" = None,
    ) -> None:
        super().__init__(message or f"the call was given {timeout:g} s and had taken {elapsed:.2f} s")
        self.timeout = timeout
        self.elapsed = elapsed
        self.sent = sent
        self.partial = partial


class ModelUnfit(CallRejected):
    """A model lacks what the call needs, or a function that chooses wanted none, so it was not asked.

    Attributes:
        model: The model that was passed over.
        lacks: What it lacks, such as "tools"; None where it was left out.
        left_out_by: The name of the function that left it out, or None.
    """

    def __init__(self, *, model: str, lacks: str | None = None, left_out_by: str | None = None) -> None:
        why = f"it lacks what the call needs: {lacks}" if left_out_by is None else f"{left_out_by} left it out"
        super().__init__(f"{model!r} was not asked, because {why}")
        self.model = model
        self.lacks = lacks
        self.left_out_by = left_out_by


class NoModelAvailable(CallRejected):
    """Every model that could have served the call refused or failed; the message says why, and `refused` has all of it.

    Attributes:
        refused: The error of each model, in the order they were tried.
        retry_after: Seconds after which the first of them may serve again, None where none of their errors says.
    """

    def __init__(self, refused: Mapping[str, Exception]) -> None:
        told = [f"{model}: {_reason(error)}" for model, error in list(refused.items())[:_MOST_REASONS]]
        if len(refused) > len(told):
            told.append(f"and {len(refused) - len(told)} more")
        super().__init__(f"no model could serve the call ({'; '.join(told)})")
        self.refused = refused
        self.sent = any(bool(getattr(error, "sent", False)) for error in refused.values())
        hints = [getattr(error, "retry_after", None) for error in refused.values()]
        # A circuit that was isolated by hand is open for ever, which is no time to come back.
        finite = [hint for hint in hints if hint is not None and hint < math.inf]
        self.retry_after: float | None = min(finite, default=None)


def _reason(error: Exception) -> str:
    """Return why a model could not serve, in a line."""
    if isinstance(error, ModelUnfit):
        return f"lacks {error.lacks}" if error.left_out_by is None else f"left out by {error.left_out_by}"
    text = " ".join(str(error).split())
    if len(text) > _LONGEST_REASON:
        text = f"{text[: _LONGEST_REASON - 1].rstrip()}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class ClientClosed(CallRejected):
    """The client or pipeline was closed; make a new one."""

    def __init__(self) -> None:
        super().__init__("the client is closed; make a new one")


class OutputInvalid(ResilientAIError):
    """The answer does not fit the schema or the tool that was asked for.

    Attributes:
        raw: The text of the answer as it came.
    """

    def __init__(self, message: str, *, raw: str) -> None:
        super().__init__(message)
        self.raw = raw


class ToolLoopUnfinished(OutputInvalid):
    """The model still asks for tools after the last round it was given.

    Attributes:
        messages: The whole conversation so far, to go on from.
    """

    def __init__(self, message: str, *, raw: str, messages: "tuple[AnyMessage, ...]") -> None:
        super().__init__(message, raw=raw)
        self.messages = messages


class StreamMisused(ResilientAIError):
    """A stream was consumed twice, or read after it was closed."""


class InvalidInput(ResilientAIError, ValueError):
    """The caller's data is wrong; found before anything is sent.

    Attributes:
        field: The field, with its path.
        value: The value that was given.
    """

    def __init__(self, message: str, *, field: str, value: object = None) -> None:
        super().__init__(message)
        self.field = field
        self.value = value


class ConfigurationError(ResilientAIError):
    """The client or its stack is set up wrongly; found when it is built, never at the first call."""
