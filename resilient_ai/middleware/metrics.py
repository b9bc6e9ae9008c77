"""Figures of every call, by the OpenTelemetry API."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_able, check_count, check_kind
from resilient_ai.core.collector import collecting_if
from resilient_ai.core.health import Health
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware._backends import checked_backends
from resilient_ai.middleware._conventions import Conventions, conventions_of
from resilient_ai.middleware._metric_attributes import AttributeSets
from resilient_ai.middleware._metric_figures import CallFigures
from resilient_ai.middleware._metric_state import MetricState
from resilient_ai.middleware._outcome import ended_by, outcome_of, stream_outcome

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

R = TypeVar("R")

_MOST_TENANTS = 1000


@dataclass(frozen=True)
class Metrics:
    """Report figures of every call to OpenTelemetry: durations, tokens, cost, attempts, retries, refusals, cache, and more.

    `gen_ai.client.*` are those of the conventions, for calls that the service was asked for; an answer from the cache is none.
    `resilient_ai.*` are ours. What breakers, limits, budgets and prices know is read when figures are collected, once for each
    collection. Every figure is told apart by a few attributes with a bounded number of values: never by user, session, key or
    text, and by tenant only where that is asked for.

    While no meter provider is set there is nobody to report to, and nothing is done. One that is set later gets figures from
    then on.

    Args:
        meter_provider: Where figures go; None means the application's global provider, also one that is set later.
        provider_name: The value of `gen_ai.provider.name`.
        conventions: "1.41" for the names that were released, "latest" for those of the newest text, "both" while you move from
            one to the other. None does what `OTEL_SEMCONV_STABILITY_OPT_IN` says, "latest" where it holds
            `gen_ai_latest_experimental`, and else "1.41".
        tenants: How many tenants, by the tag "tenant", are shown by name, 0 to 1000; further ones are "other". With 0 no figure
            tells of tenants.
        backends: Names of backends that read figures, as `Tracing` has them. For "grafana" and "openlit" there is a histogram of
            what calls cost, `gen_ai.usage.cost`, which boards for OpenLIT look for. None means those that
            `resilient_ai.observability.configure` has set up for the process; none without it.

    Raises:
        ValueError: If an option is out of its range.

    >>> Metrics(conventions="both")
    Metrics(meter_provider=None, provider_name='deepinfra', conventions='both', tenants=0, backends=None)
    """

    meter_provider: "MeterProvider | None" = None
    _: KW_ONLY
    provider_name: str = "deepinfra"
    conventions: Conventions | None = None
    tenants: int = 0
    backends: Collection[str] | None = None
    inner_half: "AttemptMetrics" = field(init=False, repr=False, compare=False)
    _state: MetricState = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the options, and make the part that stands next to the provider."""
        check_able("meter_provider", self.meter_provider, "get_meter")
        check_kind("provider_name", self.provider_name, str)
        check_count("tenants", self.tenants, 0, _MOST_TENANTS)
        backends = None if self.backends is None else checked_backends(self.backends)
        object.__setattr__(self, "backends", backends)
        sets = AttributeSets(self.provider_name, self.tenants)
        state = MetricState(self.meter_provider, conventions_of(self.conventions), sets, backends)
        object.__setattr__(self, "_state", state)
        object.__setattr__(self, "inner_half", AttemptMetrics(state))

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Count a call, and take its time."""
        recorder = self._state.recorder()
        if recorder is None:
            return await proceed(call)
        figures = CallFigures(recorder, call)
        try:
            result = await proceed(
                call.replace(
                    listeners=(*call.listeners, figures),
                    on_send_closed=(*call.on_send_closed, figures.send_closed),
                )
            )
        except BaseException as error:
            with collecting_if(error):
                figures.failed(error)
            raise
        if isinstance(result, StreamResult):
            figures.handed_over(result)
        else:
            figures.succeeded(result)
        return result

    def watch(self, health: Callable[[], Health | None]) -> None:
        """Read what a client knows whenever figures are collected.

        Args:
            health: Returns it, None once the client is gone.
        """
        self._state.watch(health)


class AttemptMetrics:
    """The inner half: takes the time of every request, next to the provider."""

    def __init__(self, state: MetricState) -> None:
        self._state = state

    def __call__(self, call: Call[R], proceed: Next[R], /) -> Awaitable[R]:
        """Take the time of one request, where its call is counted; else there is no coroutine of ours in its way."""
        for listener in call.listeners:
            if isinstance(listener, CallFigures) and listener.state is self._state:
                return self._timed(listener, call, proceed)
        return proceed(call)

    async def _timed(self, figures: CallFigures, call: Call[R], proceed: Next[R]) -> R:
        started = call.clock.monotonic()
        if call.hedge:
            figures.race_begun(call)
        try:
            result = await proceed(call)
        except BaseException as error:
            with collecting_if(error):
                error = ended_by(call, error)
                figures.attempted(call, started, outcome_of(error), error)
            raise
        if figures.races is not None:
            figures.answered(call)
        if isinstance(result, StreamResult):
            result.on_end(lambda end: figures.attempted(call, started, *stream_outcome(end)))
        else:
            figures.attempted(call, started, "success", None)
        return result

    @override
    def __repr__(self) -> str:
        return "AttemptMetrics()"
