"""What was said in a call, in the shapes of the conventions: redacted, cut, and valid JSON whatever was said."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.deltas import TextDelta, ToolCallDelta
from resilient_ai.core.messages import AssistantMessage, AudioPart, SystemMessage, TextPart, ToolCall, ToolMessage, user
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.results import ChatResult, Choice, EmbedResult, ImageResult, Result
from resilient_ai.core.results import Image as Picture
from resilient_ai.core.transcript import Transcript
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware._content import describe_content, described_arguments, described_text
from resilient_ai.middleware.redactor import Redactor
from resilient_ai.testing import PIXEL, chat_result

PLAIN = Redactor(builtin=[])
CALL = ToolCall(id="c1", name="tides", arguments='{"port": "Kiel"}')


class Bursting(Redactor):
    """Fails on texts that hold the word."""

    def text(self, text):
        if "burst" in text:
            raise KeyError(text)
        return super().text(text)


def described(operation, result=None, redactor=PLAIN, cap=8192):
    content = describe_content(operation, result, redactor, cap)
    json.dumps(content)
    return content


def parts_of(message, redactor=PLAIN, cap=8192):
    return described(Chat(model="m", messages=[message]), None, redactor, cap).inputs[0]["parts"]


def text(content):
    return {"type": "text", "content": content}


@pytest.mark.parametrize("kind", [Chat, Stream])
def test_a_conversation(kind):
    """Messages keep their roles, names and order; system messages are among them; of tools the names are told."""

    def tides(port: str) -> str:
        """Look up the tide times of a port."""

    content = described(
        kind(
            model="m",
            messages=[
                SystemMessage(content=(TextPart(text="Be brief."), TextPart(text="Be kind."))),
                {"role": "user", "content": "High water?", "name": "ann"},
                AssistantMessage(reasoning="hm", content="I look.", tool_calls=(CALL,)),
                ToolMessage(content="11:40", tool_call_id="c1"),
            ],
            tools=[tides],
        )
    )
    arguments = {"port": "Kiel"}
    assert content.inputs == [
        {"role": "system", "parts": [text("Be brief."), text("Be kind.")]},
        {"role": "user", "name": "ann", "parts": [text("High water?")]},
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                text("I look."),
                {"type": "tool_call", "id": "c1", "name": "tides", "arguments": arguments},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "11:40"}]},
    ]
    assert content.outputs == []
    assert content.tool_definitions == [{"type": "function", "name": "tides"}]


def test_pictures_and_recordings_are_told_by_their_size():
    """The address of a picture is told, of bytes only what they are and how many."""
    sound = AudioPart(data=base64.b64encode(b"12345").decode(), format="mp3")
    assert parts_of(user("What is it?", "https://example.org/a.png", PIXEL, sound)) == [
        text("What is it?"),
        text("https://example.org/a.png"),
        {
            "type": "blob",
            "modality": "image",
            "mime_type": "image/png",
            "content": "",
            "resilient_ai.stripped_bytes": len(PIXEL),
        },
        {
            "type": "blob",
            "modality": "audio",
            "mime_type": "audio/mpeg",
            "content": "",
            "resilient_ai.stripped_bytes": 5,
        },
    ]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_call"),
        ("function_call", "tool_call"),
        ("odd", "odd"),
        ("for ann@example.org", "for [email]"),
        ("x" * 9000, "x" * 8192 + "…[truncated 808 chars]"),
        (None, "error"),
    ],
)
def test_finish_reasons(reason, told):
    """They are named as the conventions name them; an answer that broke off has ended by an error."""
    choices = (
        Choice(text="a", reasoning="hm", finish_reason=reason),
        Choice(index=1, tool_calls=(CALL,), finish_reason=reason),
    )
    outputs = described(Chat(model="m", messages="hi"), ChatResult(model="m", choices=choices), Redactor()).outputs
    assert [(output["role"], output["finish_reason"]) for output in outputs] == [("assistant", told)] * 2
    assert [[part["type"] for part in output["parts"]] for output in outputs] == [["reasoning", "text"], ["tool_call"]]


def test_a_part_of_a_stream():
    """What had arrived is told, be it half of a call of a tool."""
    transcript = Transcript("m")
    transcript.add([TextDelta("High wa"), ToolCallDelta(0, "c1", "tides", '{"port": "Ki')])
    (output,) = described(Stream(model="m", messages="hi"), transcript.result()).outputs
    call = {"type": "tool_call", "id": "c1", "name": "tides", "arguments": '{"port": "Ki'}
    assert output == {"role": "assistant", "parts": [text("High wa"), call], "finish_reason": "error"}


def test_a_completion():
    """A raw prompt is what a user said."""
    content = described(Complete(model="m", prompt="Once"), chat_result("upon"))
    assert content.inputs == [{"role": "user", "parts": [text("Once")]}]
    assert content.outputs == [{"role": "assistant", "parts": [text("upon")], "finish_reason": "stop"}]


def test_a_picture():
    """The prompt is told, and the one that was drawn instead; of pictures, given and drawn, only the size."""
    drawn = Picture(data=b"1234", media_type="image/jpeg", revised_prompt="A calm port.")
    as_asked = Picture(data=b"12", media_type="image/jpeg")
    content = described(
        Image(model="m", prompt="A port.", images=PIXEL), ImageResult(model="m", images=(drawn, as_asked))
    )
    given = {"type": "blob", "modality": "image", "mime_type": "image/png", "content": ""}
    assert content.inputs == [
        {"role": "user", "parts": [text("A port."), given | {"resilient_ai.stripped_bytes": len(PIXEL)}]}
    ]
    told = given | {"mime_type": "image/jpeg", "resilient_ai.stripped_bytes": 4}
    parts = [text("A calm port."), told, told | {"resilient_ai.stripped_bytes": 2}]
    assert content.outputs == [{"role": "assistant", "parts": parts, "finish_reason": "stop"}]
    (varied,) = described(Image(model="m", images=PIXEL), Result(model="m")).inputs
    assert [part["type"] for part in varied["parts"]] == ["blob"]


def test_embeddings_have_no_content():
    """The conventions define none."""
    result = EmbedResult(model="m", vectors=Vectors.pack([[1.0]]))
    assert described(Embed(model="m", texts="a"), result) == ([], [], [])


def test_every_text_is_redacted():
    """Messages, thoughts, names, arguments, outputs of tools and addresses all pass the redactor."""
    mail = "ann@example.org"
    told = {"role": "user", "content": [{"type": "image", "url": f"https://x.org/a?by={mail}"}], "name": mail}
    called = ToolCall(id=mail, name="send", arguments=json.dumps({"to": [mail], "key": {mail: mail}}))
    asked = [told, AssistantMessage(reasoning=mail, content=mail, tool_calls=(called,))]
    asked += [ToolMessage(content=mail, tool_call_id=mail), SystemMessage(content=mail)]
    choice = Choice(text=mail, reasoning=mail, tool_calls=(called, ToolCall(id="c2", name="send", arguments=mail)))
    content = described(Chat(model="m", messages=asked), ChatResult(model="m", choices=(choice,)), redactor=Redactor())
    written = json.dumps(content)
    assert "example" not in written
    assert written.count("[email]") == 18


def test_secrets_in_json_are_masked_at_every_depth():
    """By their names, however these are written: in arguments, in an answer that is JSON, and in JSON within it."""
    given = {"accessToken": "swordfish", "clientSecret": "swordfish", "dbPassword": "swordfish", "max_tokens": 7}
    masked = dict.fromkeys(("accessToken", "clientSecret", "dbPassword"), "[key]") | {"max_tokens": 7}
    assert described_arguments(json.dumps(given), Redactor()) == masked
    within = json.dumps({"call": json.dumps({"call": json.dumps(given)})})
    assert json.loads(json.loads(json.loads(described_text(within, Redactor()))["call"])["call"]) == masked


def test_long_parts_are_cut_after_they_are_redacted():
    """So nothing is half a secret; the mark says how much is missing."""
    long = f"{'x' * 10} ann@example.org {'y' * 20}"
    assert parts_of(user(long), Redactor(), cap=16) == [text(f"{'x' * 10} [emai…[truncated 23 chars]")]
    assert described_text("abc", PLAIN, 2) == "ab…[truncated 1 chars]"
    assert described_text("abc", PLAIN, 3) == "abc"


def test_arguments():
    """They are an object as long as they fit, and else text; as the model wrote them, where that is no JSON."""
    assert described_arguments('{"port": "Kiel"}', PLAIN, 15) == {"port": "Kiel"}
    assert described_arguments('{"port": "Kiel"}', PLAIN, 14) == '{"port":"Kiel"…[truncated 1 chars]'
    assert described_arguments("", PLAIN) == {}
    assert described_arguments('{"port": ', PLAIN) == '{"port": '
    assert described_arguments("[" * 500 + "]" * 500, PLAIN) == described_arguments("[" * 70 + "]" * 70, PLAIN)


def test_what_cannot_be_redacted_is_left_out(caplog):
    """A redactor that raises takes its part with it, and nothing else; the raw text is not told, and not logged."""
    said = [user("hello", "burst"), {"role": "user", "content": "burst", "name": "burst"}]
    choice = Choice(text="burst", reasoning="hm", tool_calls=(ToolCall(id="c", name="f", arguments='["burst"]'),))
    content = described(Chat(model="m", messages=said), ChatResult(model="m", choices=(choice,)), redactor=Bursting())
    assert content.inputs == [{"role": "user", "parts": [text("hello")]}, {"role": "user", "parts": []}]
    assert content.outputs == [
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}], "finish_reason": "error"}
    ]
    assert described_text("burst", Bursting()) is None
    odd = ChatResult(model="m", choices=(Choice(text="b", finish_reason="burst"),))
    assert described(Complete(model="m", prompt="a"), odd, Bursting()).outputs[0]["finish_reason"] == "error"
    assert described_arguments('{"a": "burst"}', Bursting()) is None
    assert "burst" not in caplog.text


@given(st.text(max_size=60), st.integers(min_value=0, max_value=40))
def test_any_text_gives_valid_json(said, cap):
    """Quotes, control characters and half pairs of surrogates survive the cut, within the cap and its mark."""
    result = chat_result(said, choices=(Choice(text=said, tool_calls=(ToolCall(id="c", name="f", arguments=said),)),))
    content = describe_content(Complete(model="m", prompt=f"x{said}"), result, Redactor(), cap)
    assert json.loads(json.dumps(content)) == [content.inputs, content.outputs, []]
    assert len(content.inputs[0]["parts"][0]["content"]) <= cap + len("…[truncated 99 chars]")
