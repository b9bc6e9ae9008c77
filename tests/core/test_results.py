"""Results, usage and cost."""

import pickle
from array import array
from decimal import Decimal

import pytest
from pydantic import ValidationError

from resilient_ai.core.messages import AssistantMessage, ToolCall
from resilient_ai.core.results import (
    ChatResult,
    Choice,
    Cost,
    EmbedResult,
    Image,
    ImageResult,
    StructuredResult,
    TokenLogprob,
    Usage,
)
from resilient_ai.core.vectors import Vectors
from resilient_ai.testing import PIXEL, chat_result


@pytest.mark.parametrize(
    ("given", "known", "total"), [(None, None, None), (3, None, 3), (None, 4, 4), (3, 4, 7), (0, 0, 0)]
)
def test_unknown_tokens_stay_unknown(given, known, total):
    """The total counts what is known, and is None where nothing is."""
    assert Usage(input_tokens=given, output_tokens=known).total_tokens == total


def test_usages_add_up_where_each_is_known():
    """A count that one send did not report is unknown in the sum, and so is everything where one has no usage."""
    one, two = Usage(input_tokens=1, output_tokens=2, raw={"a": 1}), Usage(input_tokens=10)
    assert Usage.total([one, two]) == Usage(input_tokens=11)
    assert Usage.total([one, None]) is None
    assert Usage.total([]) is None


def test_costs_add_up_where_each_is_known():
    """Amounts and waste add up, the source is mixed where it differs, and one unknown makes the sum unknown."""
    one = Cost(amount=Decimal("0.1"), source="provider", wasted=Decimal("0.05"))
    two = Cost(amount=Decimal("0.2"), source="table", complete=False)
    assert Cost.total([one, one]) == Cost(amount=Decimal("0.2"), source="provider", wasted=Decimal("0.10"))
    assert Cost.total([one, two]) == Cost(amount=Decimal("0.3"), source="mixed", wasted=Decimal("0.05"), complete=False)
    assert Cost.total([one, None]) is None
    assert Cost.total([]) is None


def test_tokens_are_never_negative_and_raw_stays_out_of_repr():
    """A negative count is refused; the raw block is kept but not shown."""
    with pytest.raises(ValidationError):
        Usage(input_tokens=-1)
    assert "secret" not in repr(Usage(raw={"secret": 1}))


def test_money_is_exact():
    """Small amounts are written out in full."""
    assert str(Cost(amount=Decimal("1E-9"), source="provider")) == "0.000000001 USD"


def test_a_chat_result_speaks_of_its_first_choice():
    """The properties are those of the first choice, and the message continues a conversation."""
    call, logprob = ToolCall(id="1", name="f"), TokenLogprob(token="Hi", logprob=-1.0)
    first = Choice(text="Hi", reasoning="hm", tool_calls=(call,), finish_reason="stop", logprobs=(logprob,))
    answer = ChatResult(model="m", choices=(first, Choice(index=1, text="Ho")))
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("Hi", "hm", "stop")
    assert (answer.tool_calls, answer.logprobs) == ((call,), (logprob,))
    assert answer.message == AssistantMessage(content="Hi", tool_calls=(call,))
    assert ChatResult(model="m", choices=(Choice(),)).message.content is None
    with pytest.raises(ValidationError):
        ChatResult(model="m", choices=())


def test_a_structured_result_is_a_chat_result():
    """It has the output beside everything else, and travels to other processes."""
    answer = StructuredResult[dict](**dict(chat_result("{}")), output={})
    assert (answer.output, answer.text) == ({}, "{}")
    assert pickle.loads(pickle.dumps(chat_result())) == chat_result()


def test_vectors_are_seen_by_numpy():
    """An embedding result knows its dimensions and gives an array."""
    result = EmbedResult(model="m", vectors=Vectors.pack([[1.0, 2.0]]))
    assert (result.dimensions, result.to_numpy().tolist()) == (2, [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("media_type", "name", "saved"),
    [
        ("image/png", "a.png", "a.png"),
        ("image/png", "a.PNG", "a.PNG"),
        ("image/png", "a", "a.png"),
        ("image/jpeg", "a.png", "a.png.jpg"),
        ("image/jpeg", "a.jpeg", "a.jpeg"),
        ("image/jpeg", "v1.5", "v1.5.jpg"),
        ("image/unknown", "a", "a.bin"),
    ],
)
def test_a_picture_is_saved_under_a_fitting_name(tmp_path, media_type, name, saved):
    """The suffix is that of the bytes; a fitting one is left alone."""
    target = Image(data=PIXEL, media_type=media_type).save(tmp_path / name)
    assert (target, target.read_bytes()) == (tmp_path / saved, PIXEL)


def test_a_repr_shows_names_and_nothing_else_that_a_server_wrote_in_their_place():
    """The model, the id of the request and the tier are left out where they are no names."""
    plain = EmbedResult(model="m/x", request_id="chatcmpl-1", vectors=Vectors(array("f"), 0))
    said = plain.model_copy(update={"model": "you said", "request_id": "said so", "service_tier": "ann@example.org"})
    assert "model='m/x'" in repr(plain)
    assert "request_id='chatcmpl-1', service_tier=None" in repr(plain)
    for told in ("you said", "said so", "ann@", "request_id"):
        assert told not in repr(said)


def test_the_bytes_of_a_picture_stay_out_of_repr():
    """A picture shows its kind and not its data."""
    picture = Image(data=PIXEL, media_type="image/png")
    assert "data=" not in repr(ImageResult(model="m", images=(picture,)))
    assert Image(data=PIXEL, media_type="image/png").save.__doc__
