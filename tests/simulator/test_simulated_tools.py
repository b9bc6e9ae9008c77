"""Tool calls and what follows them."""

import json

import pytest

from resilient_ai.simulator import serve


def called(answer):
    choice = answer.json()["choices"][0]
    return [
        (c["function"]["name"], json.loads(c["function"]["arguments"])) for c in choice["message"]["tool_calls"] or []
    ]


def weather():
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    }
    return {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": schema}}


def test_the_fitting_tool_is_called_with_words_of_the_prompt(ask, tides):
    """Of two tools the one the prompt speaks of is called, with what the prompt says."""
    first = ask.chat("When is high tide in Kiel?", tools=[weather(), tides])
    second = ask.chat("What is the weather in Kiel in fahrenheit?", tools=[weather(), tides])

    assert called(first) == [("tides", {"port": "Kiel"})]
    assert called(second) == [("get_weather", {"city": "Kiel", "unit": "fahrenheit"})]
    assert first.json()["choices"][0]["finish_reason"] == "tool_calls"
    assert first.json()["choices"][0]["message"]["content"] == ""


def test_a_list_of_names_gives_parallel_calls(ask, tides):
    """Each name in a list has a call of its own."""
    answer = ask.chat("Tide times for Kiel, Emden and Husum please", tools=[tides])

    assert called(answer) == [("tides", {"port": port}) for port in ("Kiel", "Emden", "Husum")]


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ("none", None),
        ("required", "tides"),
        ({"type": "function", "function": {"name": "get_weather"}}, "get_weather"),
        ({"type": "function", "function": {"name": "unknown"}}, "tides"),
    ],
)
def test_the_choice_of_tool_is_obeyed(ask, tides, choice, name):
    """None, required and named tools are honoured."""
    calls = called(ask.chat("When is high tide in Kiel?", tools=[tides, weather()], tool_choice=choice))

    assert [called_name for called_name, _ in calls] == ([name] if name else [])


def conversation(content):
    call = {"id": "call_1", "type": "function", "function": {"name": "tides", "arguments": '{"port": "Kiel"}'}}
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "When is high tide in Kiel?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": content},
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"high": "04:12", "low": 10}', "According to tides: high 04:12, low 10."),
        ('["04:12", 3]', "According to tides: 04:12, 3."),
        ("7", "According to tides: 7."),
        ("{}", "According to tides: nothing."),
        ("At noon.", "According to tides: At noon."),
        ([{"type": "text", "text": "At noon."}], "According to tides: At noon."),
    ],
)
def test_results_are_quoted_in_prose(ask, tides, content, said):
    """After the results the model answers and calls nothing more."""
    answer = ask.chat(messages=conversation(content), tools=[tides])

    assert answer.json()["choices"][0]["message"]["content"] == said
    assert called(answer) == []


def test_a_result_alone_is_quoted_too(ask):
    """A conversation of nothing but a result names no tool."""
    answer = ask.chat(messages=conversation("noon")[-1:])

    assert answer.json()["choices"][0]["message"]["content"] == "According to the tool: noon."


def test_required_calls_even_after_results(ask, tides):
    """An insisting caller gets another call."""
    assert called(ask.chat(messages=conversation("noon"), tools=[tides], tool_choice="required"))


def test_a_call_can_be_cut_by_length(ask, tides):
    """Too few tokens leave broken arguments and the reason `length`."""
    choice = ask.chat("High tide in Kiel?", tools=[tides], max_tokens=4).json()["choices"][0]
    none = ask.chat("High tide in Kiel?", tools=[tides], max_tokens=1).json()["choices"][0]

    assert choice["finish_reason"] == none["finish_reason"] == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])
    assert none["message"]["tool_calls"] is None


def test_deepseek_r1_writes_its_calls_as_text(ask, models, tides):
    """No structured call ever comes from this family."""
    message = ask.chat("High tide in Kiel?", model=models.tagged, tools=[tides]).json()["choices"][0]["message"]

    assert message["tool_calls"] is None
    assert 'tides({"port": "Kiel"})' in message["content"]


@pytest.mark.parametrize(
    ("model", "prefix"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", "chatcmpl-tool-"),
        ("moonshotai/Kimi-K2.6", "functions.tides:0"),
        ("Qwen/Qwen2.5-72B-Instruct", "call_"),
    ],
)
def test_ids_have_the_style_of_the_family(ask, tides, model, prefix):
    """Three styles of ids occur."""
    calls = ask.chat("High tide in Kiel?", model=model, tools=[tides]).json()["choices"][0]["message"]["tool_calls"]

    assert calls[0]["id"].startswith(prefix)


def test_a_tool_without_parameters_is_called_without_arguments(ask):
    """An absent schema gives an empty object."""
    tool = {"type": "function", "function": {"name": "now"}}

    assert called(ask.chat("What time is it now?", tools=[tool])) == [("now", {})]


def deltas(events):
    return [e["choices"][0]["delta"]["tool_calls"][0] for e in events if tool_deltas(e)]


def tool_deltas(event):
    return event["choices"] and event["choices"][0]["delta"].get("tool_calls")


def test_calls_are_streamed_whole_or_split(client_of, ask_at, models, tides):
    """A whole call comes in one delta; a split one in several that join to the same arguments."""
    with serve(tool_deltas={models.plain: "split", models.reasoning: "whole"}) as sim, client_of(sim) as http:
        split = deltas(ask_at(http).stream("High tide in Kiel?", tools=[tides]))
        whole = deltas(ask_at(http).stream("High tide in Kiel?", model=models.reasoning, tools=[tides]))

    assert len(whole) == 1
    assert whole[0]["function"] == {"name": "tides", "arguments": '{"port": "Kiel"}'}
    assert [split[0]["function"]["name"], split[0]["function"]["arguments"]] == ["tides", ""]
    assert (split[1]["id"], split[1]["function"]["name"]) == (None, None)
    assert "id" not in split[2]
    assert "".join(part["function"]["arguments"] for part in split) == '{"port": "Kiel"}'


def test_a_streamed_call_has_the_usage_of_the_whole_one(ask, tides):
    """The tokens of calls are counted alike."""
    whole = ask.chat("High tide in Kiel?", tools=[tides]).json()["usage"]
    events = ask.stream("High tide in Kiel?", tools=[tides])

    assert events[-1]["usage"] == whole
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
