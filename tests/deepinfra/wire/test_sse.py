"""Server-sent events by the rules, at any split of their bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.errors import InvalidResponse
from resilient_ai.deepinfra.wire.sse import EventReader


def events_of(*chunks, **options):
    reader = EventReader(**options)
    return [event for chunk in chunks for event in reader.feed(chunk)]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data: a\r\n\r\n", [b"a"]),
        (b"data: a\r\r", [b"a"]),
        (b"data: a\n\r\ndata: b\r\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b"data: \n\n", [b""]),
        (b"data: a\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b": ping\n\ndata: a\n\n: ping\n\n", [b"a"]),
        (b"event: x\nid: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"datax: a\nDATA: a\n data: a\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        ("data: a\u2028b\u2029c\x0b\x0c\x1c\x85d\n\n".encode(), ["a\u2028b\u2029c\x0b\x0c\x1c\x85d".encode()]),
        (b"data: a\n\ndata: b", [b"a"]),
        (b"data: a\n\ndata: b\n", [b"a"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\n\ndata: b\ndata: c\n\n", [b"a", b"b\nc"]),
        (b"data: a\rdata: b\n\n", [b"a\nb"]),
        (b"data: a\n:\n", []),
        (b"x\n:\ndata: a\n\n", [b"a"]),
        (b"", []),
        (b"\n\n\n", []),
    ],
)
def test_events_follow_the_standard(text, events):
    """The same bytes give the events of the standard, whole or byte by byte, first in the body or later."""
    assert events_of(text) == events
    assert events_of(*(text[i : i + 1] for i in range(len(text)))) == events
    if not text.startswith(b"\xef"):
        assert events_of(b"data: z\n\n", text) == [b"z", *events]


@pytest.mark.parametrize(
    ("pending", "events"),
    [(b"x", []), (b"data: a\n", [b"a\nb"]), (b"data: a\r", [b"a\nb"]), (b"data: a", [b"adata: b"]), (b": x\r", [b"b"])],
)
def test_what_is_pending_belongs_to_the_bytes_that_follow(pending, events):
    """A whole event that arrives at once is still part of the line or of the event that has begun."""
    assert events_of(b": on\n\n", pending, b"data: b\n\n") == events


def test_a_mark_counts_at_the_beginning_of_the_body_alone():
    """A byte order mark after the first event, in bytes of its own, is no mark."""
    assert events_of(b"data: a\n\n", b"\xef\xbb\xbfdata: b\n\n") == [b"a"]


class Watched(EventReader):
    """A reader that tells which of its slower ways it goes."""

    def __init__(self, **options):
        super().__init__(**options)
        self.ways = []

    def _by_events(self, block, end):
        self.ways.append(("events", block))
        return super()._by_events(block, end)

    def _by_lines(self, chunk):
        self.ways.append(("lines", chunk))
        return super()._by_lines(chunk)


@pytest.mark.parametrize(
    "chunk", [b"data: abc\n\n", b"data: abc\r\n\r\n", b"data: a\n\ndata: b\n\n", b"data: a\n\ndata: b\n\ndata: c\n\n"]
)
def test_what_nearly_always_arrives_goes_the_shortest_way(chunk):
    """Whole events that begin where the last ones ended, up to the bound, are cut at once."""
    reader = Watched(max_event=len(chunk))
    reader.feed(b": on\n\n")
    reader.ways.clear()
    assert reader.feed(chunk) == [line[6:] for line in chunk.splitlines() if line]
    assert reader.ways == []


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("tail", [b"", b"data: c", b"data: c\n", b"data: c\r\n"])
def test_events_in_a_row_are_cut_without_a_look_at_their_lines(end, tail):
    """The first bytes of a body, or those that end a line which was pending, are cut at the ends of events; the tail is not."""
    reader = Watched(max_event=len(b"data: a" + 2 * end + b"data: b"))
    text = b"data: a" + 2 * end + b"data: b" + 2 * end
    if tail and (b"\r" in tail) != (b"\r" in end):
        tail = b"data: c"
    assert reader.feed(text + tail) == [b"a", b"b"]
    assert reader.ways == [("events", text + tail), *([("lines", tail)] if tail else [])]


def test_a_long_event_in_many_pieces_is_joined_once():
    """A piece without an end is laid by; nobody looks again at what is pending."""
    reader = Watched()
    pieces = [b"data: o", b"n", b"e"]
    for piece in pieces:
        reader.feed(piece)
    assert reader.ways == [("lines", piece) for piece in pieces]
    assert reader.feed(b"\n\n") == [b"one"]
    assert reader.ways[3:] == [("events", b"data: one\n\n")]


PIECES = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"data",
        b"x",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\r\n\r\n",
        b": ping",
        b"id: 1",
        b"{}",
        b"\xef\xbb\xbf",
    ]
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.data())
def test_any_split_gives_the_same_events(text, data):
    """How the network cuts the bytes changes nothing."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    one_by_one = [text[i : i + 1] for i in range(len(text))]

    assert events_of(*chunks) == events_of(text) == events_of(*one_by_one)


