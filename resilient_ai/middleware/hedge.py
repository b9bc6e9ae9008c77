"""A second request beside one that is slow: an option of `Retry`, which sends it."""

from dataclasses import dataclass

from resilient_ai.core.checks import check_count, check_seconds, check_share


@dataclass(frozen=True, kw_only=True)
class Hedge:
    """Send a second request when the first one is slower than most, and take whichever answers first.

    It cuts the slowest answers short and costs a request each time, so it is off unless `Retry(hedge=Hedge())` asks for it. Only
    chats, completions, embeddings and streams before their first token are hedged, one request beside one. The other one is
    cancelled. A hedge counts as one of the `attempts`, is paid from the same budget of extra sends as a retry, and beyond that
    hedges are at most `extra` of the calls. None is sent while the model has failed within the last 30 s.

    Args:
        quantile: Share of the answers that came sooner than the second request is sent, above 0 and below 1.
        samples: Answers of a model that must be known before it is hedged, at least 1; the last 200 are remembered.
        delay_min: Seconds before which no second request is sent, however quick the model is.
        extra: Share of extra requests, above 0 to 1.

    Raises:
        ValueError: If a number is out of its range.

    >>> Hedge(delay_min=0.2)
    Hedge(quantile=0.95, samples=50, delay_min=0.2, extra=0.05)
    """

    quantile: float = 0.95
    samples: int = 50
    delay_min: float = 1.0
    extra: float = 0.05

    def __post_init__(self) -> None:
        check_share("quantile", self.quantile, whole=False)
        check_count("samples", self.samples, 1, 200)
        check_seconds("delay_min", self.delay_min)
        check_share("extra", self.extra)
