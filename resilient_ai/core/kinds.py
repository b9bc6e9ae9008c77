"""What is meant by a kind of operation where calls are chosen by it: in the scope of a budget, in a rule, in a question."""

from collections.abc import Mapping
from typing import get_args

from resilient_ai.core.checks import is_unicode
from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.operation import Kind

KINDS: tuple[str, ...] = get_args(Kind)
CHAT, STREAM = "chat", "stream"
_NOUNS = {CHAT: "a chat", STREAM: "a chat", "complete": "a completion", "embed": "an embedding", "image": "a picture"}


def covered(kind: str) -> tuple[str, ...]:
    """Return the kinds of operations that a budget or a rule is about which names this one.

    A chat is one whether it is streamed or not: else whoever streams would pass by what holds for chats.

    >>> covered("chat"), covered("stream"), covered("embed")
    (('chat', 'stream'), ('stream',), ('embed',))
    """
    return (CHAT, STREAM) if kind == CHAT else (kind,)


def counted_as(kind: str, wanted: str) -> str:
    """Return the kind as which an operation counts where `wanted` is named, a kind or "*".

    >>> counted_as("stream", "chat"), counted_as("stream", "*"), counted_as("stream", "stream"), counted_as("chat", "stream")
    ('chat', 'chat', 'stream', 'chat')
    """
    return CHAT if kind == STREAM and wanted != STREAM else kind


def noun_of(kind: str) -> str:
    """Return what an operation of a kind is called in a sentence.

    >>> noun_of("stream"), noun_of("embed")
    ('a chat', 'an embedding')
    """
    return _NOUNS[kind]


def check_filter(tags: Mapping[str, str] | None) -> None:
    """Raise `InvalidInput` where a question names a kind that there is not, or what no tag can be: the answer would be nothing.

    >>> check_filter({"kind": "banana"})
    Traceback (most recent call last):
        ...
    resilient_ai.core.errors.InvalidInput: kind: one of chat, stream, complete, embed, image, got 'banana'
    """
    for name, value in (tags or {}).items():
        if not (is_unicode(name) and is_unicode(value)):
            raise InvalidInput(
                f"{name!r}: half of a surrogate pair is no text, and in no tag, got {value!r}", field=name, value=value
            )
    kind = (tags or {}).get("kind")
    if kind is not None and kind not in KINDS:
        raise InvalidInput(f"kind: one of {', '.join(KINDS)}, got {kind!r}", field="kind", value=kind)
