"""Streamed chats: both orders of chunks, every habit of models, failures, and breaks."""

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.deltas import Finished, ReasoningDelta, TextDelta, ToolCallDelta
from resilient_ai.core.errors import ContextLengthExceeded, InvalidResponse, RateLimited, ServerFailed
from resilient_ai.core.results import TokenLogprob
from resilient_ai.core.transcript import Transcript
from resilient_ai.deepinfra.wire.chat_stream import ChatEvents
from resilient_ai.deepinfra.wire.choices import MAX_CHOICES, MAX_TOOL_CALLS

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 48, "total_tokens": 237, "completion_tokens": 189, "estimated_cost": 9.24e-05}


def event(body):
    return b"data: " + orjson.dumps(body) + b"\n\n"


def chunk(delta, finish=None, index=0, **more):
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more.pop("choice", {})}
    return event({"id": "c1", "model": "served", "choices": [choice], "usage": None, **more})


def text(content, **more):
    return chunk({"role": "assistant", "content": content, "tool_calls": None}, **more)


END = chunk({}, "stop")


def read(*chunks, **options):
    events = ChatEvents(model="asked", **options)
    return [found for part in chunks for found in events.feed(part)] + events.conclude()


def answer_of(events):
    transcript = Transcript("asked")
    transcript.add(events)
    return transcript.result()


def test_usage_in_the_last_chunk():
    """Role and null usage in every chunk, an empty delta before the end, usage with the finish reason."""
    events = ChatEvents(model="asked", headers={"x-request-id": "r1"})

    assert events.feed(text("")) == []
    assert events.feed(text("Be")) == [TextDelta("Be")]
    assert events.feed(text("rn.") + text("")) == [TextDelta("rn.")]
    assert (events.finishing, events.done) == (False, False)
    assert events.feed(chunk({}, "stop", usage=USAGE, service_tier="flex")) == []
    assert (events.finishing, events.done) == (True, False)
    assert events.feed(DONE) == []
    assert events.done
    (finished,) = events.conclude()
    assert (finished.finish_reason, finished.model, finished.request_id) == ("stop", "served", "c1")
    assert (finished.usage.output_tokens, finished.service_tier) == (189, "flex")


def test_usage_in_a_chunk_of_its_own():
    """Pings, null roles, text in the finish chunk, and usage again with empty choices: the last counts, never the sum."""
    last = {**USAGE, "completion_tokens": 190}
    events = read(
        b": ping - 2026-09-19 08:14:02.113518+00:00\r\n\r\n",
        chunk({"role": "assistant", "content": ""}),
        chunk({"role": None, "content": "Be"}, usage={**USAGE, "completion_tokens": 1}),
        chunk({"role": None, "content": "rn."}, "stop", usage=USAGE),
        event({"id": "c1", "choices": [], "usage": last}),
        event({"id": "c1", "usage": None}),
        DONE,
    )

    assert events[:2] == [TextDelta("Be"), TextDelta("rn.")]
    assert events[2].usage.output_tokens == 190


def test_no_usage_at_all():
    """Unknown is None; the request id of the headers stands in for a missing one."""
    body = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}

    assert read(event(body), headers={"x-request-id": "r1"}) == [TextDelta("x"), Finished(("stop",), request_id="r1")]


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": [{"index": 0, "delta": {}}]},
        {"choices": [{"index": 0, "delta": None, "finish_reason": None}]},
        {"choices": [{"index": 0}]},
        {"choices": [{"delta": {"content": None, "tool_calls": [], "reasoning_content": None}}]},
        {"choices": []},
        {"choices": None},
        {"type": "ping"},
        {},
    ],
)
def test_empty_chunks_mean_nothing(odd):
    """Null and empty fields, wherever they stand, before the text and within it."""
    assert read(event(odd), text("a"), event(odd), text("b"), END)[:2] == [TextDelta("a"), TextDelta("b")]


def test_blank_events_and_other_lines_mean_nothing():
    """Fields other than data, empty data and blanks before the object are passed over."""
    odd = b"event: x\nid: 1\n\ndata:\n\ndata:   \n\n"
    late = b"data:  " + orjson.dumps({"choices": [{"index": 0, "delta": {"content": "b"}}]}) + b"\n\n"

    assert read(b"\n", odd, text("a"), odd, late, END)[:2] == [TextDelta("a"), TextDelta("b")]


