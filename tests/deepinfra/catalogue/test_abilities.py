"""What a model lacks, as far as the catalogue knows."""

from datetime import date

import pytest

from resilient_ai.core.messages import AudioPart, ImagePart, system, user
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.protocols import Abilities
from resilient_ai.deepinfra.catalogue import Catalogue, CatalogueAbilities, ModelInfo, catalogue
from resilient_ai.testing import PIXEL

TOOL = {"name": "tides", "parameters": {"type": "object", "properties": {}}}
PICTURE = user("what is this?", ImagePart.of(PIXEL))
SPEECH = user("what is this?", AudioPart(data="AAAA"))
SCHEMA = {"type": "json_schema", "json_schema": {"type": "object"}}


def lacks(operation, **known):
    """Ask a catalogue of one model, `m`, of which this is known."""
    record = ModelInfo(**({"id": "m", "org": "o", "kind": "chat", "status": "active"} | known))
    return CatalogueAbilities(Catalogue([record], as_of=date(2026, 11, 22))).lacks(operation)


def chat(messages="hi", **options):
    return Chat(model="m", messages=messages, **options)


def test_it_is_what_routing_asks():
    """It fits the protocol, looks into the packaged data by default, and shows where it looks."""
    abilities: Abilities = CatalogueAbilities()

    assert abilities == CatalogueAbilities(catalogue)
    assert repr(abilities) == "CatalogueAbilities(models=Catalogue())"


@pytest.mark.parametrize(
    ("operation", "ability", "lack"),
    [
        (chat(tools=[TOOL]), "tools", "tools"),
        (Stream(model="m", messages="hi", tools=[TOOL]), "tools", "tools"),
        (chat([PICTURE]), "vision", "vision"),
        (chat([SPEECH]), "audio_input", "audio input"),
        (chat(response_format="json_object"), "json", "JSON mode"),
        (chat(response_format=SCHEMA), "json", "JSON mode"),
        (Complete(model="m", prompt="a", response_format="json_object"), "json", "JSON mode"),
    ],
)
def test_only_what_is_known_to_be_missing_counts(operation, ability, lack):
    """No is no, unknown is not, and an ability that the call does not need is not asked after."""
    assert lacks(operation, **{ability: False}) == lack
    assert lacks(operation, **{ability: None}) is None
    assert lacks(operation, **{ability: True}) is None
    assert lacks(chat(), **{ability: False}) is None


@pytest.mark.parametrize(
    "operation",
    [
        chat(tools=[TOOL], tool_choice="none"),
        chat(response_format="text"),
        chat(response_format={"type": "regex", "regex": "a+"}),
        chat(reasoning_effort="high"),
        chat([system("be brief"), user("hi"), {"role": "assistant", "tool_calls": [{"id": "1", "name": "tides"}]}]),
    ],
)
def test_what_a_model_can_do_without_is_not_missing(operation):
    """Tools that may not be called, free text, and thoughts that a model has none of are no reason to pass it over."""
    assert lacks(operation, tools=False, json=False, vision=False, audio_input=False, reasoning=False) is None


@pytest.mark.parametrize(
    ("operation", "kind", "lack"),
    [
        (chat(), "embedding", "chat, as it is made for embedding"),
        (Stream(model="m", messages="hi"), "image", "stream, as it is made for image"),
        (Complete(model="m", prompt="a"), "rerank", "complete, as it is made for rerank"),
        (Embed(model="m", texts="a"), "chat", "embed, as it is made for chat"),
        (Image(model="m", prompt="a"), "chat", "image, as it is made for chat"),
        (chat(), "ocr", None),
        (chat(), "completion", None),
        (Complete(model="m", prompt="a"), "chat", None),
        (Embed(model="m", texts="a"), "embedding", None),
        (Image(model="m", prompt="a"), "image", None),
    ],
)
def test_a_model_serves_what_it_is_made_for(operation, kind, lack):
    """A model of another kind would refuse; those for text stand in for one another."""
    assert lacks(operation, kind=kind) == lack


@pytest.mark.parametrize(
    ("operation", "tokens"),
    [
        (chat("x" * 6000), 1000),
        (chat([system("x" * 3000), user("x" * 3000)]), 1000),
        (chat([user("x" * 3000, ImagePart.of(PIXEL)), {"role": "assistant", "content": None}, user("x" * 3000)]), 1000),
        (chat([user("x" * 3000), {"role": "tool", "content": "x" * 3000, "tool_call_id": "1"}]), 1000),
        (
            chat(
                [
                    user("a" * 3000),
                    {"role": "assistant", "tool_calls": [{"id": "1", "name": "t", "arguments": "x" * 3000}]},
                ]
            ),
            1000,
        ),
        (chat("x" * 600, max_tokens=900), 1000),
        (Complete(model="m", prompt="x" * 6000), 1000),
    ],
)
def test_a_prompt_that_is_clearly_too_long_is_not_sent(operation, tokens):
    """Six characters to a token, and the tokens of the answer: what is above the context is passed over, what fits is not."""
    assert lacks(operation, context_length=tokens) is None
    assert (
        lacks(operation, context_length=tokens - 1) == f"context for at least {tokens} tokens, as it has {tokens - 1}"
    )
    assert lacks(operation) is None


