"""Prices of your own, from a file."""

import os
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.deepinfra.catalogue import Catalogue, ImagePricing, LiveCatalogue, PriceTable, load_overrides

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "prices.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_prices_of_the_file_go_before_those_of_the_catalogue(written):
    """They are exact decimals, and what the file does not say stays as it is known."""
    path = written(
        f'as_of = 2026-11-01\n[models."{LLAMA}"]\ninput_per_1m = 0.1000000000000000000001\noutput_per_1m = 1\n'
    )

    live = LiveCatalogue(overrides=load_overrides(path))

    known, packaged = live.get(LLAMA), Catalogue().get(LLAMA)
    assert known.pricing.input_per_1m == Decimal("0.1000000000000000000001")
    assert known.pricing.output_per_1m == Decimal(1)
    assert (known.context_length, known.tools) == (packaged.context_length, packaged.tools)
    assert known.price_as_of == "2026-11-01"
    assert PriceTable(live).chat_cost(LLAMA, input_tokens=0, output_tokens=1_000_000) == Decimal(1)
    assert len(live) == len(Catalogue())


def test_limits_and_abilities_can_be_said_too(written):
    """Then the day of the price stays that of the catalogue."""
    path = written(f'[models."{LLAMA}"]\ncontext_length = 8192\ntools = false\nmax_output_tokens = 100\n')

    known = LiveCatalogue(overrides=load_overrides(path)).get(LLAMA)

    assert (known.context_length, known.tools, known.max_output_tokens) == (8192, False, 100)
    assert known.pricing == Catalogue().get(LLAMA).pricing
    assert known.price_as_of == Catalogue().get(LLAMA).price_as_of


def test_a_model_of_your_own_is_added_with_its_kind(written):
    """A private deployment has a cost from then on."""
    image = "image = { usd_per_unit = 0.03 }"
    sized = 'image = { unit = "image_unit", usd_per_unit = 0.01, base_steps = 25 }'
    path = written(f'[models."me/a"]\nkind = "image"\n{image}\n[models."me/b"]\nkind = "image"\n{sized}\n')

    live = LiveCatalogue(overrides=load_overrides(path))

    assert live.get("me/a").pricing.image == ImagePricing(unit="image", usd_per_unit=Decimal("0.03"))
    assert live.get("me/b").pricing.image.base_steps == 25
    assert PriceTable(live).image_cost("me/a", images=2) == Decimal("0.06")
    assert [model.id for model in live] == sorted(model.id for model in live)


def test_an_unknown_model_without_a_kind_is_refused_at_once(written):
    """The sentence names the file, the model and what to add."""
    path = written('[models."me/mine"]\ninput_per_1m = 1\n')

    with pytest.raises(ConfigurationError, match=r'prices.toml: models."me/mine": .* add kind = "chat"'):
        LiveCatalogue(overrides=load_overrides(path))


