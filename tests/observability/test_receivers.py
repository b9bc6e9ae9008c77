"""Figures where they arrive: a collector over HTTP and by gRPC and a Prometheus have what the ledger has, to the last digit."""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
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
WORDS = ["tides", "rise", "and", "fall", "twice", "a", "day", "by", "the", "moon"]
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
    words = " ".join(rng.choices(WORDS, k=rng.randrange(3, 30)))
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
        if send.cost:  # a request that was not billed adds nothing
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
    return Seen(calls, attempts, +tokens, cost)


def of_otlp(received):
    """Return a function that gives points as a collector has them."""

    def points(name):
        for attributes, point in received.points(name):
            if name == "resilient_ai.cost":
                yield attributes, 1, point.as_double
            else:
                yield attributes, point.count, point.sum

    return points


def of_prometheus(server, at):
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
            for labels, value in server.query(expression, at).items()
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
    """Return what a collector was told as spans; costs are those of calls, by their id, and those of attempts, by their size."""
    attempts, tokens, costs, tries, calls = Counter(), Counter(), {}, [], 0
    for span in spans:
        attributes = plain(span.attributes)
        if span.name == "resilient_ai.attempt":
            attempts[attributes["resilient_ai.attempt.model"]] += 1
            tries.append(attributes.get("resilient_ai.cost.amount"))
        elif "gen_ai.operation.name" in attributes:
            calls += 1
            model = attributes["gen_ai.request.model"]
            tokens[model, "input"] += attributes.get("gen_ai.usage.input_tokens", 0)
            tokens[model, "output"] += attributes.get("gen_ai.usage.output_tokens", 0)
            costs[attributes["resilient_ai.call.id"]] = attributes.get("resilient_ai.cost.amount", 0.0)
    return Seen(calls, attempts, +tokens, (costs, sorted(cost for cost in tries if cost)))


@pytest.fixture
def places(tmp_path):
    """A collector over HTTP, one by gRPC, and a Prometheus; yields what each has taken, and what reports to all of them."""
    with contextlib.ExitStack() as stack:
        http, by_http = stack.enter_context(http_receiver())
        grpc, by_grpc = stack.enter_context(grpc_receiver())
        backends = [
            Backend(name="by http", endpoint=http),
            Backend(name="by grpc", endpoint=grpc, protocol="grpc"),
        ]
        telemetry = configure("load", backend=backends, prometheus=0, metric_interval=3600, globally=False)
        stack.enter_context(telemetry)
        scraper = stack.enter_context(prometheus(tmp_path / "prometheus", telemetry.prometheus_port))
        yield by_http, by_grpc, scraper, telemetry


def add_faults(sim):
    """Let a fifth of all requests fail, in four ways."""
    sim.faults.rate(Fault.status(500), 0.06, seed=1)
    sim.faults.rate(Fault.status(429, retry_after=0.05), 0.05, seed=2)
    sim.faults.rate(Fault.cut(after=4), 0.08, seed=3)
    sim.faults.rate(Fault.drop(), 0.03, seed=4)


def time_of_all(server):
    """Return the time, if the last scrape has all calls."""
    now = time.time()
    return now if server.query(f"sum(resilient_ai_request_duration_seconds_count) == {CALLS}", now) else None


async def test_receivers_have_what_the_ledger_has(places, tmp_path):
    """Under load with faults, by HTTP, gRPC and scraping: calls, attempts, tokens, and each cost as near as a double can say it."""
    by_http, by_grpc, scraper, telemetry = places
    stack = telemetry.applied_to(default_stack(Settings(home=tmp_path / "home", attempts=4)))
    with serve() as sim:
        add_faults(sim)
        async with AsyncClient("key-of-the-test", base_url=sim.base_url, stack=stack) as ai:
            ends = await load(ai, seed=7)
            expected, sends = await by_the_ledger(ai, CALLS)
            assert await asyncio.to_thread(telemetry.flush, 30)
            at = await asyncio.to_thread(scraper.until, lambda: time_of_all(scraper), 30)
            seen = [await asyncio.to_thread(by_metrics, of_prometheus(scraper, at))]
    assert ends["answered"] > CALLS * 0.8
    assert {"wasted", "delivered"} == {place for _, _, place in expected.cost}
    for found in [*seen, by_metrics(of_otlp(by_http)), by_metrics(of_otlp(by_grpc))]:
        assert (found.calls, found.attempts) == (expected.calls, expected.attempts)
        assert found.tokens == expected.tokens
        assert found.cost == expected.cost
    of_calls = defaultdict(Decimal)
    for send in sends:
        of_calls[send.call_id] += send.cost or 0
    told = [float(send.cost) for send in sends if send.cost]
    for found in (by_spans(by_http.spans), by_spans(by_grpc.spans)):
        assert (found.calls, found.attempts) == (expected.calls, expected.attempts)
        assert found.tokens == expected.tokens
        costs, tries = found.cost
        assert {call: cost for call, cost in costs.items() if cost} == {
            call: float(cost) for call, cost in of_calls.items() if cost
        }
        assert tries == sorted(told)
    assert "duplicate" not in scraper.log.read_text()


