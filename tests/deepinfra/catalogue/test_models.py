"""Records refuse what cannot be, and price amounts exactly or not at all."""

import dataclasses
from datetime import date
from decimal import Decimal

import pytest

from resilient_ai.deepinfra.catalogue import ImagePricing, ModelInfo, Pricing, Promo, UnitPrice


def per_image_unit(**options):
    return ImagePricing(unit="image_unit", usd_per_unit=Decimal("0.01"), **options)


def test_model_defaults_are_unknown():
    """A record of which only the name and the kind are given knows nothing else."""
    model = ModelInfo(id="me/llama", org="me", kind="chat")

    known = {name: value for name, value in dataclasses.asdict(model).items() if value is not None}
    nothing = dict.fromkeys(field.name for field in dataclasses.fields(Pricing))
    assert known == {"id": "me/llama", "org": "me", "kind": "chat", "status": "unknown", "pricing": nothing}


def test_records_are_frozen():
    """A record cannot be changed, only replaced."""
    model = ModelInfo(id="me/llama", org="me", kind="chat")

    with pytest.raises(dataclasses.FrozenInstanceError):
        model.status = "active"


@pytest.mark.parametrize(
    ("status", "retired"), [("active", False), ("retired", True), ("presumed_removed", True), ("unknown", False)]
)
def test_retired_means_withdrawn_or_no_longer_listed(status, retired):
    """Only an announced or a presumed removal makes a model retired."""
    assert ModelInfo(id="a/b", org="a", kind="chat", status=status).retired is retired


def test_an_unknown_kind_is_refused_with_the_allowed_ones():
    """A misspelt kind is an error that names every kind."""
    with pytest.raises(ValueError, match=r"kind must be one of 'chat', 'completion', .* 'video', got 'chats'"):
        ModelInfo(id="a/b", org="a", kind="chats")


def test_an_unknown_status_is_refused():
    """A misspelt status is an error."""
    with pytest.raises(ValueError, match=r"status must be one of 'active', .* got 'gone'"):
        ModelInfo(id="a/b", org="a", kind="chat", status="gone")


def test_an_unknown_image_unit_is_refused():
    """A misspelt unit is an error."""
    with pytest.raises(ValueError, match=r"unit must be one of 'image', .* got 'picture'"):
        ImagePricing(unit="picture", usd_per_unit=Decimal(1))


@pytest.mark.parametrize(
    "build",
    [
        lambda price: Pricing(input_per_1m=price),
        lambda price: Pricing(output_per_1m=price),
        lambda price: Pricing(cached_input_per_1m=price),
        lambda price: Pricing(cache_write_per_1m=price),
        lambda price: ImagePricing(unit="image", usd_per_unit=price),
        lambda price: UnitPrice(unit="minute", usd_per_unit=price),
    ],
)
def test_a_price_is_a_decimal_that_can_be_paid(build):
    """A float, a negative price and infinity are refused where they are written, not where they are used."""
    with pytest.raises(TypeError, match=r"must be a Decimal, got 0\.1"):
        build(0.1)
    with pytest.raises(ValueError, match="must be a finite number >= 0, got -1"):
        build(Decimal(-1))
    for price in ("1e9999999999", "1e-9999999999", "1000000000.1"):
        with pytest.raises(ValueError, match="must be 0, or from 1E-12 to 1000000000 US dollars, got "):
            build(Decimal(price))
    with pytest.raises(ValueError, match="must be a finite number >= 0, got Infinity"):
        build(Decimal("Infinity"))
    assert build(Decimal(0)) == build(Decimal("0.0"))


def test_a_promo_needs_no_prices():
    """A discount may be known before the prices it leads to."""
    promo = Promo(discount_pct=Decimal(25), as_of=date(2026, 9, 22))

    assert (promo.input_per_1m, promo.output_per_1m, promo.cached_input_per_1m) == (None, None, None)


