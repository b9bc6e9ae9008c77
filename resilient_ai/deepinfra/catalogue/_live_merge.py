"""Puts what the provider's lists say over what is known, field by field; what they do not say is left as it is."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any, Final

from resilient_ai.deepinfra.catalogue._live_rows import Listed, ReadList
from resilient_ai.deepinfra.catalogue.changes import TOKEN_PRICES, Suspicion, prices_of
from resilient_ai.deepinfra.catalogue.models import ImagePricing, ModelInfo, ModelKind, Pricing, Promo, UnitPrice

# No price has ever moved so far, and a wrong unit (cents for dollars, tokens for millions of them) is farther off. A fall is
# bounded more tightly: a price that is too low lets a budget spend more than it allows, one that is too high only refuses.
_MOST_RISE = 50
_MOST_FALL = 10
# Two lists, or a list and a discount, mean the same price.
_SAME = Decimal("0.005")
_PLACES: Final[Mapping[ModelKind, tuple[str, ...]]] = {
    "image": ("image", "second"),
    "asr": ("minute",),
    "tts": ("1m_characters",),
    "video": ("output_second",),
}
_INPUT_ALONE = frozenset({"embedding", "rerank"})
_MOST_DOUBTS = 1_000
# A list on which more of the models are missing than are there is more likely to be cut short.
_MOST_GONE = 2


@dataclass(frozen=True, slots=True)
class Merged:
    """What is known now, and what was not believed."""

    by_id: dict[str, ModelInfo]
    doubts: tuple[Suspicion, ...]


def merge(
    known: Mapping[str, ModelInfo],
    packaged: Mapping[str, ModelInfo],
    openai: ReadList | None,
    native: ReadList | None,
    today: date,
) -> Merged:
    """Return what is known after the lists were read; None is a list that could not be.

    A price is compared with the packaged one too, as many steps that are small enough would lead anywhere. Rows of models
    whose kind has no place here, such as classifiers, are passed over. No record is ever dropped: a model that is no longer
    listed is presumed removed until it is listed again, unless the list lacks more models than it has.
    """
    lists = [read for read in (openai, native) if read is not None]
    doubts = [doubt for read in lists for doubt in read.doubts]
    by_id = dict(known)
    listed = set[str]().union(*(read.rows for read in lists))
    for name in sorted(listed):
        old = known.get(name) or _new(name, [read.rows[name] for read in lists if name in read.rows])
        if old is not None:
            about = _About(
                old,
                packaged.get(name),
                openai=None if openai is None else openai.rows.get(name),
                native=None if native is None else native.rows.get(name),
                today=today,
            )
            by_id[name] = about.merged()
            doubts += about.doubts
    if native is not None:
        doubts += _remove(by_id, listed)
    return Merged(dict(sorted(by_id.items())), tuple(doubts[:_MOST_DOUBTS]))


def _remove(by_id: dict[str, ModelInfo], listed: AbstractSet[str]) -> Iterator[Suspicion]:
    """Presume removed what is not listed, where the list, of which only the native one is complete, can be right."""
    there = [model for model in by_id.values() if model.status == "active"]
    gone = [model for model in there if model.id not in listed]
    if len(gone) * _MOST_GONE > len(there):
        value, reason = f"{len(gone)} of {len(there)}", "are missing on it, so that it cannot be whole"
        yield Suspicion(model="", field="models", value=value, reason=reason)
        return
    by_id.update({model.id: replace(model, status="presumed_removed") for model in gone})


def _new(name: str, rows: list[Listed]) -> ModelInfo | None:
    kind: ModelKind | None = next((row.kind for row in reversed(rows) if row.kind is not None), None)
    return None if kind is None else ModelInfo(id=name, org=name.partition("/")[0], kind=kind, status="active")


class _About:
    """One model: what is known of it, and what the lists say."""

    def __init__(
        self,
        old: ModelInfo,
        packaged: ModelInfo | None,
        *,
        openai: Listed | None,
        native: Listed | None,
        today: date,
    ) -> None:
        self._old = old
        self._openai = openai
        self._native = native
        self._today = today
        self._known = _listed_prices(old)
        self._packaged = {} if packaged is None else _listed_prices(packaged)
        self._promo: dict[str, Decimal] = {}
        self.doubts = [doubt for row in (openai, native) if row is not None for doubt in row.doubts]

    def merged(self) -> ModelInfo:
        changes = {**self._facts(), **self._standing()}
        prices = dict(self._prices())
        pricing, promo = self._pricing(prices), self._discounts()
        if prices and not self.doubts:
            changes |= {"price_as_of": self._today.isoformat(), "price_confidence": "high"}
        changes |= {"pricing": pricing, "promo": promo}
        changes = {name: value for name, value in changes.items() if value != getattr(self._old, name)}
        return replace(self._old, **changes) if changes else self._old

    def _facts(self) -> dict[str, Any]:
        facts = {**_facts_of(self._native), **_facts_of(self._openai)}
        context = _facts_of(self._openai).get("context")
        most = facts.pop("max_output_tokens", None)
        # The longest prompt of the native list may be something else, so it only fills a gap.
        listed = facts.pop("context", None)
        name = "max_input_tokens" if self._old.kind in _INPUT_ALONE else "context_length"
        tokens = context or getattr(self._old, name) or listed
        facts[name] = tokens
        # Most rows repeat the context here, which says nothing of how long an answer may be.
        if most is not None and name == "context_length" and most < (tokens or 0):
            facts["max_output_tokens"] = most
        return {field: value for field, value in facts.items() if value is not None}

    def _standing(self) -> dict[str, Any]:
        """Return whether the model is there, and until when; silence of one list alone revives nothing."""
        native, on = self._native, None if self._native is None else self._native.retires_on
        if on is not None:
            return {"deprecated_on": on, "status": "retired" if on <= self._today else "active"}
        if self._old.status in {"presumed_removed", "unknown"}:
            return {"status": "active"}
        if self._old.status == "retired" and native is not None and self._openai is not None and not self.doubts:
            return {"status": "active", "deprecated_on": None, "replaced_by": None}
        return {}

    def _prices(self) -> Iterator[tuple[str, Decimal]]:
        """Yield the list prices that can be believed."""
        first = {} if self._openai is None else self._openai.prices
        second = {} if self._native is None else self._native.prices
        for name in self._names():
            if name not in first and name not in second:
                continue
            price = self._agreed(name, first.get(name), second.get(name))
            if price is None:
                continue
            known = self._known.get(name)
            doubt = self._too_far(name, price)
            if doubt is not None:
                self._promo.pop(name, None)
                self._doubt(name, price, doubt)
            else:
                yield name, known if known is not None and price == known else price

    def _too_far(self, name: str, price: Decimal) -> str | None:
        """Return why a price is too far from what is known; None where it is not, or where nothing is known."""
        known, packaged = self._known.get(name), self._packaged.get(name)
        if not packaged:
            return _moved(price, known, "the price before")
        doubt = _moved(price, packaged, "the packaged price")
        if doubt is not None or not known or _moved(known, packaged, "") is not None:
            return doubt
        # The way back is always open, or one price that was wrong would keep out all that are right.
        return None if _ratio(price, packaged) <= _ratio(known, packaged) else _moved(price, known, "the price before")

    def _names(self) -> tuple[str, ...]:
        """Return the prices that a model of this kind has; where it is paid by another unit, the lists say nothing of it."""
        kind = self._old.kind
        if kind not in _PLACES:
            return ("input_per_1m",) if kind in _INPUT_ALONE else TOKEN_PRICES
        units = set(self._known)
        return tuple(name for name in _PLACES[kind] if not units or name in units)

    def _agreed(self, name: str, openai: Decimal | None, native: Decimal | None) -> Decimal | None:
        """Return the list price that both lists mean, before a discount; None where they contradict each other."""
        discount = None if self._native is None else self._native.discount
        if openai is None or native is None or _same(openai, native):
            price = openai if openai is not None else native
        elif discount is not None and _same(min(openai, native), max(openai, native) * (1 - discount)):
            self._promo[name] = min(openai, native)
            return max(openai, native)
        else:
            self._doubt(name, openai, f"the other list says {native.normalize():f}")
            return None
        return price if price is None else self._before_discount(name, price, discount)

    def _before_discount(self, name: str, price: Decimal, discount: Decimal | None) -> Decimal:
        """Return the list price; which of two prices a list shows while a discount runs is known only from the price before."""
        known = self._known.get(name)
        if known is not None and discount is not None:
            reduced = known * (1 - discount)
            if _same(price, reduced) or _same(price, known):
                self._promo[name] = price if _same(price, reduced) else reduced
                return known
        if known is not None and self._native is None and self._old.promo is not None:
            # The list that tells of discounts was not read, so this may be the reduced price still.
            running = getattr(self._old.promo, name, None)
            return known if running is not None and _same(price, running) else price
        return price

    def _pricing(self, prices: dict[str, Decimal]) -> Pricing:
        pricing = self._old.pricing
        changes: dict[str, Any] = {}
        for name, price in prices.items():
            if name in TOKEN_PRICES:
                changes[name] = price
            elif name in {"image", "second"}:
                changes["image"] = self._image(name, price)
            else:
                changes["per_unit"] = UnitPrice(unit=name, usd_per_unit=price)
        return replace(pricing, **changes)

    def _image(self, name: str, price: Decimal) -> ImagePricing:
        known = self._old.pricing.image
        if known is not None:
            return replace(known, usd_per_unit=price)
        if name == "second":
            return ImagePricing(unit="second", usd_per_unit=price)
        return _new_image(price, {} if self._native is None else self._native.image)

    def _discounts(self) -> Promo | None:
        if self._native is None:
            return self._old.promo
        discount = self._native.discount
        if discount is None or not self._promo:
            # A row whose prices could not be believed says nothing of its discount either.
            return self._old.promo if self.doubts else None
        return Promo(
            discount_pct=discount * 100,
            as_of=self._today,
            **{name: price for name, price in self._promo.items() if name in _PROMO_PRICES},
        )

    def _doubt(self, name: str, price: Decimal, reason: str) -> None:
        self.doubts.append(Suspicion(model=self._old.id, field=name, value=f"{price.normalize():f}", reason=reason))


_PROMO_PRICES = frozenset({"input_per_1m", "output_per_1m", "cached_input_per_1m"})


def _listed_prices(model: ModelInfo) -> dict[str, Decimal]:
    prices = prices_of(model)
    if "image_unit" in prices:  # which the lists name as they name a price per picture
        prices["image"] = prices["image_unit"]
    return prices


def _moved(price: Decimal, known: Decimal | None, which: str) -> str | None:
    """Return how a price is too far from a known one, as part of a sentence; None where it is not."""
    if not known or known / _MOST_FALL <= price <= known * _MOST_RISE:
        return None
    how = f"more than {_MOST_RISE} times away from" if price > known else f"less than 1/{_MOST_FALL} of"
    return f"is {how} {known.normalize():f}, {which}"


def _ratio(one: Decimal, other: Decimal) -> Decimal:
    return max(one / other, other / one)


def _facts_of(row: Listed | None) -> dict[str, Any]:
    return {} if row is None else row.facts


def _same(one: Decimal, other: Decimal) -> bool:
    return abs(one - other) <= _SAME * max(one, other)


def _new_image(price: Decimal, listed: Mapping[str, Decimal]) -> ImagePricing:
    """Return the price of a model that was not known; its formula only where the price of one picture confirms it."""
    width, height = listed.get("default_width"), listed.get("default_height")
    steps, cents = listed.get("default_iterations", Decimal(1)), listed.get("default_price_cents")
    if width is None or height is None or cents is None:
        return ImagePricing(unit="provider_unit", usd_per_unit=price)
    one, area = cents / 100, width * height / (1024 * 1024)
    sizes = {"default_width": int(width), "default_height": int(height), "default_steps": int(steps)}
    if _same(one, price * area):
        base = int(steps) if steps > 1 else None
        return ImagePricing(unit="image_unit", usd_per_unit=price, base_steps=base, **sizes)
    if _same(one, price * area * steps):
        return ImagePricing(unit="image_unit", usd_per_unit=price, base_steps=1, **sizes)
    flat = _same(one, price)
    return ImagePricing(unit="image" if flat else "provider_unit", usd_per_unit=price, **sizes)
