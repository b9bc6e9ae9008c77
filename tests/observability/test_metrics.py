"""What a service must be able to rely on in its metrics."""

import asyncio
import contextlib
import gc
import subprocess
import sys
import weakref
from decimal import Decimal

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from resilient_ai.core.errors import ProviderError, RateLimited, ResilientAIError, ServerFailed
from resilient_ai.core.operations import Chat, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost, Usage
from resilient_ai.deepinfra.catalogue import PriceTable
from resilient_ai.middleware import (
    Budget,
    Budgets,
    Cache,
    CircuitBreaker,
    Coalesce,
    ConcurrencyLimit,
    CostAccounting,
    Deadline,
    Hedge,
    Metrics,
    Retry,
    Routing,
)
from resilient_ai.stores import MemoryBudgets, MemoryStore, SQLiteLedger
from resilient_ai.testing import FakeClock, ScriptedProvider, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
PAID = Cost(amount=Decimal("0.1"), source="provider")

# Everything that any figure may be told apart by: all of it bounded, none of it about a person or a text.
SERVER = {"server.address", "server.port"}
CALLED = {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"}
ALLOWED = {
    "gen_ai.client.operation.duration": CALLED | SERVER | {"gen_ai.response.model", "error.type"},
    "gen_ai.client.operation.time_to_first_chunk": CALLED | SERVER | {"gen_ai.response.model"},
    "gen_ai.client.token.usage": CALLED | {"gen_ai.response.model", "gen_ai.token.type"},
    "gen_ai.client.inference.duration": CALLED | SERVER | {"gen_ai.response.model", "error.type"},
    "gen_ai.client.inference.time_to_first_chunk": CALLED | SERVER | {"gen_ai.response.model"},
    "gen_ai.client.inference.usage.input_tokens": CALLED | {"gen_ai.response.model", "gen_ai.token.modality"},
    "gen_ai.client.inference.usage.output_tokens": CALLED | {"gen_ai.response.model", "gen_ai.token.modality"},
    "gen_ai.client.inference.usage.cache_read.input_tokens": CALLED
    | {"gen_ai.response.model", "gen_ai.token.modality"},
    "gen_ai.client.inference.usage.cache_write.input_tokens": CALLED
    | {"gen_ai.response.model", "gen_ai.token.modality"},
    "gen_ai.client.inference.usage.reasoning.output_tokens": CALLED
    | {"gen_ai.response.model", "gen_ai.token.modality"},
    "gen_ai.client.inference.operation.input_tokens": CALLED | {"gen_ai.response.model", "error.type"},
    "gen_ai.client.inference.operation.output_tokens": CALLED | {"gen_ai.response.model", "error.type"},
    "gen_ai.client.embeddings.duration": CALLED | SERVER | {"gen_ai.response.model", "error.type"},
    "gen_ai.client.embeddings.operation.input_tokens": CALLED | {"gen_ai.response.model", "error.type"},
    "resilient_ai.request.duration": CALLED | {"resilient_ai.outcome", "resilient_ai.cache.outcome", "error.type"},
    "resilient_ai.request.active": CALLED,
    "resilient_ai.request.attempts": {"gen_ai.operation.name", "gen_ai.request.model", "resilient_ai.outcome"},
    "resilient_ai.attempt.duration": {
        "gen_ai.provider.name",
        "resilient_ai.attempt.model",
        "resilient_ai.attempt.kind",
        "resilient_ai.attempt.outcome",
        "error.type",
    },
    "resilient_ai.retries": {"resilient_ai.attempt.model", "error.type", "resilient_ai.retry.delay_source"},
    "resilient_ai.retry.delay": {"resilient_ai.attempt.model"},
    "resilient_ai.hedges": {"resilient_ai.attempt.model", "resilient_ai.attempt.outcome"},
    "resilient_ai.fallbacks": {"resilient_ai.fallback.from", "resilient_ai.fallback.to", "error.type"},
    "resilient_ai.rejections": {"resilient_ai.rejection.reason"},
    "resilient_ai.circuit_breaker.state": {"resilient_ai.circuit_breaker.name", "resilient_ai.circuit_breaker.state"},
    "resilient_ai.circuit_breaker.transitions": {
        "resilient_ai.circuit_breaker.name",
        "resilient_ai.circuit_breaker.from",
        "resilient_ai.circuit_breaker.to",
    },
    "resilient_ai.cache.requests": {"gen_ai.operation.name", "resilient_ai.cache.outcome"},
    "resilient_ai.cache.saved_cost": {"gen_ai.operation.name", "gen_ai.request.model"},
    "resilient_ai.cache.entry.count": {"resilient_ai.cache.layer"},
    "resilient_ai.cache.size": {"resilient_ai.cache.layer"},
    "resilient_ai.limiter.wait.duration": {"resilient_ai.limiter.name", "resilient_ai.attempt.model"},
    "resilient_ai.limiter.queue.depth": {"resilient_ai.limiter.name", "resilient_ai.attempt.model"},
    "resilient_ai.limiter.limit": {"resilient_ai.limiter.name", "resilient_ai.attempt.model"},
    "resilient_ai.budget.utilization": {"resilient_ai.budget.name"},
    "resilient_ai.price.drift": {"resilient_ai.attempt.model"},
    "resilient_ai.cost": CALLED | {"gen_ai.response.model", "resilient_ai.cost.disposition"},
    "resilient_ai.telemetry.errors": {"resilient_ai.telemetry.component"},
}


class Measured:
    """A pipeline with metrics, and what was collected."""

    def __init__(self, *script, stack=(), **options):
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.scripted = ScriptedProvider(*script)
        self.pipeline = Pipeline(self.scripted, [Metrics(self.meters, **options), *stack], clock=FakeClock())
        self.send = self.pipeline.send

    def collect(self):
        return collected(self.reader)


def collected(reader):
    """Return the points of each metric by its name."""
    data = reader.get_metrics_data()
    scopes = [] if data is None else [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}


def states_of(metrics):
    """Return the state of each breaker that is 1."""
    return {
        (point.attributes["resilient_ai.circuit_breaker.name"], point.attributes["resilient_ai.circuit_breaker.state"])
        for point in metrics["resilient_ai.circuit_breaker.state"]
        if point.value == 1
    }


async def test_a_retry_that_succeeds_is_no_error_of_the_call():
    """429, then 200: two attempts, the first with its error; the call has none."""
    measured = Measured(RateLimited("x", status=429), stack=[Retry()])
    await measured.send(CHAT)
    metrics = measured.collect()
    attempts = metrics["resilient_ai.attempt.duration"]
    assert [(point.count, point.attributes.get("error.type")) for point in attempts] == [(1, "429"), (1, None)]
    for name in ("gen_ai.client.operation.duration", "resilient_ai.request.duration"):
        (point,) = metrics[name]
        assert point.count == 1
        assert "error.type" not in point.attributes
    (point,) = metrics["resilient_ai.request.attempts"]
    assert point.sum == 2


async def test_the_cost_of_a_hedge_that_lost_is_wasted():
    """Two answers for one call are both paid: one is delivered, the other wasted; together they are what the ledger has."""

    async def slow(call):
        await asyncio.sleep(1.0 if call.hedge else 2.0)
        return chat_result(cost=PAID)

    ledger = SQLiteLedger(":memory:")
    hedge = Hedge(samples=1, extra=1.0, delay_min=1.0)
    measured = Measured(chat_result(cost=PAID), slow, slow, stack=[Retry(hedge=hedge), CostAccounting(ledger)])
    for _ in range(2):
        await measured.send(CHAT)
    await ledger.flush()
    total = await ledger.total()
    metrics = measured.collect()
    costs = {point.attributes["resilient_ai.cost.disposition"]: point.value for point in metrics["resilient_ai.cost"]}
    assert (
        costs
        == {"delivered": float(total.cost - total.wasted), "wasted": float(total.wasted)}
        == {
            "delivered": 0.2,
            "wasted": 0.1,
        }
    )
    (hedges,) = metrics["resilient_ai.hedges"]
    assert (hedges.attributes["resilient_ai.attempt.outcome"], hedges.value) == ("lost", 1)
    ends = sorted(
        (point.attributes["resilient_ai.attempt.kind"], point.attributes["resilient_ai.attempt.outcome"], point.count)
        for point in metrics["resilient_ai.attempt.duration"]
    )
    assert ends == [("hedge", "lost", 1), ("initial", "success", 1), ("initial", "won", 1)]
    await measured.pipeline.aclose()


async def test_a_cache_hit_is_no_call_to_a_model():
    """An answer from the cache is counted as such, and has no point of the conventions; nor has one that was shared."""
    measured = Measured(stack=[Coalesce(always=True), Cache(MemoryStore(max_bytes=100_000)), CostAccounting()])
    question = Chat(model="m", messages="hi", temperature=0)
    await measured.send(question)
    before = measured.collect()
    await measured.send(question)
    after = measured.collect()
    for name in before:
        if name.startswith("gen_ai.client."):
            assert [point.count for point in after[name]] == [point.count for point in before[name]], name
    hits = [
        point
        for point in after["resilient_ai.cache.requests"]
        if point.attributes["resilient_ai.cache.outcome"] == "hit"
    ]
    assert [point.value for point in hits] == [1]
    outcomes = {point.attributes["resilient_ai.cache.outcome"] for point in after["resilient_ai.request.duration"]}
    assert outcomes == {"miss", "hit"}
    assert [point.count for point in after["resilient_ai.request.attempts"]] == [1]


OFF = """
import asyncio, sys
{before}
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import Metrics
from resilient_ai.testing import ScriptedProvider
{after}
plain, counted = Pipeline(ScriptedProvider()), Pipeline(ScriptedProvider(), [Metrics({options})])
chat = Chat(model="m", messages="hi")

async def work(pipeline):
    await pipeline.send(chat)  # what the first call alone has to do
    seen = []
    sys.setprofile(lambda frame, event, given: seen.append(event))
    await pipeline.send(chat)
    sys.setprofile(None)
    return seen.count("call") + seen.count("c_call")

async def main():
    print(await work(counted) - await work(plain))

asyncio.run(main())
"""
NO_SDK = """
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry.sdk"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import opentelemetry.metrics
"""
DISABLED = """
import os
os.environ["OTEL_SDK_DISABLED"] = "true"
"""
SET_DISABLED = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
metrics.set_meter_provider(MeterProvider())
"""


@pytest.mark.parametrize(
    ("before", "after", "options"),
    [
        ("", "", ""),
        (NO_SDK, "", ""),
        (DISABLED, SET_DISABLED, ""),
        (DISABLED, SET_DISABLED, "metrics.get_meter_provider()"),
    ],
    ids=["nothing imported", "no SDK", "disabled", "disabled and given"],
)
def test_without_an_sdk_a_call_pays_almost_nothing(before, after, options):
    """Without OpenTelemetry, without an SDK, or with a disabled one, calls work and pay for a few calls of functions.

    How many microseconds these take `benchmarks/telemetry.py` measures.
    """
    program = OFF.format(before=before, after=after, options=options)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 15


LATE = """
import asyncio
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import ConcurrencyLimit, Metrics
from resilient_ai.testing import ScriptedProvider

async def main():
    pipeline = Pipeline(ScriptedProvider(), [Metrics(), ConcurrencyLimit()])
    await pipeline.send(Chat(model="m", messages="hi"))
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    await pipeline.send(Chat(model="m", messages="hi"))
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    await pipeline.send(Chat(model="m", messages="hi"))
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    print(scope.scope.name, scope.scope.schema_url)
    for metric in scope.metrics:
        if metric.name in {"gen_ai.client.operation.duration", "resilient_ai.limiter.limit"}:
            (point,) = metric.data.data_points
            print(metric.name, getattr(point, "count", None) or point.value)

asyncio.run(main())
"""


def test_a_provider_that_is_set_later_gets_figures():
    """A provider that is set after the import and after the client was made gets the figures from then on."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "resilient_ai https://opentelemetry.io/schemas/1.41.1",
        "gen_ai.client.operation.duration 1",
        "resilient_ai.limiter.limit 32",
    ]


