"""The names under which answers and vectors are cached.

A name has 96 hexadecimal digits: 16 for the tenant, 16 for the model, so that the entries of either can be found and forgotten,
and 64 for everything that was asked.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from pydantic import BaseModel

from resilient_ai.core.call import Call
from resilient_ai.core.operations import Operation

# Part of every key: a new number makes all entries of older versions misses.
SCHEMA_VERSION = 2

# Whatever is not listed here is part of the key, `extra` and fields of later versions included.
LEFT_OUT: Mapping[str, str] = {
    "texts": "each text has a key of its own, so that lists that overlap share their vectors",
    "on_interrupt": "says what happens to a stream that breaks, not what is asked",
    "prompt_cache_key": "tells the service where to look for a prompt it knows, not what is asked",
}

# A streamed answer is the same answer.
_KIND_OF_KEY = {"stream": "chat"}
_PART = 16


def answer_key(call: Call[Any]) -> str | None:
    """Return the key of the whole answer, or None where the operation holds something that JSON cannot say.

    Its last part is the SHA-256 of canonical JSON, so equal operations have equal keys, in every process.
    """
    body = canonical(call)
    return None if body is None else _group(call) + hashlib.sha256(body).hexdigest()


def text_keys(call: Call[Any], texts: Sequence[str]) -> list[str] | None:
    """Return one key per text, of the SHA-256 of the digest of everything else and the text."""
    body = canonical(call, ruled=False)  # of one model, whoever has chosen it
    if body is None:
        return None
    group = _group(call)
    base = hashlib.sha256(hashlib.sha256(body).digest())
    keys: list[str] = []
    try:
        for text in texts:
            digest = base.copy()
            digest.update(text.encode())
            keys.append(group + digest.hexdigest())
    except UnicodeEncodeError:  # half a surrogate pair, which no request can carry either
        return None
    return keys


def list_key(keys: Sequence[str]) -> str:
    """Return a key for a list of keys, of the same tenant and model."""
    return keys[0][: 2 * _PART] + hashlib.sha256("".join(keys).encode()).hexdigest()


@lru_cache(maxsize=4096)
def tenant_part(tenant: str | None) -> str:
    """Return the digits of a key that stand for a tenant, or for calls without one."""
    name = b"tenant" if tenant is None else b"tenant\0" + tenant.encode("utf-8", "surrogatepass")
    return hashlib.sha256(name).hexdigest()[:_PART]


@lru_cache(maxsize=4096)
def model_part(model: str) -> str:
    """Return the digits of a key that stand for a model."""
    return hashlib.sha256(b"model\0" + model.encode("utf-8", "surrogatepass")).hexdigest()[:_PART]


def pattern(*, tenant: str | None = None, model: str | None = None) -> str:
    """Return what the keys of a tenant, of a model, or of both match; None is any.

    >>> pattern(model="m")
    '????????????????93e12b8aa6f493e9*'
    """
    if tenant is None and model is None:
        return "*"
    any_part = "?" * _PART
    return (
        (any_part if tenant is None else tenant_part(tenant)) + (any_part if model is None else model_part(model)) + "*"
    )


def canonical(call: Call[Any], *, ruled: bool = True) -> bytes | None:
    """Return everything that makes a difference as one sequence of bytes; None where JSON cannot say it.

    Args:
        call: What is asked, of which service, for which tenant.
        ruled: Whether it makes a difference by which rule the models of a route are chosen.
    """
    operation = call.operation
    content = {
        "version": SCHEMA_VERSION,
        "kind": _KIND_OF_KEY.get(operation.kind, operation.kind),
        "origin": call.origin,
        "tenant": call.tags.get("tenant"),
        "operation": _fields(operation),
    }
    rule = call.ruled_by(call) if ruled else ""
    if rule:
        content["rule"] = rule
    try:
        return orjson.dumps(content, default=_plain, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return None


def field_digests(call: Call[Any]) -> dict[str, str]:
    """Return a digest of each part of the key by its name, to tell by which of them two calls differ."""
    values = {
        "origin": call.origin,
        "tenant": call.tags.get("tenant"),
        "rule": call.ruled_by(call),
        **_fields(call.operation),
    }
    return {
        name: hashlib.sha256(orjson.dumps(value, default=_plain, option=orjson.OPT_SORT_KEYS)).hexdigest()[:_PART]
        for name, value in values.items()
    }


def _group(call: Call[Any]) -> str:
    return tenant_part(call.tags.get("tenant")) + model_part(call.model)


def _fields(operation: Operation[Any]) -> dict[str, Any]:
    # Most of them are plain values, which need no dump of the whole.
    return {name: value for name, value in operation.__dict__.items() if name not in LEFT_OUT}


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest()}
    raise TypeError(f"{type(value).__name__} has no canonical form")
