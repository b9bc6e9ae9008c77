"""Embeddings, on the OpenAI route and on the native one."""

import base64
from array import array
from decimal import Decimal
from functools import lru_cache

import orjson

from resilient_ai.simulator.errors import unsupported
from resilient_ai.simulator.exchange import Exchange, Reply
from resilient_ai.simulator.generation import admit
from resilient_ai.simulator.ids import request_id
from resilient_ai.simulator.pricing import as_float, token_cost
from resilient_ai.simulator.profiles import Profile
from resilient_ai.simulator.schemas import EmbeddingsRequest, NativeEmbeddingsRequest
from resilient_ai.simulator.tokens import count
from resilient_ai.simulator.validation import parse
from resilient_ai.simulator.vectors import unit, vector

_USUAL_DIMENSIONS = 1024
_UNSCALED = 12.5  # guess: the length of a native vector that is not normalised is not known.


async def embeddings(exchange: Exchange) -> Reply:
    """Embed texts the OpenAI way; vectors in input order, each of length 1."""
    request = parse(EmbeddingsRequest, exchange.data)
    profile = _profile(exchange)
    tier = await admit(exchange, profile, request.service_tier)
    texts = [request.input] if isinstance(request.input, str) else request.input
    tokens, cost = _billed(exchange, profile, texts, tier)
    own = profile.info.dimensions or _USUAL_DIMENSIONS
    encoded = request.encoding_format == "base64"
    data = [
        {"index": i, "object": "embedding", "embedding": _json(text, own, request.dimensions or own, encoded)}
        for i, text in enumerate(texts)
    ]
    usage: dict[str, int | float | None] = {"prompt_tokens": tokens, "total_tokens": tokens}
    if exchange.settings.embedding_cost:
        usage["estimated_cost"] = as_float(cost)
    body = {"object": "list", "model": profile.name, "usage": usage, "data": data}
    return Reply(body=orjson.dumps(body if tier is None else {**body, "service_tier": tier}))


async def native_embeddings(exchange: Exchange, profile: Profile) -> Reply:
    """Embed texts the native way, with the cost in `inference_status`."""
    data = dict(exchange.data)
    if exchange.multipart and isinstance(data.get("inputs"), str):
        data["inputs"] = _form_list(data["inputs"])
    request = parse(NativeEmbeddingsRequest, data, native=True)
    tier = await admit(exchange, profile, request.service_tier)
    tokens, cost = _billed(exchange, profile, request.inputs, tier)
    own = profile.info.dimensions or _USUAL_DIMENSIONS
    wanted = request.dimensions or own
    scale = 1.0 if request.normalize else _UNSCALED
    body = {
        "embeddings": [_scaled(text, own, wanted, scale) for text in request.inputs],
        "input_tokens": tokens,
        "request_id": request_id(),
        "inference_status": {
            "status": "succeeded",
            "runtime_ms": exchange.runtime_ms,
            "cost": as_float(cost),
            "tokens_generated": 0,
            "tokens_input": tokens,
        },
    }
    return Reply(body=orjson.dumps(body))


def _profile(exchange: Exchange) -> Profile:
    profile = exchange.profile()
    if profile.info.kind != "embedding":
        # guess: the answer for a model of another kind is not known.
        raise unsupported("Embedding", profile.name, "model")
    return profile


def _billed(exchange: Exchange, profile: Profile, texts: list[str], tier: str | None) -> tuple[int, Decimal | None]:
    limit = profile.info.max_input_tokens or 512
    # guess: a text above the model's limit is cut without a word, and billed for what is left.
    tokens = sum(min(count(text), limit) for text in texts)
    cost = token_cost(profile.info.pricing, prompt=tokens, tier=tier)
    exchange.charge(profile, cost, input_tokens=tokens)
    exchange.simulator.books.embedded(len(texts))
    return tokens, cost


@lru_cache(maxsize=2048)
def _json(text: str, own: int, wanted: int, encoded: bool) -> orjson.Fragment:  # noqa: FBT001  # part of a cache key
    values = _sized(text, own, wanted)
    if encoded:
        # guess: little-endian floats of four bytes, as other services send them.
        return orjson.Fragment(orjson.dumps(base64.b64encode(values.tobytes()).decode()))
    return orjson.Fragment(orjson.dumps(values.tolist()))


def _scaled(text: str, own: int, wanted: int, scale: float) -> orjson.Fragment | list[float]:
    if scale == 1.0:
        return _json(text, own, wanted, False)
    return [value * scale for value in _sized(text, own, wanted)]


def _sized(text: str, own: int, wanted: int) -> "array[float]":
    """The model's vector cut to fewer numbers, or filled with zeros to more."""
    full = vector(text, own)
    if wanted < own:
        # guess: a shortened vector is brought back to length 1.
        return array("f", unit(full[:wanted].tolist()))
    return full + array("f", [0.0] * (wanted - own))


def _form_list(value: str) -> object:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