@pytest.mark.parametrize(
    ("asked", "own", "lack"),
    [
        (512, 1024, None),
        (1024, 1024, None),
        (2048, 1024, "2048 dimensions, as it has 1024"),
        (2048, None, None),
        (None, 1024, None),
    ],
)
def test_vectors_can_be_shortened_and_not_made_longer(asked, own, lack):
    """More dimensions than a model has would be zeros."""
    assert lacks(Embed(model="m", texts="a", dimensions=asked), kind="embedding", dimensions=own) == lack


@pytest.mark.parametrize(
    ("images", "modalities", "lack"),
    [
        ((PIXEL,), ("text",), "source images"),
        ((PIXEL,), ("image", "text"), None),
        ((PIXEL,), None, None),
        ((), ("text",), None),
    ],
)
def test_a_model_that_draws_from_words_alone_edits_nothing(images, modalities, lack):
    """Source images need a model that takes them."""
    operation = Image(model="m", prompt="a", images=images)

    assert lacks(operation, kind="image", input_modalities=modalities) == lack


def test_of_an_unknown_model_nothing_is_missing():
    """Private models are asked; the service knows better."""
    operation = Chat(model="deploy_id:42", messages="hi", tools=[TOOL])

    assert CatalogueAbilities().lacks(operation) is None


def test_a_retired_model_can_do_what_the_one_in_its_place_can():
    """The service answers with the replacement; where there is none, nothing is known, unless it is only no longer listed."""
    old = ModelInfo(id="old", org="o", kind="chat", status="retired", tools=False, replaced_by="new")
    new = ModelInfo(id="new", org="o", kind="chat", status="active", tools=True, vision=False)
    gone = ModelInfo(id="gone", org="o", kind="embedding", status="retired", dimensions=64)
    unlisted = ModelInfo(id="unlisted", org="o", kind="embedding", status="presumed_removed", dimensions=64)
    abilities = CatalogueAbilities(Catalogue([old, new, gone, unlisted], as_of=date(2026, 11, 22)))

    assert abilities.lacks(Chat(model="old", messages="hi", tools=[TOOL])) is None
    assert abilities.lacks(Chat(model="old", messages=[PICTURE])) == "vision"
    assert abilities.lacks(Chat(model="gone", messages="hi")) is None
    assert abilities.dimensions(Embed(model="gone", texts="a")) is None
    assert abilities.dimensions(Embed(model="unlisted", texts="a")) == 64


@pytest.mark.parametrize(
    ("model", "asked", "dimensions"),
    [
        ("BAAI/bge-m3", None, 1024),
        ("BAAI/bge-m3:some-version", None, 1024),
        ("BAAI/bge-m3", 256, 256),
        ("nobody/nothing", 256, None),
        ("nvidia/llama-nemotron-embed-vl-1b-v2", None, None),
    ],
)
def test_dimensions_are_those_that_were_asked_for_or_the_models_own(model, asked, dimensions):
    """Only of a model whose own are known, as only such a one is known to be comparable in length."""
    assert CatalogueAbilities().dimensions(Embed(model=model, texts="a", dimensions=asked)) == dimensions


@pytest.mark.parametrize(
    ("longest", "context", "limit"),
    [(4096, 131_072, 4096), (131_072, 32_768, 32_768), (8192, None, 8192), (None, 131_072, None), (None, None, None)],
)
def test_an_answer_is_no_longer_than_the_model_allows(longest, context, limit):
    """The longest answer that is known, which fits into the context; without one nothing is guessed."""
    record = ModelInfo(id="m", org="o", kind="chat", status="active", max_output_tokens=longest, context_length=context)
    abilities = CatalogueAbilities(Catalogue([record], as_of=date(2026, 11, 22)))

    assert abilities.output_limit("m") == limit
    assert abilities.output_limit("deploy_id:42") is None


def test_a_retired_model_answers_as_long_as_the_one_in_its_place():
    """The service answers with the replacement."""
    old = ModelInfo(id="old", org="o", kind="chat", status="retired", max_output_tokens=4096, replaced_by="new")
    new = ModelInfo(id="new", org="o", kind="chat", status="active", max_output_tokens=16_384)

    assert CatalogueAbilities(Catalogue([old, new], as_of=date(2026, 11, 22))).output_limit("old") == 16_384
