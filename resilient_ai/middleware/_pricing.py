"""What an answer cost, as far as it can be known."""

from decimal import Decimal
from typing import Any, cast

from resilient_ai.core.money import MOST_OF_A_SEND
from resilient_ai.core.operations import Complete, Conversation, Embed, Image, Operation, Sampling
from resilient_ai.core.protocols import PriceBook
from resilient_ai.core.results import ImageResult, Result, Usage
from resilient_ai.core.transcript import Transcript
from resilient_ai.middleware._as_sent import as_sent
from resilient_ai.middleware._machines.bounded import make_room
from resilient_ai.middleware._machines.token_rule import TokenRule
from resilient_ai.middleware._machines.turns import Turns
from resilient_ai.middleware._tokens import size_of_prompt, tokens_of

# At so many models a quarter is forgotten: those of which the fewest prompts are known.
_MOST_MODELS = 1024
_MOST_MESSAGES = 16
_OF_TOKENS = frozenset({"chat", "stream", "complete"})
_WELL_KNOWN = 16
_ONE_IN = 64


def price_of_result(prices: PriceBook, operation: Operation[Any], result: Result) -> Decimal | None:
    """Return what the price table says an answer cost, None where it cannot say; see `price`."""
    if operation.kind == "image" and isinstance(operation, Image) and isinstance(result, ImageResult):
        sent = as_sent(operation)
        return _believed(
            prices.image_cost(
                sent.model, images=len(result.images), width=sent.width, height=sent.height, steps=sent.steps
            )
        )
    return price(prices, operation, result.usage, result.service_tier)


def price(
    prices: PriceBook, operation: Operation[Any], usage: Usage | None, service_tier: str | None = None
) -> Decimal | None:
    """Return what the price table says these tokens cost, None where it cannot say, or where there cannot be so many."""
    if usage is None or usage.input_tokens is None:
        return None
    # By its kind, as asking for the class of an operation takes as long as all the arithmetic.
    if operation.kind == "embed":
        tier = service_tier or _tier_of(cast("Embed", operation))
        return _believed(prices.embedding_cost(operation.model, input_tokens=usage.input_tokens, service_tier=tier))
    if operation.kind not in _OF_TOKENS or usage.output_tokens is None:
        return None
    return _believed(
        prices.chat_cost(
            operation.model,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens or 0,
            cache_write_tokens=usage.cache_write_tokens or 0,
            service_tier=service_tier or _tier_of(cast("Sampling[Any]", operation)),
        )
    )


def _believed(amount: Decimal | None) -> Decimal | None:
    return None if amount is None or amount > MOST_OF_A_SEND else amount


def _tier_of(operation: Embed | Sampling[Any]) -> str | None:
    return as_sent(operation).tier if operation.extra else operation.service_tier


def estimate_usage(operation: Operation[Any], transcript: Transcript, sizes: "PromptSizes") -> Usage | None:
    """Return the tokens of an answer that broke off; None where the prompt holds more than text.

    The prompt is told by its length. A piece of the answer is at least one token, and is one with most models; where it is long,
    because the service hands out several at once, its length tells more.
    """
    prompt, media = size_of_prompt(operation)
    if media or not isinstance(operation, Complete | Conversation):
        return None
    answer = sum(max(pieces, tokens_of(characters)) for pieces, characters in transcript.sizes())
    return Usage(input_tokens=sizes.tokens_of(operation.model, prompt), output_tokens=answer)


class PromptSizes:
    """How many tokens the prompts of a model have, learned from answers that tell it. Safe to use from several threads.

    Of a model that has told nothing yet it is what the others have told, as most models cut text into much the same pieces.
    """

    def __init__(self) -> None:
        self._rules: dict[str, TokenRule] = {}
        self._of_all = TokenRule()
        self._asked = 0
        self._well_known: set[str] = set()
        self._turns = Turns()

    def is_due(self, model: str) -> bool:
        """Return whether to learn from a prompt of a model now, which takes time: of one that is well known from one in 64."""
        self._asked += 1
        return not self._asked % _ONE_IN or model not in self._well_known

    def learn(self, operation: Operation[Any], usage: Usage | None) -> None:
        """Take in a prompt whose tokens were told."""
        rule = self._rules.get(operation.model)
        if usage is None or usage.input_tokens is None or not isinstance(operation, Complete | Conversation):
            return
        # A look at every message; a conversation of hundreds would cost more than it teaches.
        if isinstance(operation, Conversation) and (operation.tools or len(operation.messages) > _MOST_MESSAGES):
            return
        characters, media = size_of_prompt(operation)
        if media:
            return
        if rule is None:
            with self._turns:
                make_room(self._rules, _MOST_MODELS, lambda known: known.texts)
                rule = self._rules[operation.model] = TokenRule()
                self._well_known &= self._rules.keys()
        for each in (rule, self._of_all):
            each.record(characters, usage.input_tokens)
        if rule.texts > _WELL_KNOWN:
            self._well_known.add(operation.model)

    def tokens_of(self, model: str, characters: int) -> int:
        """Return about how many tokens a prompt has; takes no lock, as it is asked from finalizers too."""
        for rule in (self._rules.get(model), self._of_all):
            learned = None if rule is None else rule.tokens_of(characters)
            if learned is not None:
                return learned
        return tokens_of(characters)
