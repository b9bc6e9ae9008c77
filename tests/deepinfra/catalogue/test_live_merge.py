"""What the lists say goes over what is known, field by field."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import orjson
import pytest

from resilient_ai.deepinfra.catalogue import ImagePricing, ModelInfo, Pricing, Promo, UnitPrice
from resilient_ai.deepinfra.catalogue._live_merge import merge
from resilient_ai.deepinfra.catalogue._live_rows import read_native, read_openai

TODAY = date(2026, 10, 1)
LLAMA = ModelInfo(
    id="a/b",
    org="a",
    kind="chat",
    status="active",
    family="llama",
    context_length=131072,
    max_output_tokens=16384,
    tools=True,
    vision=False,
    quantization="fp8",
    pricing=Pricing(input_per_1m=Decimal("0.1"), output_per_1m=Decimal("0.32"), cached_input_per_1m=Decimal("0.05")),
    price_as_of="2026-09-11",
    price_confidence="medium",
)


def openai(id="a/b", **metadata):
    return read_openai(orjson.dumps({"data": [{"id": id, "metadata": metadata or None}]}))


def native(id="a/b", type="text-generation", **fields):
    return read_native(orjson.dumps([{"model_name": id, "type": type, **fields}]))


def tokens(input=0.1, output=0.32, cached=0.5, **fields):
    """The native prices of so many dollars per million."""
    cents = {"cents_per_input_token": input / 10_000, "cents_per_output_token": output / 10_000}
    return {"type": "tokens", **cents, "rate_per_input_token_cached": cached, **fields}


def merged(known, openai=None, native=None):
    """The record, and the fields and reasons of what was not believed."""
    result = merge({known.id: known}, {}, openai, native, TODAY)
    return result.by_id[known.id], [(doubt.field, doubt.reason) for doubt in result.doubts]


def test_lists_that_say_nothing_change_nothing():
    """Null, missing and zero erase no known fact, and a price that was not seen keeps its day."""
    silent = native(
        deprecated=None, replaced_by=None, quantization=None, max_tokens=None, pricing={"cents_per_input_token": 0}
    )

    assert merged(LLAMA, openai(), silent) == (LLAMA, [])


def test_prices_that_are_confirmed_have_a_new_day():
    """Nothing else changes, and they are the provider's own now."""
    known, doubts = merged(
        LLAMA, openai(pricing={"input_tokens": 0.1, "output_tokens": 0.32}), native(pricing=tokens())
    )

    assert known == replace(LLAMA, price_as_of="2026-10-01", price_confidence="high")
    assert known.pricing == LLAMA.pricing
    assert doubts == []


@pytest.mark.parametrize("lists", ["both", "openai", "native"])
def test_a_price_that_moved_is_taken_from_either_list(lists):
    """One list is enough."""
    first = openai(pricing={"input_tokens": 0.12, "output_tokens": 0.4, "cache_read_tokens": 0.06})
    second = native(pricing=tokens(0.12, 0.4))

    known, doubts = merged(LLAMA, first if lists != "native" else None, second if lists != "openai" else None)

    prices = known.pricing
    assert (prices.input_per_1m, prices.output_per_1m, prices.cached_input_per_1m) == (
        Decimal("0.12"),
        Decimal("0.4"),
        Decimal("0.06"),
    )
    assert doubts == []


@pytest.mark.parametrize("factor", [100, 1 / 100, 10_000, 1 / 10_000])
def test_a_price_in_a_wrong_unit_is_not_believed(factor):
    """Cents for dollars, or a token for a million of them, is too far from what is known."""
    known, doubts = merged(LLAMA, openai(pricing={"input_tokens": 0.1 * factor, "output_tokens": 0.4}))

    assert known.pricing == replace(LLAMA.pricing, output_per_1m=Decimal("0.4"))
    assert known.price_as_of == "2026-09-11"
    assert len(doubts) == 1
    assert doubts[0][0] in {"input_per_1m", "input_tokens"}


