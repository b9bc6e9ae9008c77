"""The catalogue finds models by id, ability and price, and reads its data no earlier than it must."""

import subprocess
import sys
from datetime import date
from decimal import Decimal

import pytest

from resilient_ai.deepinfra.catalogue import Catalogue, ImagePricing, ModelInfo, Pricing, UnitPrice, catalogue

TURBO = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
TODAY = date(2026, 1, 31)


def model(id, **fields):
    return ModelInfo(**{"id": id, "org": id.partition("/")[0], "kind": "chat", "status": "active"} | fields)


def retired(id, replaced_by):
    return model(id, status="retired", replaced_by=replaced_by)


def priced(id, input_price, output_price=None):
    output = None if output_price is None else Decimal(output_price)
    return model(id, pricing=Pricing(input_per_1m=Decimal(input_price), output_per_1m=output))


def ids(models):
    return [found.id for found in models]


def test_importing_reads_no_file():
    """The data is opened by the first question and by no later one."""
    program = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
from resilient_ai.deepinfra.catalogue import PriceTable, catalogue
table = PriceTable(catalogue)
repr(table)
assert not [path for path in opened if str(path).endswith("models.json")], opened
len(catalogue), catalogue.models, catalogue.get("a/b"), table.embedding_cost("a/b", input_tokens=1)
assert len([path for path in opened if str(path).endswith("models.json")]) == 1, opened
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_the_packaged_data_is_a_sequence_of_records():
    """Length, iteration, membership and date agree with the records."""
    assert len(catalogue) == len(catalogue.models) == len(list(catalogue)) == 367
    assert TURBO in catalogue
    assert catalogue.as_of == date(2026, 9, 23)
    assert ids(catalogue.models) == sorted(ids(catalogue.models))


def test_get_returns_the_whole_record():
    """A record carries what is known of its model."""
    found = catalogue.get(TURBO)

    assert (found.id, found.org, found.kind, found.family) == (TURBO, "meta-llama", "chat", "llama-3.3")
    assert (found.status, found.context_length, found.quantization) == ("active", 131072, "fp8")
    assert (found.tools, found.json, found.vision, found.prompt_caching) == (True, True, False, False)
    assert (found.pricing.input_per_1m, found.pricing.output_per_1m) == (Decimal("0.1"), Decimal("0.32"))
    assert (found.price_as_of, found.price_confidence) == ("2026-09-11", "high")


def test_a_pinned_version_has_the_record_of_its_name():
    """`NAME:VERSION` is the model NAME."""
    assert catalogue.get(f"{TURBO}:0a1b2c3d") is catalogue.get(TURBO)
    assert f"{TURBO}:0a1b2c3d" in catalogue


@pytest.mark.parametrize(
    "unknown",
    [
        "nobody/nothing",
        "nobody/nothing:1",
        "",
        ":",
        f"{TURBO}:",
        TURBO.lower(),
        TURBO.upper(),
        f" {TURBO}",
        "deploy_id:abc123",
        f"deploy_id:{TURBO}",
        f"{TURBO}:1:2",
    ],
)
def test_other_names_are_unknown(unknown):
    """Case matters, a version cannot be empty, and private deployments are not in the catalogue."""
    assert catalogue.get(unknown) is None
    assert unknown not in catalogue
    assert catalogue.replacement(unknown) is None


def test_what_is_not_text_is_not_in_the_catalogue():
    """Membership answers no to anything but an id."""
    assert 7 not in catalogue
    assert None not in catalogue


def test_find_without_conditions_gives_every_active_model():
    """By default only active models are found; None lifts that."""
    assert len(catalogue.find()) == 207
    assert len(catalogue.find(status=None)) == 367
    assert len(catalogue.find("chat")) == len(catalogue.find(kind="chat")) == 108
    assert len(catalogue.find("chat", status="retired")) == 108
    assert len(catalogue.find("chat", status="presumed_removed")) == 16


@pytest.mark.parametrize("ability", ["tools", "vision", "json", "reasoning", "code", "prompt_caching"])
def test_an_unknown_ability_meets_no_condition(ability):
    """True finds those that can, False those that cannot, and neither those of which nothing is known."""
    some = Catalogue([model("a/yes", **{ability: True}), model("a/no", **{ability: False}), model("a/x")], as_of=TODAY)

    assert ids(some.find(**{ability: True})) == ["a/yes"]
    assert ids(some.find(**{ability: False})) == ["a/no"]
    assert len(some.find()) == 3


@pytest.mark.parametrize("price", ["input", "output"])
@pytest.mark.parametrize("limit", [Decimal("0.3"), 0.3])
def test_a_limit_on_the_price_is_included(price, limit):
    """A model at exactly the limit is found, also when the limit is a float; one without a price is not."""
    some = Catalogue(
        [priced("a/1", "0.1", "0.1"), priced("a/3", "0.3", "0.3"), priced("a/4", "0.31", "0.31"), model("a/x")],
        as_of=TODAY,
    )

    assert ids(some.find(**{f"max_{price}_price": limit})) == ["a/1", "a/3"]
    assert ids(some.find(**{f"max_{price}_price": 0})) == []


def test_a_minimal_context_is_included_and_counts_inputs_of_embeddings():
    """The context length is compared, or the longest input where there is no context."""
    some = Catalogue(
        [
            model("a/long", context_length=8192),
            model("a/short", context_length=8191),
            model("a/embed", kind="embedding", max_input_tokens=8192),
            model("a/x"),
        ],
        as_of=TODAY,
    )

    assert ids(some.find(min_context=8192)) == ["a/embed", "a/long"]


