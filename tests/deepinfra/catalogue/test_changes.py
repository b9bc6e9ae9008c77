from dataclasses import replace
from datetime import date
from decimal import Decimal

from resilient_ai.deepinfra.catalogue import (
    Catalogue,
    CatalogueChanges,
    FactChange,
    ImagePricing,
    ModelInfo,
    PriceChange,
    Pricing,
    Promo,
    Suspicion,
    UnitPrice,
    diff,
)

LLAMA = ModelInfo(
    id="meta/llama",
    org="meta",
    kind="chat",
    status="active",
    context_length=1000,
    pricing=Pricing(input_per_1m=Decimal("0.1"), output_per_1m=Decimal("0.32")),
    price_as_of="2026-01-01",
)


def test_a_catalogue_is_no_different_from_itself():
    """Nothing is reported of what is the same, and the answer is false."""
    changes = diff(Catalogue(), Catalogue())

    assert not changes
    assert changes == CatalogueChanges()
    assert str(changes) == "nothing has changed"


def test_every_price_is_compared_by_itself():
    """A price that moved or became known is told with both figures; the day it was seen is none."""
    priced = replace(
        LLAMA.pricing,
        input_per_1m=Decimal("0.12"),
        cached_input_per_1m=Decimal("0.05"),
        cache_write_per_1m=Decimal("0.15"),
    )

    changes = diff([LLAMA], [replace(LLAMA, pricing=priced, price_as_of="2026-02-02")])

    assert changes.prices == (
        PriceChange(model="meta/llama", field="input_per_1m", old=Decimal("0.1"), new=Decimal("0.12")),
        PriceChange(model="meta/llama", field="cached_input_per_1m", old=None, new=Decimal("0.05")),
        PriceChange(model="meta/llama", field="cache_write_per_1m", old=None, new=Decimal("0.15")),
    )
    assert changes.facts == ()
    assert not diff([LLAMA], [replace(LLAMA, price_as_of="2026-02-02", price_confidence="high")])


def test_other_units_are_named():
    """What is paid by the picture or the minute is compared by that name."""
    image = ImagePricing(unit="image", usd_per_unit=Decimal("0.04"))
    minute = UnitPrice(unit="minute", usd_per_unit=Decimal("0.01"))
    old = replace(LLAMA, pricing=Pricing(image=image, per_unit=minute))
    dearer = Pricing(
        image=replace(image, usd_per_unit=Decimal("0.05")), per_unit=replace(minute, usd_per_unit=Decimal("0.02"))
    )

    changes = diff([old], [replace(old, pricing=dearer)])

    assert [(change.field, change.old, change.new) for change in changes.prices] == [
        ("image", Decimal("0.04"), Decimal("0.05")),
        ("minute", Decimal("0.01"), Decimal("0.02")),
    ]


def test_what_came_and_went_is_told_by_id():
    """Ids on one side alone are added or removed, and a model that was withdrawn is retired, with what else changed."""
    mine, gone = replace(LLAMA, id="me/new"), replace(LLAMA, id="a/gone")
    withdrawn = replace(LLAMA, status="retired", deprecated_on=date(2026, 3, 1), replaced_by="me/new")

    changes = diff([LLAMA, gone], [withdrawn, mine])

    assert (changes.added, changes.removed, changes.retired) == (("me/new",), ("a/gone",), ("meta/llama",))
    assert [(change.field, change.new) for change in changes.facts] == [
        ("deprecated_on", date(2026, 3, 1)),
        ("replaced_by", "me/new"),
    ]


def test_a_discount_is_told_by_its_size():
    """The day it was seen is no change of it."""
    promo = Promo(discount_pct=Decimal(25), as_of=date(2026, 1, 1), input_per_1m=Decimal("0.075"))
    reduced = replace(LLAMA, promo=promo)

    assert diff([LLAMA], [reduced]).facts == (
        FactChange(model="meta/llama", field="discount_pct", old=None, new=Decimal(25)),
    )
    assert not diff([reduced], [replace(reduced, promo=replace(promo, as_of=date(2026, 2, 2)))])


def test_changes_are_shown_in_lines():
    """One line for each, by kind."""
    changes = CatalogueChanges(
        added=("me/new",),
        removed=("a/gone",),
        retired=("a/old",),
        prices=(
            PriceChange(model="m/x", field="input_per_1m", old=Decimal("0.10"), new=Decimal("0.12")),
            PriceChange(model="m/x", field="output_per_1m", old=None, new=Decimal(10)),
            PriceChange(model="m/x", field="image", old=Decimal("0.1"), new=None),
        ),
        facts=(
            FactChange(model="m/x", field="context_length", old=None, new=8192),
            FactChange(model="m/x", field="discount_pct", old=Decimal("25.0"), new=None),
        ),
        suspicious=(Suspicion(model="", field="id", value="7", reason="is no id of a model"),),
        failed=("/models/list: ConnectionFailed: refused",),
    )

    assert str(changes).splitlines() == [
        "new            me/new",
        "price          m/x: input_per_1m 0.1 -> 0.12 (+20%)",
        "price          m/x: output_per_1m unknown -> 10",
        "price          m/x: image 0.1 -> unknown",
        "fact           m/x: context_length unknown -> 8192",
        "fact           m/x: discount_pct 25 -> unknown",
        "retired        a/old",
        "not listed     a/gone",
        "not believed   (the list): id 7: is no id of a model",
        "not read       /models/list: ConnectionFailed: refused",
    ]
    assert changes
