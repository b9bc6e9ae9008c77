"""Answers read into a type."""

from decimal import Decimal

import pytest
from pydantic import BaseModel

from resilient_ai.core.errors import BudgetExceeded, FeatureNotSupported, OutputInvalid, ServerFailed
from resilient_ai.core.operations import Chat
from resilient_ai.core.results import Choice, Cost, StructuredResult, Usage
from resilient_ai.structured_output import ask_for
from resilient_ai.testing import chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="Which port?", temperature=0)
UNSUPPORTED = FeatureNotSupported("no JSON mode", status=405)


class Port(BaseModel):
    name: str
    depth: float


GOOD = '{"name": "Kiel", "depth": 11}'


class Model:
    """A model that gives scripted answers and remembers what it was sent."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.chats = []

    async def __call__(self, chat):
        self.chats.append(chat)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if not isinstance(answer, str) else chat_result(answer)


async def test_the_schema_is_asked_for_and_the_answer_is_read():
    """The schema of the type goes with the question, and the answer has everything beside its output."""
    model = Model(chat_result(GOOD, attempts=2, served_by="m"))
    answer = await ask_for(model, CHAT, Port)
    assert isinstance(answer, StructuredResult)
    assert (answer.output, answer.text, answer.attempts, answer.served_by) == (
        Port(name="Kiel", depth=11),
        GOOD,
        2,
        "m",
    )
    wanted = model.chats[0].response_format
    assert (wanted.type, wanted.name, wanted.json_schema) == ("json_schema", "Port", Port.model_json_schema())
    assert model.chats[0].messages == CHAT.messages
    assert CHAT.response_format is None


@pytest.mark.parametrize(
    ("output", "text", "expected"),
    [
        (int, "7", 7),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, bool], '{"a": true}', {"a": True}),
        (int | None, "null", None),
    ],
)
async def test_any_type_that_pydantic_reads_will_do(output, text, expected):
    """Numbers, lists, mappings and unions are types like any other, with a name the service accepts."""
    model = Model(text)
    assert (await ask_for(model, CHAT, output)).output == expected
    assert model.chats[0].response_format.name.isascii()


async def test_a_generic_model_has_a_name_the_service_accepts():
    """Brackets in the name of a class are replaced."""

    class Odd(BaseModel):
        pass

    Odd.__name__ = "Odd[é, 1]" + "x" * 99
    model = Model("{}")
    await ask_for(model, CHAT, Odd)
    name = model.chats[0].response_format.name
    assert name.startswith("Odd____1_x")
    assert len(name) == 64


@pytest.mark.parametrize(
    "text", [f"```json\n{GOOD}\n```", f"```\n{GOOD}\n```", f" \n```json \n{GOOD}```\n ", f" {GOOD}\n"]
)
async def test_fences_around_the_json_are_taken_off(text):
    """Models that wrap their JSON in Markdown are understood without another round."""
    model = Model(text)
    assert (await ask_for(model, CHAT, Port)).output.name == "Kiel"
    assert len(model.chats) == 1


async def test_an_answer_that_does_not_fit_is_sent_back_once():
    """The model sees its answer and the complaint, and keeps the wanted form."""
    model = Model('{"name": "Kiel"}', GOOD)
    answer = await ask_for(model, CHAT, Port)
    assert answer.output.depth == 11
    mended = model.chats[1]
    assert mended.messages[:-2] == CHAT.messages
    assert [message.content for message in mended.messages[-2:]] == [
        '{"name": "Kiel"}',
        "The JSON does not fit the schema: depth: Field required.\nAnswer again with the corrected JSON alone.",
    ]
    assert mended.response_format == model.chats[0].response_format


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        (("provider", "provider"), Cost(amount=Decimal("0.3"), source="provider")),
        (("provider", "table"), Cost(amount=Decimal("0.3"), source="mixed")),
        (("provider", None), None),
        ((None, "provider"), None),
    ],
)
async def test_both_rounds_are_counted(costs, expected):
    """Attempts, usage and cost are those of both rounds; a cost that is not known in one is not known in all."""
    first, second = (
        source and Cost(amount=amount, source=source)
        for source, amount in zip(costs, (Decimal("0.1"), Decimal("0.2")), strict=True)
    )
    model = Model(chat_result("no", attempts=2, cost=first), chat_result(GOOD, attempts=1, cost=second))
    answer = await ask_for(model, CHAT, Port)
    assert (answer.attempts, answer.cost) == (3, expected)
    assert answer.usage == Usage(input_tokens=20, output_tokens=6)


async def test_a_second_answer_that_does_not_fit_is_an_error():
    """There is no third round; the error names up to five problems and carries the text."""
    model = Model("no", text := '{"name": 5}')
    with pytest.raises(OutputInvalid, match="name: Input should be a valid string; depth: Field required") as caught:
        await ask_for(model, CHAT, Port)
    assert (caught.value.raw, len(model.chats)) == (text, 2)


async def test_what_is_no_json_at_all_is_named_as_such():
    """The complaint speaks of the answer where there is no field to speak of."""
    with pytest.raises(OutputInvalid, match="the answer: Invalid JSON"):
        await ask_for(Model("no", "no"), CHAT, Port)


def cut(text=GOOD):
    return chat_result(choices=(Choice(text=text, finish_reason="length"),))


@pytest.mark.parametrize(("answers", "rounds"), [((cut(),), 1), (("no", cut()), 2)])
async def test_an_answer_that_was_cut_is_not_sent_back(answers, rounds):
    """At `max_tokens` another round would be cut as well."""
    model = Model(*answers)
    with pytest.raises(OutputInvalid, match="cut at max_tokens") as caught:
        await ask_for(model, CHAT, Port)
    assert (caught.value.raw, len(model.chats)) == (GOOD, rounds)


PAID = Cost(amount=Decimal("0.1"), source="provider")


@pytest.mark.parametrize(
    ("answers", "roles", "cost"),
    [
        ((BudgetExceeded("the request was not sent", spent=1, limit=1),), ["user", "assistant", "user"], PAID),
        ((ServerFailed("boom", status=500),), ["user", "assistant", "user"], PAID),
        (("no",), ["user", "assistant", "user", "assistant"], None),
    ],
    ids=["refused", "failed", "unfit"],
)
async def test_a_failure_of_the_second_round_tells_what_was_paid_for(answers, roles, cost):
    """The first answer and its cost, so that nobody believes that nothing was sent; a second that does not fit as well."""
    first = chat_result("no", cost=PAID)
    model = Model(first, *answers)
    with pytest.raises((BudgetExceeded, ServerFailed, OutputInvalid)) as caught:
        await ask_for(model, CHAT, Port)
    so_far = caught.value.so_far
    assert (so_far.answers[0], len(so_far.answers), so_far.cost) == (first, roles.count("assistant"), cost)
    assert [message.role for message in so_far.messages] == roles
    assert getattr(caught.value, "sent", True)


async def test_an_answer_that_was_cut_was_paid_for():
    """It stands in the error with its cost."""
    answer = cut().model_copy(update={"cost": PAID})
    with pytest.raises(OutputInvalid, match=r"not whole \(after 1 answer for 0.1 USD, which `so_far` has\)") as caught:
        await ask_for(Model(answer), CHAT, Port)
    assert (caught.value.so_far.answers, caught.value.so_far.messages[-1].content) == ((answer,), GOOD)


async def test_a_failure_of_the_first_round_has_nothing_to_tell():
    """Nothing was answered by then."""
    with pytest.raises(ServerFailed) as caught:
        await ask_for(Model(UNSUPPORTED, ServerFailed("boom", status=500)), CHAT, Port)
    assert caught.value.so_far is None


@pytest.mark.parametrize("answers", [(GOOD,), ("no", GOOD)])
async def test_a_model_without_json_schemas_is_asked_in_words(answers):
    """Where the service refuses the form, the schema stands in the question, in the repair round too."""
    model = Model(UNSUPPORTED, *answers)
    assert (await ask_for(model, CHAT, Port)).output.name == "Kiel"
    for chat in model.chats[1:]:
        assert chat.response_format is None
        assert chat.messages[:1] == CHAT.messages
        assert '"depth"' in chat.messages[1].content


async def test_other_failures_pass():
    """What the service refuses for other reasons is the caller's to know."""
    with pytest.raises(ServerFailed):
        await ask_for(Model(ServerFailed("boom", status=500)), CHAT, Port)
    with pytest.raises(FeatureNotSupported):
        await ask_for(Model(UNSUPPORTED, UNSUPPORTED), CHAT, Port)
