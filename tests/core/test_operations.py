"""What can be asked, and what is refused before anything is sent."""

import copy
import math
import pickle
from typing import get_args

import pytest
from pydantic import PrivateAttr, ValidationError

from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.messages import Tool, UserMessage, user
from resilient_ai.core.operations import (
    Chat,
    Complete,
    Embed,
    Image,
    Kind,
    Operation,
    ResponseFormat,
    Stream,
)
from resilient_ai.core.options import ChatOptions, CompleteOptions, EmbedOptions, ImageOptions, StreamOptions
from resilient_ai.testing import PIXEL

SVG = b"<svg xmlns=''/>"
REQUIRED = {
    Chat: {"messages": "hi"},
    Stream: {"messages": "hi"},
    Complete: {"prompt": "hi"},
    Embed: {"texts": "hi"},
    Image: {"prompt": "hi"},
}
OPERATIONS = list(REQUIRED)


def make(cls, **fields):
    return cls(**({"model": "m", **REQUIRED[cls]} | fields))


def bounds():
    """Every bounded number of every operation: the values just inside and just outside of its range."""
    for cls in OPERATIONS:
        for name, field in cls.model_fields.items():
            kinds = get_args(field.annotation)
            if field.annotation is not int and not {int, float} & set(kinds):
                continue
            step = 1e-6 if float in kinds else 1
            limits = {
                key: getattr(rule, key)
                for rule in field.metadata
                for key in ("ge", "gt", "le", "lt")
                if hasattr(rule, key)
            }
            yield pytest.param(cls, name, limits, step, id=f"{cls.__name__}.{name}")


@pytest.mark.parametrize(("cls", "name", "limits", "step"), list(bounds()))
def test_every_range_is_kept(cls, name, limits, step):
    """Each number takes the ends of its range and refuses what lies outside, with the field and the value in the sentence."""
    assert limits, "a number without a range"
    for key, limit in limits.items():
        outward = -step if key in {"ge", "gt"} else step
        inside, outside = (limit, limit + outward) if key in {"ge", "le"} else (limit - outward, limit)
        assert getattr(make(cls, **{name: inside}), name) == inside
        with pytest.raises(InvalidInput) as caught:
            make(cls, **{name: outside})
        assert str(caught.value).startswith(f"{cls.__name__}: {name}: input should be ")
        assert str(caught.value).endswith(f", got {outside!r}")
        assert (caught.value.field, caught.value.value) == (name, outside)


@pytest.mark.parametrize(("cls", "name", "limits", "step"), list(bounds()))
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, "much", [], object()], ids=["nan", "inf", "text", "list", "object"]
)
def test_no_number_takes_what_is_none(cls, name, limits, step, value):
    """NaN, infinity and values of other types are refused for every number."""
    with pytest.raises(InvalidInput, match=f"^{cls.__name__}: {name}: input should be .*, got "):
        make(cls, **{name: value})


@pytest.mark.parametrize("cls", OPERATIONS)
def test_every_field_refuses_a_value_of_a_foreign_type(cls):
    """No field of any operation takes just anything."""
    for name in cls.model_fields:
        with pytest.raises(InvalidInput) as caught:
            make(cls, **{name: object()})
        assert caught.value.field.startswith(name)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (Chat, ChatOptions),
        (Stream, StreamOptions),
        (Complete, CompleteOptions),
        (Embed, EmbedOptions),
        (Image, ImageOptions),
    ],
)
def test_the_typed_options_are_the_fields(cls, options):
    """What a type checker offers is exactly what the operation takes beside its required fields."""
    required = {"model", *REQUIRED[cls]}
    assert set(options.__annotations__) | set(options.__optional_keys__) == set(cls.model_fields) - required


def test_each_kind_has_an_operation():
    """The kinds of the pipeline are those of the five operations."""
    assert {cls.kind for cls in OPERATIONS} == set(get_args(Kind))


@pytest.mark.parametrize("cls", OPERATIONS)
@pytest.mark.parametrize(
    "model", ["", " ", "a b", "a\n", "a\r\nX-Key: 1", "a\x00", "a\x7f", "a\x85", "a\u2028b", None, 5]
)
def test_a_model_id_has_no_blanks_or_control_characters(cls, model):
    """Ids that could become another header or path are refused, alone, in a list and as a fallback."""
    for fields in ({"model": model}, {"model": [model]}, {"model": ["m", model]}, {"fallbacks": (model,)}):
        with pytest.raises(InvalidInput, match=f"^{cls.__name__}: (model|fallbacks)"):
            make(cls, **fields)


