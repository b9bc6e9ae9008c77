"""Paths, keys, encodings and refusals that all routes share."""

import gzip
import json
import zlib

import pytest

from resilient_ai.simulator import serve

HELLO = [{"role": "user", "content": "Say hello"}]


@pytest.mark.parametrize("prefix", ["/v1/openai", "/v1"])
def test_both_prefixes_answer(ask, prefix):
    """The OpenAI routes answer with and without their prefix."""
    answer = ask.chat("Say hello", path=f"{prefix}/chat/completions")

    assert answer.json()["choices"][0]["message"]["content"] == "hello"


def test_unknown_path_and_wrong_method_answer_in_the_framework_s_way(http):
    """An unknown path is 404 and a wrong method 405, each with a plain detail."""
    unknown, wrong = http.get("/v1/nowhere"), http.get("/v1/openai/chat/completions")

    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer k"}, {"authorization": "bearer k"}, {"Authorization": ""} | {"xi-api-key": "k"}],
)
def test_a_key_may_come_in_either_header(sim, http, models, headers):
    """Bearer in any case and `xi-api-key` are accepted."""
    body = {"model": models.plain, "messages": HELLO}

    assert http.post("/v1/chat/completions", json=body, headers=headers).status_code == 200


@pytest.mark.parametrize("value", ["", "Basic abc", "Bearer", "Bearer bad-key"])
def test_without_a_good_key_the_answer_is_401(http, models, value):
    """A missing or bad key gives the recorded body, on native routes too."""
    error = {"message": "Not authenticated", "type": "invalid_request_error", "param": None, "code": None}
    for path in ("/v1/openai/chat/completions", f"/v1/inference/{models.embedding}", "/v1/me/rate_limit"):
        method = "GET" if path.endswith("limit") else "POST"
        answer = http.request(method, path, headers={"Authorization": value})
        assert (answer.status_code, answer.json()) == (401, {"error": error})


def test_the_accepted_keys_can_be_named(client_of, ask_at):
    """With a set of keys only those are accepted."""
    with serve(keys=frozenset({"bad-but-listed"})) as sim:
        with client_of(sim, "bad-but-listed") as http:
            assert ask_at(http).chat().status_code == 200
            assert http.get("/v1/me/rate_limit").json() == {"rate_limit": 200, "tpm_rate_limit": None}
        with client_of(sim, "other") as http:
            assert ask_at(http).chat().status_code == 401


def test_gzip_bodies_are_read_and_others_refused(http, models):
    """A gzip body is unpacked; a broken one and deflate are refused."""
    body = json.dumps({"model": models.plain, "messages": HELLO}).encode()

    def send(content, encoding):
        return http.post("/v1/chat/completions", content=content, headers={"Content-Encoding": encoding}).status_code

    assert send(gzip.compress(body), "gzip") == 200
    assert send(b"no gzip", "gzip") == 400
    assert send(zlib.compress(body), "deflate") == 415


@pytest.mark.parametrize(
    ("content", "message"), [(b"{", "JSON decode error"), (b"[]", "Input should be a valid dictionary")]
)
def test_a_body_that_is_no_object_is_422(http, models, content, message):
    """Broken JSON is refused in the shape of the route."""
    openai = http.post("/v1/embeddings", content=content)
    native = http.post(f"/v1/inference/{models.embedding}", content=content)

    assert (openai.status_code, openai.json()["error"]["message"]) == (422, message)
    assert (native.status_code, native.json()["detail"][0]["msg"]) == (422, message)


def test_a_body_above_the_limit_is_413(client_of, ask_at):
    """The unpacked size counts."""
    with serve(max_body=1000) as sim, client_of(sim) as http:
        packed = gzip.compress(b" " * 5000)
        assert ask_at(http).chat("x" * 2000).status_code == 413
        assert http.post("/v1/embeddings", content=packed, headers={"Content-Encoding": "gzip"}).status_code == 413


def test_an_unknown_model_is_404_in_the_shape_of_the_route(ask):
    """Unknown models have the OpenAI shape there and the native shape here."""
    openai, native = ask.chat(model="acme/none"), ask.native("acme/none", inputs=["a"])

    assert (openai.status_code, openai.json()["error"]["param"]) == (404, "model")
    assert (native.status_code, native.json()) == (404, {"detail": {"error": "Model not found"}})


def test_models_answer_under_versions_deployments_and_private_names(ask, http, models):
    """A pinned version, a deployment and a private model answer; an unknown deployment does not."""
    assert ask.chat(model=f"{models.plain}:abc123").status_code == 200
    assert ask.chat(model="deploy_id:simulator-deploy").json()["model"] == "deploy_id:simulator-deploy"
    assert ask.chat(model="simulator/private-chat").json()["model"] == "simulator/private-chat"
    assert ask.chat(model="deploy_id:other").status_code == 404
    deployed = http.post("/v1/inference/deploy/simulator-deploy", json={"input": "Say hi"})
    assert deployed.json()["results"] == [{"generated_text": " hi"}]
    pinned = http.post(f"/v1/inference/{models.embedding}?version=abc", json={"inputs": ["a"]})
    assert pinned.status_code == 200


def test_a_retired_model_answers_as_its_replacement(ask, models):
    """The answer names the model that gave it."""
    answer = ask.chat(model=models.retired)

    assert answer.status_code == 200
    assert answer.json()["model"] not in {models.retired, ""}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("limit", 0, "limit must be >= 1, got 0"),
        ("ping_interval", 0, "ping_interval must be > 0, got 0"),
        ("token_delay", -1, "token_delay must be >= 0, got -1"),
    ],
)
def test_options_are_checked(option, value, message):
    """An option out of its range is refused before anything starts."""
    with pytest.raises(ValueError, match=message), serve(**{option: value}):
        pass


def test_a_taken_port_is_refused(sim):
    """A port in use raises, and nothing is left behind."""
    port = int(sim.url.rpartition(":")[2])

    with pytest.raises(OSError, match="in use"), serve(port=port):
        pass
