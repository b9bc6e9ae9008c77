"""Metrics: what is recorded of every call, by what it is told apart, and what is read of clients on collection."""

import asyncio
import gc
import itertools
import math
import os
import sys
from decimal import Decimal

import pytest
from opentelemetry.metrics import NoOpMeter, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import CircuitOpen, DeadlineExceeded, InvalidResponse, RateLimited, ServerFailed
from resilient_ai.core.events import (
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    HedgeSettled,
    KeyRefused,
    ModelSkipped,
    PermitGranted,
    RetryScheduled,
)
from resilient_ai.core.health import BreakerState, BudgetState, Health, LimitState, PriceState, RateState, StoreState
from resilient_ai.core.ledger import SendClosed, WhichSend
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost, Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import Cache, CostAccounting, Hedge, Metrics, Retry, Routing
from resilient_ai.middleware._metric_attributes import AttributeSets, Names
from resilient_ai.middleware._metric_gauges import gauges_of
from resilient_ai.middleware._telemetry_faults import fault_counts
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, answer_to, chat_result

pytestmark = pytest.mark.anyio

LLAMA = "meta/llama"
CHAT = Chat(model=LLAMA, messages="hi")
STREAM = Stream(model=LLAMA, messages="hi")
ASKED = {"gen_ai.operation.name": "chat", "gen_ai.request.model": LLAMA}
SHARED = ASKED | {"gen_ai.provider.name": "deepinfra"}
SERVER = {"server.address": "scripted.test", "server.port": 443}
ANSWERED = {"gen_ai.response.model": LLAMA}
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
OURS = (0.001, 0.0025, 0.005, *SECONDS, 163.84, 327.68)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


