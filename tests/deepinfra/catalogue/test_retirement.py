"""A retired model is announced once, where it is used, with what to use instead."""

import warnings
from datetime import date

import pytest

from resilient_ai.deepinfra.catalogue import Catalogue, ModelInfo, RetiredModelWarning, catalogue, warn_if_retired


def record(id, **fields):
    return ModelInfo(**{"id": id, "org": "a", "kind": "chat", "status": "retired"} | fields)


def caught(*ids, models=catalogue):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for name in ids:
            warn_if_retired(name, models=models)
    return found


def test_a_retired_model_warns_once_with_date_and_replacement():
    """The second use, and the use of a pinned version, say nothing more."""
    old = record("a/old", deprecated_on=date(2025, 11, 5), replaced_by="Qwen/Qwen3-32B")

    (warning,) = caught("a/old", "a/old", "a/old:v1", models=catalogue.with_models(old))

    assert warning.category is RetiredModelWarning
    assert str(warning.message) == "model 'a/old' was retired by DeepInfra on 2025-11-05; use 'Qwen/Qwen3-32B' instead"


def test_the_warning_names_the_place_of_the_call():
    """The line shown is the one that asked, not one of the package."""
    models = Catalogue([record("a/place", deprecated_on=date(2026, 1, 2))], as_of=date(2026, 1, 31))

    with pytest.warns(RetiredModelWarning, match="was retired by DeepInfra on 2026-01-02$") as found:
        warn_if_retired("a/place", models=models)

    assert found[0].filename == __file__


def test_a_model_no_longer_listed_says_as_of_when():
    """Where there is no date of retirement, the date of the data stands in."""
    models = Catalogue([record("a/unlisted", status="presumed_removed")], as_of=date(2026, 1, 31))

    (warning,) = caught("a/unlisted", models=models)

    assert str(warning.message) == "model 'a/unlisted' is no longer listed by DeepInfra (as of 2026-01-31)"


def test_other_models_are_not_worth_a_word():
    """Active and unknown models, and private deployments, do not warn."""
    assert caught("BAAI/bge-m3", "ByteDance/SeeDance-T2V", "nobody/nothing", "deploy_id:abc") == []
