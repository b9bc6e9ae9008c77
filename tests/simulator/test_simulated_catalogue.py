"""The public lists of models."""

import pytest

from resilient_ai.deepinfra.catalogue import catalogue


@pytest.fixture(autouse=True)
def _no_key(http):
    """The lists need none."""
    del http.headers["authorization"]


def rows(answer, key="id"):
    body = answer.json()
    return {row[key]: row for row in (body if isinstance(body, list) else body["data"])}


@pytest.mark.parametrize("path", ["/v1/openai/models", "/v1/models"])
def test_the_openai_list_has_prices_per_million(http, path):
    """Active models with metadata or null; the filter drops those without."""
    every, tagged = rows(http.get(path)), rows(http.get(path, params={"filter": "with_meta"}))
    llama = every["meta-llama/Llama-3.3-70B-Instruct-Turbo"]

    assert list(llama) == ["id", "object", "created", "owned_by", "root", "parent", "metadata"]
    assert llama["metadata"]["pricing"] == {"input_tokens": 0.1, "output_tokens": 0.32}
    assert set(llama["metadata"]["tags"]) >= {"chat"}
    assert any(row["metadata"] is None for row in every.values())
    assert 100 < len(tagged) < len(every)
    assert every["black-forest-labs/FLUX-1-schnell"]["metadata"]["pricing"] == {"per_image_unit": 0.0005}
    assert "meta-llama/Meta-Llama-3.1-8B-Instruct" not in every


def test_the_native_list_has_cents_and_retirements(http):
    """A bare array with every type of pricing that occurs."""
    every = rows(http.get("/models/list"), "model_name")
    retired = every["meta-llama/Meta-Llama-3.1-8B-Instruct"]

    assert set(every) == {model.id for model in catalogue if model.status != "presumed_removed"}
    assert every["BAAI/bge-m3"]["pricing"] == {"type": "input_tokens", "cents_per_input_token": 0.000001}
    kimi = every["moonshotai/Kimi-K2.6"]["pricing"]
    assert (kimi["type"], kimi["rate_per_input_token_cached"]) == ("tokens", pytest.approx(0.2))
    assert every["black-forest-labs/FLUX-1-schnell"]["pricing"]["cents_per_image_unit"] == pytest.approx(0.05)
    assert retired["replaced_by"]
    assert retired["deprecated"] > 1_700_000_000
    kinds = {row["pricing"]["type"] for row in every.values()}
    assert kinds == {
        "tokens",
        "input_tokens",
        "image_units",
        "time",
        "input_length",
        "input_character_length",
        "output_length",
    }


def test_the_openrouter_list_has_prices_per_token_as_text(http):
    """Prices are plain decimal texts."""
    llama = rows(http.get("/openrouter/models"))["meta-llama/Llama-3.3-70B-Instruct-Turbo"]

    assert llama["pricing"] == {"prompt": "0.0000001", "completion": "0.00000032"}
    assert llama["context_length"] == 131072


def test_one_model_can_be_looked_up(http):
    """A known one has details and versions; an unknown one is 404 with a plain error."""
    known = http.get("/models/BAAI/bge-m3").json()
    versions = http.get("/models/BAAI/bge-m3/versions").json()
    unknown = http.get("/models/acme/none")

    assert (known["model_name"], known["type"]) == ("BAAI/bge-m3", "embeddings")
    assert versions[0]["model_name"] == "BAAI/bge-m3"
    assert (unknown.status_code, unknown.json()) == (404, {"error": "Model not found"})
    assert http.get("/models/BAAI/bge-m3/versions/x").status_code == 404