def test_token_cost_takes_cached_tokens_out_of_the_input():
    """Cached tokens are part of the input and are billed at their own price."""
    pricing = Pricing(input_per_1m=Decimal("0.75"), output_per_1m=Decimal("3.5"), cached_input_per_1m=Decimal("0.15"))

    assert pricing.token_cost(input_tokens=2000, output_tokens=100, cached_tokens=1536) == Decimal("0.0009284")


def test_token_cost_is_exact_over_many_calls():
    """A million times one token costs what one time a million tokens does."""
    pricing = Pricing(input_per_1m=Decimal("0.1"))

    one = pricing.token_cost(input_tokens=1)
    assert one is not None
    assert one * 1_000_000 == pricing.token_cost(input_tokens=1_000_000) == Decimal("0.1")


@pytest.mark.parametrize(
    ("amounts", "cost"),
    [
        ({}, Decimal(0)),
        ({"input_tokens": 10}, Decimal("0.00001")),
        ({"input_tokens": 10, "output_tokens": 1}, None),
        ({"input_tokens": 10, "cached_tokens": 1}, None),
    ],
)
def test_a_price_is_needed_only_where_there_are_tokens(amounts, cost):
    """A missing price makes the cost unknown only if something was counted at it."""
    assert Pricing(input_per_1m=Decimal(1)).token_cost(**amounts) == cost


def test_a_price_of_zero_is_a_price():
    """Free is known and costs nothing."""
    assert Pricing(input_per_1m=Decimal(0)).token_cost(input_tokens=5) == 0


@pytest.mark.parametrize(
    "amounts",
    [
        {"input_tokens": -1},
        {"input_tokens": 1, "output_tokens": -1},
        {"input_tokens": 1, "cached_tokens": -1},
        {"input_tokens": 1, "cached_tokens": 2},
    ],
)
def test_contradicting_tokens_have_no_cost(amounts):
    """Negative amounts, or more cached tokens than input, give no cost rather than a wrong one."""
    one = Decimal(1)
    pricing = Pricing(input_per_1m=one, output_per_1m=one, cached_input_per_1m=one)

    assert pricing.token_cost(**amounts) is None


def test_a_price_per_image_ignores_the_size():
    """Billed by the image, four large ones cost four times one."""
    pricing = ImagePricing(unit="image", usd_per_unit=Decimal("0.04"))

    assert pricing.cost(images=4, width=2048, height=2048, steps=50) == Decimal("0.16")


def test_an_image_unit_uses_the_defaults_of_the_model():
    """What the request leaves open is what the provider fills in, here twice the steps of one unit."""
    pricing = per_image_unit(default_width=1024, default_height=512, default_steps=50, base_steps=25)

    assert pricing.cost() == Decimal("0.01")
    assert pricing.cost(images=3, width=512, height=512, steps=25) == Decimal("0.0075")


def test_steps_do_not_count_without_base_steps():
    """Without base steps the price depends on the size alone."""
    pricing = per_image_unit(default_width=1024, default_height=1024)

    assert pricing.cost() == pricing.cost(steps=50) == Decimal("0.01")


@pytest.mark.parametrize("missing", ["width", "height", "steps"])
def test_an_image_unit_without_a_needed_number_has_no_cost(missing):
    """A size or a number of steps that nobody named makes the cost unknown."""
    amounts = {"width": 1024, "height": 1024, "steps": 25}
    pricing = per_image_unit(base_steps=25)

    assert pricing.cost(**amounts) == Decimal("0.01")
    assert pricing.cost(**amounts | {missing: None}) is None


@pytest.mark.parametrize("wrong", [{"images": -1}, {"width": 0}, {"height": -1}, {"steps": 0}])
def test_impossible_images_have_no_cost(wrong):
    """Amounts that cannot be give no cost."""
    pricing = per_image_unit(default_width=1024, default_height=1024, default_steps=25, base_steps=25)

    assert pricing.cost(**wrong) is None


@pytest.mark.parametrize("unit", ["image_token", "second", "provider_unit"])
def test_units_counted_by_the_provider_have_no_cost(unit):
    """What only the provider can count cannot be priced before the answer."""
    assert ImagePricing(unit=unit, usd_per_unit=Decimal(1)).cost(width=1024, height=1024, steps=1) is None