def test_reasoning_in_a_field_of_its_own():
    """Both names of the field, alone, with null or empty content, and in one chunk with text; then tags are only text."""
    events = read(
        chunk({"reasoning_content": "17", "content": None, "tool_calls": []}),
        chunk({"reasoning": " * ", "content": ""}),
        chunk({"reasoning_content": "23", "content": "<think>391"}),
        chunk({"content": "!"}),
        chunk({"content": "", "reasoning_content": "more"}),
        END,
    )

    assert events[:-1] == [
        ReasoningDelta("17"),
        ReasoningDelta(" * "),
        ReasoningDelta("23"),
        TextDelta("<think>391"),
        TextDelta("!"),
        ReasoningDelta("more"),
    ]


def test_reasoning_between_tags():
    """Tags are found at any split, and the text after them takes the short way."""
    events = read(*(text(piece) for piece in ("<thi", "nk>17", "</th", "ink>\n", "39", "1", "</think>")), END)

    assert events[:-1] == [ReasoningDelta("17"), TextDelta("39"), TextDelta("1"), TextDelta("</think>")]


@pytest.mark.parametrize(
    ("pieces", "events"),
    [
        (("<thi",), [TextDelta("<thi")]),
        (("<think>", "17</th"), [ReasoningDelta("17"), ReasoningDelta("</th")]),
        ((" ",), [TextDelta(" ")]),
    ],
)
def test_what_was_held_back_comes_at_the_end(pieces, events):
    """A beginning of a tag that never became one is not lost."""
    assert read(*map(text, pieces), END)[:-1] == events


def test_what_was_held_back_comes_before_reasoning_of_another_kind():
    """Reasoning in its own field settles what the text before it was."""
    assert read(text(" "), chunk({"reasoning_content": "17"}), END)[:2] == [TextDelta(" "), ReasoningDelta("17")]
    mixed = read(text("<think>a</t"), chunk({"reasoning_content": "17"}), END)
    assert mixed[:3] == [ReasoningDelta("a"), ReasoningDelta("</t"), ReasoningDelta("17")]


def call(**fields):
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return {**fields, "function": function}


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        (
            [
                [call(index=0, id="a", name="tides", arguments="")],
                [call(index=0, id=None, name=None, arguments='{"port":')],
                [call(index=0, arguments=' "Kiel"}')],
            ],
            [("a", "tides", '{"port": "Kiel"}')],
        ),
        (
            [[call(index=0, arguments="{")], [call(index=0, id="a", arguments="}")], [call(index=0, name="f")]],
            [("a", "f", "{}")],
        ),
        (
            [[call(index=1, id="b", name="g", arguments="2")], [call(index=0, id="a", name="f", arguments="1")]],
            [("a", "f", "1"), ("b", "g", "2")],
        ),
        (
            [[call(id="a", name="f", arguments="1"), call(id="b", name="g", arguments="2")]],
            [("a", "f", "1"), ("b", "g", "2")],
        ),
        (
            [
                [call(id="a", name="f")],
                [call(arguments="1")],
                [call(id="b", name="g")],
                [call(arguments="2")],
                [call(id="a", arguments="3")],
            ],
            [("a", "f", "13"), ("b", "g", "2")],
        ),
        (
            [[call(name="f", arguments="1"), call(name="g", arguments="2")]],
            [("call_0", "f", "1"), ("call_1", "g", "2")],
        ),
        ([[call(name="f")], [call(id="late", arguments="1")]], [("late", "f", "1")]),
        ([[call(index=0, id="", name="f", arguments=None)], [call(index=0, id="a", name="")]], [("a", "f", "")]),
        ([[call(index=0, id="a", name="f", arguments={"x": 1})]], [("a", "f", '{"x":1}')]),
        ([[call(index=-1, id="a", name="f")], [call(index="0", arguments="1")]], [("a", "f", "1")]),
        ([[call(index=0, id="a", name="f")], [call(index=0, id="z", name="z", arguments="1")]], [("a", "f", "1")]),
        ([[None, {"index": 0}, {"index": 0, "function": None}]], []),
        (["x"], []),
    ],
)
def test_tool_calls_are_put_together(deltas, calls):
    """By index, else by id, else by order; the first id and name count, whenever they come."""
    events = read(*(chunk({"tool_calls": items}) for items in deltas), chunk({}, "tool_calls"))
    answer = answer_of(events)

    assert [(one.id, one.name, one.arguments) for one in answer.tool_calls] == calls
    assert answer.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "calls",
    [
        lambda number: call(id=f"id{number}", name="f"),
        lambda number: call(index=number, name="f"),
        lambda number: call(index=number, id="same", name="f"),
    ],
)
def test_tool_calls_are_bounded(calls):
    """As many as the bound allows are read, apart or in one chunk; a stream of ever more is an error, not a long wait."""
    allowed = [calls(number) for number in range(MAX_TOOL_CALLS)]
    for chunks in ([chunk({"tool_calls": [one]}) for one in allowed], [chunk({"tool_calls": allowed})]):
        found = answer_of(read(*chunks, END)).tool_calls
        assert len(found) == MAX_TOOL_CALLS

    endless = [calls(number) for number in range(20_000)]
    for body in (b"".join(chunk({"tool_calls": [one]}) for one in endless), chunk({"tool_calls": endless})):
        with pytest.raises(InvalidResponse, match=f"more than {MAX_TOOL_CALLS} tool calls"):
            ChatEvents(model="m").feed(body)


