"""Chat completions."""

from typing import Any

import orjson

from resilient_ai.simulator import text as prose
from resilient_ai.simulator.errors import unsupported
from resilient_ai.simulator.exchange import Exchange, Reply
from resilient_ai.simulator.generation import Choice, Turn, admit, build_choices, logprobs, measure_prompt
from resilient_ai.simulator.ids import hexadecimal, letters
from resilient_ai.simulator.instances import instance
from resilient_ai.simulator.patterns import example
from resilient_ai.simulator.pictures_in import describe
from resilient_ai.simulator.profiles import Profile
from resilient_ai.simulator.schemas import (
    AudioPart,
    ChatRequest,
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    RegexFormat,
    ResponseFormat,
    Text,
    ToolMessage,
    UserMessage,
)
from resilient_ai.simulator.streaming import ChatChunks, events
from resilient_ai.simulator.tokens import IMAGE_TOKENS, split
from resilient_ai.simulator.toolcalls import calls, pseudo_call
from resilient_ai.simulator.validation import parse
from resilient_ai.simulator.words import Hints


async def chat(exchange: Exchange) -> Reply:
    """Answer a chat request, whole or as a stream."""
    request = parse(ChatRequest, exchange.data)
    profile = exchange.profile()
    _check_features(request, profile)
    tier = await admit(exchange, profile, request.service_tier)
    turn = _turn(exchange, request, profile, tier)
    top = (request.top_logprobs or 0) if request.logprobs else None
    if request.stream:
        lines = iter(ChatChunks(turn, request.stream_options, top))
        return Reply(body=events(exchange, turn, lines), media_type="text/event-stream")
    turn.send_all()
    turn.charge(exchange)
    return Reply(body=orjson.dumps(_body(turn, top)))


def _check_features(request: ChatRequest, profile: Profile) -> None:
    info, wanted = profile.info, request.response_format
    if info.kind not in {"chat", "ocr"}:
        # guess: the answer for a model of another kind is not known.
        raise unsupported("Chat completion", profile.name, "model")
    if request.tools and info.tools is False:
        raise unsupported("Tool calling", profile.name, "tools")
    if wanted is not None and wanted.type != "text" and info.json is False:
        raise unsupported(f"{wanted.type} response format", profile.name, "response_format")
    if _pictures(request.messages) and info.vision is False:
        # guess: the words of this refusal are not known.
        raise unsupported("Image input", profile.name, "messages")


def _turn(exchange: Exchange, request: ChatRequest, profile: Profile, tier: str | None) -> Turn:
    seen = [describe(url) for url in _pictures(request.messages)]
    # guess: sound in a prompt is billed like a picture.
    media = len(seen) + _sounds(request.messages)
    tokens, cached = measure_prompt(exchange, profile, _rendered(request), media * IMAGE_TOKENS)
    choices = build_choices(
        lambda index: _choice(request, profile, seen, index),
        request.n,
        request.stops,
        profile.output_limit(tokens, request.max_tokens),
    )
    suffix = letters(24) if request.stream else hexadecimal(32)
    return Turn(
        profile=profile,
        id=f"chatcmpl-{suffix}",
        prompt_tokens=tokens,
        cached_tokens=cached,
        choices=choices,
        tier=tier,
    )


def _choice(request: ChatRequest, profile: Profile, seen: list[str], index: int) -> Choice:
    prompt = next((_words(m) for m in reversed(request.messages) if isinstance(m, UserMessage)), "")
    thinking = split(prose.thoughts(prompt, _effort(request))) if profile.reasoning != "none" else []
    made = calls(request, profile, prompt)
    inline = profile.reasoning == "tag"
    if made and inline:
        # This model family writes its calls as text.
        answer, made = "\n".join(pseudo_call(call) for call in made), []
    else:
        answer = "" if made else _answer(request, profile, prompt, seen, index)
    if inline and thinking:
        answer, thinking = f"<think>\n{''.join(thinking)}\n</think>\n\n{answer}", []
    finish = "tool_calls" if made else "stop"
    return Choice(index=index, reasoning=thinking, content=split(answer), calls=made, finish=finish)


