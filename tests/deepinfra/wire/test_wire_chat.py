"""Chat requests and whole answers."""

import base64
from decimal import Decimal

import orjson
import pytest

from resilient_ai.core.errors import InvalidInput, InvalidResponse, RateLimited, ServerFailed
from resilient_ai.core.messages import (
    AssistantMessage,
    AudioPart,
    ImagePart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.deepinfra.wire.chat import chat_body, read_chat

PNG = b"\x89PNG\r\n\x1a\n...."


def body_of(messages="hi", *, stream=False, **options):
    kind = Stream if stream else Chat
    return chat_body(kind(model="m", messages=messages, **options), stream=stream)


def read(body, **headers):
    return read_chat(body if isinstance(body, bytes) else orjson.dumps(body), model="asked", headers=headers)


def answer(message, **choice):
    return {"id": "c1", "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}]}


def test_nothing_is_sent_that_was_not_given():
    """The service decides what the caller left open."""
    assert body_of() == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_every_sampling_field_is_sent():
    """Each field goes by its name on the wire."""
    fields = {
        "temperature": 0.0,
        "top_p": 0.9,
        "min_p": 0.0,
        "top_k": 0,
        "max_tokens": 5,
        "n": 2,
        "presence_penalty": 0.0,
        "frequency_penalty": -1.0,
        "repetition_penalty": 1.1,
        "seed": 0,
        "user": "u",
        "prompt_cache_key": "k",
        "service_tier": "flex",
        "logprobs": True,
        "top_logprobs": 2,
        "reasoning_effort": "none",
        "chat_template_kwargs": {"enable_thinking": False},
    }
    body = body_of(stop="END", **fields)

    assert body == {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stop": ["END"], **fields}
    assert list(body)[:2] == ["model", "messages"]


def test_a_stream_asks_for_usage():
    """Without it the cost of a stream might stay unknown."""
    body = body_of(stream=True)

    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


def test_what_happens_to_a_broken_stream_is_not_sent():
    """The policy is between the caller and the stack."""
    stream = Stream(model="m", messages="hi", on_interrupt="restart")
    assert chat_body(stream, stream=True) == body_of(stream=True)


def test_messages_of_every_role():
    """Roles, parts, names and tool calls take the form of the wire; a tool's answer is always a plain string."""
    call = ToolCall(id="c1", name="tides", arguments='{"port": "Kiel"}')
    sent = {"id": "c1", "type": "function", "function": {"name": "tides", "arguments": '{"port": "Kiel"}'}}
    uri = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    messages = [
        SystemMessage(content=(TextPart(text="short"),), name="s", cache_control={"type": "ephemeral"}),
        UserMessage(
            content=(ImagePart.of(PNG, detail="low"), ImagePart.of("https://a.example/b.png"), TextPart(text="?"))
        ),
        UserMessage(content=(AudioPart(data="UklGRg=="),)),
        AssistantMessage(tool_calls=(call,), reasoning="hm"),
        ToolMessage(content="04:12", tool_call_id="c1"),
        AssistantMessage(content="Let me see", tool_calls=(call,), name="a"),
        AssistantMessage(content="The tide"),
        AssistantMessage(),
    ]

    assert body_of(messages)["messages"] == [
        {
            "role": "system",
            "content": [{"type": "text", "text": "short"}],
            "cache_control": {"type": "ephemeral"},
            "name": "s",
        },
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": uri, "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
                {"type": "text", "text": "?"},
            ],
        },
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]},
        {"role": "assistant", "content": None, "tool_calls": [sent], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "04:12"},
        {"role": "assistant", "content": "Let me see", "tool_calls": [sent], "name": "a"},
        {"role": "assistant", "content": "The tide"},
        {"role": "assistant", "content": ""},
    ]


