"""A list of models that is asked of the catalogue."""

from dataclasses import FrozenInstanceError, fields, replace
from decimal import Decimal

import pytest

from resilient_ai.core.operations import Chat
from resilient_ai.deepinfra.catalogue import Catalogue, ModelInfo, ModelQuery, Pricing


def model(id, price, **facts):
    return ModelInfo(
        id=id,
        org=id.partition("/")[0],
        kind="chat",
        status="active",
        pricing=Pricing(input_per_1m=Decimal(price)),
        **facts,
    )


SMALL = Catalogue(
    [model("a/dear", 3, tools=True), model("a/cheap", 1, tools=True), model("a/plain", 2)],
    as_of=Catalogue().as_of,
)


def test_the_defaults_are_those_of_the_guide():
    """Active chat models, and nothing else is asked."""
    defaults = {field.name: field.default for field in fields(ModelQuery)}

    assert {name: value for name, value in defaults.items() if value is not None and name != "catalogue"} == {
        "kind": "chat",
        "status": "active",
    }


def test_a_query_gives_routing_the_ids_the_cheapest_first():
    """It is called with the operation, and gives what `find` finds."""
    operation = Chat(model="auto", messages="hi")

    assert ModelQuery(tools=True, catalogue=SMALL)(operation) == ("a/cheap", "a/dear")
    assert ModelQuery(kind=None, status=None, catalogue=SMALL).models() == ("a/cheap", "a/plain", "a/dear")
    assert ModelQuery(catalogue=SMALL, limit=2)(operation) == ("a/cheap", "a/plain")
    assert ModelQuery(tools=True, min_context=100_000)(operation) == tuple(
        found.id for found in Catalogue().find("chat", tools=True, min_context=100_000)
    )


def test_a_query_can_be_asked_of_another_catalogue():
    """The conditions stay the same."""
    query = ModelQuery(tools=True, limit=1).at(SMALL)

    assert (query.models(), query.tools, query.limit) == (("a/cheap",), True, 1)


def test_the_answer_is_kept_as_long_as_the_catalogue_is_the_same():
    """And found again when it has changed."""

    class Changing(Catalogue):
        now = SMALL

        @property
        def models(self):
            return self.now.models

    changing = Changing()
    query = ModelQuery(tools=True, catalogue=changing)

    first = query.models()
    assert query.models() is first
    changing.now = SMALL.with_models(replace(SMALL.get("a/dear"), pricing=Pricing(input_per_1m=Decimal("0.5"))))
    assert query.models() == ("a/dear", "a/cheap")


def test_a_query_is_a_value():
    """Equal conditions are equal, also after one was asked, and none can be changed."""
    asked = ModelQuery(tools=True)
    asked.models()

    assert asked == ModelQuery(tools=True)
    assert hash(asked) == hash(ModelQuery(tools=True))
    with pytest.raises(FrozenInstanceError):
        asked.tools = False


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "poem"}, "kind must be one of"),
        ({"status": "asleep"}, "status must be one of"),
        ({"tools": 1}, "tools must be of type bool or None, got 1"),
        ({"max_input_price": -1}, "max_input_price must be >= 0, got -1"),
        ({"max_output_price": Decimal("NaN")}, "max_output_price must be >= 0"),
        ({"max_output_price": "0.1"}, "max_output_price must be >= 0, got '0.1'"),
        ({"min_context": 1.5}, "min_context must be a whole number >= 1, got 1.5"),
        ({"limit": 0}, "limit must be a whole number >= 1, got 0"),
        ({"text": 7}, "text must be of type str or None, got 7"),
        ({"catalogue": None}, "catalogue must be of type Catalogue, got None"),
    ],
)
def test_a_wrong_condition_is_refused_at_construction(wrong, message):
    """Not at the first call."""
    with pytest.raises(ValueError) as caught:
        ModelQuery(**wrong)

    assert str(caught.value).startswith(message)
