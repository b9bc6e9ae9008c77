"""An answer on its way."""

import asyncio
import gzip
import zlib

import httpx
import pytest

from resilient_ai.core.errors import ConnectionFailed, InvalidResponse
from resilient_ai.deepinfra.reply import Reply

pytestmark = pytest.mark.anyio


class Body(httpx.AsyncByteStream):
    """A body that arrives by a script: bytes to deliver, seconds to wait, errors to raise."""

    def __init__(self, *script):
        self.script = list(script)
        self.closed = 0

    async def __aiter__(self):
        while self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            if isinstance(step, bytes):
                yield step
            else:
                await asyncio.sleep(step)

    async def aclose(self):
        self.closed += 1


class SynchronousBody(httpx.SyncByteStream):
    """A body for those who may block."""

    def __iter__(self):
        yield b"a"


class AbortableBody(Body):
    """A body whose connection can be dropped at once."""

    aborted = 0

    @property
    def at_end(self):
        return not self.script

    def abort(self):
        self.aborted += 1


def reply_of(body, headers=()):
    return Reply(httpx.Response(200, headers=list(headers), stream=body))


async def read(*script, encoding="", limit=100):
    return await reply_of(AbortableBody(*script), [("Content-Encoding", encoding)]).read(limit)


class TestHead:
    """Status and headers."""

    async def test_headers(self):
        """Names are in lower case, and several of one name are joined."""
        reply = Reply(httpx.Response(503, headers=[("X-A", "1"), ("x-a", "2"), (b"X-B", b"\xfc")], stream=Body()))
        assert (reply.status, dict(reply.headers)) == (503, {"x-a": "1, 2", "x-b": "ü"})

    async def test_an_answer_of_a_synchronous_transport(self):
        """It could only be read by blocking the loop."""
        with pytest.raises(TypeError, match="an answer of a synchronous httpx transport cannot be read here"):
            Reply(httpx.Response(200, stream=SynchronousBody()))


class TestChunks:
    """Pieces as they come."""

    async def test_they_come_as_they_came(self):
        """Until there are none, however often one asks."""
        reply = reply_of(Body(b"a", b"bc"))
        assert [await reply.chunk() for _ in range(4)] == [b"a", b"bc", b"", b""]

    async def test_a_broken_connection(self):
        """It is an error of ours."""
        reply = reply_of(Body(b"a", httpx.ReadError("reset")))
        assert await reply.chunk() == b"a"
        with pytest.raises(ConnectionFailed) as caught:
            await reply.chunk()
        assert caught.value.phase == "receive"