def test_tools_and_their_choice():
    """A named tool becomes an object, the three words stay words."""
    tool = {"name": "tides", "parameters": {"type": "object"}}
    told = {**tool, "description": "When"}

    assert body_of(tools=[tool], tool_choice="tides")["tools"] == [{"type": "function", "function": tool}]
    assert body_of(tools=[told])["tools"] == [{"type": "function", "function": told}]
    assert body_of(tools=[tool], tool_choice="tides")["tool_choice"] == {
        "type": "function",
        "function": {"name": "tides"},
    }
    for word in ("auto", "none", "required"):
        assert body_of(tools=[tool], tool_choice=word)["tool_choice"] == word
    assert "tool_choice" not in body_of(tools=[tool])


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("text", {"type": "text"}),
        ("json_object", {"type": "json_object"}),
        ({"type": "regex", "regex": "[A-Z]"}, {"type": "regex", "regex": "[A-Z]"}),
        (
            {"type": "json_schema", "json_schema": {"type": "object"}, "name": "x"},
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}},
        ),
    ],
)
def test_response_formats(given, sent):
    """All four kinds have their form."""
    assert body_of(response_format=given)["response_format"] == sent


def test_extra_wins():
    """The caller's own fields come last; OpenAI's newer name for the output limit is translated."""
    body = body_of(stream=True, max_tokens=5, extra={"max_completion_tokens": 9, "new": 1, "stream": True})

    assert (body["max_tokens"], body["new"]) == (9, 1)
    assert "max_completion_tokens" not in body


@pytest.mark.parametrize(("stream", "value"), [(False, True), (True, False)])
def test_extra_may_not_change_how_the_answer_is_read(stream, value):
    """An answer in pieces cannot be read as a whole one."""
    with pytest.raises(InvalidInput, match="'stream' follows from the operation"):
        body_of(stream=stream, extra={"stream": value})


def test_a_plain_answer():
    """Text, usage, cost, names: everything is where it belongs."""
    usage = {"prompt_tokens": 27, "total_tokens": 39, "completion_tokens": 12, "estimated_cost": 6.54e-06}
    message = {"role": "assistant", "content": "Bern.", "name": None, "tool_calls": None}
    result = read({**answer(message), "model": "served", "usage": usage, "service_tier": "priority"})

    assert (result.text, result.reasoning, result.tool_calls, result.finish_reason) == ("Bern.", None, (), "stop")
    assert (result.model, result.served_by, result.request_id, result.service_tier) == (
        "served",
        "asked",
        "c1",
        "priority",
    )
    assert (result.usage.input_tokens, result.usage.output_tokens) == (27, 12)
    assert (result.cost.amount, result.cost.source) == (Decimal("0.00000654"), "provider")


def test_a_bare_answer():
    """What is missing is None, and the model is the one that was asked."""
    result = read({"choices": [{"message": {}}]}, **{"x-request-id": "r1"})

    assert (result.text, result.model, result.request_id) == ("", "asked", "r1")
    assert (result.usage, result.cost, result.finish_reason, result.service_tier) == (None, None, None, None)


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "391", "reasoning_content": "17 * 23"}, "391", "17 * 23"),
        ({"content": "391", "reasoning": "17 * 23", "reasoning_content": None}, "391", "17 * 23"),
        ({"content": "<think>17 * 23</think>\n391"}, "391", "17 * 23"),
        ({"content": "17 * 23</think>\n391"}, "391", "17 * 23"),
        ({"content": None, "reasoning_content": "17"}, "", "17"),
        ({"content": [{"type": "text", "text": "39"}, {"text": "1"}, 3]}, "391", None),
        ({"content": "391", "reasoning": {"a": 1}}, "391", None),
    ],
)
def test_reasoning_is_found_wherever_it_stands(message, text, reasoning):
    """Two names of a field, or tags inside the text."""
    result = read(answer(message))

    assert (result.text, result.reasoning) == (text, reasoning)


