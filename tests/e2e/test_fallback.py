"""A list of models over real sockets: what the caller gets while some of them are down."""

from decimal import Decimal

import pytest

from resilient_ai import (
    AsyncClient,
    BadRequest,
    CircuitOpened,
    ModelSkipped,
    NoModelAvailable,
    Settings,
    StreamInterrupted,
    default_stack,
    user,
)
from resilient_ai.deepinfra.catalogue import CatalogueAbilities
from resilient_ai.middleware import CircuitBreaker, Routing
from resilient_ai.simulator import Fault
from resilient_ai.testing import PIXEL

pytestmark = pytest.mark.anyio

CHAT = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
OTHER = "Qwen/Qwen2.5-72B-Instruct"
THIRD = "moonshotai/Kimi-K2.6"
WITHOUT_TOOLS = "microsoft/phi-4"
BLIND = "openai/gpt-oss-20b"
SEEING = "google/gemma-3-12b-it"
SHORT = "Sao10K/L3-8B-Lunaris-v1-Turbo"


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path, attempts=2)


@pytest.fixture
async def ai(sim, settings):
    routing = Routing(abilities=CatalogueAbilities())
    stack = [routing if isinstance(layer, Routing) else layer for layer in default_stack(settings)]
    async with AsyncClient(api_key="test-key", base_url=sim.base_url, stack=stack) as client:
        yield client


async def test_while_a_model_is_down_every_call_is_served_by_the_next(ai, sim):
    """Five calls succeed; the model that is down is asked until its circuit opens and then left alone."""
    events = []
    ai.subscribe(events.append)
    sim.faults.outage(CHAT)

    answers = [await ai.chat([CHAT, OTHER], f"number {number}") for number in range(5)]

    assert {answer.served_by for answer in answers} == {OTHER}
    assert all(list(answer.refused) == [CHAT] for answer in answers)
    assert answers[0].refused[CHAT].startswith("Overloaded: ")
    assert answers[-1].refused[CHAT].startswith("CircuitOpen: ")
    assert (answers[0].attempts, answers[-1].attempts) == (3, 1)
    assert sum(answer.attempts for answer in answers) == sim.stats().requests
    assert sim.stats().by_model == {CHAT: 5, OTHER: 5}
    assert [event.model for event in events if isinstance(event, CircuitOpened)] == [CHAT]
    assert sum(isinstance(event, ModelSkipped) for event in events) == 5


@pytest.mark.filterwarnings("ignore::resilient_ai.RetiredModelWarning")  # every completion model is retired
async def test_every_kind_of_operation_is_served_by_the_next_model(ai, sim):
    """Chat, stream, completion, vectors and pictures: each names who served, who could not, and what was billed."""
    names = {
        "chat": (CHAT, OTHER),
        "complete": ("bigcode/starcoder2-15b", OTHER),
        "embed": ("BAAI/bge-m3", "BAAI/bge-large-en-v1.5"),
        "image": ("black-forest-labs/FLUX-1-schnell", "black-forest-labs/FLUX-1-dev"),
    }
    for down, _ in names.values():
        sim.faults.outage(down)

    answers = {
        "chat": await ai.chat(names["chat"], "hi"),
        "complete": await ai.complete(names["complete"], "def fib(n):", max_tokens=16),
        "embed": await ai.embed(names["embed"], [f"text {number}" for number in range(200)]),
        "image": await ai.image(names["image"], "a lighthouse", size="512x512", steps=2),
    }
    async with ai.stream(names["chat"], "hi") as stream:
        streamed = await stream.result()

    for kind, (down, up) in names.items():
        assert (kind, answers[kind].served_by, list(answers[kind].refused)) == (kind, up, [down])
    assert (streamed.served_by, list(streamed.refused)) == (OTHER, [CHAT])
    assert answers["embed"].dimensions == 1024
    assert len(answers["embed"].vectors) == 200
    await ai.ledger.flush()
    assert (await ai.ledger.total()).cost == sim.stats().bill


