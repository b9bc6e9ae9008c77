"""Answers nobody should send become clear errors, in bounded memory, and the key stays home."""

import asyncio
import contextlib
import gzip
import time

import pytest

from resilient_ai import (
    AsyncClient,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidResponse,
    ProviderError,
    RateLimited,
    ServerFailed,
    StreamInterrupted,
)
from resilient_ai.middleware import Deadline, Timeout

from .raw_server import RawServer

pytestmark = pytest.mark.anyio

KEY = "canary-key-7f3a"


def http(body, status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def client_of(answer, stack=()):
    async with RawServer(answer) as server, AsyncClient(api_key=KEY, base_url=server.url, stack=list(stack)) as ai:
        yield ai, server


BAD_BODIES = {
    "html": b"<html><body>Welcome to the hotel</body></html>",
    "truncated": b'{"choices": [{"message": {"content": "Hel',
    "a list": b"[1, 2, 3]",
    "a number": b"42",
    "empty": b"",
    "no choices": b'{"choices": []}',
    "null choices": b'{"choices": null}',
    "choices of text": b'{"choices": "none"}',
    "NaN": b'{"choices": [NaN]}',
    "deep": b"[" * 1_000_000,
    "not text": b"\xff\xfe\x00\x01",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_a_body_that_is_no_answer(body):
    """Whatever is no chat answer is an InvalidResponse."""
    async with client_of(http(body)) as (ai, _):
        with pytest.raises(InvalidResponse):
            await ai.chat("m", "hi")


@pytest.mark.parametrize(
    "body", [*BAD_BODIES.values(), b'{"data": []}', b'{"data": [{"embedding": ["x"], "index": 0}]}']
)
async def test_a_body_that_holds_no_vectors(body):
    """Whatever is no list of vectors is an InvalidResponse."""
    async with client_of(http(body)) as (ai, _):
        with pytest.raises(InvalidResponse):
            await ai.embed("m", ["a"])


@pytest.mark.parametrize(
    "body", [*BAD_BODIES.values(), b'{"images": []}', b'{"images": ["data:image/png;base64,AAAA"]}']
)
async def test_a_body_that_holds_no_pictures(body):
    """Whatever is no picture is an InvalidResponse."""
    async with client_of(http(body)) as (ai, _):
        with pytest.raises(InvalidResponse):
            await ai.image("m", "a lighthouse")


async def test_an_error_inside_of_a_success():
    """An error object with status 200 is raised as the error it is."""
    async with client_of(http(b'{"error": {"message": "Model busy, retry later", "code": 429}}')) as (ai, _server):
        with pytest.raises(ProviderError, match="busy"):
            await ai.chat("m", "hi")


async def test_a_gzip_bomb_is_stopped():
    """A small body that would unpack to hundreds of megabytes is refused before it does."""
    bomb = gzip.compress(b" " * (200 << 20))
    async with client_of(http(bomb, "200 OK", "content-encoding: gzip")) as (ai, _):
        with pytest.raises(InvalidResponse, match="longer than"):
            await ai.chat("m", "hi")


async def test_an_honest_gzip_body_is_read():
    """Compression that was asked for works."""
    body = gzip.compress(b'{"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}')
    async with client_of(http(body, "200 OK", "content-encoding: gzip")) as (ai, _):
        assert (await ai.chat("m", "hi")).text == "Hello."


async def test_an_unknown_encoding_is_refused():
    """A body in an encoding nobody asked for is not guessed at."""
    async with client_of(http(b"x", "200 OK", "content-encoding: br")) as (ai, _):
        with pytest.raises(InvalidResponse, match="encoded as 'br'"):
            await ai.chat("m", "hi")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirect_is_never_followed(status):
    """The key does not travel to another host."""
    async with RawServer(http(b"{}")) as thief:
        answer = http(b"", status, f"location: {thief.url}/openai/chat/completions")
        async with client_of(answer) as (ai, _):
            with pytest.raises(InvalidResponse, match="redirect"):
                await ai.chat("m", "hi")

        assert thief.requests == []


async def test_an_endless_body_is_stopped_by_the_deadline():
    """A body that trickles for ever does not escape the deadline."""

    async def trickle(writer):
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(500):
            writer.write(b"1\r\n \r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    for send in ("chat", "embed", "image", "complete"):
        async with client_of(trickle, [Deadline(total=0.2)]) as (ai, _):
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded) as caught:
                await getattr(ai, send)("m", "hi")

            assert caught.value.sent
            assert time.monotonic() - started < 2


async def test_an_endless_body_is_stopped_by_its_size():
    """A body without end is cut off at the limit."""

    async def flood(writer):
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        block = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
        for _ in range(200):
            writer.write(block)
            await writer.drain()

    async with client_of(flood) as (ai, _):
        with pytest.raises(InvalidResponse, match="longer than"):
            await ai.chat("m", "hi")


async def test_no_http_at_all():
    """Bytes that are not HTTP are an InvalidResponse, not an error of some library."""
    async with client_of(b"SSH-2.0-OpenSSH_9.2\r\n\r\n") as (ai, _):
        with pytest.raises(InvalidResponse, match="not HTTP"):
            await ai.chat("m", "hi")


async def test_a_connection_closed_before_the_answer():
    """The request may have been billed, and the error says so."""

    async def close(writer):
        writer.close()

    async with client_of(close) as (ai, _):
        with pytest.raises(ConnectionFailed) as caught:
            await ai.chat("m", "hi")

    assert (caught.value.phase, caught.value.sent, caught.value.retryable) == ("receive", True, True)


async def test_a_connection_reset_before_the_answer():
    """A reset is told apart from a refusal."""

    async def reset(writer):
        writer.transport.abort()

    async with client_of(reset) as (ai, _):
        with pytest.raises(ConnectionFailed) as caught:
            await ai.chat("m", "hi")

    assert (caught.value.phase, caught.value.sent) == ("receive", True)


async def test_a_refused_connection():
    """Nothing was sent, and the error says so."""
    async with RawServer(b"") as server:
        url = server.url
    async with AsyncClient(api_key=KEY, base_url=url, stack=[]) as ai:
        with pytest.raises(ConnectionFailed) as caught:
            await ai.chat("m", "hi")

    assert (caught.value.phase, caught.value.sent) == ("connect", False)


async def test_a_name_that_does_not_resolve():
    """A wrong host is told apart from a host that is down."""
    async with AsyncClient(api_key=KEY, base_url="https://no-such-host.invalid/v1", stack=[]) as ai:
        with pytest.raises(ConnectionFailed) as caught:
            await ai.chat("m", "hi")

    assert (caught.value.phase, caught.value.sent) == ("dns", False)


async def test_a_body_cut_short():
    """A body shorter than announced is never read as a whole one."""
    answer = b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"choices": []}'

    async def cut(writer):
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with client_of(cut) as (ai, _):
        with pytest.raises(ConnectionFailed) as caught:
            await ai.chat("m", "hi")

    assert caught.value.phase == "receive"


EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}, "finish_reason": null}]}\n\n'


