"""Faults of HTTP and of whole answers that no other test holds."""

import asyncio
import contextlib
import gzip
import time

import httpx
import pytest

from resilient_ai import (
    AsyncClient,
    ConnectionFailed,
    InsufficientBalance,
    InvalidResponse,
    Overloaded,
    ProviderError,
    ServerFailed,
    StatusError,
)
from resilient_ai.middleware import Deadline

from .servers import BODY, QUICK, RawServer, client_of, http

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("header", [(), ("content-type: text/plain",), ("content-type: text/html; charset=latin-1",)])
async def test_json_under_a_wrong_content_type(header):
    """The body decides: what is a whole answer is taken under any type, or none."""
    async with client_of(http(BODY, "200 OK", *header)) as (ai, _):
        assert (await ai.chat("m", "hi")).text == "Hello."


async def test_keys_that_stand_twice():
    """The last one counts, as in every JSON parser, and nothing breaks."""
    body = b'{"choices": [], "choices": [{"message": {"content": "a", "content": "b"}, "finish_reason": "stop"}]}'
    async with client_of(http(body)) as (ai, _):
        assert (await ai.chat("m", "hi")).text == "b"


async def test_numbers_of_a_thousand_digits():
    """A count that no machine counts to is unknown, and the answer is there; a body full of digits stays cheap to read."""
    body = BODY[:-1] + b', "usage": {"prompt_tokens": %s, "completion_tokens": 3}}' % (b"9" * 1000)
    async with client_of(http(body)) as (ai, _):
        started = time.monotonic()
        outcome = (await asyncio.gather(ai.chat("m", "hi"), return_exceptions=True))[0]

    assert time.monotonic() - started < 1
    if isinstance(outcome, InvalidResponse):
        assert outcome.retryable
    else:
        assert (outcome.text, outcome.usage.input_tokens) == ("Hello.", None)


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip, identity", "compress", "x" * 5000])
async def test_an_encoding_nobody_asked_for(encoding):
    """Stacked and unknown encodings are refused by name, shortened, and are not asked for again."""
    body = gzip.compress(gzip.compress(BODY))
    async with client_of(http(body, "200 OK", f"content-encoding: {encoding}"), QUICK) as (ai, server):
        with pytest.raises(InvalidResponse) as caught:
            await ai.chat("m", "hi")

    assert not caught.value.retryable
    assert len(str(caught.value)) < 200
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent"]
)
async def test_a_redirect_is_not_followed_by_a_users_own_client(status):
    """An httpx client that follows redirects does not get to: the key stays with the host it was meant for."""
    async with RawServer(http()) as thief, RawServer(http(b"", status, f"location: {thief.url}/x")) as server:
        async with httpx.AsyncClient(follow_redirects=True) as own:
            ai = AsyncClient(api_key="k", base_url=server.url, http=own, stack=[QUICK])
            with pytest.raises(InvalidResponse, match="redirect") as caught:
                await ai.chat("m", "hi")

        assert not caught.value.retryable
        assert (len(server.requests), thief.requests) == (1, [])


@pytest.mark.parametrize("status", ["201 Created", "202 Accepted", "206 Partial Content"])
async def test_a_success_that_is_not_200(status):
    """An answer under another success is no answer, and is asked for once more at most."""
    async with client_of(http(BODY, status), QUICK) as (ai, server):
        with pytest.raises(InvalidResponse):
            await ai.chat("m", "hi")

    assert len(server.requests) == 2


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content"])
async def test_a_success_without_a_body(status):
    """No content is no answer."""
    async with client_of(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode()) as (ai, _):
        with pytest.raises(InvalidResponse, match=status[:3]):
            await ai.chat("m", "hi")


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (418, StatusError, False),
        (425, StatusError, True),
        (451, StatusError, False),
        (499, StatusError, False),
        (501, ServerFailed, False),
        (505, ServerFailed, False),
        (520, ServerFailed, True),
        (522, ServerFailed, True),
        (524, ServerFailed, True),
        (525, ServerFailed, False),
        (526, ServerFailed, False),
        (529, Overloaded, True),
        (599, ServerFailed, False),
    ],
)
async def test_a_status_that_is_rarely_seen(status, kind, retryable):
    """Every status has its class, and only those that pass by themselves are tried again."""
    async with client_of(http(b"<html>no</html>", f"{status} Whatever"), QUICK) as (ai, server):
        with pytest.raises(kind) as caught:
            await ai.chat("m", "hi")

    assert (type(caught.value), caught.value.status, caught.value.retryable) == (kind, status, retryable)
    assert len(server.requests) == (3 if retryable else 1)


