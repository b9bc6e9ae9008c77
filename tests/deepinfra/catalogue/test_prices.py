"""The price table multiplies amounts by the catalogue's prices, exactly, and does not guess."""

from decimal import Decimal

import pytest

from resilient_ai.deepinfra.catalogue import Catalogue, ModelInfo, PriceTable, Pricing, catalogue

TURBO = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
KIMI = "moonshotai/Kimi-K2.6"
GLM = "zai-org/GLM-5.2"
SCHNELL = "black-forest-labs/FLUX-1-schnell"


@pytest.fixture
def table():
    return PriceTable(catalogue)


def test_chat_cost_of_a_worked_example(table):
    """A million tokens each way cost the two list prices."""
    million = 1_000_000

    assert table.chat_cost(TURBO, input_tokens=million, output_tokens=0) == Decimal("0.10")
    assert table.chat_cost(TURBO, input_tokens=0, output_tokens=million) == Decimal("0.32")
    assert table.chat_cost(f"{TURBO}:v1", input_tokens=1000, output_tokens=500) == Decimal("0.00026")


def test_chat_cost_with_cached_tokens(table):
    """(464 * 0.75 + 1536 * 0.15 + 100 * 3.50) / 1e6 dollars."""
    cost = table.chat_cost(KIMI, input_tokens=2000, output_tokens=100, cached_tokens=1536)

    assert cost == Decimal("0.0009284")


def test_chat_cost_with_cache_writes(table):
    """((3000 - 1000 - 800) * 0.75 + 1000 * 0.14 + 800 * 0.9375 + 200 * 2.40) / 1e6 dollars, at the tier flex 0.8 times that.

    That is 900 + 140 + 750 + 480 = 2270 millionths.
    """
    tokens = {"input_tokens": 3000, "output_tokens": 200, "cached_tokens": 1000, "cache_write_tokens": 800}

    assert table.chat_cost(GLM, **tokens) == Decimal("0.00227")
    assert table.chat_cost(GLM, **tokens, service_tier="flex") == Decimal("0.001816")


def test_reasoning_is_part_of_the_answer(table):
    """100 tokens of output, 61 of them reasoning, cost 100 times the price of output: the usage counts reasoning in it."""
    assert table.chat_cost(KIMI, input_tokens=0, output_tokens=100) == Decimal("0.00035")


def test_what_the_service_billed_in_recorded_answers():
    """Figures of the service at prices of their day: 48 and 200 tokens, 48 and 189, and 4805 and 1079 of another model."""
    llama = Pricing(input_per_1m=Decimal("0.35"), output_per_1m=Decimal("0.40"))
    gemma = Pricing(input_per_1m=Decimal("0.04"), output_per_1m=Decimal("0.13"))

    assert llama.token_cost(input_tokens=48, output_tokens=200) == Decimal("0.0000968")
    assert llama.token_cost(input_tokens=48, output_tokens=189) == Decimal("0.0000924")
    assert gemma.token_cost(input_tokens=4805, output_tokens=1079) == Decimal("0.00033247")


@pytest.mark.parametrize(
    ("tier", "cost"),
    [(None, "0.00042"), ("default", "0.00042"), ("priority", "0.00063"), ("flex", "0.000336")],
)
def test_a_tier_changes_the_price_by_its_factor(table, tier, cost):
    """Priority costs half as much again, flex a fifth less."""
    assert table.chat_cost(TURBO, input_tokens=1000, output_tokens=1000, service_tier=tier) == Decimal(cost)


def test_a_completion_is_priced_like_a_chat(table):
    """Completion models have token prices too, retired ones their last."""
    assert table.chat_cost("01-ai/Yi-34B-200K", input_tokens=500, output_tokens=500) == Decimal("0.0006")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("nobody/nothing", {}),
        (TURBO.lower(), {}),
        ("deploy_id:abc", {}),
        (TURBO, {"service_tier": "turbo"}),
        (TURBO, {"cached_tokens": 1}),
        (TURBO, {"cached_tokens": -1}),
        (KIMI, {"cached_tokens": 11}),
        (KIMI, {"cache_write_tokens": 1}),
        (GLM, {"cache_write_tokens": -1}),
        (GLM, {"cached_tokens": 6, "cache_write_tokens": 5}),
        (KIMI, {"output_tokens": -1}),
        ("google/gemma-7b-it", {}),
        (SCHNELL, {}),
        ("BAAI/bge-m3", {}),
    ],
)
def test_an_unknown_chat_cost_is_none(table, model, options):
    """Unknown models, tiers and prices, and contradicting amounts, give None and never zero."""
    assert table.chat_cost(model, **{"input_tokens": 10, "output_tokens": 10} | options) is None


