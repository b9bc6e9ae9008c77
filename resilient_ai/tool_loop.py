"""The tool loop: the model asks for functions, they are called, the model goes on."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, cast

import anyio.to_thread
import orjson
from pydantic import BaseModel, ValidationError, validate_call
from pydantic_core import to_json

from resilient_ai.core.errors import InvalidInput, OutputInvalid, ResilientAIError, ToolLoopUnfinished
from resilient_ai.core.messages import AnyMessage, Tool, ToolCall, ToolMessage
from resilient_ai.core.operations import Chat
from resilient_ai.core.results import ChatResult, SoFar

Send = Callable[[Chat], Awaitable[ChatResult]]
# Stands around a function while it runs, and is told of its output and error by what it gives; None for not this one.
Around = Callable[[ToolCall, Tool], AbstractContextManager[Callable[[str, BaseException | None], None]] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStep:
    """One call of one function.

    Args:
        round: Which answer of the model asked for it, from 1.
        call: What the model asked for.
        output: What the function returned, as the text that was sent back.
        error: What went wrong, as it was told to the model; None where nothing did.
    """

    round: int
    call: ToolCall
    output: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRun:
    """A finished tool loop.

    Args:
        answer: The model's last answer, which asks for no more tools.
        steps: Every function call, in order.
        answers: Every answer of the model, the last included; their costs and attempts are their own.
        messages: The whole conversation, to go on from.
    """

    answer: ChatResult
    steps: tuple[ToolStep, ...]
    answers: tuple[ChatResult, ...]
    messages: tuple[AnyMessage, ...]


async def run_tools(send: Send, chat: Chat, *, max_rounds: int = 8, around: Sequence[Around] = ()) -> ToolRun:
    """Send `chat`, call the functions its answers ask for, and go on until an answer asks for none.

    The functions of one answer run at the same time, blocking ones in threads. An error of a function, of its arguments or of
    its name is told to the model, which may try again. A `tool_choice` that forces a call holds for the first answer alone.

    Args:
        send: Sends a chat through the pipeline.
        chat: Its tools must have functions.
        max_rounds: Answers the model may use to ask for tools. At least 1.
        around: What stands around every function while it runs, such as the spans of `Tracing.around_tool`.

    Raises:
        InvalidInput: If there are no tools, or one has no function.
        ToolLoopUnfinished: If the model still asks for tools after the last round.
        ResilientAIError: As `send` raises it; after the first answer its `so_far` has what was done.
    """
    tools = {tool.name: tool for tool in chat.tools}
    if max_rounds < 1:
        raise InvalidInput(f"max_rounds: must be >= 1, got {max_rounds}", field="max_rounds", value=max_rounds)
    if not tools or any(tool.function is None for tool in tools.values()):
        names = [name for name, tool in tools.items() if tool.function is None]
        raise InvalidInput(
            f"tools: a tool loop needs functions to call, missing for {names}", field="tools", value=names
        )
    messages = chat.messages
    # A choice that forces a call would force one after every answer, so it holds for the first round alone.
    later = chat if chat.tool_choice in {None, "auto", "none"} else chat.model_copy(update={"tool_choice": "auto"})
    steps: list[ToolStep] = []
    answers: list[ChatResult] = []
    for number in range(1, max_rounds + 2):
        try:
            answer = await send((chat if number == 1 else later).model_copy(update={"messages": messages}))
        except ResilientAIError as error:
            if answers:
                error.happened_after(SoFar(answers=tuple(answers), messages=messages))
            raise
        answers.append(answer)
        messages = (*messages, answer.message)
        if not answer.tool_calls:
            return ToolRun(answer=answer, steps=tuple(steps), answers=tuple(answers), messages=messages)
        if number <= max_rounds:
            made = await asyncio.gather(*(_call(tools, call, number, around) for call in answer.tool_calls))
            steps += made
            messages = (*messages, *(ToolMessage(content=step.output, tool_call_id=step.call.id) for step in made))
    unfinished = ToolLoopUnfinished(
        f"the model still asks for tools after {max_rounds} rounds", raw=answers[-1].text, messages=messages
    )
    unfinished.happened_after(SoFar(answers=tuple(answers), messages=messages))
    raise unfinished


async def _call(tools: Mapping[str, Tool], call: ToolCall, number: int, around: Sequence[Around]) -> ToolStep:
    tool = tools.get(call.name)
    if tool is None or tool.function is None:
        return _failed(call, number, f"there is no tool named {call.name!r}; there are {sorted(tools)}")
    with ExitStack() as stack:
        contexts = [context for one in around if (context := one(call, tool)) is not None]
        told = [stack.enter_context(context) for context in contexts]
        step, error = await _made(tool.function, call, number)
        for tell in told:
            tell(step.output, error)
        return step


async def _made(function: Callable[..., Any], call: ToolCall, number: int) -> tuple[ToolStep, Exception | None]:
    """Call a function; return the step, and what it raised."""
    try:
        output = _as_text(await _invoke(function, call.parsed()))
    except OutputInvalid as error:
        return _failed(call, number, str(error)), error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False)]
        return _failed(call, number, f"the arguments do not fit: {'; '.join(problems)}"), error
    except Exception as error:  # noqa: BLE001 - whatever a user's function raises is the model's to know
        return _failed(call, number, f"{type(error).__name__}: {error}"), error
    return ToolStep(round=number, call=call, output=output), None


async def _invoke(function: Callable[..., Any], arguments: dict[str, Any]) -> object:
    if isinstance(function, type) and issubclass(function, BaseModel):
        return function.model_validate(arguments)
    checked: Callable[..., Any] = validate_call(cast("Any", function))
    if inspect.iscoroutinefunction(cast("object", function)):
        return await cast("Callable[..., Awaitable[object]]", checked)(**arguments)
    # Not handed over as the result of the thread: in its debug mode asyncio writes that to its log where handing it over is slow.
    made: list[object] = []
    await anyio.to_thread.run_sync(lambda: made.append(checked(**arguments)))
    (output,) = made
    return await cast("Awaitable[object]", output) if inspect.isawaitable(output) else output


def _as_text(output: object) -> str:
    return _valid(output if isinstance(output, str) else to_json(output, fallback=str).decode())


def _valid(text: str) -> str:
    # Half of a surrogate pair is no text that could be sent.
    return text.encode("utf-8", "replace").decode()


def _failed(call: ToolCall, number: int, error: str) -> ToolStep:
    error = _valid(error)
    return ToolStep(round=number, call=call, output=orjson.dumps({"error": error}).decode(), error=error)
