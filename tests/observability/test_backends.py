"""Presets of backends: what each makes of what arrives, read as that backend reads it, over real OTLP; and keys that nobody sees."""

import asyncio
import base64
import json
import pickle

import pytest

from resilient_ai import AsyncClient, Settings, default_stack
from resilient_ai.core.errors import ConfigurationError
from resilient_ai.observability import Backend, configure
from resilient_ai.observability.backends import datadog, grafana, honeycomb, langfuse, logfire, phoenix, signoz
from resilient_ai.simulator import Fault, serve

from .receivers import grpc_receiver, http_receiver, metrics_of, plain

pytestmark = pytest.mark.anyio

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
TAGS = {"user": "ann", "conversation": "c-17", "agent": "clerk", "tenant": "acme"}
SECRET = "sk-swordfish-9f2c4e"
# What Langfuse knows; any other number under the name would be counted as further tokens.
KNOWN_USAGE = {
    "input_tokens",
    "output_tokens",
    "cache_read.input_tokens",
    "cache_creation.input_tokens",
    "reasoning.output_tokens",
}


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Reading:
    """What a backend shows of some calls: how many, their tokens and cost, whose they were, and how soon they began."""

    def __init__(self, calls, *, cost=None, users=(), conversations=(), first=()):
        self.calls = len(calls)
        self.tokens = tuple(
            sum(call.get(f"gen_ai.usage.{side}_tokens", 0) for call in calls) for side in ("input", "output")
        )
        self.cost = cost
        self.users = set(users)
        self.conversations = set(conversations)
        self.first = list(first)


def values(spans, *keys):
    """Return the value of the first key that each span has."""
    found = (next((span[key] for key in keys if key in span), None) for span in spans)
    return [value for value in found if value is not None]


def as_langfuse(spans):
    """Any span with a known operation is a generation; a cost that is told stops it from working one out."""
    calls = [span for span in spans if span.get("gen_ai.operation.name") in {"chat", "text_completion"}]
    assert all("langfuse.observation.cost_details" in call for call in calls)
    usage = {key.removeprefix("gen_ai.usage.") for span in spans for key in span if key.startswith("gen_ai.usage.")}
    assert usage <= KNOWN_USAGE
    return Reading(
        calls,
        cost=[json.loads(cost)["total"] for cost in values(spans, "langfuse.observation.cost_details")],
        users=values(calls, "langfuse.user.id", "user.id"),
        conversations=values(calls, "langfuse.session.id", "session.id", "gen_ai.conversation.id"),
        first=values(calls, "langfuse.observation.completion_start_time"),
    )


def as_phoenix(spans):
    """Whatever names a requested model is a call of one; it prices tokens itself, and shows costs of OpenInference."""
    calls = [span for span in spans if "gen_ai.request.model" in span]
    assert {call["gen_ai.provider.name"] for call in calls} == {"deepinfra"}
    return Reading(
        calls,
        cost=values(spans, "llm.cost.total"),
        users=values(calls, "user.id"),
        conversations=values(calls, "session.id"),
    )


def as_logfire(spans):
    """Costs and tokens are added up along a trace, so only one span of a call may tell them."""
    calls = [span for span in spans if "gen_ai.provider.name" in span and "gen_ai.request.model" in span]
    return Reading(
        calls,
        cost=values(spans, "operation.cost"),
        users=values(calls, "user.id"),
        conversations=values(calls, "gen_ai.conversation.id"),
        first=values(calls, "gen_ai.client.operation.time_to_first_chunk"),
    )


def as_datadog(spans):
    """It maps names of the conventions, and reads no cost."""
    calls = [span for span in spans if "gen_ai.operation.name" in span]
    assert all({"gen_ai.request.model", "gen_ai.provider.name"} <= call.keys() for call in calls)
    return Reading(calls, conversations=values(calls, "gen_ai.conversation.id"))


