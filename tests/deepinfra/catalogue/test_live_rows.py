"""What of the provider's lists is believed."""

from datetime import date
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.errors import InvalidResponse
from resilient_ai.deepinfra.catalogue._live_rows import read_native, read_openai, shown


def openai(*rows):
    return read_openai(orjson.dumps({"object": "list", "data": rows}))


def native(*rows):
    return read_native(orjson.dumps(rows))


def openai_row(id="a/b", **metadata):
    return {"id": id, "object": "model", "metadata": metadata or None}


def native_row(id="a/b", type="text-generation", pricing=None, **fields):
    return {"model_name": id, "type": type, "reported_type": type, "pricing": pricing, **fields}


def reasons(listed):
    return [(doubt.field, doubt.reason) for doubt in listed.doubts]


def test_the_openai_list_is_in_dollars_per_million():
    """Its figures are those of the catalogue."""
    pricing = {"input_tokens": 0.26, "output_tokens": 0.38, "cache_read_tokens": 0.13}
    listed = openai(
        openai_row(context_length=163840, max_tokens=16384, pricing=pricing, tags=["chat", "reasoning"])
    ).rows["a/b"]

    assert listed.prices == {
        "input_per_1m": Decimal("0.26"),
        "output_per_1m": Decimal("0.38"),
        "cached_input_per_1m": Decimal("0.13"),
    }
    assert listed.facts == {"context": 163840, "max_output_tokens": 16384, "reasoning": True}
    assert (listed.kind, listed.doubts) == ("chat", [])


def test_the_native_list_is_in_cents_per_token():
    """One cent per token is 10,000 dollars per million; rates are parts of the input price."""
    pricing = {
        "type": "tokens",
        "cents_per_input_token": 0.000075,
        "cents_per_output_token": 0.00035,
        "rate_per_input_token_cached": 0.2,
        "rate_per_input_token_cache_write": 1.25,
    }
    listed = native(native_row(pricing=pricing, max_tokens=262144, quantization="fp4")).rows["a/b"]

    assert listed.prices == {
        "input_per_1m": Decimal("0.75"),
        "output_per_1m": Decimal("3.5"),
        "cached_input_per_1m": Decimal("0.15"),
        "cache_write_per_1m": Decimal("0.9375"),
    }
    assert listed.facts == {"context": 262144, "quantization": "fp4"}


@pytest.mark.parametrize(
    ("pricing", "prices"),
    [
        ({"type": "input_tokens", "cents_per_input_token": 0.000001}, {"input_per_1m": "0.01"}),
        ({"type": "image_units", "cents_per_image_unit": 0.05}, {"image": "0.0005"}),
        ({"type": "time", "cents_per_sec": 0.05}, {"second": "0.0005"}),
        ({"type": "input_length", "cents_per_input_sec": 0.01}, {"minute": "0.006"}),
        ({"type": "input_character_length", "cents_per_input_chars": 0.0005}, {"1m_characters": "5"}),
        ({"type": "output_length", "cents_per_output_sec": 10}, {"output_second": "0.1"}),
    ],
)
def test_every_block_of_the_native_list_has_its_unit(pricing, prices):
    """Seconds, characters and pictures become what the catalogue counts in."""
    listed = native(native_row(pricing=pricing)).rows["a/b"]

    assert listed.prices == {name: Decimal(text) for name, text in prices.items()}


def test_the_noise_of_floats_is_rounded_off():
    """0.3 dollars that were divided by 10,000 in floats are 0.3 dollars again."""
    listed = native(native_row(pricing={"cents_per_input_token": 2.9999999999999997e-05})).rows["a/b"]

    assert listed.prices == {"input_per_1m": Decimal("0.3")}
    assert str(listed.prices["input_per_1m"]) == "0.3"


def test_null_and_zero_say_nothing():
    """An empty row is a row, and zero does not mean free."""
    every = (
        openai(openai_row()).rows["a/b"],
        native(native_row(pricing={"cents_per_input_token": 0, "type": None})).rows["a/b"],
    )

    assert [(listed.prices, listed.facts, listed.doubts) for listed in every] == [({}, {}, [])] * 2


@pytest.mark.parametrize(
    ("price", "reason"),
    [
        (-0.1, "is negative"),
        ("0.1", "is no number"),
        (True, "is no number"),
        ([1], "is no number"),
        (1e-9, "would be 1e-09 USD, which cannot be right"),
        (1e9, "would be 1e+09 USD, which cannot be right"),
        (1e30, "would be 1e+30 USD, which cannot be right"),
    ],
)
def test_a_price_that_cannot_be_right_is_doubted(price, reason):
    """It is not taken, and the reason is told."""
    [listed] = openai(openai_row(pricing={"input_tokens": price, "output_tokens": 1})).rows.values()

    assert listed.prices == {"output_per_1m": Decimal(1)}
    assert [doubt.reason for doubt in listed.doubts] == [reason]


