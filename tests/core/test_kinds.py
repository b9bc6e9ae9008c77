"""What is meant by a kind where calls are chosen by it."""

import pytest

from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.kinds import KINDS, check_filter, counted_as, covered


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", [*KINDS, "*"])
def test_what_is_covered_is_what_is_counted(kind, wanted):
    """Whoever asks which kinds are meant, and whoever asks as what a call counts, come to the same."""
    counts = counted_as(kind, wanted) == wanted
    assert counts == (wanted != "*" and kind in covered(wanted))


def test_with_a_star_each_kind_counts_once():
    """A streamed chat as a chat."""
    assert [counted_as(kind, "*") for kind in KINDS] == ["chat", "chat", "complete", "embed", "image"]


@pytest.mark.parametrize("tags", [None, {}, {"tenant": "banana"}, {"kind": "stream"}])
def test_what_may_be_asked_for(tags):
    """Any tag, and every kind that there is."""
    check_filter(tags)


def test_a_kind_that_there_is_not():
    """It is refused with those that there are, as the answer would be nothing."""
    with pytest.raises(InvalidInput, match=r"kind: one of chat, stream, .*, got 'chats'") as caught:
        check_filter({"kind": "chats"})
    assert (caught.value.field, caught.value.value) == ("kind", "chats")


@pytest.mark.parametrize("tags", [{"tenant": "a\ud800"}, {"\udfff": "a"}])
def test_what_no_tag_can_be(tags):
    """Half of a surrogate pair is refused, as no call can have it and no database can be asked for it."""
    with pytest.raises(InvalidInput, match="half of a surrogate pair is no text, and in no tag, got '") as caught:
        check_filter(tags)
    assert tags == {caught.value.field: caught.value.value}
