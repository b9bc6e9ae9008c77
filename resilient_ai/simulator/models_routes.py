"""The public catalogue in its four forms, with prices in three units."""

from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import orjson

from resilient_ai.deepinfra.catalogue import Catalogue, ImagePricing, ModelInfo
from resilient_ai.simulator.errors import WireError

_TYPES = {
    "chat": "text-generation",
    "completion": "text-generation",
    "ocr": "text-generation",
    "embedding": "embeddings",
    "image": "text-to-image",
    "rerank": "reranker",
    "asr": "automatic-speech-recognition",
    "tts": "text-to-speech",
    "video": "text-to-video",
}
_TAGS = {"chat": "chat", "embedding": "embed", "image": "image-gen", "video": "video-gen", "tts": "tts", "asr": "stt"}
_VERSION = "0" * 32


def openai_models(models: Catalogue, *, with_meta: bool) -> bytes:
    """`/v1/openai/models`: prices in USD per million tokens; with the filter only models that have metadata."""
    rows = [_openai_row(info) for info in _listed(models)]
    return orjson.dumps({"object": "list", "data": [r for r in rows if r["metadata"] or not with_meta]})


def native_models(models: Catalogue) -> bytes:
    """`/models/list`: a bare array, prices in US cents per token; retired models included, those that are gone left out."""
    return orjson.dumps([_native_row(info) for info in models if info.status != "presumed_removed"])


def openrouter_models(models: Catalogue) -> bytes:
    """`/openrouter/models`: prices as texts in USD per single token."""
    chat = [info for info in _listed(models) if info.kind == "chat" and info.pricing.input_per_1m is not None]
    return orjson.dumps({"data": [_openrouter_row(info) for info in chat]})


def one_model(models: Catalogue, name: str) -> bytes:
    """`/models/{name}`: one model in detail, or its versions under `/models/{name}/versions`.

    Raises:
        WireError: 404 if there is no such model.
    """
    name, _, rest = name.partition("/versions")
    info = models.get(name)
    if info is None or rest:
        raise WireError(404, "Model not found", shape="plain")
    if name != info.id or _ == "/versions":
        uploaded = f"{models.as_of.isoformat()}T00:00:00Z"
        return orjson.dumps([{"model_name": info.id, "version": _VERSION, "uploaded_at": uploaded}])
    row = _native_row(info)
    extra: dict[str, Any] = {
        "version": _VERSION,
        "featured": False,
        "public": True,
        "schemas": [],
        "in_schema": None,
        "meta": {},
    }
    return orjson.dumps({**row, **extra, "max_output_tokens": info.max_output_tokens})


def _listed(models: Catalogue) -> list[ModelInfo]:
    return [info for info in models if info.status == "active"]


def _openai_row(info: ModelInfo) -> dict[str, Any]:
    tags = _tags(info)
    metadata: dict[str, Any] | None = None
    if tags:
        metadata = {
            "description": f"{info.family or info.org} model",
            "context_length": info.context_length or info.max_input_tokens,
            "max_tokens": info.max_output_tokens or info.context_length or info.max_input_tokens,
            "pricing": _openai_pricing(info),
            "tags": tags,
        }
        if info.pricing.image is not None:
            image = info.pricing.image
            metadata |= {
                "default_width": image.default_width,
                "default_height": image.default_height,
                "default_iterations": image.default_steps,
            }
    return {
        "id": info.id,
        "object": "model",
        "created": 0,
        "owned_by": "deepinfra",
        "root": info.id,
        "parent": None,
        "metadata": metadata,
    }


def _tags(info: ModelInfo) -> list[str]:
    tags = [_TAGS[info.kind]] if info.kind in _TAGS else []
    named: tuple[tuple[str, bool | None], ...] = (
        ("vision", info.vision),
        ("reasoning", info.reasoning),
        ("prompt_cache", info.prompt_caching),
    )
    return tags + [tag for tag, has in named if has]


def _openai_pricing(info: ModelInfo) -> dict[str, float]:
    prices = info.pricing
    named: dict[str, Decimal | None] = {
        "input_tokens": prices.input_per_1m,
        "output_tokens": prices.output_per_1m,
        "cache_read_tokens": prices.cached_input_per_1m,
        "per_image_unit": prices.image.usd_per_unit if prices.image is not None else None,
    }
    return {key: float(price) for key, price in named.items() if price is not None}