MODEL = '[models."a/b"]\n'
WRONG = [
    ("model = 1", "there is no key 'model'; did you mean 'models'?"),
    ("zzz = 1", "there is no key 'zzz'; there are models, as_of"),
    ("models = 1", "models: must be tables such as"),
    ('as_of = "today"', "as_of: must be a date such as 2026-11-01, got 'today'"),
    ("as_of = 2026-11-01T10:00:00Z", "as_of: must be a date"),
    ('models."a/b" = 1', 'models."a/b": must be a table with keys such as input_per_1m, got 1'),
    (MODEL, 'models."a/b": must be a table with keys'),
    (MODEL + "input_per_1k = 1", "models.\"a/b\": there is no key 'input_per_1k'; did you mean 'input_per_1m'?"),
    (MODEL + "input_per_1m = -0.1", 'models."a/b": input_per_1m: must be a finite number >= 0, got -0.1'),
    (MODEL + "input_per_1m = nan", "input_per_1m: must be a finite number >= 0, got NaN"),
    (MODEL + "input_per_1m = inf", "input_per_1m: must be a finite number >= 0, got Infinity"),
    (MODEL + 'output_per_1m = "0.1"', "output_per_1m: must be a number of US dollars, got '0.1'"),
    (
        MODEL + "input_per_1m = 1e9999999999",
        "input_per_1m: must be 0, or from 1E-12 to 1000000000 US dollars, got 1E+9999999999",
    ),
    (
        MODEL + "input_per_1m = 1e-9999999999",
        "input_per_1m: must be 0, or from 1E-12 to 1000000000 US dollars, got 1E-9999999999",
    ),
    (MODEL + f"input_per_1m = 1e-{'9' * 21}", f"input_per_1m: must be a number of US dollars, got '1e-{'9' * 21}'"),
    (MODEL + f"input_per_1m = 1e{'9' * 21}", f"input_per_1m: must be a number of US dollars, got '1e{'9' * 21}'"),
    (
        MODEL + f"input_per_1m = 0x{'f' * 100_000}",
        "input_per_1m: must be a number of US dollars, got a number that is too long",
    ),
    (
        MODEL + "input_per_1m = 1000000001",
        "input_per_1m: must be 0, or from 1E-12 to 1000000000 US dollars, got 1000000001",
    ),
    (MODEL + "image = { usd_per_unit = 1e300 }", "image: usd_per_unit: must be 0, or from 1E-12"),
    (MODEL + f"context_length = {'9' * 32}", "context_length: must be a whole number of at most 1000000000, got 999"),
    (MODEL + f"tools = '{'x' * 1000}'", f"tools: must be true or false, got '{'x' * 59}..."),
    (MODEL + "output_per_1m = true", "output_per_1m: must be a number of US dollars, got True"),
    (MODEL + "context_length = 0", "context_length: must be a whole number >= 1, got 0"),
    (MODEL + "context_length = 1.5", "context_length: must be a whole number >= 1"),
    (MODEL + "dimensions = true", "dimensions: must be a whole number >= 1, got True"),
    (MODEL + "tools = 1", "tools: must be true or false, got 1"),
    (MODEL + 'kind = "poem"', "kind: must be one of chat, "),
    (MODEL + "kind = [1]", "kind: must be one of chat, "),
    (MODEL + "image = 0.1", "image: must be like"),
    (MODEL + 'image = { unit = "image" }', "image: must be like"),
    (MODEL + "image = { usd_per_unit = 0.1, steps = 1 }", "image: there is no key 'steps'"),
    (MODEL + 'image = { usd_per_unit = 0.1, unit = "pixel" }', "image: unit must be one of"),
    (MODEL + "image = { usd_per_unit = 0.1, base_steps = 0 }", "image: base_steps: must be a whole number >= 1"),
    ("this is no TOML", "cannot be read as TOML"),
    ("x = " + "[" * 5000, "cannot be read as TOML"),
    ("#" * ((16 << 20) + 1), "is longer than"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_a_wrong_file_is_refused_in_one_sentence(written, text, message):
    """It names the file, and where there is one the model and the key."""
    path = written(text)

    with pytest.raises(ConfigurationError) as caught:
        load_overrides(path)

    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    """No file is no matter of its form, and bytes that are no text are no TOML."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    for name, why in (("absent", "cannot be read: No such file or directory$"), ("binary", "cannot be read as TOML: ")):
        with pytest.raises(ConfigurationError, match=f"{name}: {why}"):
            load_overrides(tmp_path / name)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_an_ordinary_file_is_read(tmp_path, kind):
    """A pipe nobody writes to, and a device without end, hold nobody up."""
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()

    with pytest.raises(ConfigurationError, match=f"{path}: cannot be read as TOML: "):
        load_overrides(path)


def test_a_link_to_a_file_is_read(tmp_path, written):
    """As such files are handed to containers."""
    link = tmp_path / "link"
    link.symlink_to(written("as_of = 2026-01-02"))

    assert load_overrides(link).as_of == date(2026, 1, 2)


@pytest.mark.parametrize("number", ["0", "1e-12", "1e9", "0x10"])
def test_the_ends_of_the_range_are_prices(written, number):
    """Nothing is free of charge by mistake, and nothing overflows."""
    path = written(f'{MODEL}kind = "chat"\ninput_per_1m = {number}\noutput_per_1m = {number}\n')

    live = LiveCatalogue(overrides=load_overrides(path))

    assert "a/b" in [model.id for model in live.find("chat")]


def test_an_empty_file_changes_nothing(written):
    """It is a file in which nothing has been said yet."""
    overrides = load_overrides(written(""))

    assert (dict(overrides.models), overrides.as_of) == ({}, None)
    assert LiveCatalogue(overrides=overrides).models == Catalogue().models
    assert load_overrides(written("as_of = 2026-01-02")).as_of == date(2026, 1, 2)
