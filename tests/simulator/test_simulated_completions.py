"""Text completions on the OpenAI and the native route."""

import json

import pytest

from resilient_ai.simulator import serve

RAW = "Say hello"


@pytest.fixture
def complete(http, models):
    def post(prompt=RAW, **fields):
        return http.post("/v1/openai/completions", json={"model": models.plain, "prompt": prompt, **fields})

    return post


def test_a_completion_has_the_shape_of_its_kind(sim, complete):
    """Keys, text and usage are those of a text completion."""
    body = complete().json()

    assert list(body) == ["id", "object", "created", "model", "choices", "usage"]
    assert (body["id"][:5], body["object"]) == ("cmpl-", "text_completion")
    assert body["choices"] == [{"index": 0, "text": " hello", "finish_reason": "stop", "logprobs": None}]
    assert body["usage"]["estimated_cost"] == float(sim.stats().bill)


def test_echo_logprobs_and_choices(complete):
    """The prompt can be repeated, probabilities asked for, and several choices."""
    choices = complete(echo=True, logprobs=1, n=2).json()["choices"]

    assert choices[0]["text"] == "Say hello hello"
    assert "".join(choices[1]["logprobs"]["tokens"]) == "Say hello hello"
    assert len(choices) == 2


def test_token_ids_are_a_prompt_too(complete):
    """An array of numbers counts one token each."""
    assert complete([1, 2, 3]).json()["usage"]["prompt_tokens"] == 3


def test_bad_prompts_are_refused(complete):
    """An array of texts, an absent prompt, and a value out of range are 422."""
    assert complete(["a", "b"]).json()["error"]["param"] == "prompt.0"
    assert complete(None).status_code == 422
    assert complete(max_tokens=0).json()["error"]["param"] == "max_tokens"


def test_formats_and_kinds_are_checked(complete):
    """A schema is obeyed; what the model cannot do is 405."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "boolean"}}}
    refused = complete(model="google/gemma-4-E4B-it", response_format={"type": "json_object"})

    assert complete(response_format=wanted).json()["choices"][0]["text"] == "true"
    assert refused.status_code == 405
    assert complete(model="BAAI/bge-m3").status_code == 405


def test_completions_are_streamed(complete):
    """Pieces, then the finish reason with the usage."""
    lines = complete("Say one two", stream=True, n=2, service_tier="flex").text.split("\n\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    assert "".join(c["text"] for e in events for c in e["choices"] if c["index"] == 1) == " one two"
    assert events[-1]["usage"]["completion_tokens"] == 4
    assert [e["usage"] for e in events[:-1]] == [None] * (len(events) - 1)
    assert events[0]["service_tier"]


def test_streams_report_usage_as_asked(complete):
    """Running usage in every chunk, or none at all."""
    running = complete(stream=True, stream_options={"continuous_usage_stats": True}).text
    none = complete(stream=True, stream_options={"include_usage": False}).text

    assert '"usage":null' not in running
    assert '"usage":{' not in none


def test_native_text(sim, ask, models):
    """The native form tells cost and tokens in `inference_status`."""
    body = ask.native(models.plain, input=RAW, num_responses=2, max_new_tokens="20").json()

    assert list(body) == ["request_id", "inference_status", "results", "num_tokens", "num_input_tokens"]
    assert [len(body["request_id"]), body["request_id"][0]] == [24, "R"]
    assert len(body["results"]) == 2
    assert body["inference_status"]["cost"] == float(sim.stats().bill)


def test_native_stream(ask, models):
    """Tokens one by one; the last event has the whole text."""
    raw = ask.native(models.plain, input=RAW, stream=True).text
    events = [json.loads(line[6:]) for line in raw.split("\n\n") if line.startswith("data: {")]

    assert "".join(e["token"]["text"] for e in events) == " hello"
    assert [e["generated_text"] for e in events][-1] == " hello"


def test_native_refusals(ask, models):
    """A missing field has the native shape; kinds that are not simulated are 405; a webhook only queues."""
    missing = ask.native(models.plain, stream=True).json()
    queued = ask.native(models.plain, input=RAW, webhook="https://example.org/hook").json()

    assert missing == {"detail": [{"loc": ["body", "input"], "msg": "Field required", "type": "missing"}]}
    assert queued["inference_status"]["status"] == "queued"
    assert ask.native("openai/whisper-large-v3", input="x").status_code == 405


def test_a_prompt_above_the_context_is_400_here_too(client_of):
    """The native route wraps the message in its own shape."""
    with serve() as sim, client_of(sim) as http:
        answer = http.post("/v1/inference/Gryphe/MythoMax-L2-13b", json={"input": "word " * 10_000})

    assert answer.status_code == 400
    assert "maximum context length" in answer.json()["detail"]["error"]
