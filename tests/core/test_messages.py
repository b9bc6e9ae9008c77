"""Messages, their parts, and tools."""

import base64
import functools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from resilient_ai.core import messages
from resilient_ai.core.errors import InvalidInput, OutputInvalid
from resilient_ai.core.messages import (
    AssistantMessage,
    AudioPart,
    ImagePart,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    UserMessage,
    assistant,
    system,
    user,
)
from resilient_ai.testing import PIXEL

DATA_URI = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"


def test_an_image_may_come_in_any_form(tmp_path):
    """A URL and a data URI stay as they are; bytes, a `Path` and a path as text become a data URI."""
    path = tmp_path / "pixel.jpg"
    path.write_bytes(PIXEL)
    assert ImagePart.of("http://example.org/a.png", detail="low").model_dump() == {
        "type": "image",
        "url": "http://example.org/a.png",
        "detail": "low",
    }
    assert {ImagePart.of(source).url for source in (DATA_URI, PIXEL, path, str(path))} == {DATA_URI}


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (b"hello", "image: the bytes are not a PNG, JPEG, WebP or GIF image"),
        (b"<svg>", "image: the bytes are not a PNG, JPEG, WebP or GIF image"),
        ("/nowhere/a.png", "No such file"),
        (Path("/"), "directory"),
        ("a\x00b", "null"),
        ("https://example.org/a b.png", "image: an image is an http\\(s\\) URL, a data URI, bytes or a path"),
        ("data:image/png,abc", "image: a data URI of an image needs ';base64,' and data"),
        ("data:image/png;base64,", "needs ';base64,' and data"),
        ("data:image/png;base64,a", "image: the data URI is not valid base64"),
        ("data:image/png;base64,aGVsbG8=", "not a PNG, JPEG, WebP or GIF"),
    ],
)
def test_what_is_no_image_is_refused(source, complaint):
    """The sentence says what is wrong with it."""
    with pytest.raises(InvalidInput, match=complaint) as caught:
        ImagePart.of(source)
    assert caught.value.field == "image"


def test_an_image_that_is_too_large_is_refused(monkeypatch):
    """The limit and the size stand in the sentence."""
    monkeypatch.setattr(messages, "MAX_IMAGE_BYTES", len(PIXEL))
    assert ImagePart.of(PIXEL).url == DATA_URI
    with pytest.raises(InvalidInput, match=f"at most {len(PIXEL)} bytes, got {len(PIXEL) + 1}"):
        ImagePart.of(PIXEL + b"\x00")


def test_a_url_that_is_no_address_is_refused():
    """A part made by hand is checked as well."""
    with pytest.raises(ValidationError, match="an http"):
        ImagePart(url="ftp://example.org/a.png")


def test_shorthands_make_messages():
    """`system`, `user` and `assistant` make messages; a user message of several parts keeps their order."""
    assert system("Be brief.") == SystemMessage(content="Be brief.")
    assert assistant("Aye.") == AssistantMessage(content="Aye.")
    audio, text = AudioPart(data="aGk="), TextPart(text="c")
    assert user("a") == UserMessage(content="a")
    assert user("a", PIXEL, audio, text).content == (TextPart(text="a"), ImagePart(url=DATA_URI), audio, text)
    assert user(PIXEL).content == (ImagePart(url=DATA_URI),)


@pytest.mark.parametrize("content", [(), ("",), (" \n",)])
def test_an_empty_user_message_is_refused(content):
    """A message without anything in it is the caller's mistake."""
    with pytest.raises(InvalidInput, match="user: content: a user message must not be empty"):
        user(*content)


def test_arguments_are_a_dictionary():
    """The model's arguments are read as a JSON object; no text at all is none."""
    assert ToolCall(id="1", name="f", arguments='{"a": [1]}').parsed() == {"a": [1]}
    assert ToolCall(id="1", name="f", arguments="").parsed() == {}
    assert ToolCall(id="1", name="f").parsed() == {}


@pytest.mark.parametrize(("text", "complaint"), [("{", "not JSON"), ("[1]", "not a JSON object"), ("NaN", "not JSON")])
def test_arguments_that_are_no_object_are_invalid_output(text, complaint):
    """The error names the tool and carries the text."""
    with pytest.raises(OutputInvalid, match=f"for tool 'f' are {complaint}") as caught:
        ToolCall(id="1", name="f", arguments=text).parsed()
    assert caught.value.raw == text


@given(st.text(max_size=30))
def test_arguments_of_any_text_parse_or_are_refused(text):
    """No text of a model makes anything but a dictionary or `OutputInvalid`."""
    try:
        assert isinstance(ToolCall(id="1", name="f", arguments=text).parsed(), dict)
    except OutputInvalid as error:
        assert error.raw == text


class Tide(BaseModel):
    """The tide of a port."""

    port: str


def tides(port: str, days: int = 1) -> str:
    """Look up the tide times."""
    return f"{port} {days}"


def test_a_tool_may_come_in_any_form():
    """A function, a pydantic model, a schema with or without its wrapping, and a tool itself."""
    made = Tool.of(tides)
    assert (made.name, made.description, made.function) == ("tides", "Look up the tide times.", tides)
    assert made.parameters["required"] == ["port"]
    assert Tool.of(made) is made
    model = Tool.of(Tide)
    assert (model.name, model.description, model.function) == ("Tide", "The tide of a port.", Tide)
    schema = {"name": "f", "description": None, "parameters": {"type": "object"}}
    assert (
        Tool.of({"type": "function", "function": schema})
        == Tool.of(schema)
        == Tool(name="f", parameters={"type": "object"})
    )
    assert Tool.of({"name": "f"}).parameters == {"type": "object", "properties": {}}
    partial = Tool.of(functools.partial(tides, days=2))
    assert (partial.name, partial.description) == ("tides", "Look up the tide times.")


def test_the_function_of_a_tool_is_never_sent():
    """It stays out of what is dumped and shown."""
    tool = Tool.of(tides)
    assert "function" not in tool.model_dump()
    assert "function" not in repr(tool)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (5, "tools: a function, a pydantic model, a schema or a Tool, got 5"),
        ({"description": "x"}, "tools: a JSON schema of a tool needs a 'name'"),
        ({"function": 5}, "tools: a JSON schema of a tool needs a 'name'"),
    ],
)
def test_what_is_no_tool_is_refused(source, complaint):
    """The sentence says what a tool can be made of."""
    with pytest.raises(InvalidInput, match=complaint):
        Tool.of(source)


def test_a_function_without_a_schema_is_refused():
    """A parameter that JSON cannot describe is named before anything is sent."""

    def odder(thing: "Missing"): ...  # noqa: F821 - the name is missing on purpose

    with pytest.raises(InvalidInput, match="tools: no schema for 'odder'"):
        Tool.of(odder)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "é", "x" * 129, "<lambda>"])
def test_a_tool_s_name_has_few_letters(name):
    """Names that the service would refuse are refused here, a trailing line break included."""
    with pytest.raises(ValidationError, match="a tool's name has 1 to 128"):
        Tool(name=name)


@pytest.mark.parametrize("name", ["f", "x" * 128, "a.b:c-d_9"])
def test_a_tool_s_name_may_have_these_letters(name):
    """Letters, digits, `_`, `-`, `.` and `:` are fine."""
    assert Tool(name=name).name == name
