"""Answers read into a type: ask for JSON, read it, and give the model one chance to mend it."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from resilient_ai.core.errors import FeatureNotSupported, OutputInvalid, ResilientAIError
from resilient_ai.core.messages import AnyMessage, assistant, user
from resilient_ai.core.operations import Chat, ResponseFormat
from resilient_ai.core.results import ChatResult, Cost, SoFar, StructuredResult, Usage

T = TypeVar("T")
Send = Callable[[Chat], Awaitable[ChatResult]]

_FENCED = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)


async def ask_for(send: Send, chat: Chat, output: type[T]) -> StructuredResult[T]:
    """Send `chat` so that its answer fits `output`, and return the answer with `.output`.

    A model that does not know JSON schemas is asked in words instead. An answer that does not fit is sent back once with the
    complaint; attempts, usage and cost are those of both rounds.

    Args:
        send: Sends a chat through the pipeline.
        chat: The question.
        output: A pydantic model or any type pydantic can read.

    Raises:
        OutputInvalid: If the second answer does not fit either, or an answer was cut at `max_tokens`; `.raw` is its text.
        ResilientAIError: As `send` raises it. After the first answer `so_far` of an error has what was done.
    """
    adapter: TypeAdapter[T] = TypeAdapter(output)
    schema = adapter.json_schema()
    name = re.sub(r"[^A-Za-z0-9_-]", "_", getattr(output, "__name__", "output"))[:64]
    wanted = ResponseFormat(type="json_schema", name=name, json_schema=schema)
    chat = chat.model_copy(update={"response_format": wanted})
    try:
        first = await send(chat)
    except FeatureNotSupported:
        chat = _asked_in_words(chat, schema)
        first = await send(chat)
    try:
        return _result(first, _read(adapter, first))
    except OutputInvalid as complaint:
        if first.finish_reason == "length":
            complaint.happened_after(SoFar(answers=(first,), messages=(*chat.messages, assistant(first.text))))
            raise
        mended = (
            *chat.messages,
            assistant(first.text),
            user(f"{complaint}\nAnswer again with the corrected JSON alone."),
        )
    answers = [first]
    try:
        second = await send(chat.model_copy(update={"messages": mended}))
        answers.append(second)
        return _result(_together(first, second), _read(adapter, second))
    except ResilientAIError as error:
        said = [assistant(answer.text) for answer in answers[1:]]
        error.happened_after(SoFar(answers=tuple(answers), messages=(*mended, *said)))
        raise


def _asked_in_words(chat: Chat, schema: dict[str, Any]) -> Chat:
    request = "Answer with one JSON value alone, without any other text. It must fit this JSON schema:\n"
    messages: tuple[AnyMessage, ...] = (*chat.messages, user(request + orjson.dumps(schema).decode()))
    return chat.model_copy(update={"response_format": None, "messages": messages})


def _read(adapter: TypeAdapter[T], answer: ChatResult) -> T:
    if answer.finish_reason == "length":
        raise OutputInvalid("the answer was cut at max_tokens, so its JSON is not whole", raw=answer.text)
    fenced = _FENCED.match(answer.text)
    try:
        return adapter.validate_json(fenced.group(1) if fenced else answer.text)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the answer'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)[:5]
        )
        raise OutputInvalid(f"The JSON does not fit the schema: {problems}.", raw=answer.text) from None


def _result(answer: ChatResult, output: T) -> StructuredResult[T]:
    return StructuredResult[T].model_construct(**dict(answer), output=output)


def _together(first: ChatResult, second: ChatResult) -> ChatResult:
    both = (first, second)
    return second.model_copy(
        update={
            "attempts": sum(answer.attempts for answer in both),
            "usage": Usage.total(answer.usage for answer in both),
            "cost": Cost.total(answer.cost for answer in both),
        }
    )