class Reported:
    """A meter provider and what was reported to it."""

    def __init__(self):
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def metrics(self):
        """Collect once."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}

    def points(self, name):
        metric = self.metrics().get(name)
        return [] if metric is None else list(metric.data.data_points)

    def values(self, name):
        """Return the attributes of each point with its sum or value."""
        return [(dict(point.attributes), amount(point)) for point in self.points(name)]

    def attributes(self, name):
        return [attributes for attributes, _ in self.values(name)]


def amount(point):
    return point.sum if hasattr(point, "sum") else point.value


class Measured(Reported):
    """A pipeline with metrics around everything."""

    def __init__(self, *script, stack=(), clock=None, **options):
        super().__init__()
        self.scripted = ScriptedProvider(*script)
        stack = [Metrics(self.provider, **options), *stack]
        self.pipeline = Pipeline(self.scripted, stack, clock=clock or FakeClock())
        self.send = self.pipeline.send


class Watching:
    """A client that knows what a test says it knows."""

    def __init__(self, *parts, reported=None, **options):
        self.reported = reported or Reported()
        self.health = Health.of(parts)
        self.asked = 0
        self.metrics = Metrics(self.reported.provider, **options)
        self.metrics.watch(self.ask)

    def ask(self):
        self.asked += 1
        return self.health

    def values(self, name):
        return self.reported.values(name)


def emitting(*events):
    """Return a step of a provider that tells of events and answers."""

    async def step(call):
        for make in events:
            if (told := make(call)) is not None:
                call.emit(told)
        return chat_result(model=LLAMA)

    return step


def event(kind, **fields):
    return lambda call: kind(call_id=call.id, model=call.model, **fields)


def close_send(call, **end):
    """Do what accounting does at the end of a send."""
    for told in call.on_send_closed:
        told(SendClosed(send_id="s", which=WhichSend(call.id, call.operation.kind, call.model), **end))


def streaming(*steps):
    return StreamResult(ScriptedSource(steps), model=LLAMA, first=[TextDelta("x")], clock=FakeClock())


async def test_a_chat_in_full():
    """A chat is one point of each of these, with these attributes and no others."""
    answer = chat_result(model="llama-2", cost=Cost(amount=Decimal("0.25"), source="provider"))
    measured = Measured(2.0, answer, stack=[CostAccounting()])
    await measured.send(CHAT)
    answered = {"gen_ai.response.model": "llama-2"}
    assert {
        name: measured.values(name)
        for name in measured.metrics()
        if not name.startswith("resilient_ai.telemetry")
    } == {
        "gen_ai.client.operation.duration": [(SHARED | SERVER | answered, 2.0)],
        "gen_ai.client.token.usage": [
            (SHARED | answered | {"gen_ai.token.type": "input"}, 10),
            (SHARED | answered | {"gen_ai.token.type": "output"}, 3),
        ],
        "resilient_ai.request.duration": [(SHARED | {"resilient_ai.outcome": "success"}, 2.0)],
        "resilient_ai.request.active": [(SHARED, 0)],
        "resilient_ai.request.attempts": [(ASKED | {"resilient_ai.outcome": "success"}, 1)],
        "resilient_ai.attempt.duration": [
            (
                {
                    "gen_ai.provider.name": "deepinfra",
                    "resilient_ai.attempt.model": LLAMA,
                    "resilient_ai.attempt.kind": "initial",
                    "resilient_ai.attempt.outcome": "success",
                },
                2.0,
            )
        ],
        "resilient_ai.cost": [(SHARED | ANSWERED | {"resilient_ai.cost.disposition": "delivered"}, 0.25)],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "name", "tokens"),
    [
        (Complete(model="m", prompt="hi"), "text_completion", {"input": 10, "output": 3}),
        (Embed(model="m", texts=["a", "b"]), "embeddings", {"input": 2}),
        (Image(model="m", prompt="p"), "generate_content", {}),
    ],
    ids=repr,
)
async def test_other_operations(operation, name, tokens):
    """Every operation has its name; tokens that nobody told of are not recorded."""
    measured = Measured()
    await measured.send(operation)
    assert [found["gen_ai.operation.name"] for found in measured.attributes("gen_ai.client.operation.duration")] == [
        name
    ]
    usage = measured.values("gen_ai.client.token.usage")
    assert {attributes["gen_ai.token.type"]: sum_ for attributes, sum_ in usage} == tokens


async def read_on(stream):
    await stream.result()


async def leave(stream):
    await stream.aclose()


async def meet_failure(stream):
    with pytest.raises(InvalidResponse):
        await stream.result()


async def drop(stream):
    stream.drop("abandoned")


async def be_cancelled(stream):
    stream.drop(error=asyncio.CancelledError())


@pytest.mark.parametrize(
    ("steps", "end", "outcome", "error"),
    [
        (
            [3.0, [TextDelta("y")], [Finished(("stop",), Usage(input_tokens=7, output_tokens=2))]],
            read_on,
            "success",
            None,
        ),
        ([3.0], leave, "abandoned", None),
        ([3.0], drop, "abandoned", None),
        ([3.0, InvalidResponse("broken")], meet_failure, "error", "stream_interrupted"),
        ([3.0], be_cancelled, "cancelled", "cancelled"),
    ],
    ids=["read", "left", "abandoned", "broken", "cancelled"],
)
async def test_a_stream_is_recorded_at_its_end(steps, end, outcome, error):
    """However a stream ends, it is recorded once, with the time to its first chunk; until then it is under way."""

    async def late(call):
        await asyncio.sleep(1.0)
        return streaming(*steps)

    measured = Measured(late)
    stream = await measured.send(STREAM)
    await asyncio.sleep(5.0)
    assert measured.values("resilient_ai.request.active") == [(SHARED, 1)]
    assert measured.attributes("resilient_ai.request.duration") == []
    try:
        await end(stream)
    except BaseException:
        if outcome != "error":
            raise
    ((attributes, seconds),) = measured.values("resilient_ai.request.duration")
    failed = {} if error is None else {"error.type": error}
    assert attributes == SHARED | {"resilient_ai.outcome": outcome} | failed
    assert seconds == (9.0 if outcome in {"success", "error"} else 6.0)
    first = SHARED | SERVER | ANSWERED
    assert measured.values("gen_ai.client.operation.time_to_first_chunk") == [(first, 1.0)]
    assert measured.values("gen_ai.client.operation.duration") == [(first | failed, seconds)]
    assert [
        found["resilient_ai.attempt.outcome"] for found in measured.attributes("resilient_ai.attempt.duration")
    ] == [outcome]
    assert measured.values("resilient_ai.request.active") == [(SHARED, 0)]
    tokens = {found["gen_ai.token.type"]: count for found, count in measured.values("gen_ai.client.token.usage")}
    assert tokens == ({"input": 7, "output": 2} if outcome == "success" else {})


async def test_a_stream_that_nobody_closes_is_recorded():
    """A stream that the garbage collector finds is recorded as any other."""
    measured = Measured(streaming(3.0))
    stream = await measured.send(STREAM)
    del stream
    gc.collect()
    await asyncio.sleep(0)
    assert [found["resilient_ai.outcome"] for found in measured.attributes("resilient_ai.request.duration")] == [
        "abandoned"
    ]


async def test_retries_show_by_cause_and_wait():
    """Each retry is counted by its cause; a call has one point of what it waited in all, and one of its requests."""
    measured = Measured(ServerFailed("x", status=500), RateLimited("x", status=429, retry_after=3.0), stack=[Retry()])
    await measured.send(CHAT)
    model = {"resilient_ai.attempt.model": LLAMA}
    assert measured.values("resilient_ai.retries") == [
        (model | {"error.type": "500", "resilient_ai.retry.delay_source": "backoff"}, 1),
        (model | {"error.type": "429", "resilient_ai.retry.delay_source": "retry_after"}, 1),
    ]
    ((attributes, waited),) = measured.values("resilient_ai.retry.delay")
    assert (attributes, waited) == (model, pytest.approx(3.8))
    assert measured.values("resilient_ai.request.attempts") == [(ASKED | {"resilient_ai.outcome": "success"}, 3)]
    kinds = [
        (found["resilient_ai.attempt.kind"], found["resilient_ai.attempt.outcome"], found.get("error.type"))
        for found in measured.attributes("resilient_ai.attempt.duration")
    ]
    assert kinds == [("initial", "error", "500"), ("retry", "error", "429"), ("retry", "success", None)]


async def test_a_circuit_that_is_waited_for_is_the_source_of_the_delay():
    """A wait that the server did not ask for comes from the circuit breaker."""
    wait = event(RetryScheduled, attempt=1, wait=1.0, error=CircuitOpen(model=LLAMA, retry_after=1.0), retry_after=1.0)
    measured = Measured(emitting(wait))
    await measured.send(CHAT)
    assert [found["resilient_ai.retry.delay_source"] for found in measured.attributes("resilient_ai.retries")] == [
        "circuit_breaker"
    ]


async def test_a_fallback_shows_both_models():
    """A model that could not serve is counted with the next; the attempt on that is a fallback, the call is asked of the first."""
    measured = Measured(ServerFailed("x", status=500), chat_result(model="b"), stack=[Routing()])
    await measured.send(Chat(model=["a", "b"], messages="hi"))
    assert measured.values("resilient_ai.fallbacks") == [
        ({"resilient_ai.fallback.from": "a", "resilient_ai.fallback.to": "b", "error.type": "500"}, 1)
    ]
    attempts = measured.attributes("resilient_ai.attempt.duration")
    assert [(found["resilient_ai.attempt.model"], found["resilient_ai.attempt.kind"]) for found in attempts] == [
        ("a", "initial"),
        ("b", "fallback"),
    ]
    (duration,) = measured.attributes("gen_ai.client.operation.duration")
    assert (duration["gen_ai.request.model"], duration["gen_ai.response.model"], "error.type" in duration) == (
        "a",
        "b",
        False,
    )


async def test_what_auto_stands_for_is_no_fallback():
    """A model that routing chose is asked first; only one that is asked because another one could not serve is a fallback."""
    measured = Measured(ServerFailed("x", status=500), stack=[Routing(models=["a", "b"]), Retry()])
    await measured.send(Chat(model="auto", messages="hi"))
    attempts = measured.attributes("resilient_ai.attempt.duration")
    assert [(found["resilient_ai.attempt.model"], found["resilient_ai.attempt.kind"]) for found in attempts] == [
        ("a", "initial"),
        ("a", "retry"),
    ]


@pytest.mark.parametrize("streamed", [False, True], ids=["chat", "stream"])
async def test_two_requests_for_one_answer_show_who_won(streamed):
    """The one that was cancelled has lost and did not fail."""

    async def slow(call):
        await asyncio.sleep(1.0 if call.hedge else 60.0)
        return answer_to(call.operation)

    hedge = Retry(hedge=Hedge(samples=1, extra=1.0, delay_min=1.0))
    measured = Measured(1.0, answer_to(STREAM if streamed else CHAT), slow, slow, stack=[hedge])
    for _ in range(2):
        result = await measured.send(STREAM if streamed else CHAT)
        if streamed:
            await result.result()
    names = ("resilient_ai.attempt.kind", "resilient_ai.attempt.outcome", "error.type")
    attempts = measured.attributes("resilient_ai.attempt.duration")
    found = [tuple(attributes.get(name) for name in names) for attributes in attempts]
    assert sorted(found) == [("hedge", "won", None), ("initial", "lost", None), ("initial", "success", None)]


@pytest.mark.parametrize(
    ("events", "name", "expected"),
    [
        (
            [event(HedgeSettled, outcome="won"), event(HedgeSettled, outcome="lost")],
            "resilient_ai.hedges",
            [
                ({"resilient_ai.attempt.model": LLAMA, "resilient_ai.attempt.outcome": "won"}, 1),
                ({"resilient_ai.attempt.model": LLAMA, "resilient_ai.attempt.outcome": "lost"}, 1),
            ],
        ),
        (
            [event(PermitGranted, waited=0.5, limit="rate"), event(PermitGranted, waited=2.0, limit="concurrency")],
            "resilient_ai.limiter.wait.duration",
            [
                ({"resilient_ai.limiter.name": "rate", "resilient_ai.attempt.model": LLAMA}, 0.5),
                ({"resilient_ai.limiter.name": "concurrency", "resilient_ai.attempt.model": LLAMA}, 2.0),
            ],
        ),
        (
            [
                event(CircuitOpened, retry_after=1.0),
                event(CircuitHalfOpened),
                event(CircuitOpened, retry_after=1.0),
                event(CircuitHalfOpened),
                event(CircuitClosed),
                event(CircuitOpened, retry_after=1.0),
            ],
            "resilient_ai.circuit_breaker.transitions",
            [
                ({"resilient_ai.circuit_breaker.name": LLAMA, "resilient_ai.circuit_breaker.from": before,
                  "resilient_ai.circuit_breaker.to": after}, count)
                for before, after, count in [
                    ("closed", "open", 2), ("open", "half_open", 2), ("half_open", "open", 1), ("half_open", "closed", 1),
                ]
            ],
        ),
        (
            [
                event(ModelSkipped, next_model="b", error=CircuitOpen(model="a", retry_after=1.0)),
                event(KeyRefused, status=401, retry_after=1.0),
            ],
            "resilient_ai.fallbacks",
            [
                ({"resilient_ai.fallback.from": LLAMA, "resilient_ai.fallback.to": "b", "error.type": "circuit_open"}, 1),
            ],
        ),
    ],
    ids=["hedges", "permits", "circuits", "fallbacks"],
)  # fmt: skip
async def test_events_are_counted(events, name, expected):
    """What happens on the way is counted as it is told."""
    measured = Measured(emitting(*events))
    await measured.send(CHAT)
    assert measured.values(name) == expected


async def test_a_hedge_is_an_attempt_of_its_own_kind():
    """A second request for one answer shows as a hedge."""

    async def second(call, proceed):
        return await proceed(call.replace(hedge=True))

    measured = Measured(stack=[second])
    await measured.send(CHAT)
    assert [found["resilient_ai.attempt.kind"] for found in measured.attributes("resilient_ai.attempt.duration")] == [
        "hedge"
    ]


async def test_a_refusal_is_no_call_to_a_model():
    """A call that was refused unsent is counted by its reason, and is no operation of a client."""

    async def refuse(call, proceed):
        raise CircuitOpen(model=call.model, retry_after=1.0)

    measured = Measured(stack=[refuse])
    with pytest.raises(CircuitOpen):
        await measured.send(CHAT)
    assert measured.values("resilient_ai.rejections") == [({"resilient_ai.rejection.reason": "circuit_open"}, 1)]
    refused = SHARED | {"resilient_ai.outcome": "refused", "error.type": "circuit_open"}
    assert measured.attributes("resilient_ai.request.duration") == [refused]
    assert not [name for name in measured.metrics() if name.startswith("gen_ai.")]
    assert measured.points("resilient_ai.request.attempts") == []


async def test_a_failure_and_a_cancellation_show_what_they_are():
    """A call that failed and one that was cancelled have their `error.type`; tokens are of answers alone."""
    measured = Measured(ServerFailed("x", status=503), 60.0)
    with pytest.raises(ServerFailed):
        await measured.send(CHAT)
    task = asyncio.create_task(measured.send(CHAT))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ends = [
        (found["resilient_ai.outcome"], found["error.type"])
        for found in measured.attributes("resilient_ai.request.duration")
    ]
    assert ends == [("error", "503"), ("cancelled", "cancelled")]
    assert [found["error.type"] for found in measured.attributes("gen_ai.client.operation.duration")] == [
        "503",
        "cancelled",
    ]
    assert measured.points("gen_ai.client.token.usage") == []


async def test_what_ends_a_request_next_to_the_provider_is_no_refusal_of_it():
    """An attempt that a deadline of ours cut off before its bytes left has failed; it was not refused."""
    measured = Measured(DeadlineExceeded(timeout=1.0, elapsed=1.0, sent=False))
    with pytest.raises(DeadlineExceeded):
        await measured.send(CHAT)
    (attempt,) = measured.attributes("resilient_ai.attempt.duration")
    assert (attempt["resilient_ai.attempt.outcome"], attempt["error.type"]) == ("error", "timeout")


async def test_the_cache_shows_what_it_did_and_saved():
    """Each call that the cache was asked for is counted by what it did, and what was saved is a sum; its store shows its size."""
    measured = Measured(
        chat_result(cost=Cost(amount=Decimal("0.1"), source="provider")),
        stack=[Cache(MemoryStore(max_bytes=100_000)), CostAccounting()],
    )
    question = Chat(model=LLAMA, messages="hi", temperature=0)
    for _ in range(4):
        await measured.send(question)
    operation = {"gen_ai.operation.name": "chat"}
    assert measured.values("resilient_ai.cache.requests") == [
        (operation | {"resilient_ai.cache.outcome": "miss"}, 1),
        (operation | {"resilient_ai.cache.outcome": "hit"}, 3),
    ]
    assert measured.values("resilient_ai.cache.saved_cost") == [(ASKED, 0.3)]
    assert measured.values("resilient_ai.cache.entry.count") == [({"resilient_ai.cache.layer": "memory"}, 1)]
    ((_, size),) = measured.values("resilient_ai.cache.size")
    assert 100 < size < 100_000


async def test_an_old_answer_in_place_of_a_failure_is_no_call_to_a_model():
    """Where the service failed and what was kept is served instead, the attempt shows, and no answer of a model."""
    measured = Measured(
        chat_result(), ServerFailed("x", status=500),
        stack=[Cache(MemoryStore(max_bytes=100_000, clock=FakeClock()), ttl=1.0, stale_if_error=1000.0, jitter=0.0)],
    )  # fmt: skip
    question = Chat(model=LLAMA, messages="hi", temperature=0)
    await measured.send(question)
    await asyncio.sleep(10.0)
    await measured.send(question)
    assert [found["resilient_ai.cache.outcome"] for found in measured.attributes("resilient_ai.request.duration")] == [
        "miss",
        "stale",
    ]
    assert [point.count for point in measured.points("gen_ai.client.operation.duration")] == [1]
    assert [point.count for point in measured.points("resilient_ai.request.attempts")] == [2]


async def test_a_cache_that_fails_shows_as_an_error():
    """A look that went wrong is no miss of the cache."""

    class Broken:
        async def get_many(self, keys):
            raise OSError

        async def set_many(self, entries, *, ttl=None):
            raise OSError

    measured = Measured(stack=[Cache(Broken())])
    await measured.send(Chat(model=LLAMA, messages="hi", temperature=0))
    assert [found["resilient_ai.cache.outcome"] for found in measured.attributes("resilient_ai.cache.requests")] == [
        "error"
    ]


async def test_the_newest_names():
    """With "latest" tokens are counters by modality and sizes by call, and embeddings have metrics of their own."""
    usage = Usage(input_tokens=9, output_tokens=5, cached_tokens=4, cache_write_tokens=2, reasoning_tokens=1)
    measured = Measured(chat_result(usage=usage, model=LLAMA), conventions="latest")
    await measured.send(CHAT)
    await (await measured.send(STREAM)).result()
    await measured.send(Embed(model="m", texts="a"))
    await measured.send(Image(model=LLAMA, prompt="p"))
    found = {name: measured.values(name) for name in measured.metrics() if name.startswith("gen_ai.")}
    assert sorted(found) == [
        "gen_ai.client.embeddings.duration",
        "gen_ai.client.embeddings.operation.input_tokens",
        "gen_ai.client.inference.duration",
        "gen_ai.client.inference.operation.input_tokens",
        "gen_ai.client.inference.operation.output_tokens",
        "gen_ai.client.inference.time_to_first_chunk",
        "gen_ai.client.inference.usage.cache_read.input_tokens",
        "gen_ai.client.inference.usage.cache_write.input_tokens",
        "gen_ai.client.inference.usage.input_tokens",
        "gen_ai.client.inference.usage.output_tokens",
        "gen_ai.client.inference.usage.reasoning.output_tokens",
    ]
    of = SHARED | ANSWERED
    unknown = of | {"gen_ai.token.modality": "unknown"}
    assert found["gen_ai.client.inference.usage.cache_read.input_tokens"] == [(unknown, 4)]
    assert found["gen_ai.client.inference.usage.cache_write.input_tokens"] == [(unknown, 2)]
    assert found["gen_ai.client.inference.usage.reasoning.output_tokens"] == [(unknown, 1)]
    assert found["gen_ai.client.inference.usage.output_tokens"] == [
        (unknown, 5 + 2),
        (unknown | {"gen_ai.operation.name": "generate_content"}, 0),
    ]
    assert found["gen_ai.client.inference.operation.input_tokens"] == [(of, 19)]
    assert found["gen_ai.client.embeddings.operation.input_tokens"][0][1] == 1


async def test_both_texts_at_once(monkeypatch):
    """While a service moves from one text to the other it may report both; the environment may ask for the newest."""
    both = Measured(conventions="both")
    await both.send(CHAT)
    await both.send(Embed(model="m", texts="a"))
    assert {"gen_ai.client.operation.duration", "gen_ai.client.inference.duration"} <= both.metrics().keys()
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup, gen_ai_latest_experimental")
    asked = Measured()
    await asked.send(CHAT)
    assert "gen_ai.client.operation.duration" not in asked.metrics()
    assert "gen_ai.client.inference.duration" in asked.metrics()


async def test_embeddings_without_tokens_under_the_newest_names():
    """Where the service told no tokens of embeddings, there is no point for them."""
    measured = Measured(ServerFailed("x", status=500), conventions="latest")
    with pytest.raises(ServerFailed):
        await measured.send(Embed(model="m", texts="a"))
    assert measured.points("gen_ai.client.embeddings.operation.input_tokens") == []
    (duration,) = measured.attributes("gen_ai.client.embeddings.duration")
    assert duration["error.type"] == "500"


KINDS = {
    "gen_ai.client.operation.duration": ("Histogram", "s", SECONDS),
    "gen_ai.client.operation.time_to_first_chunk": ("Histogram", "s", SECONDS),
    "gen_ai.client.token.usage": ("Histogram", "{token}", TOKENS),
    "resilient_ai.request.duration": ("Histogram", "s", OURS),
    "resilient_ai.request.active": ("Sum", "{request}", None),
    "resilient_ai.request.attempts": ("Histogram", "{attempt}", (1, 2, 3, 4, 5, 8)),
    "resilient_ai.attempt.duration": ("Histogram", "s", OURS),
    "resilient_ai.retries": ("Sum", "{retry}", None),
    "resilient_ai.retry.delay": ("Histogram", "s", OURS),
    "resilient_ai.hedges": ("Sum", "{hedge}", None),
    "resilient_ai.fallbacks": ("Sum", "{fallback}", None),
    "resilient_ai.circuit_breaker.transitions": ("Sum", "{transition}", None),
    "resilient_ai.circuit_breaker.state": ("Gauge", "1", None),
    "resilient_ai.limiter.wait.duration": ("Histogram", "s", OURS),
    "resilient_ai.limiter.queue.depth": ("Sum", "{request}", None),
    "resilient_ai.limiter.limit": ("Gauge", "{request}", None),
    "resilient_ai.budget.utilization": ("Gauge", "1", None),
    "resilient_ai.price.drift": ("Gauge", "1", None),
    "resilient_ai.cache.entry.count": ("Sum", "{entry}", None),
    "resilient_ai.cache.size": ("Sum", "By", None),
    "resilient_ai.cost": ("Sum", "USD", None),
}


async def test_units_and_buckets():
    """Every instrument has its unit, and histograms the buckets of their text."""
    every = emitting(
        event(HedgeSettled, outcome="won"),
        event(PermitGranted, waited=0.5, limit="rate"),
        event(CircuitOpened, retry_after=1.0),
        event(ModelSkipped, next_model="b", error=ServerFailed("x", status=500)),
        event(RetryScheduled, attempt=1, wait=1.0, error=ServerFailed("x", status=500), retry_after=None),
        lambda call: close_send(call, state="settled", cost=Decimal(1)),
    )
    measured = Measured(every)
    await measured.send(CHAT)
    await (await measured.send(STREAM)).result()
    watching = Watching(*EVERY_PART, reported=measured)
    metrics = measured.metrics()
    assert watching.asked == 1
    found = {
        name: (
            type(metric.data).__name__,
            metric.unit,
            tuple(metric.data.data_points[0].explicit_bounds) if type(metric.data).__name__ == "Histogram" else None,
        )
        for name, metric in metrics.items()
        if name != "resilient_ai.telemetry.errors"
    }
    assert found == KINDS
    assert all(metric.description for metric in metrics.values())


KEY = ("https://x", LLAMA)
EVERY_PART = (
    BreakerState(key=(*KEY, "chat"), state="closed", failures=0, throughput=0, retry_after=0.0),
    LimitState(key=KEY, limit=32, limit_max=200, in_use=3, waiting=2),
    RateState(key=KEY, unit="requests", limit=10, per=60.0, available=1.0, waiting=4),
    RateState(key=KEY, unit="tokens", limit=100, per=60.0, available=1.0, waiting=4),
    BudgetState(key=("budget", "daily", "tenant=a model=m"), spent=Decimal(3), limit=Decimal(10), hard=True),
    PriceState(key=KEY, drift=1.5, sends=3),
    StoreState(key=("cache", "disk /x"), layer="disk", entries=3, size=None),
    StoreState(key=("cache", "memory"), layer="memory", entries=1, size=100),
)


def test_the_worst_circuit_of_a_model_is_shown():
    """A model has one state, the worst of its circuits of all clients; the circuit of a key has a name of its own."""
    one = Watching(
        BreakerState(key=(*KEY, "chat"), state="closed", failures=0, throughput=0, retry_after=0.0),
        BreakerState(key=(*KEY, "embed"), state="half_open", failures=0, throughput=0, retry_after=0.0),
        BreakerState(key=("https://x", "", ""), state="open", failures=1, throughput=1, retry_after=9.0),
    )
    other = Watching(
        BreakerState(key=(*KEY, "chat"), state="open", failures=9, throughput=9, retry_after=1.0),
        BreakerState(key=("", "by-hand", ""), state="isolated", failures=0, throughput=0, retry_after=9.0),
        reported=one.reported,
    )
    states = {
        (found["resilient_ai.circuit_breaker.name"], found["resilient_ai.circuit_breaker.state"]): value
        for found, value in other.values("resilient_ai.circuit_breaker.state")
    }
    assert {key for key, value in states.items() if value == 1} == {
        (LLAMA, "open"),
        ("api_key", "open"),
        ("by-hand", "isolated"),
    }
    assert sum(states.values()) == 3
    assert len(states) == 12


@pytest.mark.parametrize("backends", [["openlit"], ["langfuse", "grafana"]], ids=" ".join)
async def test_boards_for_openlit_find_what_a_call_cost(backends):
    """In a histogram of the name that they look for: one point for a call, with all its requests, none for a cached answer."""
    answer = chat_result(model="llama-2", cost=Cost(amount=Decimal("0.25"), source="provider"))
    cached = Chat(model=LLAMA, messages="hi", temperature=0)
    stack = [Cache(MemoryStore()), CostAccounting()]
    measured = Measured(answer, chat_result(usage=None), stack=stack, backends=backends)
    for operation in (cached, cached, CHAT):  # of the last nobody knows the cost
        await measured.send(operation)
    answered = {"gen_ai.response.model": "llama-2"}
    assert measured.values("gen_ai.usage.cost") == [(SHARED | SERVER | answered, 0.25)]
    metric = measured.metrics()["gen_ai.usage.cost"]
    (point,) = metric.data.data_points
    assert (metric.unit, point.count, point.explicit_bounds[0], point.explicit_bounds[-1]) == ("USD", 1, 1e-06, 10.0)


@pytest.mark.parametrize("backends", [None, [], ["langfuse", "phoenix"]], ids=str)
async def test_others_are_not_told_of_cost_twice(backends):
    """The counter of ours is enough for them."""
    answer = chat_result(cost=Cost(amount=Decimal("0.25"), source="provider"))
    measured = Measured(answer, stack=[CostAccounting()], backends=backends)
    await measured.send(CHAT)
    assert "gen_ai.usage.cost" not in measured.metrics()
    assert [value for _, value in measured.values("resilient_ai.cost")] == [0.25]


def test_a_circuit_that_waits_for_its_probe_is_half_open():
    """Its break is over, and the next call may go; it says so itself only once that comes."""
    shown = Watching(
        BreakerState(key=(*KEY, "chat"), state="open", failures=9, throughput=9, retry_after=0.0),
        BreakerState(key=("https://x", "b", "chat"), state="open", failures=9, throughput=9, retry_after=0.001),
        BreakerState(key=("", "by-hand", ""), state="isolated", failures=0, throughput=0, retry_after=math.inf),
    )
    readings = shown.values("resilient_ai.circuit_breaker.state")
    assert sorted(tuple(found.values()) for found, value in readings if value) == sorted(
        [(LLAMA, "half_open"), ("b", "open"), ("by-hand", "isolated")]
    )


def test_queues_and_limits_of_several_clients_add_up():
    """Who waits for the requests and for the tokens of a rate waits once; two clients have twice the permits."""
    one = Watching(*EVERY_PART)
    two = Watching(*EVERY_PART, reported=one.reported)
    limited = {"resilient_ai.limiter.name": "concurrency", "resilient_ai.attempt.model": LLAMA}
    assert two.values("resilient_ai.limiter.queue.depth") == [
        (limited, 4),
        (limited | {"resilient_ai.limiter.name": "rate"}, 8),
    ]
    assert two.values("resilient_ai.limiter.limit") == [(limited, 64)]


def test_a_budget_shows_its_fullest_scope():
    """Without tenants the values of a scope are not shown: of all scopes of a budget the fullest is."""
    parts = [
        BudgetState(key=("budget", "daily", f"tenant={name}"), spent=Decimal(spent), limit=Decimal(limit), hard=True)
        for name, spent, limit in [("a", 3, 10), ("b", 8, 10), ("c", 1, 10)]
    ]
    assert Watching(*parts).values("resilient_ai.budget.utilization") == [({"resilient_ai.budget.name": "daily"}, 0.8)]
    everything = BudgetState(key=("budget", "none", ""), spent=Decimal(0), limit=Decimal(0), hard=True)
    assert Watching(everything).values("resilient_ai.budget.utilization") == [
        ({"resilient_ai.budget.name": "none"}, 1.0)
    ]


def test_budgets_of_one_limit_are_told_apart_by_their_scopes():
    """Two budgets of the same size are two series; of more than somebody looks at, the rest is one."""
    parts = [
        BudgetState(
            key=("budget", "1 USD per day", value), spent=Decimal(spent), limit=Decimal(1), hard=True, shown_as=name
        )
        for name, value, spent in [
            ("1 USD per day tenant=*", "tenant=a", "0.25"),
            ("1 USD per day tenant=*", "tenant=b", "0.5"),
            ("1 USD per day user=*", "user=ada", "0.75"),
        ]
    ]
    assert Watching(*parts).values("resilient_ai.budget.utilization") == [
        ({"resilient_ai.budget.name": "1 USD per day tenant=*"}, 0.5),
        ({"resilient_ai.budget.name": "1 USD per day user=*"}, 0.75),
    ]
    many = [
        BudgetState(
            key=("budget", "b", ""), spent=Decimal(0), limit=Decimal(1), hard=True, shown_as=f"b tenant={place}"
        )
        for place in range(600)
    ]
    shown = Watching(*many).values("resilient_ai.budget.utilization")
    assert (len(shown), shown[-1][0]) == (513, {"resilient_ai.budget.name": "other"})


def test_a_budget_shows_tenants_that_were_asked_for():
    """With tenants a budget of each tenant shows by its name, up to the number that was given."""
    scopes = ["feature=f tenant=a b user=u", "tenant=a b", "tenant=c", "tenant=d", "model=m"]
    parts = [
        BudgetState(key=("budget", "daily", scope), spent=Decimal(place), limit=Decimal(10), hard=True)
        for place, scope in enumerate(scopes)
    ]
    values = Watching(*parts, tenants=1).values("resilient_ai.budget.utilization")
    assert [(found.get("resilient_ai.tenant"), value) for found, value in values] == [
        ("a b", 0.1),
        ("other", 0.3),
        (None, 0.4),
    ]


def test_the_price_that_is_farthest_off_is_shown():
    """Of two clients that see different prices the one farthest from the table is shown, above it or below."""
    one = Watching(PriceState(key=KEY, drift=1.5, sends=3), PriceState(key=("x", "free"), drift=0.0, sends=3))
    Watching(PriceState(key=KEY, drift=0.5, sends=3), reported=one.reported)
    assert sorted(value for _, value in one.values("resilient_ai.price.drift")) == [0.0, 0.5]


def test_a_store_that_clients_share_is_counted_once():
    """Two clients over one disk hold its entries once, and each its own memory; an unknown size is not shown."""
    one = Watching(*EVERY_PART)
    two = Watching(*EVERY_PART, reported=one.reported)
    layer = "resilient_ai.cache.layer"
    assert two.values("resilient_ai.cache.entry.count") == [({layer: "memory"}, 2), ({layer: "disk"}, 3)]
    assert two.values("resilient_ai.cache.size") == [({layer: "memory"}, 200)]


def test_one_collection_asks_once():
    """However many gauges there are, a client is asked for its health once for each collection."""
    client = Watching(*EVERY_PART)
    for _ in range(3):
        client.reported.metrics()
    assert client.asked == 3


def test_gauges_may_be_asked_in_any_order():
    """An instrument that is asked for the second time begins a new look, wherever a collection begins."""
    reported = Reported()
    gauges = gauges_of(reported.provider, reported.provider.get_meter("resilient_ai"))
    client = Watching(*EVERY_PART, reported=reported)
    assert [len(gauges._look(name)) for name in ("resilient_ai.cache.size", "resilient_ai.price.drift")] == [2, 2]
    assert client.asked == 1
    assert len(gauges._look("resilient_ai.cache.size")) == 2
    assert client.asked == 2


def test_a_client_that_cannot_tell_hides_no_other(caplog):
    """A health that raises is passed over, logged once, and the other clients are read."""
    one = Watching(*EVERY_PART)
    two = Watching(reported=one.reported)

    def broken():
        raise KeyError("secret")

    two.metrics.watch(broken)
    for _ in range(2):
        assert len(one.values("resilient_ai.limiter.limit")) == 1
    assert [record.getMessage() for record in caplog.records if "ask a client" in record.getMessage()] == [
        "metrics could not ask a client for its health: KeyError"
    ]


def test_a_reading_that_fails_leaves_the_others():
    """A gauge that cannot be read is left out of a collection, which goes on."""
    odd = LimitState(key=KEY, limit="many", limit_max=200, in_use=3, waiting=2)
    client = Watching(odd, PriceState(key=KEY, drift=1.5, sends=3))
    assert client.values("resilient_ai.limiter.limit") == []
    assert len(client.values("resilient_ai.price.drift")) == 1


async def test_tenants_show_only_where_asked_for_and_so_many():
    """Tenants are a part of no figure by default; with a number, so many show by name and the rest together."""
    plain, asked = Measured(), Measured(tenants=2)
    for measured in (plain, asked):
        for tenant in ("a", "b", "c", "d"):
            await measured.send(CHAT, tags={"tenant": tenant})
        await measured.send(CHAT)
    assert plain.attributes("resilient_ai.request.duration") == [SHARED | {"resilient_ai.outcome": "success"}]
    found = asked.points("resilient_ai.request.duration")
    assert [(point.attributes.get("resilient_ai.tenant"), point.count) for point in found] == [
        ("a", 1),
        ("b", 1),
        ("other", 2),
        (None, 1),
    ]
    assert not [
        name for name in asked.metrics() if name.startswith("gen_ai.") and "tenant" in str(asked.attributes(name))
    ]


async def test_costs_by_tenant_add_up_to_the_ledger():
    """What is spent is summed exactly, by tenant where that was asked for, delivered apart from wasted."""
    cost = Cost(amount=Decimal("0.1"), source="provider")
    measured = Measured(*[chat_result(cost=cost) for _ in range(3)], stack=[CostAccounting()], tenants=5)
    for _ in range(3):
        await measured.send(CHAT, tags={"tenant": "a"})
    assert [(found["resilient_ai.tenant"], value) for found, value in measured.values("resilient_ai.cost")] == [
        ("a", 0.3)
    ]


def test_made_up_names_are_bounded():
    """However many models are made up, only so many have a name, and only so many sets of attributes are kept."""
    sets = AttributeSets("deepinfra", 0)
    for number in range(5000):
        sets.of_call(("chat", "https://x", f"m{number}", None, "success", "off", None, None))
        sets.of_attempt(f"m{number}", "initial", "success", None)
    last = sets.of_call(("chat", "https://x", "m4999", None, "success", "off", None, None))
    assert last.request["gen_ai.request.model"] == "other"
    assert sets.of_attempt("m7", "initial", "success", None)["resilient_ai.attempt.model"] == "m7"
    assert max(len(sets._calls), len(sets._others)) <= 4096


def test_names_that_servers_make_up_do_not_use_up_those_of_callers():
    """However many models have answered, the next one that is asked for has its name, also as one that answers."""
    sets = AttributeSets("deepinfra", 0)
    call = ("success", "off", None, None)
    for number in range(600):
        last = sets.of_call(("chat", "https://x", "m", f"odd-{number}", *call))
    assert last.client["gen_ai.response.model"] == "other"
    asked = sets.of_call(("chat", "https://x", "real", "real", *call)).client
    assert (asked["gen_ai.request.model"], asked["gen_ai.response.model"]) == ("real", "real")
    other = sets.of_call(("chat", "https://x", "m", "real", *call)).client
    assert (other["gen_ai.request.model"], other["gen_ai.response.model"]) == ("m", "real")


async def test_text_of_a_server_that_is_no_name_is_other():
    """It becomes no value of an attribute, and nothing of it is kept; a model that was asked for may have any name."""
    texts = ["as you said", "ann@example.org", "a\x1bb", "x" * 201, "y" * 100_000]
    measured = Measured(*[chat_result().model_copy(update={"model": text}) for text in [*texts, ""]])
    for _ in range(6):
        await measured.send(CHAT)
    odd = chat_result().model_copy(update={"model": "team@modèle"})
    measured.scripted.script.append(odd)
    await measured.send(Chat(model="team@modèle", messages="hi"))
    points = measured.points("gen_ai.client.operation.duration")
    found = [(point.attributes.get("gen_ai.response.model"), point.count) for point in points]
    assert found == [("other", 5), (None, 1), ("team@modèle", 1)]
    kept = measured.pipeline.stack[0]._state.sets._calls
    assert {key[3] for key in kept} == {"other", "", "team@modèle"}


def test_made_up_names_leave_nothing_behind():
    """Sums and marks are found by many names, and the tables by which they are found are emptied at a bound."""
    measured = Measured()
    state = measured.pipeline.stack[0]._state
    recorder = state.recorder()
    for number in range(5000):
        state.marks_of("chat", f"m{number}")
        recorder.cost_of("chat", "a", f"m{number}", None, used=True).add(Decimal(1))
    assert len(state._by_name) <= 4096
    assert len(state._active) <= 513
    assert len(recorder._costs) <= 4096
    assert sum(value for _, value in measured.values("resilient_ai.cost")) == 5000


def test_names_keep_their_place():
    """A name that was shown once is shown again."""
    names = Names(2)
    assert [names.of(name) for name in ("a", "b", "c", "a", "b")] == ["a", "b", "other", "a", "b"]


async def test_exemplars_name_the_span_of_a_stream():
    """What is recorded at the end of a stream, when no span is current, still points to the span of its call."""
    span = TracerProvider().get_tracer("t").start_span("call")

    async def traced(call, proceed):
        return await proceed(call.replace(span=span))

    reported = Reported()
    pipeline = Pipeline(ScriptedProvider(), [traced, Metrics(reported.provider)], clock=FakeClock())
    await (await pipeline.send(STREAM)).result()
    metrics = reported.metrics()
    with_exemplars = {
        name: list(point.exemplars)
        for name, metric in metrics.items()
        for point in metric.data.data_points
        if getattr(point, "exemplars", ())
    }
    assert set(with_exemplars) == {"gen_ai.client.operation.duration", "gen_ai.client.operation.time_to_first_chunk"}
    for exemplar in itertools.chain.from_iterable(with_exemplars.values()):
        assert (exemplar.span_id, exemplar.filtered_attributes) == (span.get_span_context().span_id, {})


async def test_the_exemplar_of_a_call_that_was_not_sent():
    """It is at the duration of the request, which is the only one there."""

    async def refusing(call, proceed):
        raise DeadlineExceeded(timeout=1.0, elapsed=1.0, sent=False)

    measured = Measured(stack=[refusing])
    with TracerProvider().get_tracer("t").start_as_current_span("call") as span, pytest.raises(DeadlineExceeded):
        await measured.send(CHAT)
    (point,) = measured.metrics()["resilient_ai.request.duration"].data.data_points
    assert [exemplar.span_id for exemplar in point.exemplars] == [span.get_span_context().span_id]


async def test_exemplars_name_the_current_span():
    """While the span of a call is current, figures point to it; tokens need no exemplar of their own."""
    measured = Measured()
    with TracerProvider().get_tracer("t").start_as_current_span("call") as span:
        await measured.send(CHAT)
    metrics = measured.metrics()
    (point,) = metrics["gen_ai.client.operation.duration"].data.data_points
    assert [exemplar.span_id for exemplar in point.exemplars] == [span.get_span_context().span_id]
    assert not any(point.exemplars for point in metrics["gen_ai.client.token.usage"].data.data_points)


async def test_a_span_of_another_make_is_no_harm():
    """What is no span gives no exemplar, and the stream is recorded all the same."""

    async def odd(call, proceed):
        return await proceed(call.replace(span=object()))

    reported = Reported()
    pipeline = Pipeline(ScriptedProvider(), [odd, Metrics(reported.provider)], clock=FakeClock())
    await (await pipeline.send(STREAM)).result()
    assert len(reported.points("resilient_ai.request.duration")) == 1


async def test_each_has_its_own_figures():
    """Two in one stack report the same to two providers."""
    one, two = Reported(), Reported()
    pipeline = Pipeline(ScriptedProvider(), [Metrics(one.provider), Metrics(two.provider)], clock=FakeClock())
    await pipeline.send(CHAT)
    for reported in (one, two):
        assert [point.count for point in reported.points("resilient_ai.attempt.duration")] == [1]


async def test_what_happens_behind_a_call_is_counted():
    """A cost that is known only after its call is over, as that of a hedge which lost, is counted."""
    later = []

    async def keep(call):
        later.append(call)
        return chat_result()

    measured = Measured(keep)
    await measured.send(CHAT)
    (call,) = later
    close_send(call, state="settled", cost=Decimal("0.5"), used=False)
    close_send(call, state="unknown")
    ((attributes, value),) = measured.values("resilient_ai.cost")
    assert (attributes["resilient_ai.cost.disposition"], value) == ("wasted", 0.5)


async def test_a_result_of_another_kind_is_counted():
    """What is no result of ours is counted without tokens."""
    measured = Measured(lambda call: asyncio.sleep(0, "text"))
    assert await measured.send(CHAT) == "text"
    assert measured.points("gen_ai.client.token.usage") == []
    assert len(measured.points("gen_ai.client.operation.duration")) == 1


async def test_tokens_of_which_only_some_are_known():
    """Of tokens that the service told in part, that part is recorded."""
    measured = Measured(chat_result(usage=Usage(output_tokens=3)))
    await measured.send(CHAT)
    assert [found["gen_ai.token.type"] for found in measured.attributes("gen_ai.client.token.usage")] == ["output"]


async def test_nothing_is_done_where_nobody_takes_figures():
    """A provider that does nothing costs nothing: the call is passed on as it came."""
    metrics = Metrics(NoOpMeterProvider())
    provider = ScriptedProvider()
    await Pipeline(provider, [metrics], clock=FakeClock()).send(CHAT)
    assert provider.calls[0].listeners == ()


async def test_a_provider_that_fails_is_asked_once(caplog):
    """A provider that makes no meter is logged by name, and calls go on."""

    class Broken:
        asked = 0

        def get_meter(self, *args, **kwargs):
            self.asked += 1
            raise ZeroDivisionError

    broken = Broken()
    pipeline = Pipeline(ScriptedProvider(), [Metrics(broken)], clock=FakeClock())
    for _ in range(3):
        await pipeline.send(CHAT)
    assert broken.asked == 1
    assert "metrics could not make its instruments: ZeroDivisionError" in caplog.text


async def test_a_process_without_opentelemetry_does_nothing(monkeypatch):
    """Where the API was never imported nothing is imported and done, unless the environment names a provider."""
    api = sys.modules["opentelemetry.metrics"]
    monkeypatch.delitem(sys.modules, "opentelemetry.metrics")
    assert Metrics()._state.recorder() is None
    assert "opentelemetry.metrics" not in sys.modules
    monkeypatch.setenv("OTEL_PYTHON_METER_PROVIDER", "no_such_provider")
    named = Metrics()._state
    before = fault_counts().get("metrics", 0)
    assert named.recorder() is None
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", api)
    assert named.recorder() is None
    assert fault_counts()["metrics"] == before + 2


async def test_an_application_without_a_provider_does_nothing():
    """Where the API has no provider, or one that makes meters which do nothing, there is no recorder."""

    class Disabled(MeterProvider):
        def get_meter(self, *args, **kwargs):
            return NoOpMeter("x")

    assert Metrics()._state.recorder() is None
    assert Metrics(Disabled())._state.recorder() is None


def test_a_client_that_is_gone_is_asked_no_more():
    """Whoever was watched and is gone is forgotten."""
    client = Watching(*EVERY_PART)
    client.health = None
    for _ in range(3):
        client.reported.metrics()
    assert client.asked == 1


async def test_a_forked_child_has_no_calls_of_its_parent():
    """Calls that were under way when a process was forked are the parent's, and not shown in the child."""
    measured = Measured(60.0)
    task = asyncio.create_task(measured.send(CHAT))
    await asyncio.sleep(1.0)
    (seen,) = [seen for seen in measured.pipeline.stack[0]._state.look() if seen.active]
    pid = os.fork()
    if pid == 0:
        (seen,) = [seen for seen in measured.pipeline.stack[0]._state.look() if seen.active]
        os._exit(seen.active[0][0])
    _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - in a thread it would let virtual time jump over the call
    assert os.waitstatus_to_exitcode(status) == 0
    assert seen.active[0][0] == 1
    # The same here, where coverage sees it.
    measured.pipeline.stack[0]._state._process = pid
    assert measured.values("resilient_ai.request.active") == [(SHARED, 0)]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_clock_that_has_stopped_is_no_harm():
    """A stream that ends after its loop is recorded, without a time."""
    measured = Measured(streaming(1.0))
    stream = await measured.send(STREAM)
    await asyncio.to_thread(stream.drop, "abandoned")  # a thread has no loop to tell the time by
    assert [value for _, value in measured.values("resilient_ai.request.duration")] == [0.0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"meter_provider": "otel"}, "meter_provider must be None or an object with get_meter()"),
        ({"provider_name": None}, "provider_name must be of type str"),
        ({"conventions": "1.42"}, r"conventions must be None or one of \('1.41', 'latest', 'both'\), got '1.42'"),
        ({"tenants": -1}, "tenants must be a whole number from 0 to 1000, got -1"),
        ({"tenants": 1001}, "tenants must be a whole number from 0 to 1000, got 1001"),
    ],
)
def test_options_are_checked(options, sentence):
    """An option that cannot work is refused, with what was given."""
    with pytest.raises(ValueError, match=sentence):
        Metrics(**options)


def test_defaults():
    """Everything has a default, and a description of a stack shows them."""
    metrics = Metrics()
    assert repr(metrics) == (
        "Metrics(meter_provider=None, provider_name='deepinfra', conventions=None, tenants=0, backends=None)"
    )
    assert repr(metrics.inner_half) == "AttemptMetrics()"