async def test_an_error_page_is_shown_shortened():
    """An error page of a proxy keeps the status and a short excerpt."""
    page = b"<html>" + b"bad gateway " * 50_000 + b"</html>"
    async with client_of(http(page, "502 Bad Gateway")) as (ai, _):
        with pytest.raises(ServerFailed) as caught:
            await ai.chat("m", "hi")

    assert caught.value.status == 502
    assert len(str(caught.value)) < 1000
    assert len(str(caught.value.body)) <= 500


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 " + b"O" * 100_000 + b"K\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"HTTP/1.1 200 OK\r\nno colon at all\r\n",
        b"HTTP/9.9 200 OK\r\n",
        b"HTTP/1.1 20 OK\r\n",
        b"HTTP/1.1 abc OK\r\n",
    ],
    ids=["line", "reason", "two lengths", "below zero", "length and chunks", "no colon", "version", "short", "letters"],
)
async def test_a_head_that_is_not_to_be_trusted(head):
    """What may be read in two ways is not read at all, nor is what is longer than a head needs; the connection is dropped."""
    async with client_of(head + b"\r\n" + BODY) as (ai, _):
        for _ in range(2):
            with pytest.raises(ProviderError) as caught:
                await ai.chat("m", "hi")

    assert isinstance(caught.value, InvalidResponse | ConnectionFailed)
    assert caught.value.sent


async def test_a_flood_of_headers():
    """A head without end is refused after so many headers, long before it fills the memory."""
    sent = 0

    async def flood(writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(10_000):
                lines = b"x-%d: y\r\n" % number * 100
                writer.write(lines)
                await writer.drain()
                sent += len(lines)

    async with client_of(flood, Deadline(total=10.0)) as (ai, _):
        with pytest.raises(InvalidResponse):
            await ai.chat("m", "hi")

    assert sent < 8 << 20


async def test_bytes_behind_the_answer():
    """What follows a whole answer on the connection is never taken for the answer of the next call."""
    other = BODY.replace(b"Hello.", b"Wrong.")
    async with client_of(http() + http(other)) as (ai, _):
        answers = []
        for _ in range(3):
            with contextlib.suppress(ProviderError):
                answers.append((await ai.chat("m", "hi")).text)
            await asyncio.sleep(0.01)

    assert set(answers) == {"Hello."}


async def test_an_event_stream_instead_of_an_answer():
    """Events in answer to a request without streaming are no answer, and never a part of one."""
    body = b'data: {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\ndata: [DONE]\n\n'
    async with client_of(http(body, "200 OK", "content-type: text/event-stream"), QUICK) as (ai, server):
        with pytest.raises(InvalidResponse):
            await ai.chat("m", "hi")

    assert len(server.requests) == 2


async def test_an_empty_account_behind_429():
    """A 429 that speaks of money is not tried again."""
    body = b'{"error": {"message": "Insufficient balance", "code": "insufficient_quota"}}'
    async with client_of(http(body, "429 Too Many Requests"), QUICK) as (ai, server):
        with pytest.raises(InsufficientBalance) as caught:
            await ai.chat("m", "hi")

    assert not caught.value.retryable
    assert len(server.requests) == 1


async def test_an_answer_without_content():
    """Null content without tool calls is an empty text, which the finish reason explains."""
    body = b'{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}'
    async with client_of(http(body)) as (ai, _):
        answer = await ai.chat("m", "hi")

    assert (answer.text, answer.finish_reason) == ("", "length")


async def test_another_model_than_the_one_that_was_asked():
    """The name on the answer is the service's own; who was asked stands beside it."""
    async with client_of(http(BODY[:-1] + b', "model": "other"}')) as (ai, _):
        answer = await ai.chat("m", "hi")

    assert (answer.model, answer.served_by) == ("other", "m")
