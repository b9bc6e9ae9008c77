"""Rules of a Routing: which models may serve which calls."""

from decimal import Decimal

import pytest

from resilient_ai.core.errors import InvalidInput, NoModelAvailable, ServerFailed
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware.routing import Routing, Rule
from resilient_ai.testing import FakeClock, ScriptedProvider, stream_of

pytestmark = pytest.mark.anyio

AUTO = Chat(model="auto", messages="hi")
BOOM = ServerFailed("boom", status=500)


async def send(script, operation=AUTO, *, tags=None, **options):
    """Send through a Routing with rules; return the models that were asked and the outcome."""
    provider = ScriptedProvider(*script)
    pipeline = Pipeline(provider, [Routing(**({"models": ["a", "b"]} | options))], clock=FakeClock())
    try:
        outcome = await pipeline.send(operation, tags=tags)
    except Exception as error:  # noqa: BLE001 - the outcome is what the test is about
        outcome = error
    return [call.model for call in provider.calls], outcome


def test_defaults():
    """A rule is about every call and leaves the other models behind its own."""
    assert repr(Rule(models=["a"])) == ("Rule(models=('a',), tags={}, kinds=(), max_prompt_tokens=None, strict=False)")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"models": []}, "models must name at least one model"),
        ({"models": ["a", "a"]}, "models must name each model once"),
        ({"models": ["auto"]}, "models must not name 'auto'"),
        ({"tags": "a"}, "tags must be of type Mapping"),
        ({"tags": {"tenant": 7}}, "tags must be a list of names"),
        ({"tags": {"tenant": "a*"}}, r"tags must have whole values, or '\*' for any value, got {'tenant': 'a\*'}"),
        ({"kinds": ["talk"]}, "kinds must be of"),
        ({"kinds": "chat"}, "kinds must be a list of names"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens must be a whole number >= 1"),
        ({"strict": 1}, "strict must be of type bool"),
    ],
)
def test_senseless_rules_are_refused(options, sentence):
    """At construction, with what was given."""
    with pytest.raises(ValueError, match=sentence):
        Rule(**({"models": ["a"]} | options))


async def test_a_rule_puts_its_models_before_the_others():
    """The others stay as a last resort."""
    rules = [Rule(models=["x"], tags={"tenant": "t"})]
    models, _ = await send([BOOM, BOOM], tags={"tenant": "t"}, rules=rules)
    assert models == ["x", "a", "b"]
    assert (await send([], tags={"tenant": "u"}, rules=rules))[0] == ["a"]
    assert (await send([], rules=rules))[0] == ["a"]


async def test_a_star_is_any_value_of_a_tag():
    """As in the scope of a budget: the call has the tag."""
    rules = [Rule(models=["x"], tags={"tenant": "*"})]
    asked = [await send([], tags=tags, rules=rules) for tags in ({"tenant": "t"}, {"tenant": "u"}, {"user": "t"}, {})]
    assert [models for models, _ in asked] == [["x"], ["x"], ["a"], ["a"]]


@pytest.mark.parametrize(
    ("operation", "is_ruled"),
    [(AUTO, True), (Chat(model=["a", "x"], messages="hi"), True), (AUTO.on("x"), False)],
)
async def test_the_one_model_that_a_rule_leaves_is_told_of(operation, is_ruled):
    """The answer and `explain` say that a rule chose; a model that the call names alone was nobody's choice."""
    routing = Routing(models=["a", "b"], rules=[Rule(models=["x"], strict=True)])
    pipeline = Pipeline(ScriptedProvider(), [routing], clock=FakeClock())
    expected = [("x", 1, "by a rule")]
    told = (await pipeline.send(operation)).considered
    assert [(one.model, one.place, one.why) for one in told] == (expected if is_ruled else [])
    explained = routing.explain(pipeline.call(operation))
    assert [(one.model, one.place, one.why) for one in explained] == (
        expected if is_ruled else [("x", 1, "the only one")]
    )


async def test_the_first_rule_that_is_about_a_call_decides():
    """Those behind it are not looked at."""
    rules = [
        Rule(models=["x"], tags={"tenant": "t", "feature": "f"}),
        Rule(models=["y"], tags={"tenant": "t"}),
        Rule(models=["z"]),
    ]
    asked = [await send([], tags=tags, rules=rules) for tags in ({"tenant": "t", "feature": "f"}, {"tenant": "t"}, {})]
    assert [models for models, _ in asked] == [["x"], ["y"], ["z"]]


async def test_short_prompts_may_go_to_a_cheaper_model():
    """Four characters are taken for a token."""
    rules = [Rule(models=["small"], max_prompt_tokens=100)]
    short, long = (Chat(model="auto", messages="x" * size) for size in (400, 401))
    assert (await send([], short, rules=rules))[0] == ["small"]
    assert (await send([], long, rules=rules))[0] == ["a"]


async def test_a_rule_may_be_about_kinds_of_operations():
    """So that one "auto" stands for chat models and for embedding models."""
    rules = [Rule(models=["e"], kinds=["embed"], strict=True)]
    assert (await send([], Embed(model="auto", texts="x"), rules=rules))[0] == ["e"]
    assert (await send([], rules=rules))[0] == ["a"]


