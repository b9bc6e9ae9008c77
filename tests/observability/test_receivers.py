"""Figures where they arrive: a collector over HTTP and by gRPC and a Prometheus have what the ledger has, to the last digit."""

import asyncio
import random
from collections import Counter, defaultdict
from decimal import Decimal

import pytest

from resilient_ai import AsyncClient, Complete, Embed, Image, ResilientAIError, Settings, Stream, default_stack
from resilient_ai.core.operations import Chat
from resilient_ai.observability import Backend, configure
from resilient_ai.simulator import Fault, serve

from .receivers import grpc_receiver, http_receiver, plain, prometheus

pytestmark = pytest.mark.anyio

CHAT, SMALL = "meta-llama/Llama-3.3-70B-Instruct-Turbo", "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo"
REASONING, EMBEDDER, PICTURES = "zai-org/GLM-5.2", "BAAI/bge-m3", "black-forest-labs/FLUX-1-schnell"
CALLS, AT_ONCE = 240, 24
NAMES = {
    "chat": "chat",
    "stream": "chat",
    "complete": "text_completion",
    "embed": "embeddings",
    "image": "generate_content",
}


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Seen:
    """What one receiver has to say, in a form that can be compared."""

    def __init__(self, calls, attempts, tokens, cost):
        self.calls = calls
        self.attempts = attempts
        self.tokens = tokens
        self.cost = cost


def operation_of(number, rng):
    """One call of the mix."""
    words = " ".join(
        rng.choices(["tides", "rise", "and", "fall", "twice", "a", "day", "by", "the", "moon"], k=rng.randrange(3, 30))
    )
    prompt = f"{number}: {words}"
    kind = rng.choice(["chat", "chat", "reasoning", "stream", "stream", "complete", "embed", "image"])
    if kind == "stream":
        return Stream(model=SMALL, messages=prompt, max_tokens=40)
    if kind == "complete":
        return Complete(model=CHAT, prompt=prompt, max_tokens=30)
    if kind == "embed":
        return Embed(model=EMBEDDER, texts=[f"{prompt} {text}" for text in range(rng.randrange(1, 6))])
    if kind == "image":
        return Image(model=PICTURES, prompt=prompt, size="256x256", steps=1)
    return Chat(model=REASONING if kind == "reasoning" else CHAT, messages=prompt, max_tokens=60)


async def load(ai, seed):
    """Make all calls, some at a time; return how each has ended."""
    rng, gate, ends = random.Random(seed), asyncio.Semaphore(AT_ONCE), Counter()

    async def one(number):
        async with gate:
            operation = operation_of(number, random.Random(f"{seed}/{number}"))
            try:
                result = await ai.send(operation)
                if isinstance(operation, Stream):
                    async with result as stream:
                        await stream.result()
            except ResilientAIError as error:
                ends[type(error).__name__] += 1
            else:
                ends["answered"] += 1

    numbers = list(range(CALLS))
    rng.shuffle(numbers)
    await asyncio.gather(*map(one, numbers))
    return ends


async def by_the_ledger(ai, asked):
    """Return what every receiver must have."""
    sends = await ai.ledger.sends(limit=None)
    cost = defaultdict(Decimal)
    tokens = Counter()
    for send in sends:
        if send.cost is not None:
            place = "delivered" if send.used else "wasted"
            cost[NAMES[send.kind], send.model, place] += send.cost
        if send.used:
            tokens[send.model, "input"] += send.input_tokens or 0
            tokens[send.model, "output"] += send.output_tokens or 0
    attempts = Counter(send.model for send in sends)
    return Seen(asked, attempts, +tokens, {key: float(value) for key, value in cost.items()}), sends


def by_metrics(points):
    """Return what a collector was told as metrics; `points` gives those of a name, each with its attributes."""
    calls = sum(count for _, count, _ in points("resilient_ai.request.duration"))
    attempts, tokens, cost = Counter(), Counter(), {}
    for attributes, count, _ in points("resilient_ai.attempt.duration"):
        attempts[attributes["resilient_ai.attempt.model"]] += count
    for attributes, _, total in points("gen_ai.client.token.usage"):
        tokens[attributes["gen_ai.request.model"], attributes["gen_ai.token.type"]] += total
    for attributes, _, total in points("resilient_ai.cost"):
        model, place = attributes["gen_ai.request.model"], attributes["resilient_ai.cost.disposition"]
        cost[attributes["gen_ai.operation.name"], model, place] = total
    return Seen(calls, attempts, +tokens, {key: value for key, value in cost.items() if value})


