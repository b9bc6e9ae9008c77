"""Embeddings and reranking."""

import base64
import math
import struct

import pytest

from resilient_ai.deepinfra.catalogue import catalogue
from resilient_ai.simulator import serve


def likeness(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def vectors(answer):
    return [row["embedding"] for row in answer.json()["data"]]


def test_an_answer_has_the_recorded_keys_in_order(sim, ask, models):
    """Keys and their order are those of the recording, without a cost in the usage."""
    body = ask.embed(["first passage", "second passage"]).json()

    assert list(body) == ["object", "model", "usage", "data"]
    assert list(body["usage"]) == ["prompt_tokens", "total_tokens"]
    assert [list(row) for row in body["data"]] == [["index", "object", "embedding"]] * 2
    assert [row["index"] for row in body["data"]] == [0, 1]
    price = catalogue.get(models.embedding).pricing.input_per_1m
    assert sim.stats().bill == body["usage"]["prompt_tokens"] * price / 1_000_000
    assert sim.stats().embedded_texts == 2


def test_vectors_have_length_one_and_bring_like_texts_together(ask, models):
    """Unit vectors of the model's size, equal for equal texts, near for like texts."""
    sea, tide, bike, again = vectors(ask.embed(["The tide is high", "high tides", "a red bicycle", "The tide is high"]))

    assert len(sea) == catalogue.get(models.embedding).dimensions == 768
    assert math.hypot(*sea) == pytest.approx(1.0, abs=1e-6)
    assert sea == again
    assert likeness(sea, tide) > 0.3 > likeness(sea, bike)


def test_one_text_may_stand_alone(ask):
    """A lone string gives one vector, an empty one too."""
    assert vectors(ask.embed("passage")) == vectors(ask.embed(["passage"]))
    assert math.hypot(*vectors(ask.embed(""))[0]) == pytest.approx(1.0, abs=1e-6)


def test_dimensions_cut_or_fill(ask):
    """Fewer numbers are the first ones at length 1, more are zeros; under 32 is refused."""
    own, short, long = (vectors(ask.embed("passage", dimensions=d))[0] for d in (None, 32, 800))

    assert math.hypot(*short) == pytest.approx(1.0, abs=1e-6)
    assert short[0] / short[1] == pytest.approx(own[0] / own[1], rel=1e-4)
    assert long == own + [0.0] * 32
    assert ask.embed("a", dimensions=31).json()["error"]["param"] == "dimensions"


def test_base64_holds_the_same_floats(ask):
    """Four little-endian bytes per number."""
    plain = vectors(ask.embed("passage"))[0]
    packed = base64.b64decode(vectors(ask.embed("passage", encoding_format="base64"))[0])

    assert list(struct.unpack(f"<{len(plain)}f", packed)) == plain


@pytest.mark.parametrize(
    ("input", "param", "code"),
    [(["a"] * 1025, "input", "array_above_max_length"), ([], "input", None), ([1, 2], None, None), (None, None, None)],
)
def test_bad_inputs_are_refused(ask, input, param, code):
    """More than 1024 texts, none at all and token ids are 422."""
    answer = ask.embed(input)

    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == code
    assert param is None or answer.json()["error"]["param"] == param


def test_1024_texts_are_accepted(ask):
    """The limit itself is allowed."""
    assert len(vectors(ask.embed(["a"] * 1024, dimensions=32))) == 1024


def test_long_texts_are_cut_and_billed_for_what_is_left(ask):
    """Nothing is refused, and the usage shows the model's limit."""
    assert ask.embed("word " * 5000).json()["usage"]["prompt_tokens"] == 512


def test_other_kinds_cannot_embed(ask, models):
    """A chat model has no vectors."""
    assert ask.embed("a", model=models.plain).status_code == 405


def test_cost_and_tier_on_request(client_of, ask_at):
    """The cost stands in the usage if switched on, at the price of the tier."""
    with serve(embedding_cost=True) as sim, client_of(sim) as http:
        body = ask_at(http).embed("passage", service_tier="priority").json()

        assert body["usage"]["estimated_cost"] == float(sim.stats().bill)
        assert body["service_tier"] in {"priority", "default"}


def test_native_embeddings(sim, ask, http, models):
    """The native form gives the same vectors, with cost and tokens beside them."""
    body = ask.native(models.embedding, inputs=["passage"]).json()
    form = http.post(f"/v1/inference/{models.embedding}", files={"inputs": (None, '["passage"]')}).json()

    assert list(body) == ["embeddings", "input_tokens", "request_id", "inference_status"]
    assert body["embeddings"] == vectors(ask.embed("passage")) == form["embeddings"]
    assert body["inference_status"]["cost"] == pytest.approx(float(sim.stats().bill) / 3)


def test_native_vectors_can_stay_unscaled(ask, models):
    """Without normalisation the direction is the same and the length is not 1."""
    scaled, raw = (ask.native(models.embedding, inputs=["a b"], normalize=n).json()["embeddings"][0] for n in (1, 0))

    assert math.hypot(*raw) > 2
    assert likeness(scaled, raw) == pytest.approx(math.hypot(*raw), rel=1e-5)


@pytest.mark.parametrize("fields", [{}, {"inputs": "lone"}, {"inputs": ["a"] * 1025}])
def test_native_inputs_are_checked(ask, models, fields):
    """Refusals have the native shape."""
    answer = ask.native(models.embedding, **fields)

    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "inputs"])


def test_a_broken_form_list_is_refused(http, models):
    """A form field that is no JSON array is 422."""
    answer = http.post(f"/v1/inference/{models.embedding}", files={"inputs": (None, "[oops")})

    assert answer.status_code == 422


def test_rerank_takes_both_shapes(sim, ask, models):
    """One query, or one per document; scores from 0 to 1 in document order."""
    documents = ["a red bicycle", "high tide in Kiel", "the tide"]
    query = "When is high tide in Kiel?"
    one = ask.native(models.rerank, query=query, documents=documents).json()
    repeated = ask.native(models.rerank, queries=[query] * 3, documents=documents).json()
    single = ask.native(models.rerank, queries=[query], documents=documents).json()

    assert one["scores"] == repeated["scores"] == single["scores"]
    assert max(one["scores"]) == one["scores"][1]
    assert all(0 <= score <= 1 for score in one["scores"])
    assert one["inference_status"]["cost"] == float(sim.stats().bill / 3)


@pytest.mark.parametrize("fields", [{"documents": ["a"]}, {"queries": ["a", "b"], "documents": ["a"]}, {"query": "a"}])
def test_rerank_checks_its_request(ask, models, fields):
    """A missing query, lists of different lengths, and missing documents are 422."""
    assert ask.native(models.rerank, **fields).status_code == 422