@pytest.mark.parametrize(
    ("price", "reason"),
    [
        (5.0, None),
        (5.01, "is more than 50 times away from 0.1, the price before"),
        (0.01, None),
        (0.0099, "is less than 1/10 of 0.1, the price before"),
    ],
)
def test_a_price_may_rise_farther_than_it_may_fall(price, reason):
    """The bounds themselves are believed, beyond them nothing; too low a price would let a budget spend too much."""
    known, doubts = merged(LLAMA, openai(pricing={"input_tokens": price}))

    assert known.pricing.input_per_1m == (Decimal(str(price)) if reason is None else Decimal("0.1"))
    assert doubts == ([] if reason is None else [("input_per_1m", reason)])


def refreshed(*prices):
    """The price after each of several refreshes of a packaged one of 0.1, and whether it was believed."""
    known, seen = {LLAMA.id: LLAMA}, []
    for price in prices:
        result = merge(known, {LLAMA.id: LLAMA}, openai(pricing={"input_tokens": price}), None, TODAY)
        known = result.by_id
        seen.append((known[LLAMA.id].pricing.input_per_1m, [doubt.reason for doubt in result.doubts]))
    return seen


def test_small_steps_lead_no_farther_than_one_step():
    """Each refresh is compared with the packaged price as well."""
    up, down = refreshed(4, 160, 6400), refreshed(0.02, 0.004, 0.0008)

    assert [price for price, _ in up] == [Decimal(4)] * 3
    assert [reasons for _, reasons in up[1:]] == [["is more than 50 times away from 0.1, the packaged price"]] * 2
    assert [price for price, _ in down] == [Decimal("0.02")] * 3
    assert [reasons for _, reasons in down[1:]] == [["is less than 1/10 of 0.1, the packaged price"]] * 2


def test_a_leap_from_the_price_before_is_not_believed_either():
    """Even where it stays within the bounds of the packaged price."""
    assert refreshed(0.05, 4.9)[1] == (Decimal("0.05"), ["is more than 50 times away from 0.05, the price before"])
    assert refreshed(0.15, 0.0149)[1][0] == Decimal("0.15")


@pytest.mark.parametrize("wrong", [4.9, 0.011])
@pytest.mark.parametrize("right", [0.1, 0.09, 0.3])
def test_the_way_back_to_the_packaged_price_is_open(wrong, right):
    """One price that was wrong does not keep out all that are right."""
    assert refreshed(wrong, right)[1] == (Decimal(str(right)), [])


def test_a_price_that_was_taken_without_these_bounds_is_left_behind():
    """What an older file knows counts for nothing where it is too far from the package itself."""
    drifted = replace(LLAMA, pricing=Pricing(input_per_1m=Decimal(6400)))
    result = merge({LLAMA.id: drifted}, {LLAMA.id: LLAMA}, openai(pricing={"input_tokens": 4}), None, TODAY)

    assert (result.by_id[LLAMA.id].pricing.input_per_1m, result.doubts) == (Decimal(4), ())


def test_lists_that_contradict_each_other_change_nothing():
    """Which of them is right nobody knows."""
    known, doubts = merged(LLAMA, openai(pricing={"input_tokens": 0.2}), native(pricing=tokens(0.3)))

    assert known.pricing.input_per_1m == Decimal("0.1")
    assert doubts == [("input_per_1m", "the other list says 0.3")]


def test_a_discount_is_understood_from_the_price_before():
    """Whether a list shows the price with or without it, the list price stays and the discount is noted beside it."""
    shown_reduced, _ = merged(LLAMA, None, native(pricing=tokens(0.075, 0.24, discount=0.25)))
    shown_whole, _ = merged(LLAMA, None, native(pricing=tokens(0.1, 0.32, discount=0.25)))
    one_each, doubts = merged(
        LLAMA, openai(pricing={"input_tokens": 0.1}), native(pricing=tokens(0.075, 0.24, discount=0.25))
    )

    for known in (shown_reduced, shown_whole, one_each):
        assert known.pricing == LLAMA.pricing
        assert known.promo == Promo(
            discount_pct=Decimal(25),
            as_of=TODAY,
            input_per_1m=Decimal("0.075"),
            output_per_1m=Decimal("0.24"),
            cached_input_per_1m=Decimal("0.0375"),
        )
    assert doubts == []