class TestWholeBody:
    """Reading within bounds."""

    @pytest.mark.parametrize("script", [(), (b"abc",), (b"a", b"", b"bc")])
    async def test_plain(self, script):
        """Pieces are put together; an empty one ends the body."""
        assert await read(*script) == b"".join(script).partition(b"bc" if b"" in script else b"?")[0]

    @pytest.mark.parametrize("encoding", ["identity", "", " Identity "])
    async def test_not_compressed(self, encoding):
        """The bytes are what they are."""
        assert await read(b"abc", encoding=encoding) == b"abc"

    @pytest.mark.parametrize(
        ("encoding", "compress"),
        [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), (" GZIP ", gzip.compress)],
    )
    async def test_compressed(self, encoding, compress):
        """Piece by piece, wherever it is cut."""
        whole = compress(b"abc" * 20)
        assert await read(*(whole[place : place + 5] for place in range(0, len(whole), 5)), encoding=encoding) == (
            b"abc" * 20
        )

    @pytest.mark.parametrize("encoding", ["br", "gzip, br", "zstd" * 30])
    async def test_compressed_otherwise(self, encoding):
        """Nobody asked for it, so it is refused with its name, shortened."""
        body = AbortableBody(b"abc")
        with pytest.raises(InvalidResponse, match=f"the body is encoded as '{encoding[:40]}', which was not") as caught:
            await reply_of(body, [("Content-Encoding", encoding)]).read(100)
        assert (caught.value.retryable, body.aborted) == (False, 1)

    async def test_damaged(self):
        """The next answer may be whole."""
        with pytest.raises(InvalidResponse, match="the compressed body is damaged") as caught:
            await read(b"no gzip", encoding="gzip")
        assert caught.value.retryable

    @pytest.mark.parametrize(("size", "fits"), [(100, True), (101, False)])
    @pytest.mark.parametrize("encoding", ["", "gzip"])
    async def test_a_bound(self, size, fits, encoding):
        """It counts what it becomes, not what travels, and drops the connection once it is passed."""
        whole = gzip.compress(bytes(size)) if encoding else bytes(size)
        body = AbortableBody(whole[:50], whole[50:]) if whole[50:] else AbortableBody(whole)
        reply = reply_of(body, [("Content-Encoding", encoding)])
        if fits:
            assert await reply.read(100) == bytes(size)
            assert body.aborted == 0
        else:
            with pytest.raises(InvalidResponse, match="the body is longer than 100 bytes") as caught:
                await reply.read(100)
            assert (caught.value.retryable, body.aborted) == (False, 1)

    async def test_a_bomb(self):
        """A megabyte in a kilobyte is never unpacked."""
        with pytest.raises(InvalidResponse, match="the body is longer than 100 bytes"):
            await read(gzip.compress(bytes(2**20)), encoding="gzip")

    @pytest.mark.parametrize("end", [b"", bytes(1024)])
    async def test_padding_behind_a_compressed_body(self, end):
        """A few bytes are ignored, wherever they are cut."""
        whole = gzip.compress(b"abc") + end
        assert await read(whole, encoding="gzip") == b"abc"
        assert await read(*(whole[place : place + 7] for place in range(0, len(whole), 7)), encoding="gzip") == b"abc"

    @pytest.mark.parametrize("size", [7, 1025])
    async def test_what_goes_on_behind_the_end_of_a_compressed_body(self, size):
        """It is refused after a kilobyte, and the rest is not waited for."""
        body = AbortableBody(gzip.compress(b"abc"), *[bytes(size)] * 1000)
        with pytest.raises(InvalidResponse, match="the compressed body goes on behind its end") as caught:
            await reply_of(body, [("Content-Encoding", "gzip")]).read(10_000)
        assert (caught.value.retryable, body.aborted) == (False, 1)
        assert len(body.script) == 999 - 1024 // size

    @pytest.mark.parametrize(
        ("start", "more"),
        [
            (b"\x1f\x8b\x08\x08" + bytes(6), b"name"),
            (b"\x1f\x8b\x08" + bytes(7), b"\x00\x00\x00\xff\xff"),
        ],
        ids=["header", "blocks"],
    )
    async def test_compressed_bytes_that_make_none(self, start, more):
        """An endless header and endless empty blocks are refused as well."""
        body = AbortableBody(start, *[more * 100] * 1000)
        with pytest.raises(InvalidResponse, match="the body is longer than 100 bytes"):
            await reply_of(body, [("Content-Encoding", "gzip")]).read(100)
        assert (body.aborted, len(body.script) > 990) == (1, True)

    async def test_a_body_that_compresses_badly(self):
        """Small blocks that travel apart are longer than what they hold, and pass."""
        machine = zlib.compressobj(wbits=31)
        pieces = [machine.compress(b"abcdefgh") + machine.flush(zlib.Z_SYNC_FLUSH) for _ in range(125)]
        pieces.append(machine.flush())
        assert await read(*pieces, encoding="gzip", limit=1000) == b"abcdefgh" * 125

    async def test_a_reader_who_is_cancelled(self):
        """The connection is dropped."""
        body = AbortableBody(b"a", 3600)
        task = asyncio.ensure_future(reply_of(body).read(100))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert body.aborted == 1


class TestEnd:
    """Giving a connection back, or dropping it."""

    @pytest.mark.parametrize("kind", [Body, AbortableBody])
    async def test_a_body_that_ends_soon_keeps_its_connection(self, kind):
        """What is left of it is read."""
        body = kind(b"rest", 0.4, b"")
        reply_of(body).finish()
        await asyncio.sleep(0.45)
        assert (body.closed, getattr(body, "aborted", 0), body.script) == (0, 0, [])

    async def test_a_body_at_its_end_needs_nothing(self):
        """No task is made for it."""
        before = asyncio.all_tasks()
        reply_of(AbortableBody()).finish()
        assert asyncio.all_tasks() == before

    @pytest.mark.parametrize("script", [(b"a", 3600, b"b"), (b"a", httpx.ReadError("reset"))])
    async def test_a_body_that_does_not_end_loses_its_connection(self, script):
        """After half a second, or at once if it breaks."""
        body = AbortableBody(*script)
        reply_of(body).finish()
        await asyncio.sleep(0.6)
        assert body.aborted == 1

    async def test_dropping_what_cannot_be_dropped_at_once(self):
        """It is closed as soon as the loop comes to it."""
        body = Body(b"a", 3600)
        reply = reply_of(body)
        reply.abort()
        assert body.closed == 0
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert body.closed == 1

    async def test_any_number_of_times(self):
        """Dropping is never an error."""
        body = AbortableBody(b"a")
        reply = reply_of(body)
        reply.abort()
        reply.abort()
        assert body.aborted == 2


class TestOtherThreads:
    """Dropping from outside of the loop."""

    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"

    async def test_the_loop_does_it(self):
        """As soon as it can."""
        body = AbortableBody(b"a")
        reply = reply_of(body)
        await asyncio.to_thread(reply.abort)
        await asyncio.sleep(0)
        assert body.aborted == 1

    async def test_from_another_loop(self):
        """It is the reply's own loop that does it."""
        body = AbortableBody(b"a")
        reply = reply_of(body)

        async def drop():
            reply.abort()

        await asyncio.to_thread(asyncio.run, drop())
        await asyncio.sleep(0)
        assert body.aborted == 1


def test_a_loop_that_has_closed():
    """It has closed its sockets with it, so there is nothing to do."""
    body = AbortableBody(b"a")

    async def make():
        return reply_of(body)

    reply = asyncio.run(make())
    reply.abort()
    assert body.aborted == 0