def test_a_list_of_models_is_the_first_and_its_fallbacks():
    """The first of a list is asked, the others may serve in turn; `on` asks one alone."""
    chat = make(Chat, model=["a", "b", "c"])
    assert (chat.model, chat.fallbacks, chat.models) == ("a", ("b", "c"), ("a", "b", "c"))
    assert chat.models == make(Chat, model="a", fallbacks=["b", "c"]).models
    assert chat.on("b").models == ("b",)
    assert make(Chat, model=("a",)).models == ("a",)


@pytest.mark.parametrize("cls", OPERATIONS)
def test_on_another_model_everything_else_stays(cls):
    """The copy is the one that `model_copy` makes, private attributes included, and the original is as it was."""

    class Own(cls):
        _note: str = PrivateAttr(default="")

    for kind in (cls, Own):
        operation = kind(model=["a", "b"], extra={"x": 1}, **REQUIRED[cls])
        if kind is Own:
            operation._note = "mine"
        expected = operation.model_copy(update={"model": "c", "fallbacks": ()})
        there = operation.on("c")
        assert (type(there), there, repr(there)) == (kind, expected, repr(expected))
        assert (there.model_fields_set, there.__pydantic_private__) == (
            expected.model_fields_set,
            expected.__pydantic_private__,
        )
        assert operation.models == ("a", "b")
        with pytest.raises(ValidationError):
            there.model = "d"


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"model": []}, "model: a list of models must name at least one"),
        ({"model": ["a", "a"]}, r"model: each model once, got \['a', 'a'\]"),
        ({"model": "a", "fallbacks": ("a",)}, r"model: each model once, got \['a', 'a'\]"),
        (
            {"model": ["a", "b"], "fallbacks": ("c",)},
            "model and fallbacks: give a list of models or fallbacks, not both",
        ),
        ({"fallbacks": "bcd"}, "fallbacks: input should be a valid tuple, got 'bcd'"),
        ({"nonsense": 1}, "nonsense: there is no such field"),
    ],
)
def test_models_that_make_no_sense_together_are_refused(fields, complaint):
    """Doubles, empty lists and two ways of saying the same are refused."""
    with pytest.raises(InvalidInput, match=f"^Chat: {complaint}$"):
        make(Chat, **fields)


def test_validation_by_pydantic_works_as_well():
    """Data that is no dictionary is pydantic's to refuse; a dictionary makes an operation."""
    assert Chat.model_validate({"model": ["a", "b"], "messages": "hi"}).models == ("a", "b")
    with pytest.raises(ValidationError):
        Chat.model_validate(5)


def test_messages_may_be_said_in_several_ways():
    """A text, a message, a list of messages and dictionaries are the same conversation."""
    expected = (UserMessage(content="hi"),)
    for messages in ("hi", user("hi"), [user("hi")], [{"role": "user", "content": "hi"}]):
        assert make(Chat, messages=messages).messages == expected


