"""A generated answer in pieces, cut where it must be, with its usage and its cost."""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from resilient_ai.simulator.errors import WireError
from resilient_ai.simulator.exchange import Exchange
from resilient_ai.simulator.pricing import as_float, token_cost
from resilient_ai.simulator.profiles import Profile
from resilient_ai.simulator.tokens import count, split
from resilient_ai.simulator.toolcalls import Call


@dataclass(kw_only=True)
class Choice:
    """One of the answers to a request, in pieces of a token each."""

    index: int
    reasoning: list[str] = field(default_factory=list[str])
    content: list[str] = field(default_factory=list[str])
    calls: list[Call] = field(default_factory=list[Call])
    finish: str = "stop"

    @property
    def text(self) -> str:
        """The visible text."""
        return "".join(self.content)

    def call_tokens(self) -> int:
        """Tokens of all tool calls."""
        return sum(tokens_of(call) for call in self.calls)

    def cut(self, stops: Sequence[str], limit: int) -> None:
        """End the text before the first stop sequence, and everything after so many tokens."""
        found = [at for stop in stops if stop and (at := self.text.find(stop)) >= 0]
        if found:
            self.content = split(self.text[: min(found)])
        if len(self.reasoning) + len(self.content) + self.call_tokens() <= limit:
            return
        self.finish = "length"
        self.reasoning = self.reasoning[:limit]
        limit -= len(self.reasoning)
        self.content = self.content[:limit]
        limit -= len(self.content)
        self.calls = _first_calls(self.calls, limit)


def tokens_of(call: Call) -> int:
    """Tokens of a tool call."""
    return count(call.name) + count(call.arguments)


def _first_calls(calls: list[Call], limit: int) -> list[Call]:
    kept: list[Call] = []
    for call in calls:
        room = limit - count(call.name)
        if room <= 0:
            break
        pieces = split(call.arguments)[:room]
        kept.append(Call(id=call.id, name=call.name, arguments="".join(pieces)))
        limit = room - len(pieces)
    return kept


@dataclass(kw_only=True)
class Turn:
    """Everything that is answered to one request.

    `sent_reasoning` and `sent_visible` say how many tokens have gone out so far; a stream that is left early is billed
    for those.
    """

    profile: Profile
    id: str
    prompt_tokens: int
    cached_tokens: int
    choices: list[Choice]
    tier: str | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    sent_reasoning: int = 0
    sent_visible: int = 0

    def send_all(self) -> None:
        """Count every token as sent."""
        self.sent_reasoning = sum(len(choice.reasoning) for choice in self.choices)
        self.sent_visible = sum(len(choice.content) + choice.call_tokens() for choice in self.choices)

    def cost(self) -> Decimal | None:
        """USD for the prompt and what has been sent."""
        # guess: the Google models bill the reasoning that their completion count leaves out.
        return token_cost(
            self.profile.info.pricing,
            prompt=self.prompt_tokens,
            cached=self.cached_tokens,
            completion=self.sent_reasoning + self.sent_visible,
            tier=self.tier,
        )

    def charge(self, exchange: Exchange) -> None:
        """Put what has been sent on the bill."""
        generated = self.sent_reasoning + self.sent_visible
        exchange.charge(self.profile, self.cost(), input_tokens=self.prompt_tokens, output_tokens=generated)

    def usage(self) -> dict[str, Any]:
        """The usage block for what has been sent, with the Google models' flaw where the profile has it."""
        prompt, reasoning, visible = self.prompt_tokens, self.sent_reasoning, self.sent_visible
        completion = visible if self.profile.usage_bug != "none" else reasoning + visible
        total = prompt + (completion if self.profile.usage_bug == "total_exclusive" else reasoning + visible)
        usage: dict[str, Any] = {
            "prompt_tokens": prompt,
            "total_tokens": total,
            "completion_tokens": completion,
            "estimated_cost": as_float(self.cost()),
        }
        if self.profile.caches_prompts:
            cached = {"cached_tokens": self.cached_tokens} if self.cached_tokens else None
            usage["prompt_tokens_details"] = cached
        if self.profile.reasoning in {"field", "hidden"}:
            usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
        return usage


def measure_prompt(exchange: Exchange, profile: Profile, text: str, images: int = 0) -> tuple[int, int]:
    """Tokens of a prompt, and how many of them were cached.

    Raises:
        WireError: 400 if the prompt does not fit into the model's context.
    """
    pieces = split(text)
    tokens = len(pieces) + images
    if tokens >= profile.context:
        raise _too_long(profile, tokens)
    cached = 0
    if profile.caches_prompts:
        cached = exchange.simulator.prefixes.cached_tokens(exchange.key, profile.name, pieces)
    return tokens, cached


def _too_long(profile: Profile, tokens: int) -> WireError:
    if profile.variant == "A":
        return WireError(
            400,
            f"This model's maximum context length is {profile.context} tokens. "
            f"However, your messages resulted in {tokens} tokens.",
        )
    message = f"Input too long: {tokens} input tokens, limit is {profile.context} for this model"
    return WireError(400, message, code="context_length_exceeded")


async def admit(exchange: Exchange, profile: Profile, tier: str | None) -> str | None:
    """Hold a flex request for its time, and say which tier the request is served at; `None` if none was asked for."""
    if tier is None:
        return None
    served = tier if tier in (profile.info.service_tiers or ()) else "default"
    settings = exchange.settings
    if tier == "flex" and settings.flex_hold:
        await exchange.hold(settings.flex_hold)
    if tier == "flex" and settings.flex_refused:
        raise WireError(429, "Model busy, retry later", shape="short", retry_after=settings.retry_after)
    return served


def build_choices(make: Callable[[int], Choice], n: int, stops: Sequence[str], limit: int) -> list[Choice]:
    """So many choices, each cut at its stop sequences and its length."""
    choices = [make(index) for index in range(n)]
    for choice in choices:
        choice.cut(stops, limit)
    return choices


def logprob(piece: str, position: int) -> float:
    """A deterministic log probability between -2 and 0."""
    return -(zlib.crc32(piece.encode()) % 1000 + position % 7) / 500


def logprobs(pieces: Sequence[str], top: int) -> dict[str, Any]:
    """The log probabilities of a row of tokens, with so many alternatives each."""
    content: list[dict[str, Any]] = []
    for position, piece in enumerate(pieces):
        best = logprob(piece, position)
        others = [{"token": f"{piece}~{rank}", "logprob": best - 2.0 * rank} for rank in range(1, top)]
        alternatives = [{"token": piece, "logprob": best}, *others] if top else []
        content.append({"token": piece, "logprob": best, "top_logprobs": alternatives})
    return {"content": content}