def test_a_discount_that_explains_nothing_is_left_aside():
    """The price that is shown counts as the list price, with or without one known before."""
    unknown = replace(LLAMA, pricing=Pricing())

    for model in (LLAMA, unknown):
        known, _ = merged(model, None, native(pricing=tokens(0.15, 0.5, discount=0.25)))
        assert (known.pricing.input_per_1m, known.promo) == (Decimal("0.15"), None)


def test_a_discount_ends_when_the_list_names_it_no_more():
    """The price that is left is the list price, whichever it is."""
    promo = Promo(discount_pct=Decimal(50), as_of=date(2026, 9, 1), input_per_1m=Decimal("0.05"))
    running = replace(LLAMA, promo=promo)

    ended, _ = merged(running, None, native(pricing=tokens(0.05, 0.32, cached=1)))
    unsure, _ = merged(running, openai(pricing={"input_tokens": 0.05}), None)
    moved, _ = merged(running, openai(pricing={"input_tokens": 0.07}), None)

    assert (ended.pricing.input_per_1m, ended.promo) == (Decimal("0.05"), None)
    assert (unsure.pricing.input_per_1m, unsure.promo) == (Decimal("0.1"), promo)
    assert (moved.pricing.input_per_1m, moved.promo) == (Decimal("0.07"), promo)


def test_a_discount_stays_where_its_prices_are_not_believed():
    """A row that cannot be right says nothing."""
    running = replace(
        LLAMA, promo=Promo(discount_pct=Decimal(50), as_of=date(2026, 9, 1), input_per_1m=Decimal("0.05"))
    )
    known, doubts = merged(running, None, native(pricing=tokens(-1)))
    wrong, _ = merged(LLAMA, openai(pricing={"input_tokens": 20}), native(pricing=tokens(10, discount=0.5)))

    assert known.promo == running.promo
    assert doubts == [("cents_per_input_token", "is negative")]
    assert wrong.pricing.input_per_1m == Decimal("0.1")
    assert wrong.promo is None or wrong.promo.input_per_1m is None


def test_limits_are_taken_from_the_lists():
    """A longest answer as long as the context says nothing, and the native number only fills a gap."""
    grown, _ = merged(LLAMA, openai(context_length=262144, max_tokens=65536), native(max_tokens=4096))
    same, _ = merged(LLAMA, openai(context_length=131072, max_tokens=131072))
    filled, _ = merged(
        replace(LLAMA, context_length=None, max_output_tokens=None), openai(max_tokens=64), native(max_tokens=4096)
    )

    assert (grown.context_length, grown.max_output_tokens) == (262144, 65536)
    assert same == LLAMA
    assert (filled.context_length, filled.max_output_tokens) == (4096, 64)


def test_the_limit_of_an_embedding_model_is_that_of_its_input():
    """It has no answer to be limited, and only the input costs."""
    bge = ModelInfo(id="a/b", org="a", kind="embedding", status="active", max_input_tokens=512, dimensions=768)
    known, _ = merged(
        bge, openai(context_length=8192, max_tokens=512, pricing={"input_tokens": 0.01, "output_tokens": 0.01})
    )

    assert (known.max_input_tokens, known.context_length, known.max_output_tokens) == (8192, None, None)
    assert known.pricing == Pricing(input_per_1m=Decimal("0.01"))


def test_tags_add_abilities_and_take_none_away():
    """A tag is evidence, its absence is not."""
    known, _ = merged(LLAMA, openai(tags=["chat", "vlm", "prompt_cache"]), native(quantization="fp4", tags=[]))

    assert (known.vision, known.prompt_caching, known.tools, known.quantization) == (True, True, True, "fp4")


