import json

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
