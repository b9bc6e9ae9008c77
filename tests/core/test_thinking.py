"""Reasoning between tags, whole and in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.thinking import ThinkingSplitter, split_thinking


def in_pieces(pieces):
    splitter = ThinkingSplitter()
    found = [pair for piece in pieces for pair in splitter.feed(piece)] + splitter.flush()
    assert all(piece for _, piece in found)
    reasoning = "".join(piece for kind, piece in found if kind == "reasoning")
    return "".join(piece for kind, piece in found if kind == "text"), reasoning or None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("391", ("391", None)),
        ("", ("", None)),
        ("<think>17</think>391", ("391", "17")),
        (" \n<think>\n17\n</think>\n\n391 \n", ("391 \n", "17")),
        ("17</think>\n391", ("391", "17")),
        ("17\n</think>391", ("391", "17")),
        ("Write </think> here.", ("Write </think> here.", None)),
        ("<think></think>391", ("391", None)),
        ("<think>17", ("", "17")),
        ("<think> ", ("", None)),
        ("a <think> b", ("a <think> b", None)),
        ("a <think> b </think> c", ("a <think> b </think> c", None)),
        ("<think>a</think>b</think>c", ("b</think>c", "a")),
        ("<think>a<think>b</think>c", ("c", "a<think>b")),
    ],
)
def test_only_a_tag_at_the_beginning_counts(text, expected):
    """The answer and the reasoning of a whole text, with blanks around the reasoning and before the answer taken away."""
    assert split_thinking(text) == expected


@pytest.mark.parametrize("text", ["<think>17</think>391", "<think>17"])
def test_reasoning_in_a_field_of_its_own_wins(text):
    """Where the service told the reasoning apart already, the text is left alone."""
    assert split_thinking(text, "hm") == (text, "hm")


@pytest.mark.parametrize("text", ["<thi", "<think>17 </th", "  ", "<think>17</think>\n", "<think>  <", "a</think>"])
def test_what_is_held_back_comes_at_the_end(text):
    """A text that ends within a tag loses nothing of it."""
    one_by_one = in_pieces(text)
    assert one_by_one == in_pieces([text])
    assert one_by_one == (split_thinking(text) if text != "a</think>" else (text, None))


TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<thi", "</th", "nk>", "<", "</", " ", "\n", "\u2003", "a", "b c"]),
    max_size=12,
).map("".join)


@given(st.text(" \n", max_size=3), TEXTS, st.data())
def test_any_split_gives_the_same_as_the_whole(blanks, rest, data):
    """Cut anywhere, a text that begins with the opening tag comes apart as the whole text does."""
    text = f"{blanks}<think>{rest}"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert in_pieces(pieces) == split_thinking(text)


@given(TEXTS, st.data())
def test_an_answer_without_a_leading_tag_passes_unchanged(text, data):
    """Cut anywhere, a text that does not begin with the opening tag is all answer."""
    if text.lstrip().startswith("<think>"):
        text = f"x{text}"
    cut = data.draw(st.integers(0, len(text)))
    assert in_pieces([text[:cut], text[cut:]]) == (text, None)


def test_pieces_are_handed_on_as_soon_as_they_are_certain():
    """Only what could be part of a tag, and blanks that could be the last, are held back."""
    splitter = ThinkingSplitter()
    assert splitter.feed("<think> a") == [("reasoning", "a")]
    assert splitter.feed(" b </") == [("reasoning", " b")]
    assert splitter.feed("x") == [("reasoning", " </x")]
    assert splitter.feed("</think>") == []
    assert splitter.feed("\n") == []
    assert splitter.feed("c") == [("text", "c")]
    assert splitter.feed("") == []
    assert splitter.feed(" d</think>") == [("text", " d</think>")]
