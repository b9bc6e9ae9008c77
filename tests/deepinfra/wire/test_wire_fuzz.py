"""No answer is too odd: every reader gives a result or a `ProviderError`, never anything else."""

import contextlib

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_ai.core.errors import ProviderError
from resilient_ai.core.operations import Embed, Image
from resilient_ai.core.transcript import Transcript
from resilient_ai.deepinfra.wire.chat import read_chat
from resilient_ai.deepinfra.wire.chat_stream import ChatEvents
from resilient_ai.deepinfra.wire.completions import read_completion
from resilient_ai.deepinfra.wire.embeddings import read_embeddings, read_native_embeddings
from resilient_ai.deepinfra.wire.images import read_images, read_native_images

NAMES = st.sampled_from(
    [
        "id",
        "model",
        "choices",
        "index",
        "message",
        "delta",
        "content",
        "text",
        "role",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "finish_reason",
        "logprobs",
        "token",
        "logprob",
        "top_logprobs",
        "reasoning_content",
        "reasoning",
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "estimated_cost",
        "prompt_tokens_details",
        "cached_tokens",
        "completion_tokens_details",
        "reasoning_tokens",
        "service_tier",
        "error",
        "detail",
        "message",
        "code",
        "status",
        "loc",
        "msg",
        "data",
        "embedding",
        "embeddings",
        "images",
        "output",
        "b64_json",
        "url",
        "seed",
        "nsfw_content_detected",
        "inference_status",
        "cost",
        "tokens",
        "token_logprobs",
        "request_id",
        "input_tokens",
        "error_type",
        "error_message",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
    | st.sampled_from(["<think>", "</think>", "AAAA", "data:,x", "http://x", "iVBORw0KGgo="])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=25
)


def objects(name):
    """Objects whose field of that name is a list of objects, as in a real answer."""
    inner = st.dictionaries(NAMES, VALUES, max_size=5)
    return st.builds(lambda rest, items: {**rest, name: items}, inner, st.lists(inner | VALUES, min_size=1, max_size=3))


BODIES = VALUES | objects("choices") | objects("data") | objects("embeddings") | objects("images")
TEXTS = Embed(model="m", texts=["a"])
PICTURE = Image(model="m", prompt="a")
READERS = [
    lambda data: read_chat(data, model="m", headers={}),
    lambda data: read_completion(data, model="m", headers={}),
    lambda data: read_embeddings(data, operation=TEXTS, headers={}),
    lambda data: read_native_embeddings(data, operation=TEXTS, headers={}),
    lambda data: read_images(data, operation=PICTURE, headers={}),
    lambda data: read_native_images(data, operation=PICTURE, headers={}),
]


@settings(max_examples=300, deadline=None)
@given(BODIES)
def test_any_json_is_an_answer_or_a_provider_error(body):
    """Every reader, any JSON."""
    data = orjson.dumps(body)
    for reader in READERS:
        with contextlib.suppress(ProviderError):
            assert reader(data).served_by == "m"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_an_answer_or_a_provider_error(data):
    """Every reader, any bytes."""
    for reader in READERS:
        with contextlib.suppress(ProviderError):
            assert reader(data).served_by == "m"
    with contextlib.suppress(ProviderError):
        events = ChatEvents(model="m")
        assert isinstance(events.feed(data), list)
        assert events.conclude()


@settings(max_examples=100, deadline=None)
@given(st.lists(BODIES, max_size=4), st.booleans())
def test_any_events_are_an_answer_or_a_provider_error(bodies, ended):
    """The stream reader, any events; what it gives can always be put together."""
    transcript = Transcript("m")
    with contextlib.suppress(ProviderError):
        events = ChatEvents(model="m")
        for body in bodies:
            transcript.add(events.feed(b"data: " + orjson.dumps(body) + b"\n\n"))
        if ended:
            transcript.add(events.feed(b"data: [DONE]\n\n"))
        transcript.add(events.conclude())
    assert transcript.result().served_by == "m"


def test_nesting_without_end_is_contained():
    """A million brackets are an unreadable answer, not a crash; deep but legal nesting is neither."""
    deep = b'{"choices": [{"message": {"content": "x", "tool_calls": [{"function": {"name": "f", "arguments": %b}}]}}]}'
    for reader in READERS:
        for data in (b"[" * 10**6, b'{"a":' * 10**6, deep % (b"[" * 1000 + b"]" * 1000)):
            with contextlib.suppress(ProviderError):
                assert reader(data).served_by == "m"
