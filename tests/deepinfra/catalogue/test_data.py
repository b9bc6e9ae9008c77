"""The packaged data is complete, consistent and easy to compare line by line."""

import json
from collections import Counter
from datetime import date
from decimal import Decimal

import pytest

from resilient_ai.deepinfra.catalogue import Promo, UnitPrice, catalogue
from resilient_ai.deepinfra.catalogue._data import PACKAGED, read


def one_record(tmp_path, record):
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"as_of": "2026-01-31", "models": [record]}), encoding="utf-8")
    return path


def test_the_data_holds_every_kind():
    """Each kind has the number of records it was delivered with."""
    assert Counter(model.kind for model in catalogue) == {
        "chat": 232,
        "image": 55,
        "embedding": 31,
        "tts": 18,
        "asr": 8,
        "completion": 7,
        "ocr": 7,
        "video": 5,
        "rerank": 4,
    }


def test_the_data_holds_every_status():
    """Each status has the number of records it was delivered with."""
    assert Counter(model.status for model in catalogue) == {
        "active": 207,
        "retired": 127,
        "presumed_removed": 25,
        "unknown": 8,
    }


def test_every_replacement_is_a_record():
    """A retired model names a date and a known model in its place; no other does."""
    for model in catalogue:
        assert (model.replaced_by is not None) == (model.deprecated_on is not None) == (model.status == "retired")
        assert model.replaced_by is None or model.replaced_by in catalogue


def test_every_retired_model_leads_to_an_active_one():
    """No announced retirement leaves its users without a model."""
    retired = catalogue.find(status="retired")

    assert [model.id for model in retired if catalogue.replacement(model.id) is None] == []


def test_every_id_is_its_org_and_a_name():
    """An id has one slash, and what stands before it is the org."""
    assert [model.id for model in catalogue if model.id.split("/")[:-1] != [model.org]] == []


def test_every_price_has_a_date_and_a_confidence():
    """A price says how old and how sure it is, and nothing else does."""
    for model in catalogue:
        pricing = model.pricing
        priced = any(price is not None for price in (pricing.input_per_1m, pricing.image, pricing.per_unit))
        assert (model.price_as_of is not None) == (model.price_confidence is not None) == priced, model.id
    assert sum(model.price_as_of is not None for model in catalogue) == 348


def test_every_active_chat_and_embedding_model_is_priced():
    """No active model of the two main kinds is without a price."""
    for model in catalogue.find("chat"):
        assert model.pricing.token_cost(input_tokens=1, output_tokens=1) is not None, model.id
    for model in catalogue.find("embedding"):
        assert model.pricing.token_cost(input_tokens=1) is not None, model.id


def test_a_cached_price_is_lower_and_comes_with_the_ability():
    """A model with a price for cached input can cache, and asks less for it."""
    cached = [model for model in catalogue if model.pricing.cached_input_per_1m is not None]

    assert len(cached) == 73
    for model in cached:
        assert model.prompt_caching
        assert model.pricing.cached_input_per_1m < model.pricing.input_per_1m, model.id


def test_a_promo_is_below_the_list_price():
    """The nine running discounts lower every price by their per cent."""
    discounted = [model for model in catalogue if model.promo is not None]

    assert len(discounted) == 9
    for model in discounted:
        factor = 1 - model.promo.discount_pct / 100
        assert abs(model.promo.input_per_1m - model.pricing.input_per_1m * factor) < Decimal("0.0001"), model.id
        assert abs(model.promo.output_per_1m - model.pricing.output_per_1m * factor) < Decimal("0.0001"), model.id


def test_lists_and_dates_become_tuples_and_dates():
    """What JSON can only say with lists and text has its own type in a record."""
    model = catalogue.get("Qwen/QwQ-32B")

    assert model.deprecated_on == date(2025, 11, 5)
    assert model.input_modalities == model.output_modalities == ("text",)
    assert catalogue.get("moonshotai/Kimi-K2.6").service_tiers == ("priority", "flex")


def test_audio_has_a_price_per_unit():
    """A speech model is priced by what it is counted in."""
    speech = catalogue.get("hexgrad/Kokoro-82M").pricing.per_unit

    assert speech == UnitPrice(unit="1m_characters", usd_per_unit=Decimal("0.62"))


def test_the_file_has_one_record_per_line_sorted_by_id():
    """Every record stands on a line of its own, in order, so that a change of the data reads as one."""
    first, *lines, last = PACKAGED.read_text(encoding="utf-8").splitlines()
    ids = [json.loads(line.removesuffix(","))["id"] for line in lines]

    assert first == '{"as_of":"2026-09-23","models":['
    assert last == "]}"
    assert len(ids) == 367
    assert ids == sorted(set(ids))


def test_a_whole_number_is_an_exact_price_too(tmp_path):
    """A price written without a point is a Decimal like the others."""
    pricing = {
        "input_per_1m": 3,
        "image": {"unit": "image", "usd_per_unit": 2},
        "per_unit": {"unit": "minute", "usd_per_unit": 1},
    }
    promo = {"discount_pct": 50, "as_of": "2026-01-30", "input_per_1m": 1.5}
    record = {"id": "a/b", "org": "a", "kind": "chat", "pricing": pricing, "promo": promo}

    snapshot = read(one_record(tmp_path, record))

    model = snapshot.by_id["a/b"]
    assert snapshot.as_of == date(2026, 1, 31)
    assert repr(model.pricing.input_per_1m) == "Decimal('3')"
    assert repr(model.pricing.image.usd_per_unit) == "Decimal('2')"
    assert repr(model.pricing.per_unit.usd_per_unit) == "Decimal('1')"
    assert model.promo == Promo(discount_pct=Decimal(50), as_of=date(2026, 1, 30), input_per_1m=Decimal("1.5"))


def test_an_unknown_field_is_an_error(tmp_path):
    """A misspelt field in the file is not passed over."""
    path = one_record(tmp_path, {"id": "a/b", "org": "a", "kind": "chat", "colour": "red"})

    with pytest.raises(TypeError, match="colour"):
        read(path)


def test_a_cache_write_costs_a_quarter_more_than_input():
    """Five models publish paid writes, which are kept for five minutes at 1.25 times the input price."""
    written = [model for model in catalogue if model.pricing.cache_write_per_1m is not None]

    assert len(written) == 5
    assert all(model.pricing.cache_write_per_1m == model.pricing.input_per_1m * Decimal("1.25") for model in written)