def _answer(request: ChatRequest, profile: Profile, prompt: str, seen: list[str], index: int) -> str:
    formatted = formatted_answer(request.response_format, prompt)
    if formatted is not None:
        return formatted
    results = _tool_results(request.messages)
    if results:
        return prose.tool_report(results)
    salt = index + 4 * ((request.seed or 0) % 3)
    said = prose.answer(prompt, code=bool(profile.info.code), salt=salt)
    return f"I see {' and '.join(seen)}. {said}" if seen else said


def formatted_answer(wanted: ResponseFormat | None, prompt: str) -> str | None:
    """The answer in the response format that was asked for; `None` for plain text."""
    if isinstance(wanted, JsonSchemaFormat):
        return orjson.dumps(instance(wanted.json_schema.schema_, Hints(prompt))).decode()
    if isinstance(wanted, JsonObjectFormat):
        return orjson.dumps(prose.loose_object(prompt)).decode()
    return example(wanted.regex) if isinstance(wanted, RegexFormat) else None


def _tool_results(messages: list[Message]) -> list[tuple[str, str]]:
    """The results at the end of a conversation, with the names of their tools."""
    names = {call.id: call.function.name for m in messages if m.role == "assistant" for call in m.tool_calls or []}
    results: list[tuple[str, str]] = []
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        results.insert(0, (names.get(message.tool_call_id, ""), _words(message)))
    return results


def _effort(request: ChatRequest) -> str:
    switched_off = (request.chat_template_kwargs or {}).get("enable_thinking") is False
    if switched_off or (request.reasoning is not None and request.reasoning.enabled is False):
        return "none"
    chosen = request.reasoning.effort if request.reasoning is not None else None
    return request.reasoning_effort or chosen or "medium"


def _words(message: Message) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content if isinstance(part, Text))


def _rendered(request: ChatRequest) -> str:
    """The whole prompt as one text, as a chat template would write it."""
    tools = [tool.model_dump(exclude_none=True) for tool in request.tools or []]
    parts = [f"<|tools|>{orjson.dumps(tools).decode()}\n"] if tools else []
    for message in request.messages:
        made = [call.model_dump() for call in message.tool_calls or []] if message.role == "assistant" else []
        called = orjson.dumps(made).decode() if made else ""
        parts.append(f"<|{message.role}|>{_words(message)}{called}\n")
    return "".join(parts)


def _pictures(messages: list[Message]) -> list[str]:
    return [part.image_url.url for part in _parts(messages) if isinstance(part, ImagePart)]


def _sounds(messages: list[Message]) -> int:
    return sum(isinstance(part, AudioPart) for part in _parts(messages))


def _parts(messages: list[Message]) -> list[Text | ImagePart | AudioPart]:
    contents = [m.content for m in messages if isinstance(m, UserMessage)]
    return [part for content in contents if not isinstance(content, str) for part in content]


def _body(turn: Turn, top: int | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": turn.id,
        "object": "chat.completion",
        "created": turn.created,
        "model": turn.profile.name,
        "choices": [_choice_body(choice, turn.profile, top) for choice in turn.choices],
    }
    if turn.tier is not None:
        body["service_tier"] = turn.tier
    return {**body, "usage": turn.usage()}


def _choice_body(choice: Choice, profile: Profile, top: int | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text}
    if profile.reasoning == "field":
        message["reasoning_content"] = "".join(choice.reasoning) or None
    message["name"] = None
    message["tool_calls"] = [call.wire() for call in choice.calls] or None
    body: dict[str, Any] = {"index": choice.index, "message": message, "finish_reason": choice.finish}
    if top is not None:
        body["logprobs"] = logprobs(choice.content, top)
    return body
