import json
from dataclasses import replace
from decimal import Decimal

import pytest

from resilient_ai.cli.models import _prices, _tokens
from resilient_ai.deepinfra.catalogue import catalogue


def listed(shell, *args):
    return json.loads(shell.run("models", "--json", *args).stdout)


def test_filters_narrow_the_list(offline):
    """Every filter is one condition, and all of them hold."""
    args = [
        "--kind",
        "chat",
        "--tools",
        "--vision",
        "--json-mode",
        "--max-input-price",
        "0.1",
        "--min-context",
        "131072",
    ]
    found = listed(offline, *args)
    assert found
    for model in found:
        assert model["kind"] == "chat"
        assert all(model[name] for name in ("tools", "vision", "json"))
        assert float(model["input_per_1m"]) <= 0.1
        assert model["context_length"] >= 131072
    assert all(model["reasoning"] and model["code"] for model in listed(offline, "--reasoning", "--code"))


def test_retired_models_are_listed_on_demand(offline):
    """Without --all only what answers under its own name is listed."""
    assert {model["status"] for model in listed(offline)} == {"active"}
    everything = listed(offline, "--all")
    assert len(everything) == len(catalogue)
    assert any(model["replaced_by"] for model in everything)


def test_table_names_models_in_full(offline):
    """An id is for copying, so it is never folded, and prices stand beside it."""
    result = offline.run("models", "--search", "llama-3.3-70b", COLUMNS="80")
    assert "meta-llama/Llama-3.3-70B-Instruct-Turbo" in result.stdout
    assert "0.32" in result.stdout
    assert result.stderr == f"1 of {len(catalogue)} models; prices as of {catalogue.as_of}\n"


def test_table_has_the_columns_it_needs(offline):
    """Kind shows where kinds differ, status with --all, one price where there is no input to pay for."""
    header = {
        args: offline.run("models", *args.split()).stdout.splitlines()[0].split()
        for args in ("--search flux", "--all --search llama-3.3", "--search qwen3")
    }
    assert header["--search flux"] == ["Model", "Context", "Price", "Can"]
    assert header["--all --search llama-3.3"] == ["Model", "Status", "Context", "In", "Out", "Can"]
    assert header["--search qwen3"] == ["Model", "Kind", "Context", "In", "Out", "Can"]


def test_nothing_found_is_no_error(offline):
    """An empty list is an answer."""
    result = offline.run("models", "--search", "no such model")
    assert (result.exit_code, result.stdout, result.stderr[:5]) == (0, "", "0 of ")


def test_unknown_kind_names_those_there_are(offline):
    """A kind that is none is a wrong use."""
    result = offline.run("models", "--kind", "poem")
    assert (result.exit_code, "embedding" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("count", "text"), [(None, ""), (512, "512"), (8192, "8k"), (131_072, "131k"), (1_048_576, "1.05M")]
)
def test_tokens_are_short(count, text):
    """Context lengths are read at a glance."""
    assert _tokens(count) == text


@pytest.mark.parametrize(
    ("model", "prices"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", ("0.10", "0.32")),
        ("BAAI/bge-m3", ("0.01", "")),
        ("black-forest-labs/FLUX-1-schnell", ("", "0.0005 / megapixel and 1 step")),
        ("black-forest-labs/FLUX-1-dev", ("", "0.009 / megapixel and 25 steps")),
        ("black-forest-labs/FLUX-1.1-pro", ("", "0.04 / image")),
    ],
)
def test_prices_name_their_unit(model, prices):
    """What is not paid by tokens says what it is paid by."""
    info = catalogue.get(model)
    assert info is not None
    assert _prices(info) == prices


LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


def cheaper(id=LLAMA, factor="0.5"):
    model = catalogue.get(id)
    price = model.pricing.input_per_1m * Decimal(factor)
    return replace(model, pricing=replace(model.pricing, input_per_1m=price))


