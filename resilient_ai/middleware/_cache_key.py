"""The names under which answers and vectors are cached."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from resilient_ai.core.call import Call

# Part of every key: a new number makes all entries of older versions misses.
SCHEMA_VERSION = 1

# Whatever is not listed here is part of the key, `extra` and fields of later versions included.
LEFT_OUT: Mapping[str, str] = {
    "texts": "each text has a key of its own, so that lists that overlap share their vectors",
    "on_interrupt": "says what happens to a stream that breaks, not what is asked",
    "prompt_cache_key": "tells the service where to look for a prompt it knows, not what is asked",
}

# A streamed answer is the same answer.
_KIND_OF_KEY = {"stream": "chat"}


def answer_key(call: Call[Any]) -> str | None:
    """Return the key of the whole answer, or None where the operation holds something that JSON cannot say.

    It is the SHA-256 of canonical JSON, so equal operations have equal keys, however they were written, in every process.
    """
    body = _canonical(call)
    return None if body is None else hashlib.sha256(body).hexdigest()


def text_keys(call: Call[Any], texts: Sequence[str]) -> list[str] | None:
    """Return one key per text: the SHA-256 of the digest of everything else and the text."""
    body = _canonical(call)
    if body is None:
        return None
    base = hashlib.sha256(hashlib.sha256(body).digest())
    keys: list[str] = []
    try:
        for text in texts:
            digest = base.copy()
            digest.update(text.encode())
            keys.append(digest.hexdigest())
    except UnicodeEncodeError:  # half a surrogate pair, which no request can carry either
        return None
    return keys


def _canonical(call: Call[Any]) -> bytes | None:
    operation = call.operation
    content = {
        "version": SCHEMA_VERSION,
        "kind": _KIND_OF_KEY.get(operation.kind, operation.kind),
        "origin": call.origin,
        "tenant": call.tags.get("tenant"),
        "operation": operation.model_dump(exclude=set(LEFT_OUT)),
    }
    try:
        return orjson.dumps(content, default=_digest, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return None


def _digest(value: object) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest()}
    raise TypeError(f"{type(value).__name__} has no canonical form")