def test_the_date_of_a_retirement_is_read():
    """A unix time is a day; what is none is doubted, and so is a model that replaces itself."""
    good = native(native_row(deprecated=1_784_246_400, replaced_by="a/c")).rows["a/b"]
    bad = native(native_row(deprecated="soon", replaced_by="a/b")).rows["a/b"]
    early = native(native_row(deprecated=5, replaced_by="")).rows["a/b"]
    odd = native(native_row(deprecated=True, replaced_by=7)).rows["a/b"]

    assert (good.retires_on, good.facts, good.doubts) == (date(2026, 7, 17), {"replaced_by": "a/c"}, [])
    assert reasons(bad) == [("deprecated", "is no moment of these years"), ("replaced_by", "is no other model")]
    assert reasons(early) == [("deprecated", "is no moment of these years")]
    assert reasons(odd) == reasons(bad)
    assert {listed.retires_on for listed in (bad, early, odd)} == {None}


def test_facts_of_a_wrong_type_are_doubted_or_left_out():
    """Tokens are whole numbers, metadata and pricing are objects, and a quantization is a short word."""
    listed = openai(openai_row(context_length=1.5, max_tokens=10**12, tags="chat", pricing=[])).rows["a/b"]
    other = native(
        native_row(type=7, pricing={"discount": 1.5}, tags=[None, "tts", "embed"], quantization="x" * 99)
    ).rows["a/b"]
    [third] = read_openai(orjson.dumps({"data": [{"id": "a/b", "metadata": "none"}]})).rows.values()

    assert reasons(listed) == [
        ("context", "is no number of tokens"),
        ("max_output_tokens", "is no number of tokens"),
        ("pricing", "is no object"),
    ]
    assert (listed.facts, listed.kind) == ({}, None)
    assert (other.facts, other.kind, other.discount, other.doubts) == ({}, "tts", None, [])
    assert reasons(third) == [("metadata", "is no object")]


def test_a_discount_and_the_defaults_of_pictures_are_read():
    """They are numbers above zero."""
    pricing = {"discount": 0.25, "default_width": 1024, "default_price_cents": 0.9, "default_iterations": None}
    listed = native(native_row(pricing=pricing)).rows["a/b"]

    assert listed.discount == Decimal("0.25")
    assert listed.image == {"default_width": Decimal(1024), "default_price_cents": Decimal("0.9")}


@pytest.mark.parametrize(
    "id", ["", "b", "a/b/c", "a/\nb", "a/b\x1b[2J", "a /b", "ä/b", "a/" + "b" * 200, 7, None, ["a/b"]]
)
def test_an_id_that_is_none_is_doubted(id):
    """Neither control characters nor anything else that could surprise whoever prints it."""
    read = native(native_row(id), native_row("a/good"))

    assert list(read.rows) == ["a/good"]
    assert [(doubt.field, doubt.reason) for doubt in read.doubts] == [("model_name", "is no id of a model")]
    assert str(read.doubts[0]).isprintable()


def test_the_first_of_two_rows_with_one_id_counts():
    """And that there were two is told."""
    first, second = ({"cents_per_input_token": cents} for cents in (0.00001, 0.00002))
    [listed] = native(native_row(pricing=first), native_row(pricing=second)).rows.values()

    assert listed.prices == {"input_per_1m": Decimal("0.1")}
    assert reasons(listed) == [("model_name", "is listed twice; the first one counts")]


@pytest.mark.parametrize(
    ("read", "body", "message"),
    [
        (read_openai, b"<html>", "is not JSON"),
        (read_openai, b"[" * 100_000, "is not JSON"),
        (read_openai, b"[]", "has no rows"),
        (read_openai, b'{"data": {}}', "has no rows"),
        (read_openai, b'{"data": [1, null, "x"]}', "names no model"),
        (read_native, b'{"data": []}', "has no rows"),
        (read_native, b"[]", "has no rows"),
        (read_native, b"[" + b"1," * 10_000 + b"1]", "has 10001 rows, and more than 10000 cannot be right"),
        (read_native, b"NaN", "is not JSON"),
    ],
)
def test_a_list_that_is_none_is_an_invalid_response(read, body, message):
    """The sentence says why, and the error keeps nothing of a large body."""
    with pytest.raises(InvalidResponse, match=message) as caught:
        read(body)

    assert getattr(caught.value.__cause__, "doc", "") == ""


def test_values_are_shown_in_few_plain_characters():
    """Whatever they are, they can be printed."""
    assert shown("\x1b[2J" + "x" * 1_000_000).isprintable()
    assert len(shown("\x00" * 1_000)) < 70
    assert (shown([1] * 1000), shown({"a": 1}), shown(None), shown(1.5)) == ("[...]", "{...}", "None", "1.5")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    *(
        "context_length",
        "max_tokens",
        "pricing",
        "tags",
        "type",
        "deprecated",
        "replaced_by",
        "quantization",
        "metadata",
    ),
    *("input_tokens", "cents_per_input_token", "rate_per_input_token_cached", "discount", "default_width"),
]


@given(st.dictionaries(st.sampled_from(KEYS), JSON | st.dictionaries(st.sampled_from(KEYS), JSON)))
def test_no_row_is_too_strange(row):
    """Whatever stands in a row, reading ends, prices are positive and finite, and doubts can be printed."""
    for read in (native({"model_name": "a/b", **row}), openai({"id": "a/b", "metadata": row})):
        for listed in read.rows.values():
            assert all(price.is_finite() and price > 0 for price in listed.prices.values())
            assert all(str(doubt).isprintable() for doubt in listed.doubts)