def test_tool_calls_are_bounded_for_each_answer():
    """A piece of a known call is no new call, and one answer's calls do not count against another's."""
    calls = [call(id=f"id{number}", name="f", arguments="1") for number in range(MAX_TOOL_CALLS)]
    parts = [chunk({"tool_calls": calls}, index=index) for index in (0, 1, 0)]
    first, second = answer_of(read(*parts, DONE)).choices

    assert [one.arguments for one in first.tool_calls] == ["11"] * MAX_TOOL_CALLS
    assert [one.arguments for one in second.tool_calls] == ["1"] * MAX_TOOL_CALLS


def test_tool_calls_of_a_whole_body_are_bounded():
    """One body instead of a stream has the same bound."""

    def body(count):
        message = {"content": None, "tool_calls": [call(id=f"id{number}", name="f") for number in range(count)]}
        return orjson.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})

    assert len(answer_of(read(body(MAX_TOOL_CALLS))).tool_calls) == MAX_TOOL_CALLS
    with pytest.raises(InvalidResponse, match=f"more than {MAX_TOOL_CALLS} tool calls"):
        read(body(MAX_TOOL_CALLS + 1))


def test_ids_that_come_late_go_to_the_calls_in_the_order_they_began():
    """Each new id takes the earliest call that still lacks one, and only then begins another."""
    deltas = [
        [call(index=3, name="f"), call(index=1, name="g")],
        [call(id="a", arguments="1")],
        [call(id="b", arguments="2")],
        [call(id="c", name="h", arguments="3")],
    ]
    calls = answer_of(read(*(chunk({"tool_calls": items}) for items in deltas), END)).tool_calls

    assert [(one.id, one.name, one.arguments) for one in calls] == [("b", "g", "2"), ("a", "f", "1"), ("c", "h", "3")]


def test_choices_are_bounded():
    """What goes beyond the bound is not read, and no index makes the answer longer than that."""
    many = event({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}] * 20_000})
    events = read(many, DONE)
    assert len(events) == MAX_CHOICES + 1
    assert events[-1].finish_reasons == ("stop",) * MAX_CHOICES
    assert [choice.text for choice in answer_of(events).choices] == ["a"] * MAX_CHOICES

    last = read(text("a", index=MAX_CHOICES - 1), DONE)
    assert len(answer_of(last).choices) == MAX_CHOICES
    for index in (MAX_CHOICES, 10**9, -1, True, "7"):
        assert len(answer_of(read(text("a", index=index), DONE)).choices) == 1


def test_id_and_name_are_told_once():
    """A repeated id or name is no news, and a piece without any is no event."""
    same = call(index=0, id="a", name="f")

    assert read(chunk({"tool_calls": [same]}), chunk({"tool_calls": [same]}), END)[:-1] == [ToolCallDelta(0, "a", "f")]


def test_tool_calls_after_text():
    """A tool call in the middle of plain text does not take the short way."""
    events = read(text("a"), chunk({"content": "b", "tool_calls": [call(index=0, id="a", name="f")]}), END)

    assert events[:-1] == [TextDelta("a"), TextDelta("b"), ToolCallDelta(0, "a", "f")]


