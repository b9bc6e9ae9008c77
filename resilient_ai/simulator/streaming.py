"""Chat answers as server-sent events, in the two orders that have been recorded."""

import json
from collections.abc import AsyncGenerator, Iterator
from itertools import zip_longest
from typing import Any

import orjson

from resilient_ai.simulator.exchange import Exchange
from resilient_ai.simulator.faulty import ping
from resilient_ai.simulator.generation import Choice, Turn, logprobs, tokens_of
from resilient_ai.simulator.schemas import StreamOptions
from resilient_ai.simulator.tokens import split

_spaced = json.JSONEncoder(ensure_ascii=False).encode

Delta = dict[str, Any]


async def events(exchange: Exchange, turn: Turn, lines: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The events of a stream, one at a time, at the speed of the settings; bills what went out, however it ends.

    A client that leaves early pays for what was produced until then.
    """
    settings = exchange.settings
    newline = b"\r\n" if settings.crlf else b"\n"
    wait = settings.first_token_delay or settings.token_delay
    try:
        if turn.profile.variant == "B" and turn.profile.reasoning != "none":
            yield ping(newline.decode())
        for line in lines:
            if wait:
                async for comment in _quiet(exchange, wait, newline):
                    yield comment
            wait = settings.token_delay
            yield b"data: " + line + newline + newline
    finally:
        # Before its end goes out: whoever has read that finds it on the bill.
        turn.charge(exchange)  # guess: a stream that the client closes is billed up to there.
    yield b"data: [DONE]" + newline + newline


async def _quiet(exchange: Exchange, seconds: float, newline: bytes) -> AsyncGenerator[bytes, None]:
    """Wait, with a ping whenever nothing was sent for long."""
    interval = exchange.settings.ping_interval
    while seconds > interval and await exchange.connection.pause(interval):
        seconds -= interval
        yield ping(newline.decode())
    await exchange.connection.pause(seconds)


class ChatChunks:
    """Turns a chat answer into the JSON of its chunks.

    Args:
        turn: What is answered.
        options: Whether usage is reported at the end, and whether in every chunk.
        top_logprobs: Alternatives per token, or `None` for no log probabilities.
    """

    def __init__(self, turn: Turn, options: StreamOptions | None, top_logprobs: int | None) -> None:
        self._turn = turn
        self._options = options or StreamOptions()
        self._top = top_logprobs
        self._recent = turn.profile.variant == "B"

    def __iter__(self) -> Iterator[bytes]:
        turn = self._turn
        if turn.profile.reasoning == "hidden":
            turn.sent_reasoning = sum(len(choice.reasoning) for choice in turn.choices)
        rows = [self._choice(choice) for choice in turn.choices]
        # guess: the chunks of several choices are mixed.
        for row in zip_longest(*rows):
            yield from (chunk for chunk in row if chunk is not None)
        if self._recent and self._options.include_usage:
            yield self._encode([], turn.usage())

    def _choice(self, choice: Choice) -> Iterator[bytes]:
        steps = [{"content": ""}, *self._steps(choice)]
        last = len(steps) - 1
        for number, delta in enumerate(steps):
            self._count(delta, choice)
            first = number == 0
            if self._recent:
                # The finish reason may come together with text, and does here.
                finish = choice.finish if number == last and not first else None
                yield self._chunk(choice, {"role": "assistant" if first else None, **delta}, finish)
            else:
                yield self._chunk(choice, {"role": "assistant", **delta, **_no_calls(delta)}, None)
        if self._recent and last == 0:
            yield self._chunk(choice, {}, choice.finish)
        if not self._recent:
            yield self._chunk(choice, {"role": "assistant", "content": "", "tool_calls": None}, None)
            yield self._chunk(choice, {}, choice.finish)

    def _steps(self, choice: Choice) -> Iterator[Delta]:
        if self._turn.profile.reasoning == "field":
            for number, piece in enumerate(choice.reasoning):
                calls: Delta = {"tool_calls": []} if number == 0 and self._recent else {}
                yield {"reasoning_content": piece, "content": None, **calls}
        for piece in choice.content:
            yield {"content": piece}
        for index, call in enumerate(choice.calls):
            for part in self._call_parts(index, call.wire()):
                yield {"content": None, "tool_calls": [part]}

    def _call_parts(self, index: int, call: dict[str, Any]) -> Iterator[Delta]:
        arguments: str = call["function"]["arguments"]
        if self._turn.profile.tool_deltas == "whole":
            yield {"index": index, **call}
            return
        yield {"index": index, **call, "function": {"name": call["function"]["name"], "arguments": ""}}
        for number, piece in enumerate(split(arguments)):
            if number == 0:
                yield {"index": index, "id": None, "function": {"name": None, "arguments": piece}}
            else:
                yield {"index": index, "function": {"arguments": piece}}

    def _count(self, delta: Delta, choice: Choice) -> None:
        if delta.get("reasoning_content"):
            self._turn.sent_reasoning += 1
        elif delta.get("content"):
            self._turn.sent_visible += 1
        elif delta.get("tool_calls") and delta["tool_calls"][0].get("id"):
            index: int = delta["tool_calls"][0]["index"]
            self._turn.sent_visible += tokens_of(choice.calls[index])

    def _chunk(self, choice: Choice, delta: Delta, finish: str | None) -> bytes:
        body: dict[str, Any] = {"index": choice.index, "delta": delta, "finish_reason": finish}
        if self._top is not None and delta.get("content"):
            body["logprobs"] = logprobs([delta["content"]], self._top)
        options = self._options
        # guess: what the two options for usage do exactly is only partly known.
        # The usage comes with the finish reason of the last choice, for then everything has been counted.
        final = finish is not None and choice.index == len(self._turn.choices) - 1
        with_usage = options.include_usage and (final or options.continuous_usage_stats)
        return self._encode([body], self._turn.usage() if with_usage else None)

    def _encode(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
        turn = self._turn
        chunk: dict[str, Any] = {
            "id": turn.id,
            "object": "chat.completion.chunk",
            "created": turn.created,
            "model": turn.profile.name,
            "choices": choices,
        }
        if turn.tier is not None:
            chunk["service_tier"] = turn.tier
        chunk["usage"] = usage
        return orjson.dumps(chunk) if self._recent else _spaced(chunk).encode()


def _no_calls(delta: Delta) -> Delta:
    return {} if "tool_calls" in delta else {"tool_calls": None}
