"""A hostile server: the first part of a model's name says what goes wrong, and every request is written down.

`python -m benchmarks.resilience.server` prints its port and serves until its standard input ends. `GET /log` tells for each
model how many requests came, how many are being answered, how many were at most, and the seconds between the last two.
"""

import asyncio
import base64
import json
import random
import re
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

WORDS = ["one ", "two ", "three ", "four ", "five"]
PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
        "0000000b4944415478da636000020000050001e9fadcd80000000049454e44ae426082"
    )
).decode()
_ENDLESS = 60.0
_ALLOWED = re.compile(r"^(?P<fault>[a-z-]+?)(?P<number>\d*)/")


@dataclass(slots=True)
class Count:
    """What came for one model."""

    requests: int = 0
    under_way: int = 0
    most_at_once: int = 0
    last: float = 0.0
    gap: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read."""

    path: str
    body: dict[str, Any]

    @property
    def model(self) -> str:
        native = self.path.partition("/inference/")[2]
        return native or str(self.body.get("model", ""))

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))


class Fault(Exception):
    """The connection is to be dropped, hard."""


class Hostile:
    """Answers requests as their model's name says."""

    def __init__(self) -> None:
        self.counts: dict[str, Count] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read(reader)) is not None:
                await self._answer(request, writer)
        except (Fault, ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the end of the server too: asyncio complains of connections that were cancelled
        finally:
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/log":
            return writer.write(whole(200, {model: asdict(count) for model, count in self.counts.items()}))
        count = self.counts.setdefault(request.model, Count())
        now = time.monotonic()
        count.gap, count.last = now - count.last if count.requests else 0.0, now
        count.requests += 1
        count.under_way += 1
        count.most_at_once = max(count.most_at_once, count.under_way)
        try:
            async for piece in misbehave(request, count.requests):
                writer.write(piece)
                await writer.drain()
        except Fault:
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            raise
        finally:
            count.under_way -= 1
        return None


async def read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *headers = head.decode("latin-1").split("\r\n")
    length = next((int(h[15:]) for h in headers if h.lower().startswith("content-length:")), 0)
    body = await reader.readexactly(length)
    return Request(line.split(" ")[1].removeprefix("/v1"), json.loads(body) if body else {})


async def misbehave(request: Request, number: int) -> AsyncIterator[bytes]:
    """Yield the bytes of the answer to a model's request of that number, in the time that its fault takes."""
    found = _ALLOWED.match(request.model)
    fault, amount = (found["fault"], int(found["number"] or 0)) if found else ("ok", 0)
    if fault == "busy" and number == 1:
        yield whole(429, error("busy"), "retry-after: 2")
    elif fault == "down" or (fault == "fails" and number <= amount):
        yield whole(500, error("boom"))
    elif fault == "hang":
        await asyncio.sleep(_ENDLESS)
    elif fault == "lost":
        raise Fault
    elif fault == "trickle":
        yield head(request)
        for byte in f'data: {{"choices": [{" " * 200}' if request.streams else f'{{"choices": [{" " * 200}':
            yield chunk(byte.encode())
            await asyncio.sleep(0.5)
    elif fault in {"cut", "broken", "ping"} and number == 1:
        async for piece in spoilt(request, fault):
            yield piece
    else:
        await asyncio.sleep(1.0 if fault == "fails" else random.uniform(0.0, 0.03) if fault == "soon" else 0.0)
        for piece in good(request):
            yield piece


async def spoilt(request: Request, fault: str) -> AsyncIterator[bytes]:
    """Yield a stream that goes wrong after two of its words."""
    yield head(request)
    for word in WORDS[:2]:
        yield chunk(event(delta={"role": "assistant", "content": word}))
        await asyncio.sleep(0.02)
    if fault == "broken":
        yield chunk(b"data: " + json.dumps(error("lost the instance")).encode() + b"\n\n")
    for _ in range(int(_ENDLESS / 0.3) if fault == "ping" else 0):
        yield chunk(b": ping\n\n")
        await asyncio.sleep(0.3)
    yield b"0\r\n\r\n"


def good(request: Request) -> list[bytes]:
    """Return a whole answer; one that begins with the end of the conversation goes on from there."""
    if request.path.endswith("/embeddings"):
        texts = request.body["input"]
        rows = range(1 if isinstance(texts, str) else len(texts))
        data = [{"object": "embedding", "index": row, "embedding": [0.1, 0.2]} for row in rows]
        return [whole(200, {"object": "list", "model": "m", "data": data, "usage": usage()})]
    if "/images/" in request.path:
        return [whole(200, {"created": 1, "data": [{"b64_json": PIXEL}]})]
    if "/inference/" in request.path:
        return [whole(200, {"images": [f"data:image/png;base64,{PIXEL}"], "inference_status": {"cost": 0.001}})]
    words = rest(request)
    if request.streams:
        events = [event(delta={"role": "assistant", "content": word}) for word in words]
        closing = event(delta={}, finish="stop"), event(None, tokens=True), b"data: [DONE]\n\n"
        return [head(request), *(chunk(piece) for piece in (*events, *closing)), b"0\r\n\r\n"]
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    if request.path.endswith("/chat/completions"):
        choice["message"] = {"role": "assistant", "content": "".join(words)}
    else:
        choice["text"] = "".join(words)
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage()}
    return [whole(200, answer)]


def rest(request: Request) -> list[str]:
    """Return the words that are still to be said."""
    last = (request.body.get("messages") or [{}])[-1]
    said = last.get("content") if last.get("role") == "assistant" else ""
    skip = next((n for n in range(len(WORDS)) if said and "".join(WORDS[:n]).strip() == str(said).strip()), 0)
    return WORDS[skip:]


def usage() -> dict[str, Any]:
    return {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10, "estimated_cost": 1e-6}


def error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


def event(delta: dict[str, Any] | None, *, finish: str | None = None, tokens: bool = False) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + json.dumps(body | ({"usage": usage()} if tokens else {})).encode() + b"\n\n"


def head(request: Request) -> bytes:
    kind = "text/event-stream" if request.streams else "application/json"
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: int, body: dict[str, Any], *headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(data)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + data


async def main() -> None:
    server = await asyncio.start_server(Hostile().serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
