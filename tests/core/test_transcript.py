"""What a stream has delivered, put together."""

from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.deltas import Finished, ReasoningDelta, Restarted, TextDelta, ToolCallDelta
from resilient_ai.core.results import TokenLogprob, Usage
from resilient_ai.core.transcript import Transcript


def joined(*events):
    transcript = Transcript("m")
    transcript.add(events)
    return transcript.result()


def test_nothing_is_an_empty_partial_answer():
    """Before anything has arrived there is one empty choice without a finish reason."""
    answer = joined()
    assert (answer.model, answer.served_by, answer.usage) == ("m", "m", None)
    assert [(choice.text, choice.reasoning, choice.finish_reason) for choice in answer.choices] == [("", None, None)]


def test_the_closing_event_brings_the_facts():
    """Finish reasons, usage, model, request id and tier come from the closing event."""
    answer = joined(TextDelta("Hi"), Finished(("stop",), Usage(input_tokens=1), "meta/m", "r", "flex"))
    assert (answer.model, answer.served_by, answer.request_id, answer.service_tier) == ("meta/m", "m", "r", "flex")
    assert (answer.usage, answer.finish_reason) == (Usage(input_tokens=1), "stop")


def test_a_restart_forgets_everything_before_it():
    """Text, thoughts, tool calls and log probabilities that came before count no more."""
    logprobs = (TokenLogprob(token="a", logprob=-1.0),)
    pieces = (ReasoningDelta("hm"), TextDelta("a", 1, logprobs), ToolCallDelta(0, "c", "f", "{}"))
    assert joined(*pieces, Restarted(), TextDelta("b")) == joined(TextDelta("b"))


def test_what_has_come_can_be_asked_for():
    """The text is that of the first choice, as it came; a tool call counts from its first piece."""
    transcript = Transcript("m")
    assert (transcript.text, transcript.calls_tools) == ("", False)
    transcript.add([TextDelta("a</think>\n"), TextDelta("other", 1), TextDelta("b")])
    assert (transcript.text, transcript.calls_tools) == ("a</think>\nb", False)
    transcript.add([ToolCallDelta(0)])
    assert transcript.calls_tools


def test_several_answers_come_in_any_order():
    """Pieces of several choices are told apart by their index, also where a choice says nothing."""
    answer = joined(
        TextDelta("c", 2), TextDelta("a"), ReasoningDelta("hm", 2), TextDelta("C", 2), Finished(("stop", "length"))
    )
    assert [(choice.index, choice.text, choice.finish_reason) for choice in answer.choices] == [
        (0, "a", "stop"),
        (1, "", "length"),
        (2, "cC", None),
    ]
    assert answer.choices[2].reasoning == "hm"


def test_tool_calls_may_interleave_and_come_out_of_order():
    """Arguments are joined by index, id and name count where they come first, and the order is the index's."""
    answer = joined(
        ToolCallDelta(1, arguments='{"b"'),
        ToolCallDelta(0, "x", "f", "{"),
        ToolCallDelta(1, "y", arguments=": 1}"),
        ToolCallDelta(0, "ignored", "ignored", "}"),
        ToolCallDelta(1, None, "g"),
        ToolCallDelta(7, "nameless"),
        ToolCallDelta(3, None, "h", choice=1),
    )
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [
        ("x", "f", "{}"),
        ("y", "g", '{"b": 1}'),
    ]
    assert [(call.id, call.name, call.arguments) for call in answer.choices[1].tool_calls] == [("call_3", "h", "")]


def test_arguments_in_very_many_pieces():
    """However finely the arguments are cut, they are joined whole and in order."""
    pieces = [str(number) for number in range(20_000)]
    answer = joined(ToolCallDelta(0, "x", "f"), *(ToolCallDelta(0, arguments=piece) for piece in pieces))
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [("x", "f", "".join(pieces))]


def test_pieces_and_characters_of_every_text():
    """Each text of each answer is told apart, reasoning and calls of tools included; empty pieces are none."""
    transcript = Transcript("m")
    transcript.add([TextDelta(""), TextDelta("ab"), TextDelta("c"), ReasoningDelta("d", 1)])
    transcript.add([ToolCallDelta(0, "1", "tide", "{}", 1), ToolCallDelta(0, None, None, "", 1)])
    assert sorted(size for size in transcript.sizes() if any(size)) == [(1, 1), (2, 3), (2, 6)]
    transcript.add([Restarted()])
    assert transcript.sizes() == []


def test_log_probabilities_are_joined():
    """Those of all pieces together belong to the answer; none at all is None."""
    one, two = TokenLogprob(token="a", logprob=-1), TokenLogprob(token="b", logprob=-2)
    assert joined(TextDelta("a", 0, (one,)), TextDelta("b", 0, (two,))).logprobs == (one, two)
    assert joined(TextDelta("a")).logprobs is None


def test_reasoning_behind_a_lone_closing_tag_is_found_at_the_end():
    """Where the chat template opened the tag, the whole text shows the reasoning that its pieces hid."""
    answer = joined(TextDelta("17 * 23</thi"), TextDelta("nk>\n391"), Finished(("stop",)))
    assert (answer.text, answer.reasoning) == ("391", "17 * 23")


@given(st.lists(st.tuples(st.integers(0, 2), st.text(alphabet="ab \n", max_size=3)), max_size=12))
def test_every_interleaving_keeps_each_answer_whole(pieces):
    """However the pieces of several choices are mixed, each choice is its own pieces in order."""
    answer = joined(*(TextDelta(text, choice) for choice, text in pieces))
    for index, choice in enumerate(answer.choices):
        assert choice.text == "".join(text for owner, text in pieces if owner == index)