@pytest.mark.parametrize("fault", [Fault.drop(reset=True), Fault.error_event(after=0), Fault.cut(after=0)])
async def test_a_stream_that_breaks_before_its_first_content_comes_from_the_next_model(ai, sim, fault):
    """The reader sees one whole answer, and nothing of the one that never began."""
    sim.faults.script(CHAT, fault, times=2)

    async with ai.stream([CHAT, OTHER], "Name three tides.") as stream:
        answer = await stream.result()

    assert (answer.served_by, answer.finish_reason, answer.attempts) == (OTHER, "stop", 3)
    assert answer.text == (await ai.chat(OTHER, "Name three tides.")).text


async def test_a_stream_that_breaks_later_is_not_begun_again(ai, sim):
    """What has been handed over cannot be taken back: the caller decides."""
    sim.faults.script(CHAT, Fault.cut(after=3))

    with pytest.raises(StreamInterrupted) as caught:
        async with ai.stream([CHAT, OTHER], "Name three tides.") as stream:
            await stream.result()

    assert caught.value.partial is not None
    assert sim.stats().by_model == {CHAT: 1}


@pytest.mark.parametrize(
    ("models", "question", "lack"),
    [
        ([WITHOUT_TOOLS, CHAT], {"messages": "hi", "tools": [{"name": "tides"}]}, "tools"),
        ([BLIND, SEEING], {"messages": [user("What is this?", PIXEL)]}, "vision"),
        ([SHORT, CHAT], {"messages": "tide " * 10_000}, "context for at least 8333 tokens, as it has 8192"),
        (["BAAI/bge-m3", CHAT], {"messages": "hi"}, "chat, as it is made for embedding"),
    ],
)
async def test_a_model_that_cannot_serve_is_not_asked(ai, sim, models, question, lack):
    """Tools, pictures, long prompts and another kind of model cost no request and no time."""
    answer = await ai.chat(models, **question)

    assert (answer.served_by, answer.attempts) == (models[1], 1)
    assert answer.refused[models[0]].endswith(f"needs: {lack}")
    assert sim.stats().by_model == {models[1]: 1}


async def test_a_model_that_is_named_alone_is_asked(ai, sim):
    """The service says no itself, and nothing is billed."""
    with pytest.raises(Exception, match="not supported"):
        await ai.chat(WITHOUT_TOOLS, "hi", tools=[{"name": "tides"}])

    assert (sim.stats().by_model, sim.stats().bill) == ({WITHOUT_TOOLS: 1}, Decimal(0))


async def test_a_call_stays_below_its_ceiling(ai, sim, settings):
    """Three models that are down take no more requests than the client says beforehand."""
    models = [CHAT, OTHER, THIRD]
    for model in models:
        sim.faults.outage(model, fault=Fault.status(500))

    with pytest.raises(NoModelAvailable) as caught:
        await ai.chat(models, "hi")

    assert list(caught.value.refused) == models
    assert sim.stats().requests <= ai.describe(models=3).worst_case.sends == 6
    assert all(sim.stats().by_model[model] >= 1 for model in models)


async def test_a_bad_request_is_not_asked_of_others(ai, sim):
    """Another model would refuse it as well."""
    sim.faults.script(CHAT, Fault.status(400))

    with pytest.raises(BadRequest):
        await ai.chat([CHAT, OTHER], "hi")

    assert sim.stats().by_model == {CHAT: 1}


async def test_when_all_circuits_are_open_a_call_finds_out_who_is_back(sim, settings):
    """No call waits for a break to pass once the service answers again: the nearest model is probed ahead of time."""
    models = [CHAT, OTHER]
    breaker = CircuitBreaker(consecutive_failures=1, break_duration=60, break_duration_max=60)
    async with AsyncClient(api_key="test-key", base_url=sim.base_url, stack=[Routing(), breaker]) as ai:
        for model in models:
            sim.faults.outage(model)
        with pytest.raises(NoModelAvailable):
            await ai.chat(models, "hi")
        with pytest.raises(NoModelAvailable) as caught:
            await ai.chat(models, "hi")
        assert sorted(type(error).__name__ for error in caught.value.refused.values()) == ["CircuitOpen", "Overloaded"]
        sim.faults.clear()
        await ai._pipeline.clock.sleep(1.05)  # early probes of a model go once a second

        answer = await ai.chat(models, "hi")

    assert (answer.served_by in models, answer.attempts, len(answer.refused)) == (True, 1, 1)