def _native_row(info: ModelInfo) -> dict[str, Any]:
    retired = None
    if info.deprecated_on is not None:
        retired = int(datetime.combine(info.deprecated_on, time(), tzinfo=UTC).timestamp())
    return {
        "model_name": info.id,
        "type": _TYPES[info.kind],
        "reported_type": _TYPES[info.kind],
        "description": f"{info.family or info.org} model",
        "cover_img_url": "",
        "tags": _tags(info),
        "pricing": _native_pricing(info),
        "max_tokens": info.context_length or info.max_input_tokens,
        "replaced_by": info.replaced_by,
        "deprecated": retired,
        "quantization": info.quantization,
        "mmlu": None,
        "expected": None,
        "private": 0,
        "is_partner": False,
    }


def _native_pricing(info: ModelInfo) -> dict[str, Any]:
    """Prices in cents: one USD per million tokens is 0.0001 cents per token."""
    prices = info.pricing
    if prices.image is not None and prices.image.unit == "second":
        return {"type": "time", "cents_per_sec": float(prices.image.usd_per_unit * 100)}
    if prices.image is not None:
        return _image_pricing(prices.image)
    if info.kind in _SOUND_AND_VIDEO:
        return _unit_pricing(info)
    # guess: a running discount stands beside the list prices; which of the two the service shows is not known.
    discount = {} if info.promo is None else {"discount": float(info.promo.discount_pct / 100)}
    cents_in = float((prices.input_per_1m or Decimal(0)) / 10_000)
    if prices.output_per_1m is None or info.kind in {"embedding", "rerank"}:
        return {"type": "input_tokens", "cents_per_input_token": cents_in, **discount}
    return {
        "type": "tokens",
        "cents_per_input_token": cents_in,
        "cents_per_output_token": float(prices.output_per_1m / 10_000),
        "rate_per_input_token_cached": _rate(prices.cached_input_per_1m, prices.input_per_1m),
        "rate_per_input_token_cache_write": _rate(prices.cache_write_per_1m, prices.input_per_1m),
        **discount,
    }


def _rate(price: Decimal | None, of: Decimal | None) -> float | None:
    return float(price / of) if price is not None and of else None


# The unit of the catalogue, the type and the field of the list, and how many cents of the list are a USD of the catalogue.
_SOUND_AND_VIDEO: dict[str, tuple[str, str, str, Decimal]] = {
    "asr": ("minute", "input_length", "cents_per_input_sec", Decimal("0.6")),
    "tts": ("1m_characters", "input_character_length", "cents_per_input_chars", Decimal(10_000)),
    "video": ("output_second", "output_length", "cents_per_output_sec", Decimal("0.01")),
}


def _unit_pricing(info: ModelInfo) -> dict[str, Any]:
    unit, kind, field, factor = _SOUND_AND_VIDEO[info.kind]
    price = info.pricing.per_unit
    # A price that nobody has filled in is a zero on this list, which does not mean free.
    return {
        "type": kind,
        field: float(price.usd_per_unit / factor) if price is not None and price.unit == unit else 0.0,
    }


def _image_pricing(image: ImagePricing) -> dict[str, Any]:
    cents = image.usd_per_unit * 100
    one = image.cost()
    return {
        "type": "image_units",
        "cents_per_image_unit": float(cents),
        "default_width": image.default_width or 1024,
        "default_height": image.default_height or 1024,
        "default_iterations": image.default_steps or 1,
        "default_price_cents": float(cents if one is None else one * 100),
        "usage_from_cost": False,
    }


def _openrouter_row(info: ModelInfo) -> dict[str, Any]:
    features = (("tools", info.tools), ("json_mode", info.json), ("reasoning", info.reasoning))
    return {
        "id": info.id,
        "name": info.id.rpartition("/")[2],
        "input_modalities": list(info.input_modalities or ()),
        "output_modalities": list(info.output_modalities or ()),
        "quantization": info.quantization or "unknown",
        "context_length": info.context_length,
        "max_output_length": info.max_output_tokens or 16384,
        "pricing": {
            "prompt": _per_token(info.pricing.input_per_1m),
            "completion": _per_token(info.pricing.output_per_1m),
        },
        "supported_sampling_parameters": ["temperature", "top_p", "top_k", "seed", "stop", "max_tokens"],
        "supported_features": [name for name, has in features if has],
        "datacenters": [{"country_code": "US"}],
    }


def _per_token(price: Decimal | None) -> str:
    return format(((price or Decimal(0)) / 1_000_000).normalize(), "f")