SERVICE = """
import asyncio, json, logging, sys
import httpx
from resilient_ai import AsyncClient
from resilient_ai.observability import configure

class Noting(httpx.AsyncHTTPTransport):
    async def handle_async_request(self, request):
        told.append(request.headers["traceparent"])
        return await super().handle_async_request(request)

async def main():
    async with Noting() as http, AsyncClient("key-of-the-test", base_url=sys.argv[1], http=http) as ai:
        await ai.chat("meta-llama/Llama-3.3-70B-Instruct-Turbo", "hi", max_tokens=9)
        sends = await ai.ledger.sends()
    rows = [[send.call_id, send.attempt, send.error, send.state, str(send.cost)] for send in reversed(sends)]
    print(json.dumps({"rows": rows, "told": told}))

told = []
with configure("shop", version="7", environment="test", export=sys.argv[2], endpoint=sys.argv[3], logs="json",
               signals=["traces", "metrics", "logs"]):
    asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["otlp", "otlp_grpc"])
def test_one_story_everywhere(way, tmp_path, monkeypatch):
    """500, 500, 200: a span without error over three attempts, three rows, a line for each fact, and one trace everywhere."""
    monkeypatch.setenv("RESILIENT_AI_HOME", str(tmp_path))
    receiver = http_receiver if way == "otlp" else grpc_receiver
    with receiver() as (address, received), serve() as sim:
        sim.faults.script(None, Fault.status(500), 2)
        program = [sys.executable, "-W", "error", "-c", SERVICE, sim.base_url, way, address]
        done = subprocess.run(program, capture_output=True, text=True, check=True)
    told, lines = json.loads(done.stdout), [json.loads(line) for line in done.stderr.splitlines()]
    *attempts, call = sorted(received.spans, key=lambda span: span.end_time_unix_nano)
    trace, parent = call.trace_id.hex(), call.span_id.hex()
    about = plain(call.attributes)
    assert (call.status.code, "error.type" in about, about["resilient_ai.attempts"]) == (0, False, 3)
    assert [(span.name, span.parent_span_id.hex()) for span in attempts] == [("resilient_ai.attempt", parent)] * 3
    assert [(span.status.code, plain(span.attributes).get("error.type")) for span in attempts] == [
        *[(2, "500"), (2, "500")],
        (0, None),
    ]
    assert {span.trace_id.hex() for span in attempts} == {trace}
    call_id = about["resilient_ai.call.id"]
    assert [row[:4] for row in told["rows"]] == [
        [call_id, 1, "ServerFailed", "settled"],
        [call_id, 2, "ServerFailed", "settled"],
        [call_id, 3, None, "settled"],
    ]
    assert sum(Decimal(row[4]) for row in told["rows"]) == Decimal(repr(about["resilient_ai.cost.amount"]))
    assert [line["event"] for line in lines] == ["resilient_ai.retry", "resilient_ai.retry", "resilient_ai.call"]
    assert {(line["trace_id"], line["span_id"], line["call_id"]) for line in lines} == {(trace, parent, call_id)}
    assert [record.event_name for record in received.records] == [line["event"] for line in lines]
    assert {(one.trace_id.hex(), one.span_id.hex()) for one in received.records} == {(trace, parent)}
    assert plain(received.records[-1].attributes)["attempts"] == 3
    # The service is told of the trace by each request, as of the attempt that sends it.
    assert [one.split("-")[1:3] for one in told["told"]] == [[trace, span.span_id.hex()] for span in attempts]
    exemplars = [one for _, point in received.points("gen_ai.client.operation.duration") for one in point.exemplars]
    assert {one.trace_id.hex() for one in exemplars} == {trace}
    assert len(received.resources) >= 3
    for resource in received.resources:
        assert resource["service.name"] == "shop"
        assert (resource["service.version"], resource["deployment.environment.name"]) == ("7", "test")
