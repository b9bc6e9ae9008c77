"""Text completions."""

import orjson
import pytest

from resilient_ai.core.errors import InvalidResponse, ServerFailed
from resilient_ai.core.operations import Complete
from resilient_ai.deepinfra.wire.completions import completion_body, read_completion


def read(body):
    return read_completion(orjson.dumps(body), model="m", headers={})


def test_the_body():
    """Prompt, sampling, echo and log probabilities; nothing that was not given."""
    operation = Complete(model="m", prompt="a", echo=False, logprobs=0, n=2, stop=["x"], extra={"stop_token_ids": [1]})

    assert completion_body(operation) == {
        "model": "m",
        "prompt": "a",
        "stop": ["x"],
        "n": 2,
        "echo": False,
        "logprobs": 0,
        "stop_token_ids": [1],
    }


def test_an_answer():
    """The text is raw: tags of reasoning stay in it."""
    logprobs = {
        "tokens": ["a", "b", "c", 4],
        "token_logprobs": [None, -0.5, -1, -2],
        "top_logprobs": [None, {"b": -0.5, "x": None}],
    }
    choice = {"index": 0, "text": "<think>a</think>b", "finish_reason": "length", "logprobs": logprobs}
    result = read({"id": "cmpl-1", "choices": [choice], "usage": {"prompt_tokens": 6, "estimated_cost": 0}})

    assert (result.text, result.finish_reason, result.request_id) == ("<think>a</think>b", "length", "cmpl-1")
    assert [(one.token, one.logprob, one.top) for one in result.logprobs] == [
        ("b", -0.5, (("b", -0.5),)),
        ("c", -1.0, ()),
    ]
    assert (result.usage.input_tokens, result.cost.amount) == (6, 0)


@pytest.mark.parametrize("choice", [{}, {"text": None}, {"message": {"content": "x"}}])
def test_a_choice_without_text(choice):
    """An answer of another kind is not taken for an empty one."""
    with pytest.raises(InvalidResponse, match="choice 0 has no text"):
        read({"choices": [choice]})


def test_a_failure_behind_status_200():
    """An error in the body counts."""
    with pytest.raises(ServerFailed, match="boom"):
        read({"error": "boom"})
