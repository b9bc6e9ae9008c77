"""Guesses of tokens: what is counted of each kind of operation."""

from resilient_ai.core.messages import AssistantMessage, ToolCall, system, user
from resilient_ai.core.operations import Chat, Complete, Embed, Image
from resilient_ai.middleware._tokens import estimate_tokens, size_of_prompt, tokens_of
from resilient_ai.testing import PIXEL


def test_four_characters_are_a_token_and_a_begun_one_counts():
    """Rounded up."""
    assert [tokens_of(characters) for characters in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_a_prompt_is_its_texts_and_the_arguments_of_its_calls():
    """Pictures are counted apart, as nobody knows their tokens."""
    call = ToolCall(id="1", name="look", arguments='{"a":1}')
    messages = [system("12"), user("345", PIXEL), AssistantMessage(content=None, tool_calls=(call,))]
    assert size_of_prompt(Chat(model="m", messages=messages)) == (2 + 3 + 7, 1)


def test_every_kind_of_operation_has_a_guess():
    """An answer of unknown length is taken for a thousand tokens; a drawn picture for none."""
    assert estimate_tokens(Chat(model="m", messages="1234", n=2)) == 2_001
    assert estimate_tokens(Complete(model="m", prompt="12345678", max_tokens=7)) == 9
    assert estimate_tokens(Embed(model="m", texts=["12", "34"])) == 1
    assert estimate_tokens(Image(model="m", prompt="1234")) == 0