async def test_a_breaker_is_in_one_state():
    """Of the states of a breaker one is 1 at every moment, and its way through them is counted."""
    fails = [ServerFailed("x", status=500)] * 3
    measured = Measured(*fails, stack=[CircuitBreaker(consecutive_failures=3, break_duration=1.0, ramp=0.0)])
    seen = []
    for pause in (0.0, 0.0, 0.0, 5.0):
        await measured.pipeline.clock.sleep(pause)
        with contextlib.suppress(ProviderError):
            await measured.send(CHAT)
        seen.append(states_of(measured.collect()))
    assert seen == [{("m", "closed")}, {("m", "closed")}, {("m", "open")}, {("m", "closed")}]
    transitions = [
        (
            point.attributes["resilient_ai.circuit_breaker.from"],
            point.attributes["resilient_ai.circuit_breaker.to"],
            point.value,
        )
        for point in measured.collect()["resilient_ai.circuit_breaker.transitions"]
    ]
    assert transitions == [("closed", "open", 1), ("open", "half_open", 1), ("half_open", "closed", 1)]


async def test_a_client_is_not_kept_alive():
    """A client that nobody holds any more goes, while the meter that reads it lives on; what it has spent stays in the sums."""
    measured = Measured(chat_result(cost=PAID), stack=[ConcurrencyLimit(), CostAccounting()])
    await measured.send(CHAT)
    assert "resilient_ai.limiter.limit" in measured.collect()
    gone = weakref.ref(measured.pipeline), weakref.ref(measured.pipeline.stack[0]._state)
    del measured.pipeline, measured.send, measured.scripted
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    metrics = measured.collect()
    assert "resilient_ai.limiter.limit" not in metrics
    assert [point.value for point in metrics["resilient_ai.cost"]] == [0.1]