def of_otlp(received):
    """Return a function that gives points as a collector has them."""

    def points(name):
        for attributes, point in received.points(name):
            if name == "resilient_ai.cost":
                yield attributes, 1, point.as_double
            else:
                yield attributes, point.count, point.sum

    return points


def of_prometheus(server):
    """Return a function that gives points as a Prometheus has them, whose labels have no dots."""
    names = {
        "resilient_ai.request.duration": "resilient_ai_request_duration_seconds",
        "resilient_ai.attempt.duration": "resilient_ai_attempt_duration_seconds",
        "gen_ai.client.token.usage": "gen_ai_client_token_usage",
    }
    dotted = {
        name.replace(".", "_"): name
        for name in (
            *("gen_ai.operation.name", "gen_ai.request.model", "gen_ai.token.type"),
            *("resilient_ai.attempt.model", "resilient_ai.cost.disposition"),
        )
    }

    def series(expression):
        return {
            frozenset((dotted.get(label, label), text) for label, text in labels if label != "__name__"): value
            for labels, value in server.query(expression).items()
        }

    def points(name):
        if name == "resilient_ai.cost":
            for labels, value in series("resilient_ai_cost_USD_total").items():
                yield dict(labels), 1, value
            return
        counts, sums = series(f"{names[name]}_count"), series(f"{names[name]}_sum")
        for labels, count in counts.items():
            yield dict(labels), count, sums[labels]

    return points


def by_spans(spans):
    """Return what a collector was told as spans; an attempt alone knows what was wasted, and the whole call what was used."""
    attempts, tokens = Counter(), Counter()
    costs = []
    calls = 0
    for span in spans:
        attributes = plain(span.attributes)
        if span.name == "resilient_ai.attempt":
            attempts[attributes["resilient_ai.attempt.model"]] += 1
            costs.append(attributes.get("resilient_ai.cost.amount"))
        elif "gen_ai.operation.name" in attributes:
            calls += 1
            model = attributes["gen_ai.request.model"]
            tokens[model, "input"] += attributes.get("gen_ai.usage.input_tokens", 0)
            tokens[model, "output"] += attributes.get("gen_ai.usage.output_tokens", 0)
    return Seen(calls, attempts, +tokens, sorted(cost for cost in costs if cost is not None))


async def test_receivers_have_what_the_ledger_has(tmp_path):
    """Under load with faults, by HTTP, gRPC and scraping: calls, attempts, tokens, and each cost as near as a double can say it."""
    with http_receiver() as (http, by_http), grpc_receiver() as (grpc, by_grpc), serve() as sim:
        places = [
            Backend(name="by http", endpoint=http),
            Backend(name="by grpc", endpoint=grpc, protocol="grpc"),
        ]
        with configure("load", backend=places, prometheus=0, metric_interval=3600, globally=False) as telemetry:
            with prometheus(tmp_path / "prometheus", telemetry.prometheus_port) as scraper:
                sim.faults.rate(Fault.status(500), 0.06, seed=1)
                sim.faults.rate(Fault.status(429, retry_after=0.05), 0.05, seed=2)
                sim.faults.rate(Fault.cut(after=4), 0.08, seed=3)
                sim.faults.rate(Fault.drop(), 0.03, seed=4)
                stack = telemetry.applied_to(default_stack(Settings(home=tmp_path / "home", attempts=4)))
                async with AsyncClient("key-of-the-test", base_url=sim.base_url, stack=stack) as ai:
                    ends = await load(ai, seed=7)
                    expected, sends = await by_the_ledger(ai, CALLS)
                    assert await asyncio.to_thread(telemetry.flush, 30)
                    assert ends["answered"] > CALLS * 0.8
                    assert {"wasted", "delivered"} == {place for _, _, place in expected.cost}
                    counted = f"sum(resilient_ai_request_duration_seconds_count) == {CALLS}"
                    await asyncio.to_thread(scraper.until, lambda: scraper.query(counted), 30)
                    for points in (of_otlp(by_http), of_otlp(by_grpc), of_prometheus(scraper)):
                        found = await asyncio.to_thread(by_metrics, points)
                        assert found.calls == expected.calls
                        assert found.attempts == expected.attempts
                        assert found.tokens == expected.tokens
                        assert found.cost == expected.cost
                    for received in (by_http, by_grpc):
                        found = by_spans(received.spans)
                        assert found.calls == expected.calls
                        assert found.attempts == expected.attempts
                        assert found.tokens == expected.tokens
                        assert found.cost == sorted(float(send.cost) for send in sends if send.cost is not None)
                    assert (tmp_path / "prometheus/prometheus.log").read_text().count("duplicate") == 0