def test_tool_calls_of_every_kind():
    """Null, objects, missing ids; a call without a name cannot be answered and is left out."""
    calls = [
        {"id": "functions.a:0", "type": "function", "function": {"name": "a", "arguments": "not json"}},
        {"id": None, "function": {"name": "b", "arguments": None}},
        {"id": "c", "function": {"name": "c", "arguments": {"x": 1}}},
        {"id": "d", "function": {"name": "", "arguments": "{}"}},
        {"id": "e"},
        None,
    ]

    assert read(answer({"content": "", "tool_calls": calls})).tool_calls == (
        ToolCall(id="functions.a:0", name="a", arguments="not json"),
        ToolCall(id="call_1", name="b", arguments=""),
        ToolCall(id="c", name="c", arguments='{"x":1}'),
    )
    for none in (None, [], "x"):
        assert read(answer({"content": "x", "tool_calls": none})).tool_calls == ()


def test_log_probabilities():
    """Tokens and their alternatives; entries that make no sense are left out."""
    content = [
        {"token": "Bern", "logprob": -0.5, "top_logprobs": [{"token": "Z", "logprob": -6}, {"token": "Y"}, 3]},
        {"token": "x", "logprob": None},
        {"token": "y", "logprob": True},
        4,
    ]
    (token,) = read(answer({"content": "Bern"}, logprobs={"content": content})).logprobs

    assert (token.token, token.logprob, token.top) == ("Bern", -0.5, (("Z", -6.0),))
    for none in (None, {}, {"content": None}, {"content": []}):
        assert read(answer({"content": "Bern"}, logprobs=none)).logprobs is None


def test_several_choices_come_in_order():
    """Choices are sorted by index; one without an index keeps its place."""
    choices = [
        {"index": 1, "message": {"content": "b"}},
        {"index": 0, "message": {"content": "a"}},
        {"message": {}, "index": -1},
    ]
    result = read({"choices": choices})

    assert [(choice.index, choice.text) for choice in result.choices] == [(0, "a"), (1, "b"), (2, "")]


def test_an_unknown_finish_reason_is_passed_on():
    """New words of the service break nothing."""
    assert read(answer({"content": "x"}, finish_reason="eos")).finish_reason == "eos"
    assert read(answer({"content": "x"}, finish_reason=7)).finish_reason is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"<html>", "is not JSON"),
        (b'{"choices": [', "is not JSON"),
        (b"[" * 10**6, "is not JSON"),
        (b'{"choices":' * 10**6, "is not JSON"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        ({}, "no choices"),
        ({"choices": []}, "no choices"),
        ({"choices": None}, "no choices"),
        ({"choices": {"0": 1}}, "no choices"),
        ({"choices": [None]}, "choice 0 is not an object"),
        ({"choices": [{}]}, "choice 0 has no message"),
        ({"choices": [{"message": "hi"}]}, "choice 0 has no message"),
        ({"choices": [{"message": {"content": 42}}]}, "neither a text nor null"),
    ],
)
def test_an_answer_that_cannot_be_read(body, reason):
    """The sentence says what was wrong; the beginning of the answer is kept."""
    with pytest.raises(InvalidResponse, match=reason) as caught:
        read(body, **{"x-request-id": "r1"})

    assert (caught.value.model, caught.value.request_id, caught.value.retryable) == ("asked", "r1", True)
    assert len(caught.value.excerpt) <= 500


def test_a_byte_order_mark_does_no_harm():
    """Some proxies put one in front."""
    assert read(b"\xef\xbb\xbf" + orjson.dumps(answer({"content": "x"}))).text == "x"


@pytest.mark.parametrize("choices", [{}, {"choices": []}, {"choices": None}])
def test_a_failure_behind_status_200_is_that_failure(choices):
    """An error in the body counts, whatever the status said."""
    with pytest.raises(ServerFailed, match="boom"):
        read({"error": {"message": "boom"}, **choices})
    with pytest.raises(RateLimited, match="busy"):
        read({"detail": {"error": "busy", "status": 429}, **choices})


def test_an_answer_beside_an_empty_error_is_an_answer():
    """`error: null` beside choices means nothing."""
    assert read({**answer({"content": "x"}), "error": None}).text == "x"
