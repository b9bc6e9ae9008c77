"""Prices and limits of your own, from a TOML file, in place of those of the catalogue."""

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, cast

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.deepinfra.catalogue._plain_file import open_plain
from resilient_ai.deepinfra.catalogue.changes import TOKEN_PRICES
from resilient_ai.deepinfra.catalogue.models import KINDS, ImagePricing, ModelInfo, what_is_wrong_with

_COUNTS = ("context_length", "max_input_tokens", "max_output_tokens", "dimensions")
_ABILITIES = ("tools", "json", "vision", "reasoning", "prompt_caching")
_KEYS: Final = (*TOKEN_PRICES, "image", *_COUNTS, *_ABILITIES, "kind")
_IMAGE_KEYS: Final = tuple(field.name for field in fields(ImagePricing))
_LIMIT = 16 << 20  # bytes
_MOST = 1_000_000_000  # of tokens, dimensions, pixels or steps
_BITS = 256
_SHOWN = 60


@dataclass(frozen=True)
class Overrides:
    """What a price file says; see `load_overrides`.

    Args:
        name: The file, for messages.
        models: Fields of `ModelInfo` and of its `Pricing`, by id.
        as_of: Day on which its prices held, None where the file names none.
    """

    name: str
    models: Mapping[str, Mapping[str, Any]]
    as_of: date | None = None

    def over(self, by_id: Mapping[str, ModelInfo]) -> dict[str, ModelInfo]:
        """Return these records with what the file says in place of what they said, in the order of the ids.

        Raises:
            ConfigurationError: If a model is unknown and the file does not say what kind it is.
        """
        changed = {name: self._over(name, by_id.get(name), said) for name, said in self.models.items()}
        return dict(sorted({**by_id, **changed}.items()))

    def _over(self, id: str, known: ModelInfo | None, said: Mapping[str, Any]) -> ModelInfo:
        if known is None:
            if "kind" not in said:
                raise ConfigurationError(
                    f'{self.name}: models."{id}": the catalogue does not know this model; '
                    'add kind = "chat", or what else it is'
                )
            known = ModelInfo(id=id, org=id.partition("/")[0], kind=said["kind"], status="active")
        prices = {name: value for name, value in said.items() if name in TOKEN_PRICES or name == "image"}
        changes = {name: value for name, value in said.items() if name not in prices}
        if prices:
            when = None if self.as_of is None else self.as_of.isoformat()
            changes |= {"pricing": replace(known.pricing, **prices), "promo": None, "price_as_of": when}
        return replace(known, **changes)


def load_overrides(path: str | os.PathLike[str]) -> Overrides:
    """Read a price file.

    It is TOML: `as_of`, a date, if you like, and a table per model with the prices and limits that shall hold in place of those
    of the catalogue, packaged or fetched. What is not in it stays as the catalogue has it. Numbers are read as exact decimals.

        as_of = 2026-11-01

        [models."meta-llama/Llama-3.3-70B-Instruct-Turbo"]
        input_per_1m = 0.08
        output_per_1m = 0.25

        [models."me/my-painter"]
        kind = "image"
        image = { unit = "image", usd_per_unit = 0.03 }

    Args:
        path: The file.

    Raises:
        ConfigurationError: If it cannot be read, or a key or a value is wrong; the message names the file, the model and the key.
    """
    name = os.fspath(path)
    try:
        with open_plain(path) as file:
            text = file.read(_LIMIT + 1)
        if len(text) > _LIMIT:
            raise ConfigurationError(f"{name}: is longer than {_LIMIT} bytes")
        content = tomllib.loads(text.decode(), parse_float=_number)
    except OSError as error:
        raise ConfigurationError(f"{name}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: cannot be read as TOML: {error}") from error
    _known_keys(name, content, ("models", "as_of"))
    as_of, models = content.get("as_of"), content.get("models", {})
    if as_of is not None and type(as_of) is not date:
        raise ConfigurationError(f"{name}: as_of: must be a date such as 2026-11-01, got {_shown(as_of)}")
    if not isinstance(models, dict):
        raise ConfigurationError(f'{name}: models: must be tables such as [models."org/name"], got {_shown(models)}')
    tables = cast("dict[str, Any]", models)
    read = {model: _model(f'{name}: models."{model}"', table) for model, table in tables.items()}
    return Overrides(name, MappingProxyType(read), as_of)


def _number(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of which decimals know nothing is told of with its key, as no number
        return text


def _model(place: str, table: object) -> Mapping[str, Any]:
    if not isinstance(table, dict) or not table:
        got = _shown(table)  # pyright: ignore[reportUnknownArgumentType]  # a table is one of anything
        raise ConfigurationError(f"{place}: must be a table with keys such as input_per_1m, got {got}")
    table = cast("dict[str, Any]", table)
    _known_keys(place, table, _KEYS)
    return MappingProxyType({key: _value(f"{place}: {key}", key, value) for key, value in table.items()})


def _value(place: str, key: str, value: Any) -> Any:
    if key in TOKEN_PRICES:
        return _price(place, value)
    if key == "image":
        return _image(place, value)
    if key in _COUNTS:
        return _count(place, value)
    if key in _ABILITIES:
        if not isinstance(value, bool):
            raise ConfigurationError(f"{place}: must be true or false, got {_shown(value)}")
        return value
    if value not in KINDS:
        raise ConfigurationError(f"{place}: must be one of {', '.join(KINDS)}, got {_shown(value)}")
    return value


def _price(place: str, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ConfigurationError(f"{place}: must be a number of US dollars, got {_shown(value)}")
    if isinstance(value, int) and value.bit_length() > _BITS:  # which would take minutes to become a decimal
        raise ConfigurationError(f"{place}: must be a number of US dollars, got {_shown(value)}")
    price = Decimal(value)
    wrong = what_is_wrong_with(price)
    if wrong is not None:
        raise ConfigurationError(f"{place}: {wrong}")
    return price


def _count(place: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{place}: must be a whole number >= 1, got {_shown(value)}")
    if value > _MOST:
        raise ConfigurationError(f"{place}: must be a whole number of at most {_MOST}, got {_shown(value)}")
    return value


def _image(place: str, value: Any) -> ImagePricing:
    if not isinstance(value, dict) or "usd_per_unit" not in value:
        got = _shown(value)  # pyright: ignore[reportUnknownArgumentType]  # as above
        raise ConfigurationError(f'{place}: must be like {{ unit = "image", usd_per_unit = 0.03 }}, got {got}')
    table = cast("dict[str, Any]", value)
    _known_keys(place, table, _IMAGE_KEYS)
    counts = {key: _count(f"{place}: {key}", table[key]) for key in table if key not in {"unit", "usd_per_unit"}}
    price = _price(f"{place}: usd_per_unit", table["usd_per_unit"])
    try:
        return ImagePricing(unit=table.get("unit", "image"), usd_per_unit=price, **counts)
    except ValueError as error:
        raise ConfigurationError(f"{place}: {error}") from error


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        text = "a number that is too long to be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _known_keys(place: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in table:
        if key not in known:
            meant = get_close_matches(key, known, n=1)
            hint = f"did you mean {meant[0]!r}?" if meant else f"there are {', '.join(known)}"
            raise ConfigurationError(f"{place}: there is no key {key!r}; {hint}")