def test_a_retirement_takes_place_on_its_day():
    """Announced, it is known; on the day, the model is retired, and its record stays."""
    noon = 1_790_856_000  # 2026-10-01
    gone, _ = merged(LLAMA, None, native(deprecated=noon, replaced_by="a/c"))
    announced, _ = merged(LLAMA, None, native(deprecated=noon + 86_400, replaced_by="a/c"))

    assert (gone.status, gone.deprecated_on, gone.replaced_by) == ("retired", TODAY, "a/c")
    assert (announced.status, announced.deprecated_on, announced.replaced_by) == ("active", date(2026, 10, 2), "a/c")
    assert gone.pricing == LLAMA.pricing


def test_a_retired_model_returns_when_both_lists_have_it():
    """The silence of one list is no news, nor is a row that cannot be right."""
    retired = replace(LLAMA, status="retired", deprecated_on=date(2026, 9, 1), replaced_by="a/c")

    assert merged(retired, openai(), native())[0] == LLAMA
    assert merged(retired, openai(), None)[0] == retired
    assert merged(retired, None, native())[0] == retired
    assert merged(retired, openai(), native(deprecated="soon"))[0] == retired


@pytest.mark.parametrize("status", ["presumed_removed", "unknown"])
def test_a_presumption_ends_with_the_evidence(status):
    """A model that is listed is there."""
    assert merged(replace(LLAMA, status=status), None, native())[0].status == "active"


def test_a_new_model_needs_a_kind():
    """The type of the native list or a tag tells it; without one the row is passed over."""
    pricing = {"input_tokens": 0.5, "output_tokens": 1}
    result = merge(
        {}, {}, openai("n/tagged", tags=["embed"]), native("n/typed", max_tokens=512, type="reranker"), TODAY
    )
    priced = merge({}, {}, openai("n/new", tags=["chat"], pricing=pricing, context_length=4096), None, TODAY)
    none = merge({}, {}, openai("n/bare"), native("n/other", type="zero-shot-image-classification"), TODAY)

    assert {model.id: (model.kind, model.org, model.status) for model in result.by_id.values()} == {
        "n/tagged": ("embedding", "n", "active"),
        "n/typed": ("rerank", "n", "active"),
    }
    assert priced.by_id["n/new"].pricing == Pricing(input_per_1m=Decimal("0.5"), output_per_1m=Decimal(1))
    assert (priced.by_id["n/new"].price_as_of, priced.by_id["n/new"].context_length) == ("2026-10-01", 4096)
    assert none.by_id == {}


def test_what_is_listed_no_more_is_told_and_kept():
    """Only the native list is complete enough to tell."""
    gone = replace(LLAMA, id="a/gone")
    known = {"a/b": LLAMA, "a/gone": gone, "a/old": replace(LLAMA, id="a/old", status="retired")}

    both = merge(known, {}, openai("a/b"), native("a/b"), TODAY)
    one = merge(known, {}, openai("a/b"), None, TODAY)

    assert both.by_id == {**known, "a/gone": replace(gone, status="presumed_removed")}
    assert one.by_id == known


IMAGES = [
    (ImagePricing(unit="image", usd_per_unit=Decimal("0.04")), {"cents_per_image_unit": 5}, "0.05"),
    (
        ImagePricing(unit="image_unit", usd_per_unit=Decimal("0.0005"), default_steps=4, base_steps=1),
        {"cents_per_image_unit": 0.06, "default_iterations": 9},
        "0.0006",
    ),
    (ImagePricing(unit="second", usd_per_unit=Decimal("0.0005")), {"cents_per_sec": 0.06}, "0.0006"),
    (ImagePricing(unit="image_token", usd_per_unit=Decimal("0.00001")), {"cents_per_image_unit": 5}, "0.00001"),
    (ImagePricing(unit="second", usd_per_unit=Decimal("0.0005")), {"cents_per_image_unit": 5}, "0.0005"),
]