def test_cheapest_is_a_short_list_of_known_prices(offline):
    """Ten chat models with the lowest prices, or as many and of the kind that is asked for."""
    found = listed(offline, "--cheapest", "--tools", "--context", "100000")
    vectors = listed(offline, "--cheapest", "--kind", "embedding", "--limit", "3")

    expected = catalogue.find("chat", tools=True, min_context=100_000)[:10]
    assert [model["id"] for model in found] == [model.id for model in expected]
    assert [model["kind"] for model in vectors] == ["embedding"] * 3
    assert len(listed(offline, "--limit", "5")) == 5
    silent = listed(offline, "--cheapest", "--kind", "tts", "--limit", "100")
    assert 0 < len(silent) < len(catalogue.find("tts"))
    assert all(model["per_unit"] for model in silent)


def test_a_refresh_is_kept_for_the_next_command(shell, simulator):
    """What the service says now is shown, and shown again without asking it."""
    simulator.put_models(cheaper())

    first = shell.run("models", "--search", "llama-3.3", "--refresh", "--json")
    second = shell.run("models", "--search", "llama-3.3", "--json")

    assert [model["input_per_1m"] for model in json.loads(first.stdout)] == ["0.05"]
    assert first.stdout == second.stdout
    assert first.stderr == ""


def test_a_refresh_says_what_it_has_changed(shell, simulator):
    """In one line above the table, with whatever was not believed."""
    simulator.put_models(cheaper(), cheaper("BAAI/bge-m3", "1000"))

    result = shell.run("models", "--search", "llama-3.3", "--refresh")

    assert "1 price changed, 0 new, 0 retired; --changes shows" in result.stderr
    assert (
        "not believed or not read: BAAI/bge-m3: input_per_1m 10: is more than 50 times away from 0.01" in result.stderr
    )
    assert "0.05" in result.stdout


def test_changes_since_the_package_and_since_the_last_time(shell, simulator):
    """Without a refresh those since the package, with one those that it finds."""
    nothing = shell.run("models", "--changes")
    simulator.put_models(cheaper())
    shell.run("models", "--refresh")
    package = shell.run("models", "--changes")
    simulator.put_models(cheaper(factor="2"))
    latest = shell.run("models", "--changes", "--refresh")

    assert (nothing.stdout, nothing.exit_code) == ("", 0)
    assert nothing.stderr.startswith("nothing has changed\n")
    assert f"price          {LLAMA}: input_per_1m 0.1 -> 0.05 (-50%)\n" in package.stdout
    assert f"since the packaged data of {catalogue.as_of}" in package.stderr
    assert latest.stdout == f"price          {LLAMA}: input_per_1m 0.05 -> 0.2 (+300%)\n"
    assert "since the refresh of 2" in latest.stderr


def test_changes_for_programs(shell, simulator):
    """One document, prices as exact texts."""
    simulator.put_models(cheaper())
    simulator.drop_models("BAAI/bge-m3")

    changes = json.loads(shell.run("models", "--changes", "--refresh", "--json").stdout)

    assert changes["prices"] == [{"model": LLAMA, "field": "input_per_1m", "old": "0.1", "new": "0.05"}]
    assert (changes["removed"], changes["added"]) == (["BAAI/bge-m3"], [])


def test_a_service_that_is_not_there_is_one_line(offline):
    """Nothing is shown that could be taken for new."""
    offline.env |= {"DEEPINFRA_API_KEY": "key", "RESILIENT_AI_BASE_URL": "http://127.0.0.1:9/v1"}
    result = offline.run("models", "--refresh")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1


def test_a_price_file_goes_before_all(offline, tmp_path):
    """It is the one of the settings."""
    prices = tmp_path / "prices.toml"
    prices.write_text(f'[models."{LLAMA}"]\ninput_per_1m = 0.07\n')

    result = offline.run("models", "--search", "llama-3.3", "--json", RESILIENT_AI_PRICE_FILE=str(prices))

    assert json.loads(result.stdout)[0]["input_per_1m"] == "0.07"