def streaming(*parts):
    async def answer(writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in parts:
            if isinstance(part, bytes):
                writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            else:
                await asyncio.sleep(part)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    return answer


async def test_a_stream_without_an_end_is_never_a_short_answer():
    """A clean end of the body without a finish reason keeps what had arrived and says that it is not whole."""
    async with client_of(streaming(EVENT % b"Hel")) as (ai, _), ai.stream("m", "hi") as stream:
        with pytest.raises(StreamInterrupted) as caught:
            await stream.result()

    assert caught.value.partial.text == "Hel"
    assert caught.value.partial.finish_reason is None
    assert stream.ended == "failed"


async def test_an_error_event_before_content_is_an_ordinary_failure():
    """What fails before the first token can be tried again."""
    async with client_of(streaming(b'data: {"error": {"message": "overloaded"}}\n\n')) as (ai, _):
        with pytest.raises(ProviderError) as caught:
            async with ai.stream("m", "hi"):
                pass

    assert caught.value.retryable


async def test_an_error_event_after_content_interrupts():
    """What fails after the first token keeps the partial answer."""
    parts = [EVENT % b"Hel", 0.02, b'data: {"error": {"message": "overloaded"}}\n\n']
    async with client_of(streaming(*parts)) as (ai, _), ai.stream("m", "hi") as stream:
        with pytest.raises(StreamInterrupted) as caught:
            async for _event in stream:
                pass

    assert caught.value.partial.text == "Hel"


async def test_pings_do_not_keep_a_silent_stream_alive():
    """Keep-alive comments are no content: the idle timer fires behind them."""
    parts = [EVENT % b"Hel", *([b": ping\n\n", 0.02] * 100)]
    stack = [Timeout(idle=0.1)]
    async with client_of(streaming(*parts), stack) as (ai, _), ai.stream("m", "hi") as stream:
        with pytest.raises(StreamInterrupted, match="idle timer"):
            await stream.result()


async def test_done_without_the_end_of_the_body_ends_the_stream():
    """`[DONE]` is the end even when the connection stays open."""
    last = b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    async with client_of(streaming(last, 1.0)) as (ai, _), ai.stream("m", "hi") as stream:
        answer = await asyncio.wait_for(stream.result(), 0.8)

    assert (answer.text, stream.ended) == ("Hi", "completed")


async def test_statuses_become_errors_with_the_wait_the_server_asked_for():
    """429 and 503 carry Retry-After; HTML bodies do not hide the status."""
    async with client_of(http(b'{"error": {"message": "Rate limited"}}', "429 Too Many", "retry-after: 1.5")) as (
        ai,
        _,
    ):
        with pytest.raises(RateLimited) as limited:
            await ai.chat("m", "hi")
    async with client_of(http(b"<html>bad gateway</html>", "502 Bad Gateway")) as (ai, _):
        with pytest.raises(ServerFailed) as failed:
            await ai.chat("m", "hi")

    assert (limited.value.status, limited.value.retry_after) == (429, 1.5)
    assert failed.value.status == 502


async def test_the_key_shows_nowhere():
    """Neither an error, its cause, nor a repr of anything holds the key."""
    async with client_of(http(KEY.encode() + b" is wrong", "401 Unauthorized")) as (ai, server):
        with pytest.raises(ProviderError) as caught:
            await ai.chat("m", "hi")

        assert f"Bearer {KEY}".encode() in server.requests[0][0]
        shown = [repr(ai), repr(ai._pipeline.provider), str(ai.describe()), repr(caught.value)]
        shown += [str(caught.value), repr(caught.value.body)]

    assert not any(KEY in text for text in shown)


async def test_the_key_shows_in_no_error_of_a_success_or_a_stream():
    """A service that repeats the key inside of a 200, an event, or garbage does not get it into an error."""
    inside = b'{"error": {"message": "your key is %s", "code": "%s"}}' % (KEY.encode(), KEY.encode())
    event = b"data: " + inside + b"\n\n"
    answers = [http(inside), http(b"<html>" + KEY.encode()), streaming(event), streaming(EVENT % b"Hel", 0.02, event)]
    shown = []
    for answer in answers:
        async with client_of(answer) as (ai, _):
            for send in (lambda ai=ai: ai.chat("m", "hi"), lambda ai=ai: read_all(ai)):
                with pytest.raises(ProviderError) as caught:
                    await send()
                error = caught.value
                shown += [str(error), repr(vars(error)), repr(error.__cause__ and vars(error.__cause__))]

    assert not any(KEY in text for text in shown)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc %b\r\n\r\n" % KEY.encode(),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%b\r\n" % KEY.encode(),
        b"HTTP/1.1 200 OK\r\nbad header %b\r\n\r\n" % KEY.encode(),
    ],
)
async def test_the_key_is_in_no_error_that_another_one_drags_along(answer):
    """An answer that is no HTTP is told in errors that hold neither the request's headers nor what the server said."""
    async with client_of(answer) as (ai, _):
        with pytest.raises(ProviderError) as caught:
            await ai.chat("m", "hi")

    chain, error = [], caught.value
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    assert chain
    for error in chain:
        assert KEY not in f"{error!r} {error} {error.args!r} {vars(error)!r}"


async def read_all(ai):
    async with ai.stream("m", "hi") as stream:
        return await stream.result()