@pytest.mark.parametrize(("known", "block", "usd"), IMAGES)
def test_the_price_of_pictures_moves_and_its_formula_stays(known, block, usd):
    """What is paid by a unit of the provider's own is left alone."""
    model = replace(LLAMA, kind="image", context_length=None, max_output_tokens=None, pricing=Pricing(image=known))

    assert merged(model, None, native(pricing=block))[0].pricing == Pricing(
        image=replace(known, usd_per_unit=Decimal(usd))
    )


def test_the_price_of_a_picture_in_a_wrong_unit_is_not_believed():
    """Dollars for cents are a hundred times too many, also where a picture is paid by its size."""
    known = ImagePricing(unit="image_unit", usd_per_unit=Decimal("0.0005"), base_steps=1)
    model = replace(LLAMA, kind="image", pricing=Pricing(image=known))

    same, doubts = merged(model, openai(pricing={"per_image_unit": 0.05}))

    assert same.pricing.image == known
    assert doubts == [("image", "is more than 50 times away from 0.0005, the price before")]


@pytest.mark.parametrize(
    ("defaults", "pricing"),
    [
        ({}, {"unit": "provider_unit"}),
        ({"default_price_cents": 0.05, "default_iterations": 1}, {"unit": "image_unit", "default_steps": 1}),
        (
            {"default_price_cents": 0.05, "default_iterations": 25},
            {"unit": "image_unit", "default_steps": 25, "base_steps": 25},
        ),
        (
            {"default_price_cents": 0.2, "default_iterations": 4},
            {"unit": "image_unit", "default_steps": 4, "base_steps": 1},
        ),
        (
            {"default_price_cents": 0.05, "default_width": 512},
            {"unit": "image", "default_width": 512, "default_steps": 1},
        ),
        ({"default_price_cents": 7}, {"unit": "provider_unit", "default_steps": 1}),
    ],
)
def test_the_formula_of_a_new_image_model_is_what_its_own_price_confirms(defaults, pricing):
    """The price of one picture with the defaults tells whether size and steps count; else nothing is computed."""
    sizes = {"default_width": 1024, "default_height": 1024} if defaults else {}
    block = {"cents_per_image_unit": 0.05, **sizes, **defaults}
    [model] = merge({}, {}, None, native("n/new", type="text-to-image", pricing=block), TODAY).by_id.values()

    expected = {"usd_per_unit": Decimal("0.0005"), **sizes, **pricing}
    assert model.pricing.image == ImagePricing(**expected)


@pytest.mark.parametrize(
    ("type", "block", "unit", "usd"),
    [
        ("automatic-speech-recognition", {"cents_per_input_sec": 0.01}, "minute", "0.006"),
        ("text-to-speech", {"cents_per_input_chars": 0.0005}, "1m_characters", "5"),
        ("text-to-video", {"cents_per_output_sec": 10}, "output_second", "0.1"),
        ("text-to-image", {"cents_per_sec": 0.05}, "second", "0.0005"),
    ],
)
def test_other_kinds_are_priced_by_their_unit(type, block, unit, usd):
    """A minute, a million characters, a second; a unit of another kind is passed over."""
    [model] = merge(
        {}, {}, None, native("n/new", type=type, pricing={**block, "cents_per_input_token": 1}), TODAY
    ).by_id.values()
    price = model.pricing.image or model.pricing.per_unit

    assert (price.unit, price.usd_per_unit, model.pricing.input_per_1m) == (unit, Decimal(usd), None)


def test_a_unit_other_than_the_known_one_is_passed_over():
    """A model of speech that is paid by tokens here is not paid by the minute there."""
    speech = ModelInfo(
        id="a/b",
        org="a",
        kind="asr",
        status="active",
        pricing=Pricing(per_unit=UnitPrice(unit="token", usd_per_unit=Decimal(1))),
    )

    assert merged(speech, None, native(type="automatic-speech-recognition", pricing={"cents_per_input_sec": 0.01})) == (
        speech,
        [],
    )