def test_several_answers():
    """Chunks of different index are mixed; the stream is finishing when each has ended."""
    events = ChatEvents(model="m", n=2)
    events.feed(text("b", index=1) + text("a") + text("", index=0, finish="stop"))
    assert not events.finishing
    events.feed(text("c", index=1) + chunk({}, "length", index=1))
    assert events.finishing
    assert events.conclude() == [Finished(("stop", "length"), model="served", request_id="c1")]


def test_an_answer_that_never_began_is_not_whole():
    """Two were asked for, one came: the other is missing, not empty."""
    with pytest.raises(InvalidResponse, match="without a finish reason"):
        read(text("a"), END, n=2)
    assert read(text("a", index=1), DONE)[-1].finish_reasons == (None, None)


def test_log_probabilities_go_with_their_text():
    """They wait while the text is held back, and none is lost."""

    def logged(content, token, **more):
        return text(content, choice={"logprobs": {"content": [{"token": token, "logprob": -0.5}]}}, **more)

    one, two = TokenLogprob(token="a", logprob=-0.5), TokenLogprob(token="b", logprob=-0.5)
    assert read(logged(" ", "a"), logged("x", "b"), text("y"), END)[:-1] == [
        TextDelta(" x", 0, (one, two)),
        TextDelta("y"),
    ]
    assert read(text("x"), logged("", "a"), text("y"), END)[:-1] == [TextDelta("x"), TextDelta("y", 0, (one,))]
    assert read(text("x"), logged("", "a"), END)[:-1] == [TextDelta("x"), TextDelta("", 0, (one,))]


def test_other_forms_of_a_chunk():
    """Completions put the text beside the index; some services send a whole message in one event."""
    assert read(event({"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}))[0] == TextDelta("a")
    assert read(event({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}))[0] == TextDelta("a")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"message": "boom", "type": "t", "code": None}}, ServerFailed),
        ({"error": {"message": "busy", "code": 429}, "choices": []}, RateLimited),
        ({"error_type": "validation_error", "error_message": "ConnectionError: ..."}, ServerFailed),
        ({"detail": "boom"}, ServerFailed),
        ({"error": {"message": "x", "code": "context_length_exceeded"}}, ContextLengthExceeded),
    ],
)
def test_a_failure_as_an_event(body, kind):
    """Before content it is raised at once, and again at the end."""
    events = ChatEvents(model="m")
    with pytest.raises(kind):
        events.feed(text("") + event(body))
    with pytest.raises(kind):
        events.conclude()


def test_a_failure_after_content_lets_the_content_through():
    """What came in the same bytes before the failure is paid for and handed over; the failure follows."""
    events = ChatEvents(model="m")
    assert events.feed(text("a")) == [TextDelta("a")]
    assert events.feed(text("b") + event({"error": "boom"}) + text("c")) == [TextDelta("b")]
    with pytest.raises(ServerFailed, match="boom"):
        events.feed(text("c"))
    with pytest.raises(ServerFailed, match="boom"):
        events.conclude()


def test_a_failure_in_the_first_bytes_spares_a_retry_the_content():
    """Nothing was handed over yet, so the whole attempt fails and can be repeated."""
    with pytest.raises(ServerFailed, match="boom"):
        ChatEvents(model="m").feed(text("a") + event({"error": "boom"}))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"data: {broken\n\n", "not JSON"),
        (b"data: garbage\n\n", "not JSON"),
        (b"data: [[[[\n\n", "not JSON"),
        (b"data: " + b"[" * 10**6 + b"\n\n", "not JSON"),
        (b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n', "not JSON"),
        (b"data: 42\n\n", "not an object"),
        (event({"choices": {"a": 1}}), "not a list of objects"),
        (event({"choices": "x"}), "not a list of objects"),
        (event({"choices": [7]}), "not a list of objects"),
        (chunk({"content": 7}), "neither a text nor null"),
    ],
)
def test_an_event_that_cannot_be_read(body, reason):
    """A garbage line is never passed over, for it may have been part of the answer."""
    with pytest.raises(InvalidResponse, match=reason):
        ChatEvents(model="m").feed(body)
    after = ChatEvents(model="m")
    after.feed(text("a"))
    with pytest.raises(InvalidResponse, match=reason):
        after.feed(body)


@pytest.mark.parametrize(
    "body", [(), (text("a"),), (text("a"), text("b")[:-9]), (b": ping\n\n",), (b"<html>oops</html>",)]
)
def test_a_stream_that_breaks_off_is_not_a_short_answer(body):
    """Neither finish reason nor end mark: the connection was lost."""
    with pytest.raises(InvalidResponse, match="without a finish reason and without") as caught:
        read(*body)
    assert caught.value.retryable


