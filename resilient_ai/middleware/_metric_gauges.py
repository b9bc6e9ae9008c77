"""The instruments that are read on collection: one of each for all clients that report to a meter provider."""

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from resilient_ai.core import semconv as names
from resilient_ai.core.faults import FAULTS
from resilient_ai.middleware import _metric_readings as readings
from resilient_ai.middleware._metric_money import Sums
from resilient_ai.middleware._metric_readings import Reading, Seen
from resilient_ai.middleware._telemetry_faults import passed_over

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

    Callback = Callable[[CallbackOptions], Iterable[Observation]]


class _Gauge(NamedTuple):
    unit: str
    read: Callable[[Sequence[Seen]], Iterable[Reading]]
    description: str


_GAUGES: Mapping[str, _Gauge] = {
    names.CIRCUIT_STATES: _Gauge(
        "1", readings.circuit_states, "1 for the state that a circuit breaker is in, 0 for the others"
    ),
    names.BUDGET_UTILIZATION: _Gauge("1", readings.utilizations, "What part of a budget is spent"),
    names.PRICE_DRIFT: _Gauge("1", readings.drifts, "What is billed, divided by what the price table says"),
    names.LIMITER_LIMIT: _Gauge("{request}", readings.limits, "Requests that may be under way at once"),
}
_LEVELS: Mapping[str, _Gauge] = {
    names.REQUEST_ACTIVE: _Gauge("{request}", readings.active, "Calls under way"),
    names.LIMITER_QUEUE: _Gauge("{request}", readings.queue_depths, "Requests that wait for a permit"),
    names.CACHE_ENTRIES: _Gauge("{entry}", readings.entries, "Entries of the cache"),
    names.CACHE_SIZE: _Gauge("By", readings.sizes, "Bytes that the cache takes"),
}


class Watched(Protocol):
    """A client, or what stands for it."""

    def look(self) -> Sequence[Seen]:
        """Return what is known now."""
        ...


class Gauges:
    """Reads all clients that are alive.

    A meter keeps its callbacks for ever, and takes an instrument of a name once. So there is one of each for all clients, which
    are held weakly. One collection reads them once: the first instrument that is asked looks, the others take what it saw.

    Args:
        meter: Where the instruments are made.

    Attributes:
        costs: What requests cost, of all clients, also of those that are gone.
        saved: What was not spent.
    """

    def __init__(self, meter: "Meter") -> None:
        self.costs = Sums()
        self.saved = Sums()
        self._watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._seen: Sequence[Seen] = ()
        self._unread: set[str] = set()
        for name, gauge in _GAUGES.items():
            meter.create_observable_gauge(name, [self._reader(name, gauge)], gauge.unit, gauge.description)
        for name, gauge in _LEVELS.items():
            meter.create_observable_up_down_counter(name, [self._reader(name, gauge)], gauge.unit, gauge.description)
        for name, unit, read, description in (
            (names.COST, "USD", self.costs.readings, "What requests cost"),
            (names.CACHE_SAVED, "USD", self.saved.readings, "What was not spent, as nothing had to be sent"),
            (names.TELEMETRY_ERRORS, "{error}", readings.faults, "What went wrong in telemetry itself"),
        ):
            meter.create_observable_counter(name, [_callback(name, read)], unit, description)

    def watch(self, client: Watched) -> None:
        """Read a client from now on, for as long as it lives."""
        with self._lock:
            self._watched.add(client)

    def _reader(self, name: str, gauge: _Gauge) -> "Callback":
        return _callback(name, lambda: gauge.read(self._look(name)))

    def _look(self, name: str) -> Sequence[Seen]:
        """Return what clients know. An instrument that is asked for the second time begins a new collection."""
        with self._lock:
            is_new = name not in self._unread
            clients = list(self._watched) if is_new else []
        if is_new:
            self._seen = [seen for client in clients for seen in client.look()]
            self._unread = {*_GAUGES, *_LEVELS}
        seen = self._seen
        self._unread.discard(name)
        if not self._unread:
            self._seen = ()  # nobody keeps what nobody will read
        return seen


def _callback(name: str, read: Callable[[], Iterable[Reading]]) -> "Callback":
    from opentelemetry.metrics import Observation  # noqa: PLC0415 - whoever has a meter has imported it

    def callback(_: "CallbackOptions") -> "Iterable[Observation]":
        try:
            return [Observation(value, attributes) for value, attributes in read()]
        except FAULTS as fault:  # a collection goes on without it
            passed_over("metrics", f"read {name}", fault)
            return []

    return callback


_lock = threading.Lock()
_known: "weakref.WeakKeyDictionary[MeterProvider, Gauges]" = weakref.WeakKeyDictionary()


def gauges_of(provider: "MeterProvider", meter: "Meter") -> Gauges:
    """Return the gauges of a provider, which are made once."""
    with _lock:
        gauges = _known.get(provider)
        if gauges is None:
            gauges = _known[provider] = Gauges(meter)
        return gauges