@pytest.mark.parametrize(("kinds", "ruled"), [(["chat"], [True, True]), (["stream"], [False, True])])
async def test_a_streamed_chat_is_a_chat(kinds, ruled):
    """A rule for chats holds for those that are streamed as well, and one for streams for these alone."""
    rules = [Rule(models=["x"], kinds=kinds, strict=True)]
    asked = [
        await send([], AUTO, rules=rules),
        await send([stream_of("hi")], Stream(model="auto", messages="hi"), rules=rules),
    ]
    assert [models == ["x"] for models, _ in asked] == ruled


async def test_the_only_model_of_a_strict_rule_is_not_asked_for_what_it_lacks():
    """Nothing is sent; one that the call names itself is its own choice."""

    class Abilities:
        def lacks(self, operation):
            return "vectors" if operation.kind == "embed" and operation.model == "x" else None

        def dimensions(self, operation):
            return None

    options = {"rules": [Rule(models=["x"], strict=True)], "abilities": Abilities()}
    models, outcome = await send([], Embed(model="auto", texts="hi"), **options)
    assert (models, str(outcome)) == ([], "no model could serve the call (x: lacks vectors)")
    models, outcome = await send([], Embed(model=["a", "x"], texts="hi"), **options)
    assert (models, type(outcome)) == ([], NoModelAvailable)
    assert (await send([], Embed(model="x", texts="hi"), **options))[0] == ["x"]
    assert (await send([], AUTO, **options))[0] == ["x"]
    pipeline = Pipeline(ScriptedProvider(), [Routing(**options)], clock=FakeClock())
    explained = [pipeline.stack[0].explain(pipeline.call(Embed(model=name, texts="hi"))) for name in ("auto", "x")]
    assert [[(one.place, one.why) for one in told] for told in explained] == [
        [(None, "lacks vectors")],
        [(1, "the only one")],
    ]


@pytest.mark.parametrize("strict", [True, False])
async def test_what_a_model_of_a_rule_is_expected_to_cost_is_told(strict):
    """Also where it is the only one, and where nothing is preferred."""

    class Prices:
        def chat_cost(self, model, **amounts):
            return Decimal("0.00000082") if model == "x" else None

        embedding_cost = image_cost = chat_cost

    rules = [Rule(models=["x"], strict=strict)]
    _, answer = await send([], rules=rules, prices=Prices())
    told = [(one.model, one.cost, one.why) for one in answer.considered]
    assert told[0][:2] == ("x", Decimal("8.2E-7"))
    assert told[1:] == ([] if strict else [(name, None, "in the order given, no price known") for name in "ab"])


async def test_a_strict_rule_leaves_no_other_model():
    """What was asked for as "auto" fails rather than leave the model, fallbacks or not."""
    rules = [Rule(models=["x"], tags={"tenant": "t"}, strict=True)]
    operation = Chat(model="auto", fallbacks=("a",), messages="hi")
    assert await send([BOOM], operation, tags={"tenant": "t"}, rules=rules) == (["x"], BOOM)
    models, outcome = await send([BOOM, BOOM], tags={"tenant": "t"}, rules=[Rule(models=["x", "y"], strict=True)])
    assert (models, type(outcome)) == (["x", "y"], NoModelAvailable)


async def test_a_strict_rule_holds_for_models_that_a_call_names():
    """One it does not name is refused before anything is sent; of a list only its models are asked."""
    rules = [Rule(models=["x", "y"], tags={"tenant": "t"}, strict=True)]
    options = {"tags": {"tenant": "t"}, "rules": rules}
    models, outcome = await send([], AUTO.on("a"), **options)
    assert (models, type(outcome), outcome.field, outcome.value) == ([], InvalidInput, "model", "a")
    assert "may not serve this call by Rule(models=('x', 'y')" in str(outcome)
    assert (await send([], AUTO.on("y"), **options))[0] == ["y"]
    assert (await send([BOOM], Chat(model=["a", "y", "x"], messages="hi"), **options))[0] == ["y", "x"]
    models, outcome = await send([BOOM], Chat(model=["a", "y"], messages="hi"), **options)
    assert (models, outcome) == (["y"], BOOM)
    assert (await send([], AUTO.on("a"), rules=rules))[0] == ["a"]


async def test_a_rule_that_is_not_strict_leaves_named_models_alone():
    """Who names models has chosen; a function is not even asked."""

    def never(operation):
        raise AssertionError

    strict_elsewhere = Rule(models=["x"], tags={"tenant": "t"}, strict=True)
    assert (await send([], AUTO.on("b"), rules=[Rule(models=never), strict_elsewhere]))[0] == ["b"]


async def test_models_of_a_rule_may_come_from_a_function():
    """It is given the operation."""
    rules = [Rule(models=lambda operation: [f"{operation.kind}-model"], strict=True)]
    assert (await send([], rules=rules))[0] == ["chat-model"]
    models, outcome = await send([], rules=[Rule(models=lambda operation: [], strict=True)])
    assert (models, type(outcome)) == ([], InvalidInput)


async def test_with_a_preference_each_group_has_its_order():
    """The models of the rule come first, and the answer tells all."""
    _, answer = await send([], prefer="fastest", rules=[Rule(models=["x", "y"])], explore=0)
    assert [(one.model, one.place) for one in answer.considered] == [("x", 1), ("y", 2), ("a", 3), ("b", 4)]
    assert [one.why.startswith("by a rule") for one in answer.considered] == [True, True, False, False]