class Failing(MeterProvider):
    """An SDK whose instruments fail at every figure."""

    def get_meter(self, *args, **kwargs):
        meter = super().get_meter(*args, **kwargs)
        for kind in ("create_histogram", "create_counter"):
            make = getattr(meter, kind)
            setattr(meter, kind, lambda *args, make=make, **kwargs: _failing(make(*args, **kwargs)))
        return meter


def _failing(instrument):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("secret")

    instrument.record = instrument.add = fail
    return instrument


async def test_a_fault_of_telemetry_is_counted_and_changes_nothing(caplog):
    """A provider that fails at every figure changes no result and no error of a call; its faults are counted, logged once each."""
    watching = Measured()
    faults = faults_of(watching)
    script = [RateLimited("x", status=429), chat_result("first")]
    pipeline = Pipeline(ScriptedProvider(*script), [Metrics(Failing()), Retry()], clock=FakeClock())
    assert (await pipeline.send(CHAT)).text == "first"
    assert (await (await pipeline.send(Stream(model="m", messages="hi"))).result()).text == "Hello."
    # Two attempts, a retry and the end of the chat; an attempt and the end of the stream.
    assert faults_of(watching) == faults + 6
    assert "secret" not in caplog.text
    assert all(caplog.text.count(line) <= 1 for line in ("could not record an attempt", "could not count an event"))