def test_an_end_mark_alone_is_no_answer():
    """[DONE] without a single choice is as empty as a body without choices."""
    with pytest.raises(InvalidResponse, match="without an answer"):
        read(DONE)


@pytest.mark.parametrize("mark", [DONE, b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n", b"data: [DONE] \n\n"])
def test_the_end_mark_counts_in_every_form(mark):
    """Also without its empty line, and without a finish reason before it."""
    assert read(text("a"), mark)[-1].finish_reasons == (None,)


def test_nothing_counts_after_the_end_mark():
    """What a proxy adds behind it is passed over."""
    assert read(text("a") + DONE + text("b"), b"garbage", text("c"))[:-1] == [TextDelta("a")]


WHOLE = {
    "id": "c9",
    "choices": [{"index": 0, "message": {"content": "Bern."}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def test_one_whole_body_instead_of_a_stream():
    """A service that does not stream is understood all the same."""
    data = b"\n" + orjson.dumps(WHOLE)
    events = ChatEvents(model="asked")

    assert [found for i in range(len(data)) for found in events.feed(data[i : i + 1])] == []
    delta, finished = events.conclude()
    assert (delta, finished.finish_reason, finished.request_id) == (TextDelta("Bern."), "stop", "c9")
    assert read(orjson.dumps({**WHOLE, "usage": None}))[0] == TextDelta("Bern.")


def test_a_whole_body_that_is_a_failure():
    """It is raised at the end of the body."""
    with pytest.raises(ServerFailed, match="boom"):
        read(b'{"error": {"message": "boom"}}')
    with pytest.raises(InvalidResponse, match="is not JSON"):
        read(b'{"choices": [')


@pytest.mark.parametrize("body", [orjson.dumps(WHOLE), text("a"), b"data: 12345678901234567890"])
def test_bodies_are_bounded(body):
    """A whole body may be no longer than an event."""
    with pytest.raises(InvalidResponse, match="longer than 10 bytes"):
        read(body, max_event=10)


STREAM = (
    b": ping\r\n\r\n"
    + text("<think>17")
    + text("</think>Z\u00fcrich \u2028")
    + chunk({"content": "!"}).replace(b"\n", b"\r\n")
    + chunk({"tool_calls": [call(index=0, id="a", name="f", arguments="{}")]})
    + chunk({}, "stop", usage=USAGE)
    + DONE
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_split_gives_the_same_events(cuts):
    """Cuts inside tags, lines and characters change nothing."""
    points = [0, *sorted(cuts), len(STREAM)]

    assert read(*(STREAM[start:end] for start, end in itertools.pairwise(points))) == read(STREAM)
    assert read(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == read(STREAM)


@pytest.mark.parametrize("odd", [b"NaN", b"-Infinity", b"1e400"])
def test_a_number_that_is_none_takes_nothing_from_the_answer(odd):
    """It is not known, and the rest of its usage is, however the bytes are split."""
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 4, "estimated_cost": %s}}\n\n' % odd
    body = text("Bern.") + END + usage + DONE
    for size in (1, 7, 100, len(body)):
        answer = answer_of(read(*(body[at : at + size] for at in range(0, len(body), size))))
        assert (answer.text, answer.finish_reason, answer.cost, answer.usage.input_tokens) == ("Bern.", "stop", None, 4)


@pytest.mark.parametrize("fault", [b"data: {oops}\n\n", event({"error": {"message": "boom"}}), b"data: [1]\n\n"])
def test_what_comes_behind_the_end_takes_nothing_from_the_answer(fault):
    """Also where it comes in the same bytes as the whole answer, so that chance decides nothing."""
    events = ChatEvents(model="asked")
    found = events.feed(text("Bern.") + END + fault)
    assert (found, events.finishing) == ([TextDelta("Bern.")], True)
    with pytest.raises((InvalidResponse, ServerFailed)):
        events.feed(b"")
    assert events.conclude()[-1].finish_reason == "stop"


def test_a_figure_that_cannot_be_meant_is_not_believed():
    """A stream's cost is believed up to a thousand dollars, as every other."""
    costs = [
        answer_of(read(text("a"), chunk({}, "stop", usage={"estimated_cost": cost}))).cost for cost in (1000, 1000.5)
    ]
    assert [cost and cost.amount for cost in costs] == [1000, None]
