"""The instruments that are recorded, by the texts of the conventions that were chosen."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from resilient_ai.core import semconv as names
from resilient_ai.core.results import Usage
from resilient_ai.middleware._conventions import Conventions
from resilient_ai.middleware._metric_attributes import CallAttributes

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram, Meter


class ClientMetrics(Protocol):
    """What the conventions want to know of a call that the service was asked for."""

    def record(
        self,
        of: CallAttributes,
        elapsed: float,
        first_chunk: float | None,
        usage: Usage | None,
        context: "Context | None",
    ) -> None:
        """Record a call that is over; what is not known is not recorded."""
        ...


class Released:
    """The metrics of the conventions 1.41.1.

    Args:
        meter: Where the instruments are made.
        apart: A context without a span, for figures that need no exemplar: the durations have some.
    """

    __slots__ = ("_apart", "_duration", "_first_chunk", "_tokens")

    def __init__(self, meter: "Meter", apart: "Context") -> None:
        self._apart = apart
        self._duration = _seconds(meter, names.CLIENT_DURATION, "Duration of a call to a model")
        self._first_chunk = _seconds(meter, names.CLIENT_FIRST_CHUNK, "Time to the first chunk of a stream")
        self._tokens = _tokens(meter, names.CLIENT_TOKENS, "Tokens that a call used")

    def record(
        self,
        of: CallAttributes,
        elapsed: float,
        first_chunk: float | None,
        usage: Usage | None,
        context: "Context | None",
    ) -> None:
        """Record a call that is over."""
        self._duration.record(elapsed, of.client, context)
        if usage is not None:
            if usage.input_tokens is not None:
                self._tokens.record(usage.input_tokens, of.input, self._apart)
            if usage.output_tokens is not None:
                self._tokens.record(usage.output_tokens, of.output, self._apart)
        if first_chunk is not None:
            self._first_chunk.record(first_chunk, of.faultless, context)


class Newest:
    """The metrics of the newest text, which was not released yet; the arguments are those of `Released`."""

    __slots__ = ("_apart", "_counters", "_duration", "_embedded", "_embeddings", "_first_chunk", "_sizes")

    def __init__(self, meter: "Meter", apart: "Context") -> None:
        self._apart = apart
        self._duration = _seconds(meter, names.INFERENCE_DURATION, "Duration of a call to a model")
        self._first_chunk = _seconds(meter, names.INFERENCE_FIRST_CHUNK, "Time to the first chunk of a stream")
        self._embeddings = _seconds(meter, names.EMBEDDINGS_DURATION, "Duration of a call for embeddings")
        self._embedded = _tokens(meter, names.EMBEDDINGS_INPUT_SIZES, "Tokens of a call for embeddings")
        self._sizes = (
            _tokens(meter, names.INFERENCE_INPUT_SIZES, "Tokens of a prompt"),
            _tokens(meter, names.INFERENCE_OUTPUT_SIZES, "Tokens of an answer"),
        )
        self._counters = {
            name: meter.create_counter(name, unit="{token}", description=description)
            for name, description in (
                (names.INFERENCE_INPUT, "Tokens of prompts"),
                (names.INFERENCE_OUTPUT, "Tokens of answers"),
                (names.INFERENCE_CACHE_READ, "Tokens of prompts that the service had in its cache"),
                (names.INFERENCE_CACHE_WRITE, "Tokens of prompts that the service put into its cache"),
                (names.INFERENCE_REASONING, "Tokens of answers that were thought and not said"),
            )
        }

    def record(
        self,
        of: CallAttributes,
        elapsed: float,
        first_chunk: float | None,
        usage: Usage | None,
        context: "Context | None",
    ) -> None:
        """Record a call that is over. Here the conventions want tokens that are not known to be counted as none."""
        known = usage or _NOTHING
        if of.client[names.OPERATION_NAME] == "embeddings":
            self._embeddings.record(elapsed, of.client, context)
            if known.input_tokens is not None:
                self._embedded.record(known.input_tokens, of.sizes, self._apart)
            return
        self._duration.record(elapsed, of.client, context)
        for histogram, size in zip(self._sizes, (known.input_tokens, known.output_tokens), strict=True):
            if size is not None:
                histogram.record(size, of.sizes, self._apart)
        for name, tokens in _counts_of(known).items():
            self._counters[name].add(tokens, of.counted, self._apart)
        if first_chunk is not None:
            self._first_chunk.record(first_chunk, of.faultless, context)


class Instruments:
    """Everything that is recorded; what is read on collection is in `_metric_gauges`.

    Args:
        meter: Where the instruments are made.
        conventions: Which text of the conventions they follow.
        apart: A context without a span.
        costs: Whether there is a histogram of costs, which some backends look for.
    """

    __slots__ = (
        "apart",
        "attempt_duration",
        "cache_requests",
        "client",
        "fallbacks",
        "hedges",
        "limiter_wait",
        "openlit_cost",
        "rejections",
        "request_attempts",
        "request_duration",
        "retries",
        "retry_wait",
        "transitions",
    )

    def __init__(self, meter: "Meter", conventions: Conventions, apart: "Context", *, costs: bool = False) -> None:
        self.apart = apart
        released = () if conventions == "latest" else (Released(meter, apart),)
        newest = () if conventions == "1.41" else (Newest(meter, apart),)
        self.client: tuple[ClientMetrics, ...] = (*released, *newest)
        self.request_duration = _histogram(
            meter,
            names.REQUEST_DURATION,
            "s",
            names.SECONDS,
            "Duration of a call of the caller, with all that it waited for",
        )
        self.request_attempts = _histogram(
            meter, names.REQUEST_ATTEMPTS, "{attempt}", names.ATTEMPT_COUNTS, "Requests that were sent for a call"
        )
        self.attempt_duration = _histogram(
            meter, names.ATTEMPT_DURATION, "s", names.SECONDS, "Duration of one request to the service"
        )
        self.retry_wait = _histogram(
            meter, names.RETRY_WAIT, "s", names.SECONDS, "What a call waited for its retries in all"
        )
        self.limiter_wait = _histogram(
            meter, names.LIMITER_WAIT, "s", names.SECONDS, "What a request waited for its permit, where it had to"
        )
        self.retries = _counter(meter, names.RETRY_COUNT, "{retry}", "Retries")
        self.hedges = _counter(meter, names.HEDGE_COUNT, "{hedge}", "Second requests beside a slow one")
        self.fallbacks = _counter(meter, names.FALLBACK_COUNT, "{fallback}", "Models that could not serve a call")
        self.rejections = _counter(meter, names.REJECTION_COUNT, "{request}", "Calls that were refused unsent")
        self.transitions = _counter(
            meter, names.CIRCUIT_TRANSITIONS, "{transition}", "Changes of the state of circuit breakers"
        )
        self.cache_requests = _counter(meter, names.CACHE_REQUESTS, "{request}", "Calls that the cache was asked for")
        self.openlit_cost = (
            _histogram(meter, names.OPENLIT_COST, "USD", names.DOLLARS, "What a call cost") if costs else None
        )


_NOTHING = Usage()


def _counts_of(usage: Usage) -> Mapping[str, int]:
    counts = {names.INFERENCE_INPUT: usage.input_tokens or 0, names.INFERENCE_OUTPUT: usage.output_tokens or 0}
    parts = {
        names.INFERENCE_CACHE_READ: usage.cached_tokens,
        names.INFERENCE_CACHE_WRITE: usage.cache_write_tokens,
        names.INFERENCE_REASONING: usage.reasoning_tokens,
    }
    return counts | {name: tokens for name, tokens in parts.items() if tokens}


def _seconds(meter: "Meter", name: str, description: str) -> "Histogram":
    return _histogram(meter, name, "s", names.CLIENT_SECONDS, description)


def _tokens(meter: "Meter", name: str, description: str) -> "Histogram":
    return _histogram(meter, name, "{token}", names.CLIENT_TOKEN_COUNTS, description)


def _histogram(meter: "Meter", name: str, unit: str, bounds: Sequence[float], description: str) -> "Histogram":
    return meter.create_histogram(
        name, unit=unit, description=description, explicit_bucket_boundaries_advisory=list(bounds)
    )


def _counter(meter: "Meter", name: str, unit: str, description: str) -> "Counter":
    return meter.create_counter(name, unit=unit, description=description)