def as_honeycomb(spans):
    """Its timeline needs the conversation, the agent and the operation; any number is a column."""
    calls = [span for span in spans if span.get("gen_ai.operation.name") in {"chat", "generate_content"}]
    assert {call["gen_ai.agent.name"] for call in calls} == {"clerk"}
    return Reading(
        calls,
        cost=values(calls, "resilient_ai.cost.amount"),
        users=values(calls, "user.id"),
        conversations=values(calls, "gen_ai.conversation.id"),
        first=values(calls, "gen_ai.response.time_to_first_chunk"),
    )


def as_signoz(spans):
    """A span with a requested model is a call."""
    calls = [span for span in spans if "gen_ai.request.model" in span]
    return Reading(calls, users=values(calls, "user.id"), first=values(calls, "gen_ai.server.ttft"))


def as_grafana(spans):
    """Boards made for OpenLIT find the cost on its spans."""
    calls = [span for span in spans if "gen_ai.operation.name" in span]
    return Reading(calls, cost=values(spans, "gen_ai.usage.cost"), users=values(calls, "user.id"))


BASIC = f"Basic {base64.b64encode(f'pk-1:{SECRET}'.encode()).decode()}"
PRESETS = {
    "langfuse": (
        lambda at: langfuse(public_key="pk-1", secret_key=SECRET, host=at),
        as_langfuse,
        {"/api/public/otel/v1/traces": {"authorization": BASIC, "x-langfuse-ingestion-version": "4"}},
    ),
    "phoenix": (
        lambda at: phoenix(endpoint=at, api_key=SECRET, project="shop"),
        as_phoenix,
        {"/v1/traces": {"authorization": f"Bearer {SECRET}", "x-project-name": "shop"}},
    ),
    "logfire": (
        lambda at: logfire(token=SECRET, endpoint=at),
        as_logfire,
        {"/v1/traces": {"authorization": SECRET}, "/v1/metrics": {"authorization": SECRET}},
    ),
    "datadog": (
        lambda at: datadog(api_key=SECRET, endpoint=at),
        as_datadog,
        {"/v1/traces": {"dd-api-key": SECRET, "dd-otlp-source": "llmobs"}, "/v1/metrics": {"dd-api-key": SECRET}},
    ),
    "honeycomb": (
        lambda at: honeycomb(api_key=SECRET, endpoint=at, metrics_dataset="shop"),
        as_honeycomb,
        {"/v1/traces": {"x-honeycomb-team": SECRET}, "/v1/metrics": {"x-honeycomb-dataset": "shop"}},
    ),
    "signoz": (
        lambda at: signoz(ingestion_key=SECRET, endpoint=at),
        as_signoz,
        {"/v1/traces": {"signoz-ingestion-key": SECRET}, "/v1/metrics": {"signoz-ingestion-key": SECRET}},
    ),
    "grafana": (
        lambda at: grafana(endpoint=f"{at}/otlp", instance_id="pk-1", token=SECRET),
        as_grafana,
        {"/otlp/v1/traces": {"authorization": BASIC}, "/otlp/v1/metrics": {"authorization": BASIC}},
    ),
}


async def report(backend, home):
    """Stream one answer, which took a retry, and ask twice for another, which is in the cache then; return what it came to."""
    with serve() as sim, configure("shop", backend=backend, globally=False, metric_interval=3600) as telemetry:
        sim.faults.script(None, Fault.status(500), 1)
        stack = telemetry.applied_to(default_stack(Settings(home=home)))
        async with AsyncClient("k", base_url=sim.base_url, stack=stack) as ai:
            mine = ai.with_options(tags=TAGS)
            async with mine.stream(LLAMA, "hi", max_tokens=20) as stream:
                await stream.result()
            for _ in range(2):
                await mine.chat(LLAMA, "hi", max_tokens=30, temperature=0)
            total = await ai.ledger.total()
        assert await asyncio.to_thread(telemetry.flush, 30)
    return total