def faults_of(measured):
    points = measured.collect().get("resilient_ai.telemetry.errors", [])
    return sum(point.value for point in points if point.attributes["resilient_ai.telemetry.component"] == "metrics")


@pytest.mark.parametrize("conventions", ["1.41", "latest", "both"])
async def test_attributes_are_of_a_closed_list(conventions):
    """Whatever happens to calls of every kind, with tags and content of all sorts, no figure has an attribute off its list."""
    stack = [
        Deadline(total=60.0),
        Coalesce(),
        Cache(MemoryStore(max_bytes=1_000_000)),
        Routing(),
        Retry(attempts=2),
        CircuitBreaker(consecutive_failures=3, break_duration=1.0),
        ConcurrencyLimit(limit=1),
        Budgets(
            budgets=[Budget(limit=1, per="day", scope={"tenant": "*"})],
            book=MemoryBudgets(),
            prices=PriceTable(),
            unpriced=Decimal("0.01"),
        ),
        CostAccounting(),
    ]
    failure = ServerFailed("secret", status=500)
    usage = Usage(input_tokens=10, output_tokens=5, cached_tokens=2, cache_write_tokens=1, reasoning_tokens=3)
    measured = Measured(chat_result(cost=PAID, usage=usage), *[failure] * 5, 1.0, stack=stack, conventions=conventions)
    tags = {"tenant": "t", "user": "ada", "session": "s", "feature": "f"}
    cached = Chat(model="m", messages="hi", temperature=0)
    operations = [cached, cached, CHAT, Chat(model=["a", "b"], messages="hi"), Embed(model="e", texts=["a"])]
    for operation in [
        *operations,
        CHAT,
        CHAT,
        Image(model="i", prompt="p", seed=1),
        Image(model="i", prompt="p", seed=1),
    ]:
        with contextlib.suppress(ResilientAIError):  # how calls end is not what is looked at
            await measured.send(operation, tags=tags)
    stream = await measured.send(Stream(model="s", messages="hi"), tags=tags)
    await stream.aclose()
    metrics = measured.collect()
    found = {name: {key for point in points for key in point.attributes} for name, points in metrics.items()}
    assert {name: keys - ALLOWED[name] for name, keys in found.items() if keys - ALLOWED[name]} == {}
    assert len(found) >= 15
    parts = {"cache_read.input", "cache_write.input", "reasoning.output"}
    shown = {part for part in parts if f"gen_ai.client.inference.usage.{part}_tokens" in found}
    assert shown == (set() if conventions == "1.41" else parts)
    exported = repr(metrics)
    assert not [word for word in ("secret", "ada", "tenant=t", "Hello") if word in exported]
