"""Chat streams: framing, the two orders of chunks, usage, pings, and streams that are left early."""

import json
import time

import pytest

from resilient_ai.deepinfra.catalogue import catalogue
from resilient_ai.simulator import serve


def text_of(events, index=0):
    choices = [c for e in events for c in e["choices"] if c["index"] == index]
    return "".join(c["delta"].get("content") or "" for c in choices)


def test_variant_a_is_framed_and_ordered_as_recorded(ask, models):
    """A role in every delta, null usage, an empty delta before the end, finish and usage together."""
    raw = ask.chat("Say one two", stream=True)
    lines = raw.text.split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    assert raw.headers["content-type"] == "text/event-stream"
    assert lines[-2:] == ["data: [DONE]", ""]
    assert '"object": "chat.completion.chunk", "created": ' in lines[0]
    deltas = [e["choices"][0]["delta"] for e in events]
    assert deltas[0] == {"role": "assistant", "content": "", "tool_calls": None}
    assert deltas[-2] == deltas[0]
    assert deltas[-1] == {}
    assert {d.get("role") for d in deltas[:-1]} == {"assistant"}
    assert [e["usage"] for e in events[:-1]] == [None] * (len(events) - 1)
    assert (events[-1]["choices"][0]["finish_reason"], events[-1]["usage"]["completion_tokens"]) == ("stop", 2)
    assert len(events[0]["id"]) == len("chatcmpl-") + 24


def test_variant_b_is_ordered_as_recorded(ask, models):
    """A null role after the first, text with the finish reason, the usage once more without choices."""
    raw = ask.chat("Say hello", stream=True, model=models.vision, reasoning_effort="none").text
    events = ask.stream("Say hello", model=models.vision)

    assert '"object":"chat.completion.chunk"' in raw
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[-2]["choices"][0] == {"index": 0, "delta": {"role": None, "content": "o"}, "finish_reason": "stop"}
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == events[-2]["usage"]
    assert text_of(events) == "hello"


def test_variants_can_be_chosen_by_model(client_of, ask_at, models):
    """A model streams in the variant the options name, with CR LF if they say so."""
    with serve(variants={models.plain: "B"}, crlf=True) as sim, client_of(sim) as http:
        raw = ask_at(http).chat("Say hi", stream=True).text

    assert raw.endswith("data: [DONE]\r\n\r\n")
    assert '"choices":[]' in raw


def test_thoughts_come_before_the_answer(ask, models):
    """Reasoning deltas hold null content and precede the text; a ping comes first."""
    raw = ask.chat("Say hello", stream=True, model=models.reasoning).text
    events = ask.stream("Say hello", model=models.reasoning)
    deltas = [e["choices"][0]["delta"] for e in events if e["choices"]]
    kinds = ["reasoning" if d.get("reasoning_content") else "text" for d in deltas[1:]]

    assert raw.startswith(": ping - ")
    assert kinds == sorted(kinds)
    assert deltas[1]["tool_calls"] == []
    assert deltas[1]["content"] is None


def test_a_stream_adds_up_to_the_whole_answer(sim, ask, models):
    """Text, usage and cost are those of the request that is not streamed."""
    for model in (models.plain, models.reasoning, models.tagged, models.google_exclusive, models.google_inclusive):
        whole = ask.chat(model=model).json()
        bill = sim.stats().bill_by_model[model]
        events = ask.stream(model=model)
        assert text_of(events) == whole["choices"][0]["message"]["content"]
        assert [e["usage"] for e in events if e["usage"]][-1] == whole["usage"]
        assert sim.stats().bill_by_model[model] == 2 * bill


@pytest.mark.parametrize("model", ["plain", "vision"])
def test_usage_can_be_left_out_or_sent_all_the_time(ask, models, model):
    """Without usage no chunk has any; continuous usage grows to the final one."""
    model = getattr(models, model)
    without = ask.stream(model=model, stream_options={"include_usage": False})
    running = ask.stream(model=model, stream_options={"continuous_usage_stats": True})
    counts = [e["usage"]["completion_tokens"] for e in running if e["usage"]]

    assert all(e["usage"] is None and e["choices"] for e in without)
    assert len(counts) >= len(running) - 1
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[-1]


def test_chunks_of_several_choices_are_mixed(ask):
    """Each choice can be put together from its own chunks; the usage comes once."""
    events = ask.stream(n=2)
    indexes = [e["choices"][0]["index"] for e in events]

    assert indexes[:4] == [0, 1, 0, 1]
    assert all(text_of(events, index) for index in (0, 1))
    assert sum(e["usage"] is not None for e in events) == 1


def test_streams_carry_logprobs_and_tier(ask, models):
    """Each text chunk has the log probability of its token; every chunk names the tier."""
    events = ask.stream("Say one", logprobs=True, top_logprobs=2, model=models.vision, service_tier="flex")
    told = [e["choices"][0]["logprobs"]["content"][0]["token"] for e in events[1:-1]]

    assert told == ["one"]
    assert {e["service_tier"] for e in events} == {"flex"}


def test_an_empty_answer_still_ends(ask, models):
    """A stop sequence at the very start leaves only the end."""
    for model in (models.plain, models.vision):
        events = ask.stream("Say hello", model=model, stop=["hello"])
        finishes = [c["finish_reason"] for e in events for c in e["choices"]]
        assert text_of(events) == ""
        assert finishes[-1] == "stop"


def test_slow_streams_are_kept_alive_by_pings(client_of, ask_at):
    """While the first token takes its time, a comment is sent at every interval."""
    with serve(first_token_delay=0.12, ping_interval=0.03) as sim, client_of(sim) as http:
        raw = ask_at(http).chat("Say hi", stream=True)

    assert raw.text.count(": ping - ") >= 2
    assert raw.elapsed.total_seconds() >= 0.1


def test_tokens_can_be_delayed(client_of, ask_at):
    """Every event waits for its turn."""
    with serve(token_delay=0.01) as sim, client_of(sim) as http:
        begin = time.monotonic()
        events = ask_at(http).stream("Write 10 tokens about tides")
        assert time.monotonic() - begin >= 0.01 * len(events)


def wait_for(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_stream_left_early_is_billed_in_part_and_frees_its_slot(client_of, models):
    """The bill holds less than the whole, and nothing stays in flight."""
    with serve(token_delay=0.02) as sim:
        body = {"model": models.plain, "stream": True, "messages": [{"role": "user", "content": "Write 200 tokens"}]}
        with client_of(sim) as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines)
            assert sim.stats().in_flight == 1
        wait_for(lambda: sim.stats().in_flight == 0)
        assert 0 < sim.stats().bill < 100 * sim_price(models.plain)


def sim_price(model):
    return catalogue.get(model).pricing.output_per_1m / 1_000_000


def test_open_streams_do_not_hold_up_the_end(client_of, models):
    """Leaving the block cuts streams and ends within a second."""
    body = {"model": models.plain, "stream": True, "messages": [{"role": "user", "content": "Write 200 tokens"}]}
    with serve(token_delay=30.0) as sim:
        client = client_of(sim)
        answer = client.send(client.build_request("POST", "/v1/chat/completions", json=body), stream=True)
        begin = time.monotonic()
    assert time.monotonic() - begin < 2
    answer.close()
    client.close()