@pytest.mark.parametrize("name", PRESETS)
async def test_a_backend_shows_what_there_was(name, tmp_path):
    """Each finds three calls, the tokens and the cost of the ledger, the user and the conversation, and how soon a stream began."""
    make, read, expected = PRESETS[name]
    with http_receiver() as (address, received):
        total = await report(make(address), tmp_path)
    for path, headers in expected.items():
        found = [given for at, given in received.requests if at == path]
        assert found, path
        assert all(headers.items() <= given.items() for given in found)
    assert {path for path, _ in received.requests} == expected.keys()
    spans = [plain(span.attributes) for span in received.spans]
    assert len(spans) == 3 + total.sends == 6
    shown = read(spans)
    assert shown.calls == 3
    assert shown.tokens == (total.input_tokens, total.output_tokens)
    if shown.cost is not None:
        assert len(shown.cost) == 3
        assert sum(shown.cost) == pytest.approx(float(total.cost), rel=1e-12)
        assert min(shown.cost) == 0  # the answer from the cache
    if shown.users:
        assert shown.users == {"ann"}
    if shown.conversations:
        assert shown.conversations == {"c-17"}
    assert len(shown.first) == (name in {"langfuse", "logfire", "honeycomb", "signoz"})


async def test_datadog_is_told_what_was_added(tmp_path):
    """Its intake takes deltas alone, of sums and of histograms; the cost, which it reads from no span, is one of them."""
    with http_receiver() as (address, received):
        total = await report(datadog(api_key=SECRET, endpoint=address), tmp_path)
    costs = []
    for body in received.bodies["metrics"]:
        for metric in metrics_of(body):
            kind = metric.WhichOneof("data")
            if kind == "histogram" or (kind == "sum" and metric.sum.is_monotonic):
                assert getattr(metric, kind).aggregation_temporality == 1, metric.name
            if metric.name == "resilient_ai.cost":
                costs += [point.as_double for point in metric.sum.data_points]
    assert sum(costs) == pytest.approx(float(total.cost), rel=1e-12)


async def test_grafana_has_the_cost_as_openlit_tells_it(tmp_path):
    """A histogram of which the sum is that of the ledger, and the count that of the calls that were sent."""
    with http_receiver() as (address, received):
        total = await report(grafana(endpoint=address, instance_id="pk-1", token=SECRET), tmp_path)
    *_, last = received.bodies["metrics"]  # each has all that there was
    (costs,) = [metric.histogram for metric in metrics_of(last) if metric.name == "gen_ai.usage.cost"]
    assert sum(point.sum for point in costs.data_points) == pytest.approx(float(total.cost), rel=1e-12)
    assert sum(point.count for point in costs.data_points) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda at: phoenix(endpoint=at, api_key=SECRET, protocol="grpc"),
        lambda at: honeycomb(api_key=SECRET, endpoint=at, protocol="grpc"),
        lambda at: signoz(ingestion_key=SECRET, endpoint=at, protocol="grpc"),
    ],
    ids=["phoenix", "honeycomb", "signoz"],
)
async def test_those_that_speak_grpc_are_sent_the_same(make, tmp_path):
    """With their keys as metadata."""
    with grpc_receiver() as (address, received):
        backend = make(address)
        await report(backend, tmp_path)
    assert len(received.spans) == 6
    assert all(backend.headers.items() <= headers.items() for _, headers in received.requests)
    assert any(SECRET in value for value in backend.headers.values())


