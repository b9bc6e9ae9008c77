"""How many tokens a text has, as far as that can be guessed from its length."""

import math
from typing import Any

from resilient_ai.core.messages import AnyMessage, AssistantMessage, TextPart
from resilient_ai.core.operations import Complete, Conversation, Embed, Operation, Sampling
from resilient_ai.middleware._as_sent import as_sent

# English has about four characters to a token; other languages have fewer, so that a guess is rather too low for them.
CHARACTERS_PER_TOKEN = 4

# What is assumed of an answer whose length nobody bounds, and of a picture or sound in a prompt.
TOKENS_OF_ANSWER = 1_000
TOKENS_OF_MEDIUM = 1_000


def tokens_of(characters: int) -> int:
    """Return about how many tokens so many characters are."""
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


def size_of_prompt(operation: Operation[Any]) -> tuple[int, int]:
    """Return the characters of a prompt, and how many of its parts are no text."""
    if isinstance(operation, Complete):
        return len(operation.prompt), 0
    if isinstance(operation, Embed):
        return sum(map(len, operation.texts)), 0
    if not isinstance(operation, Conversation):
        return 0, 0
    sizes = [_size_of(message) for message in operation.messages]
    return sum(characters for characters, _ in sizes), sum(media for _, media in sizes)


def prompt_tokens(operation: Operation[Any]) -> int:
    """Return about how many tokens a prompt has."""
    characters, media = size_of_prompt(operation)
    return tokens_of(characters) + media * TOKENS_OF_MEDIUM


def estimate_tokens(operation: Operation[Any]) -> int:
    """Return the tokens an operation may come to, input and output together; a picture that is drawn has none."""
    tokens = prompt_tokens(operation)
    if isinstance(operation, Sampling):
        sent = as_sent(operation)
        tokens += sent.number * (sent.longest or TOKENS_OF_ANSWER)
    return tokens


def _size_of(message: AnyMessage) -> tuple[int, int]:
    content = message.content
    if isinstance(content, tuple):
        texts = [part.text for part in content if isinstance(part, TextPart)]
        return sum(map(len, texts)), len(content) - len(texts)
    calls = message.tool_calls if isinstance(message, AssistantMessage) else ()
    return len(content or "") + sum(len(call.arguments) for call in calls), 0
