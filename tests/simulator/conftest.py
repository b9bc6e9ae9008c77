"""A simulator on a real socket for the tests of this folder."""

import json
import time
from types import SimpleNamespace

import httpx
import pytest

from resilient_ai.simulator import serve

PLAIN = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
MODELS = SimpleNamespace(
    plain=PLAIN,
    reasoning="moonshotai/Kimi-K2.6",
    tagged="deepseek-ai/DeepSeek-R1-0528",
    google_inclusive="google/gemini-2.5-flash",
    google_exclusive="google/gemini-2.5-pro",
    vision="google/gemma-3-12b-it",
    limited="Gryphe/MythoMax-L2-13b",
    retired="meta-llama/Meta-Llama-3.1-8B-Instruct",
    embedding="BAAI/bge-base-en-v1.5",
    rerank="Qwen/Qwen3-Reranker-0.6B",
    flux="black-forest-labs/FLUX-1-schnell",
    by_ratio="stabilityai/sdxl-turbo",
)


def connect(sim, key="test-key"):
    return httpx.Client(base_url=sim.url, headers={"Authorization": f"Bearer {key}"}, timeout=10.0)


@pytest.fixture(scope="session")
def running():
    with serve() as simulator:
        yield simulator


@pytest.fixture
def sim(running):
    # What the test before left under way would be counted and billed in this one's books.
    end = time.monotonic() + 10
    while running.stats().in_flight:
        assert time.monotonic() < end
        time.sleep(0.005)
    running.reset()
    return running


@pytest.fixture
def http(sim):
    with connect(sim) as client:
        yield client


@pytest.fixture(scope="session")
def models():
    return MODELS


@pytest.fixture
def client_of():
    """Opens a client for a simulator of its own."""
    return connect


class Ask:
    """Posts requests of each kind with few words."""

    def __init__(self, http):
        self.http = http

    def chat(self, content="What moves the tides?", *, model=PLAIN, path="/v1/openai/chat/completions", **fields):
        messages = fields.pop("messages", [{"role": "user", "content": content}])
        return self.http.post(path, json={"model": model, "messages": messages, **fields})

    def stream(self, content="What moves the tides?", **fields):
        text = self.chat(content, stream=True, **fields).text
        return events_in(text)

    def embed(self, input, *, model=MODELS.embedding, **fields):
        return self.http.post("/v1/openai/embeddings", json={"model": model, "input": input, **fields})

    def native(self, model, **fields):
        return self.http.post(f"/v1/inference/{model}", json=fields)


def events_in(text):
    """The JSON of every event of a stream; comments are dropped, the end mark is asserted."""
    lines = [line for line in text.splitlines() if line and not line.startswith(":")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.fixture
def ask(http):
    return Ask(http)


@pytest.fixture
def ask_at():
    """Wraps another client than that of the shared simulator."""
    return Ask


@pytest.fixture
def tides():
    port = {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]}
    return {
        "type": "function",
        "function": {"name": "tides", "description": "Look up tide times of a port", "parameters": port},
    }
