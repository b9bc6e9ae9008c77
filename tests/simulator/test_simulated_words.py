"""Answers, instances of schemas, and texts for patterns."""

import re
from decimal import Decimal

import pytest

from resilient_ai.deepinfra.catalogue import Pricing
from resilient_ai.simulator.bill import Books, Charge
from resilient_ai.simulator.instances import instance
from resilient_ai.simulator.patterns import example
from resilient_ai.simulator.pricing import token_cost
from resilient_ai.simulator.state import PrefixCache
from resilient_ai.simulator.text import answer, thoughts
from resilient_ai.simulator.tokens import count, split
from resilient_ai.simulator.words import Hints

TALK = Hints("Compare Kiel and Emden at 7 knots, 2.5 miles out.")


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is 12 + 30?", "12 + 30 = 42."),
        ("What is 12 - 30?", "12 - 30 = -18."),
        ("What is 6 / 4?", "6 / 4 = 1.5."),
        ("What is 6 / 0?", "A division by zero has no result."),
        ("Reply with exactly: pong", "pong"),
        ('Please repeat "a b"', "a b"),
    ],
)
def test_simple_requests_are_met(prompt, said):
    """Facts, sums and echoes come out right."""
    assert answer(prompt) == said


def test_code_models_write_functions():
    """A code model writes code, and others do when asked for it."""
    assert "def reverse_string(value):" in answer("Write a Python function to reverse a string")
    assert answer("sort numbers", code=True).startswith("```python\ndef sort_numbers")
    assert "def solve(value)" in answer("code")


@pytest.mark.parametrize(("unit", "measure"), [("words", lambda t: len(t.split())), ("tokens", count)])
def test_lengths_are_kept(unit, measure):
    """So many words or tokens are written as asked for."""
    assert measure(answer(f"Write 120 {unit} about lighthouses")) == 120


def test_other_questions_are_answered_with_their_own_words():
    """The answer speaks of the question, in another way with another salt; without words too."""
    texts = {answer("How do lobsters migrate?", salt=salt) for salt in range(3)}

    assert len(texts) == 3
    assert all("migrate" in text for text in texts)
    assert answer("?")
    assert answer("What moves the tides?", salt=1).startswith("In other words: tides rise")


def test_thoughts_can_be_none():
    """No effort, no thoughts."""
    assert thoughts("a", "none") == ""


def test_pieces_join_to_the_text():
    """Whatever is cut can be put together again."""
    text = "Tides  rise\n\ntwice, über Nacht.\t"
    assert "".join(split(text)) == text


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        ({"const": 3}, 3),
        ({"enum": ["Bern", "Emden"]}, "Emden"),
        ({"enum": [1, 2]}, 1),
        ({"type": "boolean", "default": False}, False),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 7),
        ({"type": ["null"]}, None),
        ({"type": "number", "minimum": 8}, 8),
        ({"type": "number", "maximum": 3}, 2.5),
        ({"type": "integer", "exclusiveMinimum": 9}, 10),
        ({"type": "integer", "exclusiveMaximum": 5}, 1),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.25),
        ({"type": "integer", "multipleOf": 5}, 10),
        ({"type": "integer", "minimum": 100, "default": 120}, 120),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "string", "pattern": "^[a-z]{2}$"}, "aa"),
        ({"type": "string", "minLength": 8}, "Kiel...."),
        ({"type": "string", "maxLength": 2}, "Ki"),
        ({"type": "array", "items": {"type": "string"}}, ["Kiel", "Emden"]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, [7]),
        ({"items": {"type": "string"}, "minItems": 3}, ["Kiel", "Emden", "Kiel"]),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 7),
        ({"oneOf": [{"type": "null"}]}, None),
        ({"properties": {"a": {}}, "required": ["b"]}, {"a": "Kiel", "b": "Emden"}),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"const": "found"}}}, "found"),
        ({"$ref": "#/$defs/absent"}, "Kiel"),
        ({"$ref": "#/const/absent", "const": 1}, 1),
        ({"$ref": "#"}, "Kiel"),
        ({}, "Kiel"),
    ],
)
def test_instances_fit_their_schema(schema, made):
    """Every kind of schema gives a value that fits, out of the prompt where possible."""
    assert instance(schema, Hints(TALK.prompt)) == made


@pytest.mark.parametrize("child", [{"$ref": "#"}, {"anyOf": [{"$ref": "#"}, {"type": "null"}]}])
@pytest.mark.parametrize("required", [[], ["next"]])
def test_recursive_schemas_end(child, required):
    """A schema that contains itself gives a finite value."""
    schema = {
        "type": "object",
        "properties": {"next": child, "list": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}},
        "required": required,
    }
    assert instance(schema, Hints(""))["next"]


def test_alternatives_far_down_are_plain():
    """Deep inside, a union without null takes its plainest branch."""
    schema = {"type": "object", "properties": {"v": {"anyOf": [{"$ref": "#"}, {"type": "string"}]}}}
    value = instance(schema, Hints("Say a"))

    while isinstance(value, dict):
        value = value["v"]
    assert isinstance(value, str)


def test_labelled_words_are_found():
    """A value that the prompt names for a field is taken."""
    hints = Hints("The colour: green, please.")
    assert instance({"type": "object", "properties": {"colour": {"type": "string"}}}, hints) == {"colour": "green"}


@pytest.mark.parametrize(
    "pattern",
    [r"^\d{4}-\d{2}$", r"(a|b)c+d*e?", r"[^a]x", r"(?:yes|no)!", r"(?P<n>\w)\.", r"\bfoo\b", r"a{2,}?", ".", r"[\]x]y"],
)
def test_examples_match_their_pattern(pattern):
    """The text that is made is one that the pattern accepts."""
    assert re.fullmatch(pattern, example(pattern))


def test_tokens_without_a_price_cost_none():
    """An unknown price makes the cost unknown, and an unknown cost leaves the bill alone."""
    free = Pricing(input_per_1m=None, output_per_1m=None, cached_input_per_1m=None, image=None)
    half = Pricing(input_per_1m=Decimal(1), output_per_1m=None, cached_input_per_1m=None, image=None)
    books = Books()
    books.charge(Charge(key="", model="m", cost=None))

    assert token_cost(free, prompt=1) is None
    assert token_cost(half, prompt=1, completion=1) is None
    assert token_cost(half, prompt=2, cached=1) == Decimal("0.000002")
    assert books.stats().bill == 0


def test_prefixes_are_kept_by_key_and_model():
    """Other accounts, other models and changed beginnings find nothing."""
    cache = PrefixCache()
    pieces = [f"p{i}" for i in range(200)]

    assert cache.cached_tokens("k", "m", pieces) == 0
    assert cache.cached_tokens("k", "m", pieces) == 192
    assert cache.cached_tokens("k", "m", [*pieces[:100], "x", *pieces[101:]]) == 64
    assert cache.cached_tokens("k2", "m", pieces) == cache.cached_tokens("k", "m2", pieces) == 0
    small = PrefixCache(capacity=1)
    assert [small.cached_tokens("k", "m", pieces[:70]), small.cached_tokens("k", "m", pieces)] == [0, 64]
    assert small.cached_tokens("k", "m", pieces) == 0
    cache.clear()
    assert cache.cached_tokens("k", "m", pieces) == 0
