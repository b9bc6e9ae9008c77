"""What an answer cost, as far as it can be known."""

from decimal import Decimal
from typing import Any

from resilient_ai.core.operations import Complete, Conversation, Embed, Image, Operation, Sampling
from resilient_ai.core.protocols import PriceBook
from resilient_ai.core.results import ImageResult, Result, Usage
from resilient_ai.core.transcript import Transcript
from resilient_ai.middleware._tokens import size_of_prompt, tokens_of


def price_of_result(prices: PriceBook, operation: Operation[Any], result: Result) -> Decimal | None:
    """Return what the price table says an answer cost, None where it cannot say."""
    if isinstance(operation, Image) and isinstance(result, ImageResult):
        width, height = operation.width_and_height or (None, None)
        return prices.image_cost(
            operation.model, images=len(result.images), width=width, height=height, steps=operation.steps
        )
    return price(prices, operation, result.usage, result.service_tier)


def price(
    prices: PriceBook, operation: Operation[Any], usage: Usage | None, service_tier: str | None = None
) -> Decimal | None:
    """Return what the price table says these tokens cost, None where it cannot say."""
    if usage is None or usage.input_tokens is None:
        return None
    if isinstance(operation, Embed):
        return prices.embedding_cost(operation.model, input_tokens=usage.input_tokens)
    if not isinstance(operation, Sampling) or usage.output_tokens is None:
        return None
    return prices.chat_cost(
        operation.model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens or 0,
        service_tier=service_tier or operation.service_tier,
    )


def estimate_usage(operation: Operation[Any], transcript: Transcript) -> Usage | None:
    """Return the tokens of an answer that broke off, by its length; None where the prompt holds more than text."""
    prompt, media = size_of_prompt(operation)
    if media or not isinstance(operation, Complete | Conversation):
        return None
    answer = sum(
        len(choice.text) + len(choice.reasoning or "") + sum(len(call.arguments) for call in choice.tool_calls)
        for choice in transcript.result().choices
    )
    return Usage(input_tokens=tokens_of(prompt), output_tokens=tokens_of(answer))
