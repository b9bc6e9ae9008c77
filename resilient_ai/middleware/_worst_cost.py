"""What a send can cost at most, before it is sent."""

import unicodedata
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import orjson

from resilient_ai.core.messages import AnyMessage, AssistantMessage, AudioPart, TextPart, ToolMessage
from resilient_ai.core.operations import Complete, Conversation, Embed, Image, Operation, Sampling
from resilient_ai.core.protocols import PriceBook
from resilient_ai.middleware._as_sent import Sent, as_sent

# What tokenizers and chat templates add around a text: marks of begin and end, the role, a line break.
_AROUND_TEXT = 8
_AROUND_MESSAGE = 16
# Templates explain to the model how tools are called, in up to a few hundred words.
_AROUND_TOOLS = 512
_AROUND_TOOL = 32
# Templates write JSON with line breaks and indents of their own; each is a token at most, and there are fewer than bytes.
_JSON_GROWS = 2
# A picture becomes as many tokens as the largest ones that vision models take.
_OF_PICTURE = 16_384
# Speech becomes at most some 40 tokens a second; of the poorest recording a second is 1,300 characters of base64.
_CHARACTERS_PER_TOKEN_OF_SPEECH = 32
_OF_SPEECH = 1_000

_LARGEST_SIDE_OF_RATIO = 1024


def worst_cost(prices: PriceBook, operation: Operation[Any], output_limit: Callable[[], int]) -> Decimal | None:
    """Return what one send of `operation` can cost at most, None where no price is known.

    Tokenizers that work on bytes never make more tokens of a text than it has bytes, so the prompt counts with the bytes of
    its texts, and a fixed number for what a template puts around each message. English has four bytes to a token, so that the
    true number is a quarter of that. Answers count with `max_tokens` each. Of the tier that was asked for and the default one,
    which answers where a model has no other, the dearer counts. A field in `extra` wins over that of the operation.

    Args:
        prices: What tokens and pictures cost.
        operation: What is to be sent.
        output_limit: Returns the tokens of an answer whose length the caller does not bound.
    """
    sent = as_sent(operation)
    if isinstance(operation, Embed):
        tokens = prompt_bound(operation)
        return _dearest(
            prices.embedding_cost(sent.model, input_tokens=tokens, service_tier=tier) for tier in _tiers(sent)
        )
    if isinstance(operation, Image):
        return _of_pictures(prices, operation, sent)
    if not isinstance(operation, Sampling):
        return None
    return _of_answer(prices, operation, sent, output_limit)


def prompt_bound(operation: Operation[Any]) -> int:
    """Return a number of tokens that the prompt does not exceed.

    >>> prompt_bound(Complete(model="m", prompt="tide"))
    12
    """
    bound = 0
    if isinstance(operation, Embed):
        bound = sum(map(_bytes_of, operation.texts)) + _AROUND_TEXT * len(operation.texts)
    elif isinstance(operation, Complete):
        bound = _bytes_of(operation.prompt) + _AROUND_TEXT
    elif isinstance(operation, Conversation):
        bound = sum(map(_of_message, operation.messages)) + _AROUND_MESSAGE  # the answer has a header as well
        if operation.tools:
            bound += _AROUND_TOOLS
            for tool in operation.tools:
                bound += _bytes_of(tool.name) + _bytes_of(tool.description) + _of_json(tool.parameters) + _AROUND_TOOL
        if operation.chat_template_kwargs:
            bound += _of_json(operation.chat_template_kwargs)
    form = getattr(operation, "response_format", None)
    if form is not None and form.json_schema is not None:
        bound += _of_json(form.json_schema)
    if operation.extra:
        bound += _of_json(operation.extra)
    return bound


def _of_answer(
    prices: PriceBook, operation: Sampling[Any], sent: Sent, output_limit: Callable[[], int]
) -> Decimal | None:
    output = sent.number * (output_limit() if sent.longest is None else sent.longest)
    prompt = prompt_bound(operation)

    def cost(tier: str | None, written: int = 0) -> Decimal | None:
        return prices.chat_cost(
            sent.model,
            input_tokens=prompt,
            output_tokens=output,
            cache_write_tokens=written,
            service_tier=tier,
        )

    known = [cost(tier) for tier in _tiers(sent)]
    if isinstance(operation, Conversation) and any(map(_is_kept, operation.messages)):
        known += [cost(tier, prompt) for tier in _tiers(sent)]
    return _dearest(known)


def _tiers(sent: Sent) -> list[str | None]:
    """Return the default tier, and the one that was asked for beside it."""
    return [None] if sent.tier in {None, "default"} else [None, sent.tier]


def _of_pictures(prices: PriceBook, operation: Image, sent: Sent) -> Decimal | None:
    sizes = [(sent.width, sent.height)]
    if operation.aspect_ratio is not None:
        sizes.append((_LARGEST_SIDE_OF_RATIO, _LARGEST_SIDE_OF_RATIO))
    return _dearest(
        prices.image_cost(sent.model, images=sent.number, width=width, height=height, steps=sent.steps)
        for width, height in sizes
    )


def _dearest(costs: Iterable[Decimal | None]) -> Decimal | None:
    return max((cost for cost in costs if cost is not None), default=None)


def _of_message(message: AnyMessage) -> int:
    content = message.content
    bound = _AROUND_MESSAGE
    if isinstance(content, str):
        bound += _bytes_of(content)
    elif content is not None:
        for part in content:
            if isinstance(part, TextPart):
                bound += _bytes_of(part.text) + _AROUND_TEXT
            elif isinstance(part, AudioPart):
                bound += len(part.data) // _CHARACTERS_PER_TOKEN_OF_SPEECH + _OF_SPEECH
            else:
                bound += _OF_PICTURE
    if isinstance(message, ToolMessage):
        return bound + _bytes_of(message.tool_call_id)
    if isinstance(message, AssistantMessage):
        bound += _bytes_of(message.reasoning or "")
        for call in message.tool_calls:
            bound += _bytes_of(call.id) + _bytes_of(call.name) + _JSON_GROWS * _bytes_of(call.arguments) + _AROUND_TOOL
    return bound if message.name is None else bound + _bytes_of(message.name)


def _bytes_of(text: str) -> int:
    if text.isascii():
        return len(text)
    size = len(text.encode())
    if unicodedata.is_normalized("NFKC", text):
        return size
    # Some tokenizers write out what one character stands for, such as a ligature of eighteen letters.
    return max(size, len(unicodedata.normalize("NFKC", text).encode()))


def _of_json(value: object) -> int:
    return _JSON_GROWS * len(orjson.dumps(value, default=repr, option=orjson.OPT_NON_STR_KEYS))


def _is_kept(message: AnyMessage) -> bool:
    return getattr(message, "cache_control", None) is not None