def test_embedding_cost(table):
    """Embeddings cost their input."""
    assert table.embedding_cost("BAAI/bge-m3", input_tokens=1_000_000) == Decimal("0.01")
    assert table.embedding_cost("BAAI/bge-m3", input_tokens=1_000_000, service_tier="priority") == Decimal("0.015")
    assert table.embedding_cost("BAAI/bge-m3", input_tokens=1_000_000, service_tier="unheard of") is None
    assert table.embedding_cost("nobody/nothing", input_tokens=1) is None
    assert table.embedding_cost("BAAI/bge-m3", input_tokens=-1) is None


def test_image_cost_of_a_worked_example(table):
    """0.0005 * (768 / 1024) * (512 / 1024) * 4 dollars."""
    assert table.image_cost(SCHNELL, images=1, width=768, height=512, steps=4) == Decimal("0.00075")
    assert table.image_cost(SCHNELL, images=2, width=768, height=512, steps=4) == Decimal("0.0015")
    assert table.image_cost(SCHNELL, images=1, width=1024, height=1024, steps=1) == Decimal("0.0005")
    assert table.image_cost("black-forest-labs/FLUX-2-klein-4b", images=1, width=512, height=512) == Decimal("0.0035")
    assert table.image_cost("black-forest-labs/FLUX-1.1-pro", images=3, width=512, height=512, steps=9) == Decimal(
        "0.12"
    )


@pytest.mark.parametrize(
    ("model", "cost"),
    [
        (SCHNELL, "0.0005"),
        ("black-forest-labs/FLUX-1-dev", "0.009"),
        ("black-forest-labs/FLUX-1.1-pro", "0.04"),
        ("black-forest-labs/FLUX-2-klein-4b", "0.014"),
        ("stabilityai/sdxl-turbo", "0.0002"),
    ],
)
def test_an_image_with_the_defaults_of_its_model(table, model, cost):
    """Without size and steps the model's own are used."""
    assert table.image_cost(model, images=1) == Decimal(cost)


def test_default_steps_may_be_more_than_a_unit_holds(table):
    """FLUX-2-dev makes 50 steps unless told otherwise, and a unit holds 28."""
    cost = table.image_cost("black-forest-labs/FLUX-2-dev", images=1)

    assert round(cost, 10) == Decimal("0.0178571429")


@pytest.mark.parametrize(
    "model",
    [
        "nobody/nothing",
        TURBO,
        "google/nano-banana-pro",
        "runwayml/stable-diffusion-v1-5",
        "black-forest-labs/FLUX-2-max",
        "black-forest-labs/FLUX-2-pro",
        "run-diffusion/Juggernaut-Flux",
        "run-diffusion/Juggernaut-Lightning-Flux",
        "black-forest-labs/FLUX.1-Kontext-pro",
        "Qwen/Qwen-Image-Edit",
    ],
)
def test_an_unknown_image_cost_is_none(table, model):
    """Unknown models, units only the provider counts, and sizes without a default give None."""
    assert table.image_cost(model, images=1) is None


def test_newer_records_override_prices():
    """A table over changed records uses the changed prices."""
    record = ModelInfo(id=TURBO, org="meta-llama", kind="chat", pricing=Pricing(input_per_1m=Decimal(7)))
    table = PriceTable(catalogue.with_models(record))

    assert table.chat_cost(TURBO, input_tokens=1_000_000, output_tokens=0) == 7


def test_the_packaged_catalogue_is_the_default():
    """A table without arguments prices by the packaged data."""
    assert PriceTable().embedding_cost("BAAI/bge-m3", input_tokens=100) == Decimal("0.000001")
    assert repr(PriceTable(Catalogue())) == "PriceTable(Catalogue())"
