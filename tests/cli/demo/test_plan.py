from decimal import Decimal

from resilient_ai.cli.demo import plan, texts
from resilient_ai.cli.options import CHAT_MODEL, EMBEDDING_MODEL, IMAGE_MODEL
from resilient_ai.core.media import media_type_of
from resilient_ai.deepinfra.catalogue import catalogue


def test_the_tour_is_cheap_and_says_how_cheap():
    """Every step has a known price, and all of them together cost a few cents at most."""
    most = plan.most_it_can_cost()
    assert None not in most.values()
    assert Decimal("0.001") < sum(cost for cost in most.values() if cost is not None) < Decimal("0.05")


def test_every_model_that_is_named_is_active():
    """A tour, and the defaults of the commands, must not lead to a model that is gone."""
    asks = (plan.CHAT, plan.STREAM, plan.TOOLS, plan.VISION, plan.STRUCTURED, plan.CODE)
    for name in {ask.model for ask in asks} | {CHAT_MODEL, EMBEDDING_MODEL, IMAGE_MODEL}:
        info = catalogue.get(name)
        assert info is not None
        assert info.status == "active"


def test_texts_are_as_many_as_said_and_all_different():
    """500 texts and 20 new ones, none of which is in the cache by accident."""
    assert (len(texts.KNOWN), len(texts.NEW), len({*texts.KNOWN, *texts.NEW})) == (500, 20, 520)


def test_picture_is_a_png():
    """The picture is made here and can be read everywhere."""
    assert media_type_of(texts.picture()) == "image/png"
