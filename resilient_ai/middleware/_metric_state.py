"""What one `Metrics` has at hand while calls are under way: where it reports to, and what is known of its clients."""

import os
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from resilient_ai._version import __version__
from resilient_ai.core import semconv as names
from resilient_ai.core.events import CircuitHalfOpened, CircuitOpened, Event
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.health import Health
from resilient_ai.core.semconv import SCHEMA_URL, SCOPE
from resilient_ai.middleware._backends import reads_costs, remembered_backends
from resilient_ai.middleware._conventions import Conventions
from resilient_ai.middleware._metric_attributes import Attributes, AttributeSets
from resilient_ai.middleware._metric_gauges import Gauges, gauges_of
from resilient_ai.middleware._metric_instruments import Instruments
from resilient_ai.middleware._metric_money import Sum
from resilient_ai.middleware._metric_readings import Seen
from resilient_ai.middleware._telemetry_faults import passed_over

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span

_API = "opentelemetry.metrics"
# At so many sums all are looked up anew.
_MOST_SUMS = 4096
_VARIABLE = "OTEL_PYTHON_METER_PROVIDER"

AskHealth = Callable[[], Health | None]


class Recorder:
    """Where the figures of a call go.

    Attributes:
        instruments: What is recorded.
        sets: What figures are told apart by.
        state: Whose recorder it is.
        context_of: Makes the context of a span, so that an exemplar can name it while it is not current.
    """

    __slots__ = ("_costs", "_gauges", "context_of", "instruments", "sets", "state")

    def __init__(
        self, instruments: Instruments, gauges: Gauges, state: "MetricState", context_of: "Callable[[Span], Context]"
    ) -> None:
        self.instruments = instruments
        self.sets = state.sets
        self.state = state
        self.context_of = context_of
        self._gauges = gauges
        self._costs: dict[tuple[str, str, str, str | None, bool], Sum] = {}

    def cost_of(self, kind: str, asked: str, model: str, tenant: str | None, *, used: bool) -> Sum:
        """Return the sum that the cost of a request belongs to."""
        key = (kind, asked, model, tenant, used)
        found = self._costs.get(key)
        if found is None:
            if len(self._costs) >= _MOST_SUMS:
                self._costs.clear()
            found = self._costs[key] = self._gauges.costs.of(self.sets.of_cost(kind, asked, model, tenant, used=used))
        return found

    def saved(self, attributes: Attributes, amount: Decimal) -> None:
        """Add what a cache has saved."""
        self._gauges.saved.of(attributes).add(amount)


