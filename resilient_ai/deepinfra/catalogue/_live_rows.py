"""Reads the provider's two lists of models, row by row, and believes nothing that cannot be right.

    GET /v1/openai/models    {"data": [{"id", "metadata"}]}, metadata may be null; US dollars per million tokens
    GET /models/list         a bare array; US cents per single token, second, character or image unit

A price of zero says nothing on either list: that is how a price which nobody has filled in looks.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from types import MappingProxyType
from typing import Any, Final, cast

import orjson

from resilient_ai.core.errors import InvalidResponse
from resilient_ai.deepinfra.catalogue.changes import Suspicion
from resilient_ai.deepinfra.catalogue.models import ModelKind

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,99}/[A-Za-z0-9][A-Za-z0-9._+~-]{0,149}")
_QUANTIZATION = re.compile(r"[A-Za-z0-9_.-]{1,24}")
_MOST_ROWS = 10_000
_MOST_TOKENS = 1_000_000_000
_EARLIEST, _LATEST = 1_577_836_800, 4_102_444_800  # 2020 and 2100
_SHOWN = 60

# Floats of the wire carry the noise of the sums that made them; no price has twelve digits.
_ROUNDED = Context(prec=12)

_TYPES: Final[Mapping[str, ModelKind]] = MappingProxyType(
    {
        "text-generation": "chat",
        "embeddings": "embedding",
        "text-to-image": "image",
        "reranker": "rerank",
        "automatic-speech-recognition": "asr",
        "text-to-speech": "tts",
        "text-to-video": "video",
    }
)
_TAGS: Final[Mapping[str, ModelKind]] = MappingProxyType(
    {"chat": "chat", "embed": "embedding", "image-gen": "image", "video-gen": "video", "tts": "tts", "stt": "asr"}
)
_ABILITIES: Final = MappingProxyType(
    {"vision": "vision", "vlm": "vision", "reasoning": "reasoning", "prompt_cache": "prompt_caching"}
)

# What stands in a list, the name of the price it is, and what to multiply it by to have that price in US dollars.
_OPENAI_PRICES: Final[Mapping[str, tuple[str, int | Decimal]]] = MappingProxyType(
    {
        "input_tokens": ("input_per_1m", 1),
        "output_tokens": ("output_per_1m", 1),
        "cache_read_tokens": ("cached_input_per_1m", 1),
        "per_image_unit": ("image", 1),
        "input_seconds": ("minute", 60),
        "input_characters": ("1m_characters", 1),
        "output_seconds": ("output_second", 1),
    }
)
_NATIVE_PRICES: Final[Mapping[str, tuple[str, int | Decimal]]] = MappingProxyType(
    {
        "cents_per_input_token": ("input_per_1m", 10_000),
        "cents_per_output_token": ("output_per_1m", 10_000),
        "cents_per_image_unit": ("image", Decimal("0.01")),
        "cents_per_sec": ("second", Decimal("0.01")),
        "cents_per_input_sec": ("minute", Decimal("0.6")),
        "cents_per_input_chars": ("1m_characters", 10_000),
        "cents_per_output_sec": ("output_second", Decimal("0.01")),
    }
)
_RATES: Final = MappingProxyType(
    {
        "rate_per_input_token_cached": "cached_input_per_1m",
        "rate_per_input_token_cache_write": "cache_write_per_1m",
    }
)

# Where a price can be right, in US dollars; outside of it the unit is another one than it should be.
_TOKENS = (Decimal("0.0001"), Decimal(10_000))
_UNITS = (Decimal("0.000001"), Decimal(1_000))
_RANGES = MappingProxyType({"1m_characters": _TOKENS})


@dataclass(slots=True)
class Listed:
    """What one list says of one model, as far as it can be right by itself."""

    id: str
    kind: ModelKind | None = None
    prices: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    image: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    discount: Decimal | None = None
    retires_on: date | None = None
    doubts: list[Suspicion] = field(default_factory=list[Suspicion])

    def doubt(self, name: str, value: object, reason: str) -> None:
        """Note that something was not believed."""
        self.doubts.append(Suspicion(model=self.id, field=name, value=shown(value), reason=reason))


@dataclass(frozen=True, slots=True)
class ReadList:
    """The rows of a list by id, and what was not believed about rows without a usable id."""

    rows: dict[str, Listed]
    doubts: tuple[Suspicion, ...]


def read_openai(body: bytes) -> ReadList:
    """Read `/v1/openai/models`; raises InvalidResponse if it is no such list."""
    content = _json(body)
    rows = cast("dict[str, Any]", content).get("data") if isinstance(content, dict) else None
    return _read(rows, "id", _openai_row)


def read_native(body: bytes) -> ReadList:
    """Read `/models/list`; raises InvalidResponse if it is no such list."""
    return _read(_json(body), "model_name", _native_row)


def shown(value: object) -> str:
    """Return a value of a list in few plain characters."""
    if isinstance(value, list | dict):  # which may be as long as the whole list
        return "[...]" if isinstance(value, list) else "{...}"
    text = ascii(value[:_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _json(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        error.doc = ""  # it would keep the whole list
        raise InvalidResponse("the list of models is not JSON") from error


def _read(rows: object, key: str, read_row: Callable[[Listed, dict[str, Any]], None]) -> ReadList:
    if not isinstance(rows, list) or not rows:
        raise InvalidResponse("the list of models has no rows")
    rows = cast("list[object]", rows)
    if len(rows) > _MOST_ROWS:
        raise InvalidResponse(f"the list of models has {len(rows)} rows, and more than {_MOST_ROWS} cannot be right")
    found: dict[str, Listed] = {}
    doubts: list[Suspicion] = []
    for one in rows:
        row = cast("dict[str, Any]", one) if isinstance(one, dict) else {}
        name = row.get(key)
        if not isinstance(name, str) or not _ID.fullmatch(name):
            doubts.append(Suspicion(model="", field=key, value=shown(name), reason="is no id of a model"))
        elif name in found:
            found[name].doubt(key, name, "is listed twice; the first one counts")
        else:
            found[name] = Listed(name)
            read_row(found[name], row)
    if not found:
        raise InvalidResponse("the list of models names no model")
    return ReadList(found, tuple(doubts))


def _openai_row(listed: Listed, row: dict[str, Any]) -> None:
    metadata = _mapping(listed, row, "metadata")
    _tags(listed, metadata)
    _tokens(listed, "context", metadata.get("context_length"))
    _tokens(listed, "max_output_tokens", metadata.get("max_tokens"))
    _prices(listed, _mapping(listed, metadata, "pricing"), _OPENAI_PRICES)


def _native_row(listed: Listed, row: dict[str, Any]) -> None:
    kind = row.get("type")
    listed.kind = _TYPES.get(kind) if isinstance(kind, str) else None
    _tags(listed, row)
    _tokens(listed, "context", row.get("max_tokens"))
    _retirement(listed, row)
    quantization = row.get("quantization")
    if isinstance(quantization, str) and _QUANTIZATION.fullmatch(quantization):
        listed.facts["quantization"] = quantization
    pricing = _mapping(listed, row, "pricing")
    _prices(listed, pricing, _NATIVE_PRICES)
    _rates(listed, pricing)
    discount = _number(listed, "discount", pricing.get("discount"))
    if discount is not None and 0 < discount < 1:
        listed.discount = discount
    for name in ("default_width", "default_height", "default_iterations", "default_price_cents"):
        if (number := _number(listed, name, pricing.get(name))) is not None:
            listed.image[name] = number


def _retirement(listed: Listed, row: dict[str, Any]) -> None:
    moment, by = row.get("deprecated"), row.get("replaced_by")
    if isinstance(moment, int | float) and not isinstance(moment, bool) and _EARLIEST <= moment < _LATEST:
        listed.retires_on = datetime.fromtimestamp(moment, UTC).date()
    elif moment:
        listed.doubt("deprecated", moment, "is no moment of these years")
    if isinstance(by, str) and by != listed.id and _ID.fullmatch(by):
        listed.facts["replaced_by"] = by
    elif by:
        listed.doubt("replaced_by", by, "is no other model")


def _tags(listed: Listed, row: dict[str, Any]) -> None:
    given = row.get("tags")
    tags = [tag for tag in cast("list[object]", given) if isinstance(tag, str)] if isinstance(given, list) else []
    listed.kind = listed.kind or next((_TAGS[tag] for tag in tags if tag in _TAGS), None)
    listed.facts |= {_ABILITIES[tag]: True for tag in tags if tag in _ABILITIES}


def _tokens(listed: Listed, name: str, value: object) -> None:
    number = _number(listed, name, value)
    if number is None:
        return
    if number != int(number) or number > _MOST_TOKENS:
        listed.doubt(name, value, "is no number of tokens")
    else:
        listed.facts[name] = int(number)


def _prices(listed: Listed, pricing: dict[str, Any], known: Mapping[str, tuple[str, int | Decimal]]) -> None:
    for key, (name, factor) in known.items():
        number = _number(listed, key, pricing.get(key))
        if number is not None:
            _believe(listed, name, number * factor, pricing[key])


def _rates(listed: Listed, pricing: dict[str, Any]) -> None:
    """Read prices that stand as parts of the input price."""
    base = listed.prices.get("input_per_1m")
    for key, name in _RATES.items():
        rate = _number(listed, key, pricing.get(key))
        if rate is not None and base is not None:
            _believe(listed, name, rate * base, pricing[key])


def _believe(listed: Listed, name: str, usd: Decimal, value: object) -> None:
    least, most = _RANGES.get(name, _TOKENS if name.endswith("_per_1m") else _UNITS)
    if least <= usd <= most:
        listed.prices[name] = _plain(usd)
    else:
        listed.doubt(name, value, f"would be {float(usd):g} USD, which cannot be right")


def _number(listed: Listed, name: str, value: object) -> Decimal | None:
    """Return a number above zero; None where there is none, or none that can be right."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        listed.doubt(name, value, "is no number")
        return None
    if value < 0:
        listed.doubt(name, value, "is negative")
        return None
    return Decimal(repr(value)) if value else None  # through repr, which is what stood in the list


def _plain(price: Decimal) -> Decimal:
    return Decimal(f"{_ROUNDED.plus(price).normalize():f}")


def _mapping(listed: Listed, row: dict[str, Any], name: str) -> dict[str, Any]:
    value = row.get(name)
    if value is not None and not isinstance(value, dict):
        listed.doubt(name, value, "is no object")
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