@pytest.mark.parametrize(
    ("cls", "fields", "complaint"),
    [
        (Chat, {"messages": ""}, "messages.0.user.content: a user message must not be empty, got ''"),
        (Chat, {"messages": []}, "messages: must not be empty, got []"),
        (Chat, {"messages": [{"role": "user"}]}, "messages.0.user.content: field required"),
        (Chat, {"stop": ["a"] * 17}, "stop: tuple should have at most 16 items after validation, not 17, got list of length 17"),
        (Chat, {"stop": ""}, "stop.0: string should have at least 1 character, got ''"),
        (Chat, {"tools": ["x"]}, "tools: a function, a pydantic model, a schema or a Tool, got 'x'"),
        (Chat, {"tools": 5}, "tools: input should be a valid tuple, got 5"),
        (Chat, {"tools": [{"name": "a"}] * 2}, "tools: every tool needs a name of its own, got ['a', 'a']"),
        (Chat, {"tool_choice": "x"}, "tool_choice: 'auto', 'none', 'required' or one of [], got 'x'"),
        (Chat, {"tool_choice": "required"}, "tool_choice: 'required' needs tools"),
        (Chat, {"response_format": "json_schema"}, "response_format: 'json_schema' needs a json_schema, got {'type': 'json_schema'}"),
        (Chat, {"response_format": "regex"}, "response_format: 'regex' needs a regex, got {'type': 'regex'}"),
        (Complete, {"prompt": ""}, "prompt: string should have at least 1 character, got ''"),
        (Embed, {"texts": ""}, "texts: text 0 is empty, got ''"),
        (Embed, {"texts": []}, "texts: must not be empty, got []"),
        (Embed, {"texts": ["a", ""]}, "texts: text 1 is empty, got list of length 2"),
        (Embed, {"texts": ["a", 5]}, "texts.1: input should be a valid string, got 5"),
        (Image, {"prompt": " "}, "prompt: must not be empty without source images"),
        (Image, {"size": "0x10"}, r"size: a size is WIDTHxHEIGHT in pixels, such as '1024x768', got '0x10'"),
        (Image, {"size": "512x512\n"}, r"size: a size is WIDTHxHEIGHT in pixels, such as '1024x768', got '512x512\n'"),
        (Image, {"aspect_ratio": "16x9"}, "aspect_ratio: an aspect ratio is like '16:9', got '16x9'"),
        (Image, {"size": "64x64", "aspect_ratio": "1:1"}, "size and aspect_ratio: give one of the two"),
        (Image, {"images": b"abc"}, "images: source image 0 is not a PNG, JPEG, WebP, GIF or SVG, got bytes of length 3"),
        (Image, {"mask": PIXEL}, "mask: a PNG, together with a source image"),
        (Image, {"mask": SVG, "images": PIXEL}, "mask: a PNG, together with a source image"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence(cls, fields, complaint):
    """The sentence names the operation, the field, what is wrong and what was given, content by type and size alone."""
    with pytest.raises(InvalidInput) as caught:
        make(cls, **fields)
    assert str(caught.value) == f"{cls.__name__}: {complaint}".replace("\n", "\\n")
    assert caught.value.__cause__ is None


def test_one_stands_for_a_list_of_one():
    """A single stop text, text to embed and source picture are lists of one; a short format is a format."""
    assert make(Chat, stop="END").stop == ("END",)
    assert make(Embed, texts=(text for text in "ab")).texts == ("a", "b")
    assert make(Embed, texts="a").texts == ("a",)
    assert make(Image, images=PIXEL, prompt="", mask=PIXEL).images == (PIXEL,)
    assert make(Image, images=[PIXEL, SVG]).images == (PIXEL, SVG)
    assert make(Chat, response_format="json_object").response_format == ResponseFormat(type="json_object")


def test_a_choice_may_name_a_tool():
    """Besides the three words, `tool_choice` is the name of one of the tools."""
    tools = [Tool(name="tides"), {"name": "winds"}]
    assert make(Chat, tools=tools, tool_choice="winds").tool_choice == "winds"
    assert make(Chat, tools=tuple(tools), tool_choice="required").tool_choice == "required"


def test_the_size_is_two_numbers():
    """Width and height of a picture, or nothing where no size was asked for."""
    assert make(Image, size="1024x768").width_and_height == (1024, 768)
    assert make(Image).width_and_height is None


@pytest.mark.parametrize("cls", OPERATIONS)
def test_an_operation_is_a_value(cls):
    """It does not change, equals its copies, and travels to other processes."""
    operation = make(cls, extra={"a": 1})
    with pytest.raises(ValidationError, match="frozen"):
        operation.model = "x"
    assert copy.deepcopy(operation) == pickle.loads(pickle.dumps(operation)) == operation
    assert operation != make(cls)


CONTENT = {
    Chat: {
        "messages": "secret",
        "stop": "secret",
        "tools": [{"name": "secret"}],
        "response_format": ResponseFormat(type="json_schema", json_schema={"secret": 1}, regex="secret"),
        "chat_template_kwargs": {"secret": 1},
        "extra": {"secret": 1},
    },
    Complete: {"prompt": "secret"},
    Embed: {"texts": ["secret"]},
    Image: {"prompt": "secret", "negative_prompt": "secret", "images": SVG + b"secret", "mask": None},
}


@pytest.mark.parametrize("cls", CONTENT)
def test_content_stays_out_of_repr(cls):
    """Logs and tracebacks show the options and the size of the content, never the content."""
    operation = make(cls, **CONTENT[cls])
    assert "secret" not in repr(operation) + str(operation)
    for name in CONTENT[cls]:
        assert f"{name}=" in repr(operation)


def test_repr_shows_what_was_given_alone():
    """Defaults are left out."""
    assert repr(make(Chat, temperature=0)) == "Chat(model='m', temperature=0.0, messages=<1>)"


def test_content_stays_out_of_complaints():
    """A refused conversation is not quoted in the error's sentence."""
    for messages in (
        [{"role": "pirate", "content": "secret"}],
        ["secret"],
        [{"role": "user", "content": ["secret"]}],
        b"secret",
    ):
        with pytest.raises(InvalidInput) as caught:
            make(Chat, messages=messages)
        assert "secret" not in str(caught.value)


def test_a_developer_message_is_a_system_message():
    """OpenAI's newer name of the role is understood, because the service refuses it."""
    chat = make(Chat, messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hi"}])
    assert [message.role for message in chat.messages] == ["system", "user"]


def test_the_result_type_is_declared():
    """Every operation says which result it has, for type checkers and for the pipeline."""
    assert all(issubclass(cls, Operation) for cls in OPERATIONS)
