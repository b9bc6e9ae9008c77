"""What is different between two states of the catalogue."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Final

from typing_extensions import override

from resilient_ai.deepinfra.catalogue.models import ModelInfo, ModelStatus, Pricing

TOKEN_PRICES: Final = tuple(field.name for field in fields(Pricing) if field.name.endswith("_per_1m"))
# Prices are compared one by one, and how old or sure they are is no change of them.
_NO_FACTS = frozenset({"id", "org", "pricing", "price_as_of", "price_confidence", "promo"})
_FACTS: Final = tuple(field.name for field in fields(ModelInfo) if field.name not in _NO_FACTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceChange:
    """A list price that is another one now.

    Args:
        model: Id.
        field: `input_per_1m`, `output_per_1m`, `cached_input_per_1m` or `cache_write_per_1m`; or the unit that is paid for, such
            as `image` or `minute`.
        old: USD before, None where it was unknown.
        new: USD now, None where it is unknown.
    """

    model: str
    field: str
    old: Decimal | None
    new: Decimal | None

    @override
    def __str__(self) -> str:
        return f"{self.model}: {self.field} {_usd(self.old)} -> {_usd(self.new)}{self._percent()}"

    def _percent(self) -> str:
        return f" ({(self.new - self.old) / self.old:+.0%})" if self.old and self.new is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactChange:
    """Something else that is known of a model and has changed.

    Args:
        model: Id.
        field: The field of `ModelInfo`; `discount_pct` for the per cent of a discount.
        old: Before, None where it was unknown.
        new: Now.
    """

    model: str
    field: str
    old: object
    new: object

    @override
    def __str__(self) -> str:
        return f"{self.model}: {self.field} {_said(self.old)} -> {_said(self.new)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """Something that the provider's list says and that was not believed; what was known before still holds.

    Args:
        model: Id; empty where it is the id, or the list as a whole, that was not believed.
        field: What it was about.
        value: What the list says, shortened.
        reason: Why it was not believed.
    """

    model: str
    field: str
    value: str
    reason: str

    @override
    def __str__(self) -> str:
        return f"{self.model or '(the list)'}: {self.field} {self.value}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueChanges:
    """What is different between two states of the catalogue; false where nothing is.

    Args:
        added: Ids that were unknown before.
        removed: Ids that are no longer listed. A refresh keeps what is known of them, as `presumed_removed`.
        retired: Ids of models that were withdrawn, with a date.
        prices: List prices that have moved, or become known.
        facts: Other facts that have changed, such as context lengths and discounts.
        suspicious: What a refresh has read and not believed; it stays there until the lists say something else.
        failed: Lists that a refresh could not read, with the reason.

    >>> print(CatalogueChanges(added=("me/my-llama",)))
    new            me/my-llama
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    prices: tuple[PriceChange, ...] = ()
    facts: tuple[FactChange, ...] = ()
    suspicious: tuple[Suspicion, ...] = ()
    failed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.retired or self.prices or self.facts)

    @override
    def __str__(self) -> str:
        return "\n".join(self._lines()) or "nothing has changed"

    def _lines(self) -> Iterator[str]:
        for name, things in (
            ("new", self.added),
            ("price", self.prices),
            ("fact", self.facts),
            ("retired", self.retired),
            ("not listed", self.removed),
            ("not believed", self.suspicious),
            ("not read", self.failed),
        ):
            yield from (f"{name:<14} {thing}" for thing in things)


def diff(old: Iterable[ModelInfo], new: Iterable[ModelInfo]) -> CatalogueChanges:
    """Compare two catalogues, or any other two collections of records, in the order of the ids.

    >>> from resilient_ai.deepinfra.catalogue import Catalogue, ModelInfo
    >>> mine = ModelInfo(id="me/my-llama", org="me", kind="chat", status="active")
    >>> diff(Catalogue(), Catalogue().with_models(mine)).added
    ('me/my-llama',)
    """
    before, now = {model.id: model for model in old}, {model.id: model for model in new}
    # Most records are the same objects, as a refresh replaces only what it has something to say of.
    both = [(before[name], now[name]) for name in sorted(before.keys() & now.keys()) if before[name] is not now[name]]
    return CatalogueChanges(
        added=tuple(sorted(now.keys() - before.keys())),
        removed=tuple(sorted([*(before.keys() - now.keys()), *_turned(both, "presumed_removed")])),
        retired=_turned(both, "retired"),
        prices=tuple(change for then, model in both for change in _prices(then, model)),
        facts=tuple(change for then, model in both for change in _facts(then, model)),
    )


def _turned(both: Iterable[tuple[ModelInfo, ModelInfo]], status: ModelStatus) -> tuple[str, ...]:
    """Return the ids of models that could be asked before, and have this status now."""
    return tuple(model.id for then, model in both if model.status == status and not then.retired)


def prices_of(model: ModelInfo) -> dict[str, Decimal]:
    """Return the known list prices of a model in USD, by the names that changes have."""
    pricing = model.pricing
    named = {name: getattr(pricing, name) for name in TOKEN_PRICES}
    for unit in (pricing.image, pricing.per_unit):
        if unit is not None:
            named[unit.unit] = unit.usd_per_unit
    return {name: price for name, price in named.items() if price is not None}


def _prices(old: ModelInfo, new: ModelInfo) -> Iterator[PriceChange]:
    before, now = prices_of(old), prices_of(new)
    for name in dict.fromkeys((*before, *now)):
        if before.get(name) != now.get(name):
            yield PriceChange(model=new.id, field=name, old=before.get(name), new=now.get(name))


def _facts(old: ModelInfo, new: ModelInfo) -> Iterator[FactChange]:
    retires = new.retired and not old.retired  # which is told apart
    pairs = [(name, getattr(old, name), getattr(new, name)) for name in _FACTS if not (retires and name == "status")]
    pairs.append(
        (
            "discount_pct",
            None if old.promo is None else old.promo.discount_pct,
            None if new.promo is None else new.promo.discount_pct,
        )
    )
    for name, then, now in pairs:
        if then != now:
            yield FactChange(model=new.id, field=name, old=then, new=now)


def _usd(price: Decimal | None) -> str:
    return "unknown" if price is None else f"{price.normalize():f}"


def _said(value: object) -> str:
    return "unknown" if value is None else f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)