def test_names_are_found_in_any_case():
    """Org, family and part of the id may be written in any case."""
    some = Catalogue([model("Acme/Rocket-7B", family="rocket-7"), model("acme-2/plain")], as_of=TODAY)

    assert ids(some.find(org="ACME")) == ["Acme/Rocket-7B"]
    assert ids(some.find(family="Rocket-7")) == ["Acme/Rocket-7B"]
    assert ids(some.find(text="rocket")) == ["Acme/Rocket-7B"]
    assert ids(some.find(text="acme")) == ["Acme/Rocket-7B", "acme-2/plain"]
    assert ids(some.find(org="rocket")) == []


def test_conditions_add_up():
    """Each further condition leaves fewer models."""
    found = catalogue.find("embedding", dimensions=1024, max_input_price=0.01, min_context=8000, org="baai")

    assert "BAAI/bge-m3" in ids(found)
    assert all(one.dimensions == 1024 and one.max_input_tokens >= 8000 for one in found)
    assert catalogue.find("image", dimensions=1024) == ()


def test_the_cheapest_comes_first():
    """Models are in the order of their price, then of their id, and those without a price come last."""
    some = Catalogue(
        [
            model("a/unpriced"),
            priced("a/cheap-in", "0.1", "5"),
            priced("a/b", "1", "1"),
            priced("a/a", "1", "1"),
            priced("a/input-only", "2.5"),
            model("a/free", pricing=Pricing(input_per_1m=Decimal(0), output_per_1m=Decimal(0))),
        ],
        as_of=TODAY,
    )

    assert ids(some.find()) == ["a/free", "a/a", "a/b", "a/input-only", "a/cheap-in", "a/unpriced"]


def test_images_and_speech_are_in_the_order_of_their_price():
    """One image with the model's defaults, or one unit, is what is compared."""

    def image(id, usd, unit="image", **options):
        return model(id, pricing=Pricing(image=ImagePricing(unit=unit, usd_per_unit=Decimal(usd), **options)))

    some = Catalogue(
        [
            image("a/per-token", "0.0001", "image_token"),
            image("a/flat", "0.04"),
            image(
                "a/large", "0.01", "image_unit", default_width=4096, default_height=1024, default_steps=2, base_steps=1
            ),
            model("a/speech", pricing=Pricing(per_unit=UnitPrice(unit="minute", usd_per_unit=Decimal("0.05")))),
        ],
        as_of=TODAY,
    )

    assert ids(some.find()) == ["a/flat", "a/speech", "a/large", "a/per-token"]


def test_a_misspelt_kind_or_status_is_an_error():
    """A condition that can never hold is refused with the values that can."""
    with pytest.raises(ValueError, match=r"kind must be one of 'chat', .* 'video', got 'chats'"):
        catalogue.find(kind="chats")
    with pytest.raises(ValueError, match=r"status must be one of 'active', .* got 'Active'"):
        catalogue.find(status="Active")


def test_a_replacement_is_followed_to_an_active_model():
    """A model replaced by a retired one leads to whatever is active at the end."""
    some = Catalogue([retired("a/1", "a/2"), retired("a/2", "a/3"), model("a/3")], as_of=TODAY)

    assert some.replacement("a/1") == some.replacement("a/2") == some.replacement("a/1:v7") == "a/3"
    assert some.replacement("a/3") is None


@pytest.mark.parametrize(
    "last",
    [
        model("a/2", status="unknown"),
        model("a/2", status="presumed_removed"),
        retired("a/2", "a/1"),
        retired("a/2", "a/2"),
        retired("a/2", "a/lost"),
    ],
)
def test_a_replacement_that_leads_nowhere_is_none(last):
    """Chains that end in an inactive or unknown model, or in a circle, name no replacement."""
    some = Catalogue([retired("a/1", "a/2"), last], as_of=TODAY)

    assert some.replacement("a/1") is None


def test_with_models_replaces_and_adds_in_a_copy():
    """Newer records go before the packaged ones; the original stays as it was."""
    newer = priced(TURBO, "0.2", "0.4")
    mine = model("me/my-llama")

    changed = catalogue.with_models(newer, mine)

    assert (changed.get(TURBO), changed.get("me/my-llama")) == (newer, mine)
    assert (len(changed), changed.as_of) == (368, catalogue.as_of)
    assert ids(changed) == sorted(ids(changed))
    assert catalogue.get(TURBO) is not newer
    assert mine.id not in catalogue


def test_a_catalogue_may_be_empty():
    """No records is an answer, not a reason to read the packaged ones."""
    assert len(Catalogue([], as_of=TODAY)) == 0


def test_records_and_their_day_go_together():
    """Records without a day, or a day without records, are refused."""
    with pytest.raises(ValueError, match="models and as_of go together"):
        Catalogue([model("a/b")])
    with pytest.raises(ValueError, match="models and as_of go together"):
        Catalogue(as_of=TODAY)


def test_two_records_of_one_id_are_refused():
    """An id has one record."""
    with pytest.raises(ValueError, match="two records have the id 'a/b'"):
        Catalogue([model("a/b"), model("a/b")], as_of=TODAY)


def test_repr_says_what_it_holds():
    """The packaged catalogue is short, another one says how many records of which day."""
    assert repr(Catalogue()) == "Catalogue()"
    assert repr(Catalogue([model("a/b")], as_of=TODAY)) == "Catalogue(<1 models>, as_of=datetime.date(2026, 1, 31))"
