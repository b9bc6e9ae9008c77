"""The tool loop."""

import asyncio
import functools
import pickle
import threading
from datetime import date
from decimal import Decimal

import orjson
import pytest
from pydantic import BaseModel

from resilient_ai.core.errors import (
    BudgetExceeded,
    CircuitOpen,
    ConnectionFailed,
    InvalidInput,
    OutputInvalid,
    ServerFailed,
    ToolLoopUnfinished,
)
from resilient_ai.core.messages import Tool, ToolCall
from resilient_ai.core.operations import Chat
from resilient_ai.core.results import Choice, Cost
from resilient_ai.testing import chat_result
from resilient_ai.tool_loop import run_tools

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"  # blocking tools run in threads


def tides(port: str, days: int = 1) -> str:
    """Look up the tides of a port."""
    return f"{days} days of {port}"


def asks(*calls, text=""):
    """An answer that asks for tools: a name and arguments each."""
    made = tuple(
        ToolCall(
            id=f"id{number}", name=name, arguments=given if isinstance(given, str) else orjson.dumps(given).decode()
        )
        for number, (name, given) in enumerate(calls)
    )
    return chat_result(choices=(Choice(text=text, tool_calls=made, finish_reason="tool_calls"),))


class Script:
    """Answers with what it was given, in turn, and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.chats = []

    async def __call__(self, chat):
        self.chats.append(chat)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def with_cost(answer, amount):
    return answer.model_copy(update={"cost": Cost(amount=Decimal(amount), source="provider")})


async def step_of(function, arguments, name=None):
    """The only step of a loop whose model asks for one tool once."""
    send = Script(asks((name or Tool.of(function).name, arguments)), chat_result("Done."))
    run = await run_tools(send, Chat(model="m", messages="?", tools=[function]))
    (step,) = run.steps
    assert send.chats[1].messages[-1].content == step.output
    return step


class TestConversation:
    """Who says what, and when it ends."""

    async def test_an_answer_without_tools_ends_it(self):
        """Nothing is called."""
        answer = chat_result("Hello.")
        run = await run_tools(Script(answer), Chat(model="m", messages="hi", tools=[tides]))
        assert (run.answer, run.answers, run.steps) == (answer, (answer,), ())
        assert [message.role for message in run.messages] == ["user", "assistant"]

    async def test_the_results_go_back_to_the_model(self):
        """Each under the id of its call, after the answer that asked for it."""
        first = asks(("tides", {"port": "Kiel"}), ("tides", {"port": "Husum", "days": 2}), text="Let me see.")
        second = asks(("tides", {"port": "Brest"}))
        last = chat_result("High.")
        send = Script(first, second, last)
        run = await run_tools(send, Chat(model="m", messages="?", tools=[tides], temperature=0))
        assert [(step.round, step.call.id, step.output, step.error) for step in run.steps] == [
            (1, "id0", "1 days of Kiel", None),
            (1, "id1", "2 days of Husum", None),
            (2, "id0", "1 days of Brest", None),
        ]
        assert (run.answer, run.answers) == (last, (first, second, last))
        assert [message.role for message in run.messages] == [
            *("user", "assistant", "tool", "tool"),
            *("assistant", "tool", "assistant"),
        ]
        assert [(message.content, message.tool_call_id) for message in send.chats[1].messages[2:]] == [
            ("1 days of Kiel", "id0"),
            ("2 days of Husum", "id1"),
        ]
        assert (run.messages[1].content, run.messages[1].tool_calls) == ("Let me see.", first.tool_calls)
        assert [chat.temperature for chat in send.chats] == [0, 0, 0]

    @pytest.mark.parametrize(
        ("choice", "later"),
        [(None, None), ("auto", "auto"), ("none", "none"), ("required", "auto"), ("tides", "auto")],
    )
    async def test_a_forced_call_is_forced_once(self, choice, later):
        """Else the model could never answer."""
        send = Script(asks(("tides", {"port": "a"})), asks(("tides", {"port": "b"})), chat_result())
        await run_tools(send, Chat(model="m", messages="?", tools=[tides], tool_choice=choice))
        assert [chat.tool_choice for chat in send.chats] == [choice, later, later]

    async def test_a_model_that_never_stops(self):
        """After the last round nothing is called any more, and the conversation is handed over."""
        called = []

        def again(n: int) -> int:
            called.append(n)
            return n

        send = Script(*[asks(("again", {"n": n}), text=f"round {n}") for n in range(3)])
        with pytest.raises(ToolLoopUnfinished, match="the model still asks for tools after 2 rounds") as caught:
            await run_tools(send, Chat(model="m", messages="?", tools=[again]), max_rounds=2)
        assert (called, caught.value.raw, len(send.chats)) == ([0, 1], "round 2", 3)
        assert isinstance(caught.value, OutputInvalid)
        assert [message.role for message in caught.value.messages] == ["user", *["assistant", "tool"] * 2, "assistant"]
        so_far = caught.value.so_far
        assert (len(so_far.answers), so_far.messages) == (3, caught.value.messages)

    async def test_the_last_round_may_be_used(self):
        """One round of tools and an answer."""
        send = Script(asks(("tides", {"port": "a"})), chat_result("Done."))
        run = await run_tools(send, Chat(model="m", messages="?", tools=[tides]), max_rounds=1)
        assert run.answer.text == "Done."

    @pytest.mark.parametrize(
        "error",
        [BudgetExceeded("the request was not sent", spent=1, limit=1), ConnectionFailed("refused", phase="connect")],
        ids=["rejected", "provider"],
    )
    async def test_a_failure_after_the_first_answer_tells_what_was_done(self, error):
        """Two answers were paid for and a function was called twice, so the error has them and does not say otherwise."""
        called = []

        def charge(euro: int) -> str:
            called.append(euro)
            return "charged"

        paid = [with_cost(asks(("charge", {"euro": euro})), f"0.0{euro}") for euro in (1, 2)]
        with pytest.raises(type(error)) as caught:
            await run_tools(Script(*paid, error), Chat(model="m", messages="?", tools=[charge]))
        so_far = caught.value.so_far
        assert (called, so_far.answers, so_far.cost.amount, caught.value.sent) == (
            [1, 2],
            tuple(paid),
            Decimal("0.03"),
            True,
        )
        assert [message.role for message in so_far.messages] == ["user", *["assistant", "tool"] * 2]
        assert str(error).endswith("(after 2 answers for 0.03 USD, which `so_far` has)")
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.so_far) == (str(error), so_far)

    async def test_a_loop_goes_on_from_what_was_done(self):
        """With the conversation of the error nothing is asked or called twice."""
        send = Script(asks(("tides", {"port": "Kiel"})), ServerFailed("boom", status=500), last := chat_result("High."))
        with pytest.raises(ServerFailed) as caught:
            await run_tools(send, Chat(model="m", messages="?", tools=[tides]))
        run = await run_tools(send, Chat(model="m", messages=caught.value.so_far.messages, tools=[tides]))
        assert (run.answer, run.steps, send.chats[2].messages) == (last, (), send.chats[1].messages)

    @pytest.mark.parametrize("error", [CircuitOpen(model="m", retry_after=1.0), InvalidInput("no", field="f")])
    async def test_a_failure_of_the_first_request_has_nothing_to_tell(self, error):
        """Nothing was done by then."""
        with pytest.raises(type(error)) as caught:
            await run_tools(Script(error), Chat(model="m", messages="?", tools=[tides]))
        assert (caught.value.so_far, getattr(caught.value, "sent", False)) == (None, False)

    async def test_what_sending_raises_is_the_callers(self):
        """The loop hides no failure of a call."""

        async def send(chat):
            raise ConnectionError("gone")

        with pytest.raises(ConnectionError, match="gone"):
            await run_tools(send, Chat(model="m", messages="?", tools=[tides]))


class TestRefusals:
    """What is found before anything is sent."""

    @pytest.mark.parametrize("rounds", [0, -1])
    async def test_no_rounds(self, rounds):
        """There is at least one."""
        with pytest.raises(InvalidInput, match=f"max_rounds: must be >= 1, got {rounds}"):
            await run_tools(Script(), Chat(model="m", messages="?", tools=[tides]), max_rounds=rounds)

    @pytest.mark.parametrize(("tools", "names"), [([], []), ([{"name": "bare"}, tides], ["bare"])])
    async def test_tools_without_functions(self, tools, names):
        """They are named."""
        with pytest.raises(InvalidInput, match="tools: a tool loop needs functions to call") as caught:
            await run_tools(Script(), Chat(model="m", messages="?", tools=tools))
        assert (caught.value.field, caught.value.value) == ("tools", names)


class TestFunctions:
    """What can be a tool, and what becomes of its output."""

    async def test_the_functions_of_one_answer_run_at_the_same_time(self):
        """Asynchronous and blocking ones: each waits here for the other, or it would never end."""
        here, there = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        async def waits() -> str:
            there.set()
            await here.wait()
            return "a"

        def blocks() -> str:
            there.wait(20)
            loop.call_soon_threadsafe(here.set)
            return "b"

        send = Script(asks(("blocks", {}), ("waits", {})), chat_result())
        run = await run_tools(send, Chat(model="m", messages="?", tools=[waits, blocks]))
        assert [step.output for step in run.steps] == ["b", "a"]

    async def test_a_blocking_function_does_not_block_the_loop(self):
        """It runs in a thread of its own."""

        def where() -> bool:
            return threading.current_thread() is threading.main_thread()

        assert (await step_of(where, {})).output == "false"

    async def test_an_asynchronous_function_runs_in_the_loop(self):
        """Its arguments are checked like those of any other."""

        async def double(n: int) -> int:
            await asyncio.sleep(0)
            return 2 * n

        assert (await step_of(double, {"n": "21"})).output == "42"
        assert "n: Input should be a valid integer" in (await step_of(double, {"n": "x"})).error

    async def test_a_function_that_returns_something_to_wait_for(self):
        """It is waited for."""

        async def later(n):
            return n

        def hands_on(n: int):
            return later(n + 1)

        assert (await step_of(hands_on, {"n": 1})).output == "2"

    async def test_a_partial_function(self):
        """What is fixed already stays so."""
        assert (await step_of(functools.partial(tides, days=3), {"port": "Kiel"})).output == "3 days of Kiel"

    async def test_a_model_is_a_tool_that_reads_its_arguments(self):
        """The model's fields go back as JSON."""

        class Trip(BaseModel):
            """A trip."""

            day: date
            ports: list[str] = []

        step = await step_of(Trip, {"day": "2027-01-15"})
        assert (step.output, step.error) == ('{"day":"2027-01-15","ports":[]}', None)
        assert (await step_of(Trip, {})).error == "the arguments do not fit: day: Field required"

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("as it is", "as it is"),
            ("", ""),
            (None, "null"),
            ({"a": [1, 0.5]}, '{"a":[1,0.5]}'),
            (date(2027, 1, 15), '"2027-01-15"'),
            (Exception("odd"), '"odd"'),
        ],
    )
    async def test_outputs_become_text(self, value, text):
        """A text stays as it is, anything else becomes JSON."""

        def give():
            return value

        assert (await step_of(give, {})).output == text

    async def test_no_arguments_at_all(self):
        """An empty text is an empty object."""

        def ping() -> str:
            return "pong"

        assert (await step_of(ping, "")).output == "pong"