@pytest.mark.parametrize(
    ("backend", "endpoint"),
    [
        (langfuse(public_key="p", secret_key=SECRET), "https://cloud.langfuse.com/api/public/otel"),
        (phoenix(), "http://localhost:6006"),
        (logfire(token=SECRET), "https://logfire-us.pydantic.dev"),
        (logfire(token=SECRET, region="eu"), "https://logfire-eu.pydantic.dev"),
        (datadog(api_key=SECRET), "https://otlp.datadoghq.com"),
        (honeycomb(api_key=SECRET), "https://api.honeycomb.io"),
        (honeycomb(api_key=SECRET, region="eu"), "https://api.eu1.honeycomb.io"),
        (signoz(ingestion_key=SECRET, region="in"), "https://ingest.in.signoz.cloud:443"),
        (grafana(endpoint="https://g.example/otlp/"), "https://g.example/otlp"),
    ],
)
def test_where_a_backend_is(backend, endpoint):
    """Each has a place of its own, and says by its name which attributes it reads."""
    assert backend.endpoint == endpoint
    assert tuple(backend.attributes) == (backend.name,)


def test_keys_are_not_shown():
    """Neither by a repr, nor by the message of what is wrong with them."""
    for make, _, _ in PRESETS.values():
        backend = make("http://localhost:4318")
        shown = f"{backend!r} {backend} {[backend]}"
        assert SECRET not in shown
        assert BASIC not in shown
        assert "***" in shown
    assert pickle.loads(pickle.dumps(backend)) == backend


@pytest.mark.parametrize("key", [f"{SECRET}\n", f" {SECRET}", f"{SECRET}ü", f"a\r\nx: {SECRET}", "", 17])
@pytest.mark.parametrize(
    "make",
    [
        lambda key: langfuse(public_key="p", secret_key=key),
        lambda key: phoenix(api_key=key),
        lambda key: logfire(token=key),
        lambda key: datadog(api_key=key),
        lambda key: honeycomb(api_key=key),
        lambda key: signoz(ingestion_key=key),
        lambda key: grafana(endpoint="http://g", instance_id="1", token=key),
        lambda key: Backend(name="b", headers={"x-key": key}),
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_unseen(make, key):
    """Such as one that was read with the line break at its end: whoever sent it would complain by quoting it."""
    with pytest.raises(ConfigurationError, match="must be a text of printable ASCII") as caught:
        make(key)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: logfire(token="t", region="moon"), "logfire: region must be one of"),
        (lambda: honeycomb(api_key="k", region="moon"), "honeycomb: region must be one of"),
        (lambda: honeycomb(api_key="k", protocol="udp"), "honeycomb: protocol must be one of"),
        (signoz, "signoz: SigNoz Cloud needs an ingestion_key"),
        (lambda: grafana(endpoint="http://g", token="t"), "instance_id and token belong together"),
        (lambda: phoenix(endpoint="localhost:6006"), "phoenix: endpoint must be an address"),
        (lambda: phoenix(endpoint="http://localhost:none"), "phoenix: endpoint must be an address"),
        (lambda: phoenix(endpoint="http://a b"), "phoenix: endpoint must be an address"),
        (lambda: phoenix(endpoint=None), "phoenix: endpoint must be an address"),
        (lambda: langfuse(public_key="p", secret_key="s", host="https://u:p@h"), "must not hold a password"),
        (lambda: Backend(name="b", endpoint="https://h?key=1"), "must not hold a password or a query"),
        (lambda: Backend(name="b", signals="traces"), "b: signals must be some of"),
        (lambda: Backend(name="b", signals=()), "b: signals must be some of"),
        (lambda: Backend(name="b", signals=["smoke"]), "b: signals must be some of"),
        (lambda: Backend(name="b", attributes=["splunk"]), "b: attributes: backends must be of"),
        (lambda: Backend(name="b", headers={"x y": "1"}), "b: headers: 'x y' cannot be the name of a header"),
        (lambda: Backend(name="b", trace_headers={"x:y": "1"}), "b: trace_headers: 'x:y' cannot be the name"),
        (
            lambda: Backend(name="b", headers=["x"]),
            "b: headers must be a mapping of headers, got an object of type list",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, sentence):
    """When it is made, in one sentence."""
    with pytest.raises(ConfigurationError, match=sentence):
        make()