class MetricState:
    """What a `Metrics` knows beside its options.

    Args:
        provider: Where figures go, None for the global provider of the application.
        conventions: The text of the conventions.
        sets: What figures are told apart by.
        backends: Who reads them; None for whom the process is set up.
    """

    def __init__(
        self,
        provider: "MeterProvider | None",
        conventions: Conventions,
        sets: AttributeSets,
        backends: Sequence[str] | None,
    ) -> None:
        self.sets = sets
        self._backends = backends
        self._given = provider
        self._conventions: Conventions = conventions
        self._asks: list[AskHealth] = []
        # By kind and model: marks of the calls under way. A set loses and gains in one step, also where the garbage collector
        # ends a stream in the middle of something else.
        self._active: dict[tuple[str, str], set[int]] = {}
        self._by_name: dict[tuple[str, str], set[int]] = {}
        self._half_open: set[tuple[str, str]] = set()
        self._process = os.getpid()
        self._by_variable = _VARIABLE in os.environ
        self._found: object = None
        self._recorder: Recorder | None = None

    def recorder(self) -> Recorder | None:
        """Return where figures go, None where nobody takes any."""
        provider = self._given
        if provider is None:
            # The API costs tens of milliseconds to import. Without it no provider can be set, except by the variable.
            api = sys.modules.get(_API)
            if api is None and not self._by_variable:
                return None
            provider = _global_provider(api, by_variable=self._by_variable)
        if provider is not self._found:
            self._recorder, self._found = self._load(provider), provider
        return self._recorder

    def watch(self, health: AskHealth) -> None:
        """Read what a client knows on every collection."""
        self._asks.append(health)
        self.recorder()

    def marks_of(self, kind: str, model: str) -> set[int]:
        """Return the marks of the calls that ask the same of the same model."""
        key = (kind, model)
        found = self._by_name.get(key)
        if found is None:
            if len(self._by_name) >= _MOST_SUMS:
                self._by_name.clear()
            found = self._by_name[key] = self._active.setdefault((kind, self.sets.models.of(model)), set())
        return found

    def transition(self, event: Event, kind: str) -> Attributes:
        """Return what a change of the state of a circuit is told apart by; only from what state it opens must be remembered."""
        model = self.sets.models.of(event.model)
        circuit = (kind, model)
        before, after = "half_open", "closed"
        if isinstance(event, CircuitHalfOpened):
            before, after = "open", "half_open"
            self._half_open.add(circuit)
        elif isinstance(event, CircuitOpened):
            before, after = "half_open" if circuit in self._half_open else "closed", "open"
        if after != "half_open":
            self._half_open.discard(circuit)
        return {names.CIRCUIT_NAME: model, names.CIRCUIT_FROM: before, names.CIRCUIT_TO: after}

    def look(self) -> Sequence[Seen]:
        """Return what is known now, for each client."""
        if self._process != os.getpid():  # what a forked child inherits are calls of its parent
            self._process = os.getpid()
            for marks in list(self._active.values()):
                marks.clear()
        counts = [(len(marks), self.sets.of_active(*key)) for key, marks in list(self._active.items())]
        seen = [Seen(self.sets, Health(), counts)]
        for ask in list(self._asks):
            try:
                health = ask()
            except FAULTS as fault:  # the other clients are read all the same
                passed_over("metrics", "ask a client for its health", fault)
                continue
            if health is None:
                self._asks.remove(ask)
            else:
                seen.append(Seen(self.sets, health, ()))
        return seen

    def _load(self, provider: Any) -> Recorder | None:
        if provider is None or _does_nothing(provider):
            return None
        try:
            # Whoever has a provider has imported the API.
            from opentelemetry import trace  # noqa: PLC0415
            from opentelemetry.context import Context  # noqa: PLC0415

            meter = provider.get_meter(SCOPE, __version__, schema_url=SCHEMA_URL)
            if _does_nothing(meter):
                return None
            gauges = gauges_of(provider, meter)
            gauges.watch(self)
            # An empty one would be taken for none.
            apart = Context({SCOPE: "apart from all spans"})
            backends = remembered_backends() if self._backends is None else self._backends
            instruments = Instruments(meter, self._conventions, apart, costs=reads_costs(backends))
            return Recorder(instruments, gauges, self, trace.set_span_in_context)
        except FAULTS as fault:  # telemetry never fails a call
            passed_over("metrics", "make its instruments", fault)
            return None


def _global_provider(api: Any, *, by_variable: bool) -> Any:
    # Where it is kept. The function that returns it looks into the environment first, which costs more than all the rest of a
    # call that nobody counts; what the environment says is known here.
    kept = sys.modules.get(f"{_API}._internal", api)
    if not by_variable and getattr(kept, "_METER_PROVIDER", kept) is None:
        return None
    try:
        if api is None:
            from opentelemetry import metrics as api  # noqa: PLC0415 - only where the environment names a provider
        return api.get_meter_provider()
    except FAULTS as fault:  # telemetry never fails a call
        passed_over("metrics", "find the meter provider", fault)
        return None


def _does_nothing(part: object) -> bool:
    """Whether it is a stand-in: those of the API itself do nothing."""
    return type(part).__module__.startswith(_API)
