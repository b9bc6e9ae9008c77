"""What decides the price of an operation, as it is sent."""

from decimal import Decimal

import pytest

from resilient_ai.core.operations import Chat, Embed, Image
from resilient_ai.core.results import Image as Picture
from resilient_ai.core.results import ImageResult, Usage
from resilient_ai.deepinfra.catalogue import PriceTable
from resilient_ai.middleware._as_sent import as_sent
from resilient_ai.middleware._pricing import price, price_of_result
from resilient_ai.middleware._route_size import Size, lister, tier_of, units_of
from resilient_ai.middleware._tokens import estimate_tokens
from resilient_ai.middleware._worst_cost import worst_cost
from resilient_ai.testing import PIXEL

DEAR = "deepseek-ai/DeepSeek-R1-0528"
FLUX = "black-forest-labs/FLUX-1-schnell"


def chat(**extra):
    return Chat(model="m", messages="hi", max_tokens=5, n=2, service_tier="flex", extra=extra)


def picture(**extra):
    return Image(model=FLUX, prompt="dusk", size="256x512", steps=1, n=2, extra=extra)


def test_without_anything_extra_it_is_the_operation():
    """Whatever the operation says, and nothing of what it does not have."""
    assert as_sent(chat(other=1)) == ("m", 2, 5, None, None, None, "flex")
    assert as_sent(picture()) == (FLUX, 2, None, 256, 512, 1, None)
    assert as_sent(Embed(model="e", texts="a")) == ("e", 1, None, None, None, None, None)


@pytest.mark.parametrize(
    ("extra", "field", "expected"),
    [
        ({"model": DEAR}, "model", DEAR),
        ({"n": 4}, "number", 4),
        ({"n": 4.0}, "number", 4),
        ({"n": "4"}, "number", 4),
        ({"n": 3.2}, "number", 4),
        ({"n": None}, "number", 1),
        ({"max_tokens": 2000.0}, "longest", 2000),
        ({"max_tokens": " 2000 "}, "longest", 2000),
        ({"max_tokens": None}, "longest", None),
        ({"max_completion_tokens": None}, "longest", None),
        ({"max_tokens": 7, "max_completion_tokens": 9}, "longest", 9),
        ({"max_tokens": "many"}, "longest", None),
        ({"max_tokens": True}, "longest", None),
        ({"max_tokens": 10**400}, "longest", None),
        ({"max_tokens": -1}, "longest", None),
        ({"service_tier": "priority"}, "tier", "priority"),
        ({"service_tier": None}, "tier", "flex"),
    ],
)
def test_a_field_in_extra_wins(extra, field, expected):
    """As a lenient service may read it; what cannot be read bounds no answer."""
    assert getattr(as_sent(chat(**extra)), field) == expected


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"size": "1024x768"}, (2, 1024, 768, 1)),
        ({"size": "large"}, (2, 256, 512, 1)),
        ({"width": "1024", "height": 768.0}, (2, 1024, 768, 1)),
        ({"num_images": 3, "num_inference_steps": 4.0}, (3, 256, 512, 4)),
    ],
)
def test_pictures(extra, expected):
    """Size, number and steps by the names of either route."""
    sent = as_sent(picture(**extra))
    assert (sent.number, sent.width, sent.height, sent.steps) == expected


def test_a_budget_reserves_for_what_is_sent():
    """For the model, the number and the length that `extra` names, not for those it hides."""
    prices = PriceTable()
    hidden = Chat(model=DEAR, messages="hi", max_tokens=2000, n=3)
    plain = Chat(
        model="meta-llama/Llama-3.3-70B-Instruct-Turbo",
        messages="hi",
        max_tokens=1,
        extra={"model": DEAR, "max_tokens": "2000", "n": 3.0},
    )
    least = worst_cost(prices, hidden, lambda: 0)
    assert least is not None
    assert worst_cost(prices, plain, lambda: 0) >= least
    assert worst_cost(prices, Chat(model=DEAR, messages="hi", max_tokens=1, extra={"max_tokens": None}), lambda: 9) > 0


def test_a_picture_is_priced_as_it_was_drawn():
    """By the size that `extra` names."""
    result = ImageResult(model=FLUX, images=(Picture(data=PIXEL, media_type="image/png"),))
    cost = price_of_result(PriceTable(), picture(size="1024x1024"), result)
    assert cost == PriceTable().image_cost(FLUX, images=1, width=1024, height=1024, steps=1)
    assert cost > price_of_result(PriceTable(), picture(), result) > Decimal(0)


@pytest.mark.parametrize(
    ("said", "extra"),
    [
        (Chat(model=DEAR, messages="hi", n=4, max_tokens=2000), {"n": 4, "max_tokens": 2000}),
        (
            Image(model=FLUX, prompt="dusk", size="1024x768", n=3, steps=4),
            {"size": "1024x768", "n": 3, "num_inference_steps": 4},
        ),
        (Chat(model=DEAR, messages="hi", service_tier="priority"), {"service_tier": "priority"}),
        (Chat(model=DEAR, messages="hi", service_tier="flex"), {"service_tier": "flex"}),
    ],
)
def test_all_readers_agree(said, extra):
    """Limits, routing, timers and accounting read a field in `extra` as they read that of the operation."""
    bare = (
        Image(model=FLUX, prompt="dusk", extra=extra)
        if said.kind == "image"
        else Chat(model=DEAR, messages="hi", extra=extra)
    )
    table = PriceTable()
    usage = Usage(input_tokens=1000, output_tokens=1000)

    def readings(operation):
        return (
            estimate_tokens(operation),
            Size.of(operation),
            units_of(operation, usage),
            tier_of(operation),
            operation.is_flex,
            lister(table, operation, 10)(operation.model, 100),
            price(table, operation, usage),
        )

    assert readings(bare) == readings(said)
    assert readings(bare) != readings(bare.model_copy(update={"extra": {}}))
