"""Text completions, on the OpenAI route and on the native one."""

from collections.abc import Iterator
from typing import Any

import orjson

from resilient_ai.simulator import text as prose
from resilient_ai.simulator.chat import formatted_answer
from resilient_ai.simulator.errors import unsupported
from resilient_ai.simulator.exchange import Exchange, Reply
from resilient_ai.simulator.generation import Choice, Turn, admit, build_choices, logprob, measure_prompt
from resilient_ai.simulator.ids import hexadecimal, request_id
from resilient_ai.simulator.pricing import as_float
from resilient_ai.simulator.profiles import Profile
from resilient_ai.simulator.schemas import CompletionRequest, NativeTextRequest, StreamOptions
from resilient_ai.simulator.streaming import events
from resilient_ai.simulator.tokens import split
from resilient_ai.simulator.validation import parse


async def completions(exchange: Exchange) -> Reply:
    """Complete a raw prompt, whole or as a stream."""
    request = parse(CompletionRequest, exchange.data)
    profile = exchange.profile()
    _check_kind(profile)
    if request.response_format is not None and request.response_format.type != "text" and profile.info.json is False:
        raise unsupported(f"{request.response_format.type} response format", profile.name, "response_format")
    tier = await admit(exchange, profile, request.service_tier)
    prompt = request.prompt if isinstance(request.prompt, str) else " ".join(f"<{t}>" for t in request.prompt)
    tokens, cached = measure_prompt(exchange, profile, prompt)
    if not isinstance(request.prompt, str):
        tokens = len(request.prompt)

    def choice(index: int) -> Choice:
        formatted = formatted_answer(request.response_format, prompt)
        said = (
            formatted if formatted is not None else _continued(profile, prompt, index + 4 * ((request.seed or 0) % 3))
        )
        return Choice(index=index, content=split((prompt if request.echo else "") + said))

    limit = profile.output_limit(tokens, request.max_tokens)
    choices = build_choices(choice, request.n, request.stops, limit)
    turn = Turn(
        profile=profile,
        id=f"cmpl-{hexadecimal(10)}",
        prompt_tokens=tokens,
        cached_tokens=cached,
        choices=choices,
        tier=tier,
    )
    if request.stream:
        lines = _chunks(turn, request)
        return Reply(body=events(exchange, turn, lines), media_type="text/event-stream")
    turn.send_all()
    turn.charge(exchange)
    bodies = [_choice_body(c, c.content, c.finish, request.logprobs) for c in choices]
    return Reply(body=orjson.dumps(_envelope(turn, bodies, turn.usage())))


async def native_text(exchange: Exchange, profile: Profile) -> Reply:
    """Complete a raw prompt in the native dialect."""
    request = parse(NativeTextRequest, exchange.data, native=True)
    _check_kind(profile)
    tokens, cached = measure_prompt(exchange, profile, request.input)
    choices = build_choices(
        lambda index: Choice(index=index, content=split(_continued(profile, request.input, index))),
        request.num_responses,
        request.stop,
        profile.output_limit(tokens, request.max_new_tokens),
    )
    turn = Turn(profile=profile, id=request_id(), prompt_tokens=tokens, cached_tokens=cached, choices=choices)
    if request.stream:
        lines = _native_lines(turn)
        return Reply(body=events(exchange, turn, lines), media_type="text/event-stream")
    turn.send_all()
    turn.charge(exchange)
    return Reply(
        body=orjson.dumps(
            {
                "request_id": turn.id,
                "inference_status": _status(exchange, turn),
                "results": [{"generated_text": choice.text} for choice in choices],
                "num_tokens": turn.sent_visible,
                "num_input_tokens": tokens,
            }
        )
    )


def _check_kind(profile: Profile) -> None:
    if profile.info.kind not in {"chat", "completion", "ocr"}:
        # guess: the answer for a model of another kind is not known.
        raise unsupported("Text completion", profile.name, "model")


def _continued(profile: Profile, prompt: str, salt: int) -> str:
    return f" {prose.answer(prompt, code=bool(profile.info.code), salt=salt)}"


def _status(exchange: Exchange, turn: Turn) -> dict[str, Any]:
    return {
        "status": "succeeded",
        "runtime_ms": exchange.runtime_ms,
        "cost": as_float(turn.cost()),
        "tokens_generated": turn.sent_visible,
        "tokens_input": turn.prompt_tokens,
    }


def _chunks(turn: Turn, request: CompletionRequest) -> Iterator[bytes]:
    options = request.stream_options or StreamOptions()
    for choice in turn.choices:
        final = choice.index == len(turn.choices) - 1
        for piece in choice.content:
            turn.sent_visible += 1
            usage = turn.usage() if options.include_usage and options.continuous_usage_stats else None
            yield orjson.dumps(_envelope(turn, [_choice_body(choice, [piece], None, request.logprobs)], usage))
        usage = turn.usage() if options.include_usage and final else None
        yield orjson.dumps(_envelope(turn, [_choice_body(choice, [], choice.finish, None)], usage))


# guess: the details of this shape follow the habit of other services.
def _envelope(turn: Turn, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
    head = {"id": turn.id, "object": "text_completion", "created": turn.created, "model": turn.profile.name}
    tier = {} if turn.tier is None else {"service_tier": turn.tier}
    return {**head, "choices": choices, **tier, "usage": usage}


def _choice_body(choice: Choice, pieces: list[str], finish: str | None, top: int | None) -> dict[str, Any]:
    body = {"index": choice.index, "text": "".join(pieces), "finish_reason": finish}
    return {**body, "logprobs": None if top is None else _token_logprobs(pieces, top)}


def _token_logprobs(pieces: list[str], top: int) -> dict[str, Any]:
    values = [logprob(piece, position) for position, piece in enumerate(pieces)]
    best = [{piece: value} if top else {} for piece, value in zip(pieces, values, strict=True)]
    return {"tokens": pieces, "token_logprobs": values, "top_logprobs": best}


def _native_lines(turn: Turn) -> Iterator[bytes]:
    choice = turn.choices[0]
    last = len(choice.content) - 1
    for number, piece in enumerate(choice.content):
        turn.sent_visible += 1
        token = {"id": number, "text": piece, "logprob": logprob(piece, number), "special": False}
        end: dict[str, Any] = {"generated_text": None, "details": None}
        if number == last:
            # guess: what the last event holds is only partly known.
            end = {
                "generated_text": choice.text,
                "details": {"finish_reason": choice.finish},
                "num_output_tokens": turn.sent_visible,
                "num_input_tokens": turn.prompt_tokens,
                "estimated_cost": as_float(turn.cost()),
            }
        yield orjson.dumps({"token": token, **end})
