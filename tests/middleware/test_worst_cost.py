"""What a send can cost at most."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.messages import AudioPart, ImagePart, Tool, ToolCall, system, user
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Operation, Stream
from resilient_ai.deepinfra.catalogue import PriceTable
from resilient_ai.middleware._worst_cost import prompt_bound, worst_cost
from resilient_ai.testing import PIXEL


class Prices:
    """A dollar for each token of input, a million for each of output; priority costs twice, flex half, a written token three."""

    def __init__(self):
        self.asked = []

    def chat_cost(self, model, *, input_tokens, output_tokens, cache_write_tokens=0, service_tier=None):
        factor = {None: Decimal(1), "priority": Decimal(2), "flex": Decimal("0.5")}[service_tier]
        return factor * (input_tokens + 2 * cache_write_tokens + 1_000_000 * output_tokens)

    def embedding_cost(self, model, *, input_tokens, service_tier=None):
        return Decimal(input_tokens) * (2 if service_tier == "priority" else 1)

    def image_cost(self, model, **asked):
        self.asked.append(asked)
        return None if model == "unknown" else Decimal(asked["images"] * (asked["width"] or 512))


def worst(operation, limit=1_000):
    return worst_cost(Prices(), operation, lambda: limit)


def chat(messages="hi", **options):
    return Chat(model="m", messages=messages, **options)


HI = prompt_bound(chat())


@pytest.mark.parametrize(
    ("operation", "tokens"),
    [
        (chat(max_tokens=7), 7),
        (chat(), 1_000),
        (chat(max_tokens=7, n=3), 21),
        (chat(n=2), 2_000),
        (Stream(model="m", messages="hi", max_tokens=7), 7),
        (Complete(model="m", prompt="hi", max_tokens=7, n=2), 14),
        (chat(max_tokens=7, extra={"max_tokens": 9}), 9),
        (chat(max_tokens=7, extra={"max_completion_tokens": 11, "n": 2}), 22),
        (chat(max_tokens=7, extra={"max_tokens": None, "n": True}), 1_000),
        (chat(max_tokens=7, extra={"max_tokens": "9", "n": 2.0}), 18),
    ],
    ids=repr,
)
def test_each_answer_is_as_long_as_it_may_be(operation, tokens):
    """As the call says, in a field or in `extra`; else as long as the model allows."""
    assert worst(operation) // 1_000_000 == tokens


@pytest.mark.parametrize(("tier", "factor"), [(None, 1), ("default", 1), ("priority", 2), ("flex", 1)])
def test_the_dearer_of_two_tiers_counts(tier, factor):
    """A model without the tier that was asked for answers at the default one."""
    assert worst(chat(max_tokens=1, service_tier=tier)) == factor * (1_000_000 + HI)


def test_a_tier_in_extra_wins():
    """It is what is sent."""
    operation = chat(max_tokens=1, extra={"service_tier": "priority"})
    assert worst(operation) == 2 * (1_000_000 + prompt_bound(operation))


def test_a_prompt_that_is_to_be_kept_may_be_written():
    """Writing costs more than reading."""
    kept = chat([{"role": "user", "content": "hi", "cache_control": {"type": "ephemeral"}}], max_tokens=1)
    assert worst(kept) == 1_000_000 + 3 * HI


def test_a_tier_without_a_price_leaves_the_default_one():
    """What is known counts."""

    class NoTiers(Prices):
        def chat_cost(self, model, *, service_tier=None, **amounts):
            return None if service_tier else super().chat_cost(model, **amounts)

    assert worst_cost(NoTiers(), chat(max_tokens=1, service_tier="priority"), lambda: 9) == 1_000_000 + HI


def test_without_a_price_nothing_is_known():
    """None, never zero."""

    class Nothing(Prices):
        def chat_cost(self, model, **amounts):
            return None

        embedding_cost = image_cost = chat_cost

    class Own(Operation):
        kind = "own"

    for operation in (chat(), Embed(model="m", texts="a"), Image(model="m", prompt="a")):
        assert worst_cost(Nothing(), operation, lambda: 9) is None
    assert worst_cost(Prices(), Own(model="m"), lambda: 9) is None


def test_vectors_cost_their_texts():
    """Each text by its bytes and a bit; of a tier that was asked for what the price list says, such as twice as much."""
    operation = Embed(model="m", texts=["abcd", "é"])
    assert worst(operation) == 4 + 2 + 2 * 8
    assert worst(Embed(model="m", texts=["abcd", "é"], service_tier="priority")) == 2 * (4 + 2 + 2 * 8)


@pytest.mark.parametrize(
    ("options", "cost", "asked"),
    [
        ({}, 512, [(1, None, None, None)]),
        ({"n": 3, "size": "640x480", "steps": 9}, 1920, [(3, 640, 480, 9)]),
        ({"aspect_ratio": "16:9", "n": 2}, 2048, [(2, None, None, None), (2, 1024, 1024, None)]),
        ({"extra": {"num_images": 2, "width": 700, "height": 300, "num_inference_steps": 5}}, 1400, [(2, 700, 300, 5)]),
    ],
    ids=repr,
)
def test_pictures_cost_their_size(options, cost, asked):
    """The size that is asked for, or the largest one of a ratio."""
    prices = Prices()
    assert worst_cost(prices, Image(model="m", prompt="dusk", **options), lambda: 9) == cost
    assert [tuple(one.values()) for one in prices.asked] == asked


def test_a_picture_without_a_price():
    """Is not known, with a ratio either."""
    assert worst(Image(model="unknown", prompt="dusk", aspect_ratio="1:1")) is None


@given(text=st.text(min_size=1).filter(lambda text: text.strip()))
def test_a_text_has_no_more_tokens_than_bytes(text):
    """The bound grows by every byte, in whatever language."""
    assert prompt_bound(chat(text)) >= len(text.encode())


@pytest.mark.parametrize("text", ["\ufdfa", "ﬃ" * 10, "½"])
def test_a_character_that_stands_for_many_counts_as_these(text):
    """Some tokenizers write them out."""
    import unicodedata

    written_out = unicodedata.normalize("NFKC", text)
    assert prompt_bound(chat(text)) >= len(written_out.encode()) > len(text)


SCHEMA = {"type": "json_schema", "json_schema": {"type": "object", "title": "x" * 100}}
TOOL = Tool(name="tides", description="y" * 100, parameters={"type": "object", "title": "x" * 100})
SAID = {"role": "assistant", "content": "a", "reasoning": "r" * 100}
CALLED = {"role": "assistant", "tool_calls": [ToolCall(id="1", name="tides", arguments="z" * 50)]}


@pytest.mark.parametrize(
    ("operation", "least"),
    [
        (chat([system("x" * 100), user("hi")]), 100),
        (chat([user("x" * 50, "y" * 50)]), 100),
        (chat([user("hi", ImagePart.of(PIXEL))]), 16_000),
        (chat([user("hi", AudioPart(data="A" * 3200))]), 1_100),
        (chat(tools=[TOOL]), 300),
        (chat(response_format=SCHEMA), 200),
        (Complete(model="m", prompt="hi", response_format=SCHEMA), 200),
        (chat(chat_template_kwargs={"x": "y" * 100}), 100),
        (chat(extra={"x": "y" * 100, "z": object()}), 100),
        (chat([user("hi"), SAID, user("b")]), 100),
        (chat([user("hi"), CALLED, {"role": "tool", "content": "x" * 50, "tool_call_id": "1"}]), 150),
        (chat([{"role": "user", "content": "hi", "name": "n" * 100}]), 100),
    ],
    ids=lambda value: value if isinstance(value, int) else None,
)
def test_everything_that_is_sent_counts(operation, least):
    """All messages with their parts, tools, schemas and unknown fields."""
    assert prompt_bound(operation) - HI >= least
    assert prompt_bound(Image(model="m", prompt="dusk")) == 0


def test_the_price_table_of_the_catalogue_can_be_asked():
    """A thousand tokens of a real model cost what its list says, and the prompt at most four times its true price."""
    model = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
    table = PriceTable()
    text = "Name three tides, and say when they come. " * 100  # 1,000 tokens or so
    cost = worst_cost(table, Chat(model=model, messages=text, max_tokens=1_000), lambda: 9)
    assert table.chat_cost(model, input_tokens=4_000, output_tokens=1_000) < cost
    assert cost < table.chat_cost(model, input_tokens=4_300, output_tokens=1_000)