@given(st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"").replace(b"\r", b"")), max_size=9))
def test_every_payload_comes_back_unchanged(payloads):
    """What stands after `data: ` is returned byte for byte, whichever line end the service uses."""
    for end in (b"\n", b"\r\n", b"\r"):
        body = b"".join(b"data: " + payload + end + end for payload in payloads)
        assert events_of(body) == payloads
        assert events_of(b": ping" + end, body) == payloads


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: 12345678901234567890\n\n"],
        [b": on\n\n", b"data: 12345678901234567890\n\n"],
        [b": on\n\n", b"data: 1234567\ndata: 1234567\n\n"],
        [b"data: 1234", b"56789"],
        [b": a comment that never ends"],
        [b"data: 1\n\ndata: 12345678901234567890\n\n"],
        [b": on\n\n", b"data: 12345678901234567890\r\n\r\n"],
    ],
)
def test_an_event_longer_than_the_bound_is_refused(chunks):
    """Memory is bounded: an event over `max_event` bytes raises, wherever it is cut."""
    with pytest.raises(InvalidResponse, match="longer than 12 bytes"):
        events_of(*chunks, max_event=12)


@pytest.mark.parametrize("before", [[], [b"data: a", b"\n\n"], [b"data: a\n", b"\n"], [b"data: a\n", None]])
@pytest.mark.parametrize(("fits", "too_much"), [(b"data: 123456", b"7"), (b"data: 1234567890\n", b"data\n")])
def test_the_bound_is_exact_for_every_event(before, fits, too_much):
    """Pending bytes and the lines of an event, each with its end, count from the beginning of the event; one more raises."""
    reader = EventReader(max_event=12)
    for chunk in before:
        if chunk is None:
            reader.flush()
        else:
            reader.feed(chunk)
    assert reader.feed(fits) == []
    with pytest.raises(InvalidResponse, match="longer than 12 bytes"):
        reader.feed(too_much)


def test_a_line_of_an_event_counts_with_its_end():
    """Of eleven characters behind a space and an end of line not one is forgotten."""
    with pytest.raises(InvalidResponse, match="longer than 12 bytes"):
        events_of(b"data: 12345678901\n", max_event=12)


def test_many_events_may_be_longer_than_the_bound_together():
    """The bound is about one event, not about what arrives at once."""
    assert events_of(b": on\n\n", b"data: a\n\n" * 9, max_event=12) == [b"a"] * 9


def test_a_bound_below_one_is_refused():
    """A bound must let a byte through."""
    assert events_of(b"\n", max_event=1) == []
    with pytest.raises(ValueError, match="max_event must be >= 1, got 0"):
        EventReader(max_event=0)


@pytest.mark.parametrize(
    ("text", "pending"),
    [(b"data: [DONE]", b"[DONE]"), (b"data: a\ndata: b\n", b"a\nb"), (b"data: a\n\n", None), (b": ping", None)],
)
def test_flush_gives_the_incomplete_event_once(text, pending):
    """An event without its empty line is not an event, but its data can be asked for, once."""
    reader = EventReader()
    reader.feed(text)

    assert reader.flush() == pending
    assert reader.flush() is None