class TestErrors:
    """They are told to the model, which may try again."""

    @pytest.mark.parametrize(
        ("name", "arguments", "error"),
        [
            ("tide", {}, "there is no tool named 'tide'; there are ['tides']"),
            ("tides", "{", "the arguments for tool 'tides' are not JSON: "),
            ("tides", "[1]", "the arguments for tool 'tides' are not a JSON object"),
            ("tides", {}, "the arguments do not fit: port: Missing required argument"),
            ("tides", {"port": "a", "days": "x"}, "the arguments do not fit: days: Input should be a valid integer"),
            ("tides", {"port": "a", "colour": 1}, "the arguments do not fit: colour: Unexpected keyword argument"),
        ],
    )
    async def test_arguments_and_names(self, name, arguments, error):
        """What is wrong is said in one sentence, as JSON."""
        step = await step_of(tides, arguments, name)
        assert step.error.startswith(error)
        assert orjson.loads(step.output) == {"error": step.error}

    async def test_what_a_function_raises(self):
        """By its type and message; the other functions of the answer are not hurt."""

        def breaks() -> None:
            raise ZeroDivisionError("by zero")

        send = Script(asks(("breaks", {}), ("tides", {"port": "Kiel"})), chat_result("Sorry."))
        run = await run_tools(send, Chat(model="m", messages="?", tools=[tides, breaks]))
        assert [step.error for step in run.steps] == ["ZeroDivisionError: by zero", None]
        assert run.answer.text == "Sorry."

    async def test_an_output_that_is_no_json(self):
        """It is an error of the function like any other."""
        loop = []
        loop.append(loop)

        def circle():
            return loop

        assert "Circular reference" in (await step_of(circle, {})).error

    async def test_cancelling_is_not_an_error_of_a_function(self):
        """The loop ends and the function is told."""
        begun, told = asyncio.Event(), []

        async def forever() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append("cancelled")
                raise

        send = Script(asks(("forever", {})))
        task = asyncio.ensure_future(run_tools(send, Chat(model="m", messages="?", tools=[forever])))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert told == ["cancelled"]
