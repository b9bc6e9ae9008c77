"""Cache: vectors that a chosen model makes are those of that model."""

import asyncio

import pytest

from resilient_ai.core.errors import InvalidInput, ServerFailed
from resilient_ai.core.operations import Chat, Embed
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import ChatResult, EmbedResult
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware import Cache, Coalesce, Routing, Rule
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import FakeClock, ScriptedProvider, chat_result

pytestmark = pytest.mark.anyio

AUTO = Embed(model="auto", texts=["ebb", "flood"])


class Bench:
    """A cache around a route, and a provider whose vectors say which model made them."""

    def __init__(self, *script, **options):
        self.sent = []
        self.faults = dict(script)
        self.routing = Routing(**{"embed_across_models": True, "explore": 0, **options})
        self.cache = Cache(MemoryStore())
        self.pipeline = Pipeline(ScriptedProvider(*[self.answer] * 20), [self.cache, self.routing], clock=FakeClock())
        self.send = self.pipeline.send

    async def answer(self, call):
        self.sent.append((call.model, list(call.operation.texts)))
        fault = self.faults.get(call.model)
        if fault is not None:
            raise fault
        number = {"a": 1.0, "b": 2.0}[call.model]
        vectors = Vectors.pack([[number, float(len(text))] for text in call.operation.texts])
        return EmbedResult(model=call.model, vectors=vectors)


async def test_vectors_of_the_model_that_is_chosen_are_kept():
    """They are paid for once, and answer those who name the model itself; a text that is new is sent alone."""
    bench = Bench(models=["a", "b"])
    first, second = await bench.send(AUTO), await bench.send(AUTO)
    assert bench.sent == [("a", ["ebb", "flood"])]
    assert (first.cache, second.cache, second.hits, second.served_by) == ("miss", "hit", 2, "a")
    assert [list(vector) for vector in second.vectors] == [[1.0, 3.0], [1.0, 5.0]]
    more = await bench.send(Embed(model="auto", texts=["ebb", "neap", "flood"]))
    assert (bench.sent[1:], more.hits) == ([("a", ["neap"])], 2)
    assert (await bench.send(Embed(model="a", texts=["neap"]))).hits == 1
    assert len(bench.sent) == 2


async def test_vectors_of_two_models_are_never_mixed():
    """Where another one has to serve what is missing, it makes all of them, and they do not pass for those of the first."""
    bench = Bench(models=["a", "b"])
    await bench.send(AUTO)
    bench.faults["a"] = ServerFailed("no", status=500)
    mixed = await bench.send(Embed(model="auto", texts=["ebb", "neap"]))
    assert [list(vector) for vector in mixed.vectors] == [[2.0, 3.0], [2.0, 4.0]]
    assert [texts for model, texts in bench.sent if model == "b"] == [["neap"], ["ebb", "neap"]]
    assert (await bench.send(AUTO)).cache == "hit"


async def test_each_tenant_has_those_of_its_own_model():
    """A rule decides for it."""
    rules = [Rule(models=["b"], tags={"tenant": "t"}, strict=True)]
    bench = Bench(models=["a", "b"], rules=rules)
    for tenant, number in {"t": 2.0, "u": 1.0}.items():
        for cache in ("miss", "hit"):
            served = await bench.send(AUTO, tags={"tenant": tenant})
            assert (served.vectors[0][0], served.cache) == (number, cache)
    assert [model for model, _ in bench.sent] == ["b", "a"]


async def test_why_it_would_be_missing():
    """It is told of the model that would be asked."""
    bench = Bench(models=["a", "b"])
    call = bench.pipeline.call(AUTO)
    assert await bench.cache.why_miss(call) == "2 of 2 texts are missing, the first of them text 0"
    await bench.send(Embed(model="a", texts=AUTO.texts))
    assert await bench.cache.why_miss(call) is None
    assert bench.cache.keys(call) == bench.cache.keys(bench.pipeline.call(Embed(model="a", texts=AUTO.texts)))


async def test_a_call_that_no_model_can_serve():
    """Fails as it does without a cache."""
    bench = Bench()
    with pytest.raises(InvalidInput, match="needs Routing"):
        await bench.send(AUTO)
    assert bench.sent == []


async def test_the_model_that_would_be_asked():
    """By order and by rule; a call that names its model has that."""
    rules = [Rule(models=["b"], tags={"tenant": "t"})]
    routing = Routing(models=["a", "b"], rules=rules)
    pipeline = Pipeline(ScriptedProvider(chat_result()), [routing], clock=FakeClock())

    def asked(model, **tags):
        call = pipeline.call(Chat(model=model, messages="hi"), tags=tags)
        return call.would_ask(call)

    assert [asked("auto"), asked("auto", tenant="t"), asked("c"), asked("c", tenant="t")] == ["a", "b", "c", "c"]
    alone = Pipeline(ScriptedProvider(), clock=FakeClock()).call(AUTO)
    assert alone.would_ask(alone) == "auto"


ONLY_B = [Rule(models=["b"], tags={"environment": "eu"}, strict=True)]
ASKED = Chat(model="auto", messages="hi", temperature=0)


class Answering:
    """Everything that answers in place of the service, around a route with a strict rule."""

    def __init__(self, *layers, rules=ONLY_B):
        self.released = asyncio.Event()

        async def answer(call):
            await self.released.wait()
            return chat_result(call.model, model=call.model)

        routing = Routing(models=["a", "b"], rules=rules, explore=0)
        self.provider = ScriptedProvider(*[answer] * 20)
        self.pipeline = Pipeline(self.provider, [*layers, routing], clock=FakeClock())

    async def texts(self, *asked):
        calls = [self.pipeline.send(operation, tags=tags) for operation, tags in asked]
        self.released.set()
        return [
            found.text if isinstance(found, ChatResult) else type(found).__name__
            for found in await asyncio.gather(*calls, return_exceptions=True)
        ]


@pytest.mark.parametrize("layer", [Coalesce, lambda: Cache(MemoryStore())], ids=["shared", "kept"])
async def test_nobody_gets_an_answer_of_a_model_that_a_rule_forbids(layer):
    """Neither at the same time nor later, whether it names that model or leaves it to the route."""
    eu, anywhere = {"environment": "eu"}, {}
    answering = Answering(layer())
    asked = [(ASKED, anywhere), (ASKED, eu), (ASKED.on("a"), anywhere), (ASKED.on("a"), eu)]
    for _ in range(2):
        assert await answering.texts(*asked) == ["a", "b", "a", "InvalidInput"]
    assert len(answering.provider.calls) == (3 if layer is not Coalesce else 6)


async def test_a_rule_that_changes_nothing_parts_nobody():
    """One that only prefers is not about those who name their model; calls of one rule share what it leads to."""
    rules = [Rule(models=["b"], tags={"environment": "eu"}), Rule(models=["b"], tags={"environment": "us"})]
    answering = Answering(Cache(MemoryStore()), rules=rules)
    eu, us = {"environment": "eu"}, {"environment": "us"}
    assert await answering.texts((ASKED.on("a"), eu)) == ["a"]
    assert await answering.texts((ASKED.on("a"), {})) == ["a"]
    assert await answering.texts((ASKED, eu)) == ["b"]
    assert await answering.texts((ASKED, us)) == ["b"]
    assert len(answering.provider.calls) == 2
