"""Faults of streams that no other test holds."""

import asyncio
import contextlib

import pytest

from resilient_ai import AttemptTimeout, DeadlineExceeded, StreamInterrupted
from resilient_ai.middleware import Deadline, Timeout

from .servers import EVENT, STREAM_HEAD, chunk, client_of, http

pytestmark = pytest.mark.anyio

END = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def streamed(*parts):
    """Return what answers with these chunks, a number being a wait."""

    async def answer(writer):
        writer.write(STREAM_HEAD)
        for part in parts:
            if isinstance(part, bytes):
                writer.write(chunk(part))
                await writer.drain()
            else:
                await asyncio.sleep(part)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    return answer


async def endless(writer):
    """Repeat one word for ever."""
    writer.write(STREAM_HEAD)
    with contextlib.suppress(ConnectionError):
        for _ in range(5000):
            writer.write(chunk(EVENT % b"tide "))
            await writer.drain()
            await asyncio.sleep(0.002)


async def text_of(ai):
    async with ai.stream("m", "hi") as stream:
        return (await stream.result()).text


async def test_a_model_that_repeats_itself_for_ever():
    """Content without end is stopped by the time of the attempt, and by that of the call; what came is kept."""
    async with client_of(endless, Timeout(attempt=0.2)) as (ai, _):
        with pytest.raises(StreamInterrupted) as attempt:
            await text_of(ai)
    async with client_of(endless, Deadline(total=0.2)) as (ai, _):
        with pytest.raises(DeadlineExceeded) as call:
            await text_of(ai)

    assert isinstance(attempt.value.__cause__, AttemptTimeout)
    assert attempt.value.partial.text.startswith("tide tide ")
    assert call.value.partial.text.startswith("tide tide ")


async def test_a_reader_who_is_slower_than_the_stream():
    """A reader who pauses is not taken for a silent server, and what it has not read stays with the server."""
    sent = 0

    async def flood(writer):
        nonlocal sent
        writer.write(STREAM_HEAD)
        piece = chunk(EVENT % (b"x" * 10_000))
        with contextlib.suppress(ConnectionError):
            for _ in range(5000):
                writer.write(piece)
                await writer.drain()
                sent += len(piece)

    async with client_of(flood, Timeout(idle=0.2)) as (ai, _), ai.stream("m", "hi") as stream:
        await anext(stream)
        await asyncio.sleep(0.6)
        held = sent
        for _ in range(10):
            await anext(stream)

    assert held < 16 << 20


async def test_an_answer_that_ends_without_its_mark():
    """A finish reason without `[DONE]` is a whole answer."""
    async with client_of(streamed(EVENT % b"Hello.", END)) as (ai, _):
        assert await text_of(ai) == "Hello."


@pytest.mark.parametrize("tail", [DONE + DONE, b"data:   [DONE]  \n\n", DONE + EVENT % b"more", DONE + b"\x00garbage"])
async def test_an_end_mark_in_every_form(tail):
    """Twice, with spaces, or followed by whatever: the first one is the end."""
    async with client_of(streamed(EVENT % b"Hello.", END, tail)) as (ai, _):
        assert await text_of(ai) == "Hello."


async def test_characters_cut_apart():
    """A character of four bytes may arrive in four packets, and characters that look like line ends are text."""
    word = "Ebbe \U0001f30a\u2028und\u2029 Flut\x85".encode()
    whole = EVENT % word + END + DONE
    parts = [bytes([byte]) for byte in whole]
    async with client_of(streamed(*parts)) as (ai, _):
        assert (await text_of(ai)).encode() == word


async def test_fields_that_mean_nothing_here():
    """A byte order mark, comments, ids, wishes to reconnect and unknown fields are passed over."""
    noise = b": hi\r\nid: 7\r\nretry: 99999999\r\nevent: message\r\nodd\r\n"
    async with client_of(streamed(b"\xef\xbb\xbf" + noise + EVENT % b"Hello." + noise + END)) as (ai, _):
        assert await text_of(ai) == "Hello."


async def test_the_same_piece_twice():
    """A repeated piece is passed on as it came: whether it is an error only the service knows."""
    async with client_of(streamed(EVENT % b"Ha", EVENT % b"Ha", END)) as (ai, _):
        assert await text_of(ai) == "HaHa"


async def test_a_whole_answer_instead_of_a_stream():
    """A service that does not stream is read all the same."""
    body = b'{"choices": [{"index": 0, "message": {"content": "Hello."}, "finish_reason": "stop"}]}'
    async with client_of(http(body, "200 OK", "content-type: application/json")) as (ai, _):
        assert await text_of(ai) == "Hello."
