"""A server of canned answers in DeepInfra's shape, so cheap that the client is what is measured.

`python -m benchmarks.canned_server` prints its port and serves until its standard input ends.
"""

import asyncio
import random
import sys

import orjson

CHUNKS = 500
TEXTS, DIMENSIONS = 96, 1024


def chat_answer() -> bytes:
    return orjson.dumps(
        {
            "id": "chatcmpl-4f0c1d9be2a84d0f9f6b7a3e5c2d8110",
            "object": "chat.completion",
            "created": 1790000000,
            "model": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Bern. " * 20, "name": None, "tool_calls": None},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 27, "total_tokens": 39, "completion_tokens": 12, "estimated_cost": 6.54e-06},
        }
    )


def stream_events() -> list[bytes]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1790000000, "model": "m"}
    events = [
        {
            **head,
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": f" word{i}"}, "finish_reason": None}],
        }
        for i in range(CHUNKS)
    ]
    usage = {"prompt_tokens": 27, "total_tokens": 527, "completion_tokens": 500, "estimated_cost": 1.6e-04}
    last = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    return [b"data: " + orjson.dumps(event) + b"\n\n" for event in (*events, last)] + [b"data: [DONE]\n\n"]


def embedding_answer() -> bytes:
    chance = random.Random(7)
    data = [
        {"index": i, "object": "embedding", "embedding": [round(chance.uniform(-1, 1), 8) for _ in range(DIMENSIONS)]}
        for i in range(TEXTS)
    ]
    return orjson.dumps(
        {"object": "list", "model": "m", "usage": {"prompt_tokens": 960, "total_tokens": 960}, "data": data}
    )


def whole(body: bytes) -> list[bytes]:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    return [head + body]


def chunked(events: list[bytes]) -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%b\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"]


async def main() -> None:
    chat, stream, embeddings = whole(chat_answer()), chunked(stream_events()), whole(embedding_answer())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                )
                body = await reader.readexactly(length)
                answer = embeddings if b"/embeddings" in head else stream if b'"stream":true' in body else chat
                for part in answer:
                    writer.write(part)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
