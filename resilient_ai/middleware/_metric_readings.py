"""What can be read of clients at a moment: breakers, queues, limits, budgets, prices, caches, and calls under way."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from resilient_ai.core import semconv as names
from resilient_ai.core.health import CircuitState, Health
from resilient_ai.middleware._metric_attributes import Attributes, AttributeSets
from resilient_ai.middleware._telemetry_faults import fault_counts

Reading = tuple[float, Attributes]

# Of several circuits of one model, and of several clients, the one that lets the least through is shown.
_STATES: Sequence[CircuitState] = ("isolated", "open", "half_open", "closed")
_ACCOUNT = "api_key"
_TENANT = re.compile(r"(?:^| )tenant=(.*?)(?= \w+=|$)")


class Seen(NamedTuple):
    """What one client knows at a moment."""

    sets: AttributeSets
    health: Health
    active: Sequence[Reading]


def circuit_states(clients: Sequence[Seen]) -> Iterator[Reading]:
    """Return for each model, and the key, four readings, of which that of its state is 1."""
    worst: dict[str, int] = {}
    for client in clients:
        for breaker in client.health.breakers:
            name = client.sets.models.of(breaker.key[1]) if breaker.key[1] else _ACCOUNT
            # One whose break is over changes its state with the next call only, which may be long in coming.
            rests = breaker.state == "open" and not breaker.retry_after
            rank = _STATES.index("half_open" if rests else breaker.state)
            worst[name] = min(rank, worst.get(name, rank))
    for name, rank in worst.items():
        for place, state in enumerate(_STATES):
            yield int(place == rank), {names.CIRCUIT_NAME: name, names.CIRCUIT_STATE: state}


def queue_depths(clients: Sequence[Seen]) -> Iterable[Reading]:
    """Return how many requests wait for each limit."""
    waiting: defaultdict[tuple[str, str], int] = defaultdict(int)
    for client in clients:
        of, health = client.sets.models.of, client.health
        for limit in health.limits:
            waiting["concurrency", of(limit.key[1])] += limit.waiting
        # The buckets of a model, of requests and of tokens, have one line of those who wait.
        for (_, model), length in {rate.key: rate.waiting for rate in health.rates}.items():
            waiting["rate", of(model)] += length
    return [(length, _limiter(limiter, model)) for (limiter, model), length in waiting.items()]


def limits(clients: Sequence[Seen]) -> Iterable[Reading]:
    """Return how many requests to each model may be under way at once."""
    found: defaultdict[str, int] = defaultdict(int)
    for client in clients:
        for limit in client.health.limits:
            found[client.sets.models.of(limit.key[1])] += limit.limit
    return [(limit, _limiter("concurrency", model)) for model, limit in found.items()]


def utilizations(clients: Sequence[Seen]) -> Iterable[Reading]:
    """Return what part of each budget is spent; of all its scopes, or of those of one tenant, the highest."""
    highest: dict[tuple[str, str | None], float] = {}
    for client in clients:
        for budget in client.health.budgets:
            title = client.sets.budgets.of(budget.shown_as or budget.key[1])
            tenant = _tenant_of(client.sets, budget.key[2])
            part = float(budget.spent / budget.limit) if budget.limit else 1.0
            highest[title, tenant] = max(part, highest.get((title, tenant), part))
    return [
        (part, {names.BUDGET_NAME: title} if tenant is None else {names.BUDGET_NAME: title, names.TENANT: tenant})
        for (title, tenant), part in highest.items()
    ]


def drifts(clients: Sequence[Seen]) -> Iterable[Reading]:
    """Return what the service bills, divided by what the price table says; where clients differ, what is farthest from 1."""
    found: dict[str, float] = {}
    for client in clients:
        for price in client.health.prices:
            model = client.sets.models.of(price.key[1])
            found[model] = max(price.drift, found.get(model, price.drift), key=_distance)
    return [(drift, {names.ATTEMPT_MODEL: model}) for model, drift in found.items()]


def entries(clients: Sequence[Seen]) -> Iterable[Reading]:
    """Return how many entries the layers of caches hold, as far as they know without looking."""
    return _of_stores(clients, "entries")


def sizes(clients: Sequence[Seen]) -> Iterable[Reading]:
    """Return how many bytes the layers of caches take, as far as they know without looking."""
    return _of_stores(clients, "size")


def active(clients: Sequence[Seen]) -> Iterable[Reading]:
    """Return how many calls are under way."""
    found: dict[frozenset[tuple[str, str | int]], int] = {}
    for client in clients:
        for count, attributes in client.active:
            key = frozenset(attributes.items())
            found[key] = found.get(key, 0) + int(count)
    return [(count, dict(key)) for key, count in found.items()]


def faults() -> Iterable[Reading]:
    """Return how much telemetry has gone wrong in this process."""
    return [(count, {names.TELEMETRY_COMPONENT: component}) for component, count in fault_counts().items()]


def _of_stores(clients: Sequence[Seen], what: str) -> Iterable[Reading]:
    # Several clients may share a store, which is told by its name; those in memory are each its own.
    shared: dict[str, tuple[str, int]] = {}
    own: defaultdict[str, int] = defaultdict(int)
    for client in clients:
        for store in client.health.stores:
            value: int | None = getattr(store, what)
            if value is None:
                continue
            if store.layer == "memory":
                own[store.layer] += value
            else:
                shared[store.key[1]] = (store.layer, value)
    for layer, value in shared.values():
        own[layer] += value
    return [(value, {names.CACHE_LAYER: layer}) for layer, value in own.items()]


def _limiter(limiter: str, model: str) -> Attributes:
    return {names.LIMITER_NAME: limiter, names.ATTEMPT_MODEL: model}


def _tenant_of(sets: AttributeSets, scope: str) -> str | None:
    if sets.tenants is None:
        return None
    found = _TENANT.search(scope)
    return None if found is None else sets.tenants.of(found[1])


def _distance(drift: float) -> float:
    return abs(math.log(drift)) if drift > 0 else math.inf
