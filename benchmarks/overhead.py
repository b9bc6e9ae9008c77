"""What the full stack costs beside bare httpx: CPU per call, both in one interleaved run.

The server runs in a process of its own. Each round measures every client once, so that a noisy machine is noisy for both; the
figure is the median over the rounds. CPU is process time, all threads, so the ledger's and the cache's threads are counted.

`make bench`, or `python -m benchmarks.overhead --rounds 15`.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import orjson

from benchmarks.canned_server import CHUNKS, TEXTS
from resilient_ai import AsyncClient, Settings

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
EMBEDDER = "BAAI/bge-m3"
MESSAGES = [{"role": "user", "content": "Which city is the capital of Switzerland? Answer in one word."}]
CALLS = {"chat": 200, "stream of 500 chunks": 10, "96 embeddings": 10}
GOALS = {"chat": 0.45, "stream of 500 chunks": 0.60, "96 embeddings": 0.45}

Work = Callable[[int], Awaitable[None]]


def bare_httpx(client: httpx.AsyncClient) -> dict[str, Work]:
    """What a careful programmer writes by hand: send, decode, look at the answer."""

    async def chat(_: int) -> None:
        answer = await client.post("/openai/chat/completions", json={"model": MODEL, "messages": MESSAGES})
        assert answer.json()["choices"][0]["message"]["content"]

    async def stream(_: int) -> None:
        seen = 0
        body = {"model": MODEL, "messages": MESSAGES, "stream": True}
        async with client.stream("POST", "/openai/chat/completions", content=orjson.dumps(body)) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    choices = orjson.loads(line[6:])["choices"]
                    seen += "content" in choices[0]["delta"]
        assert seen == CHUNKS

    async def embed(number: int) -> None:
        texts = [f"text {number} {i}" for i in range(TEXTS)]
        answer = await client.post("/openai/embeddings", json={"model": EMBEDDER, "input": texts})
        assert len(answer.json()["data"]) == TEXTS

    return {"chat": chat, "stream of 500 chunks": stream, "96 embeddings": embed}


def full_stack(ai: AsyncClient) -> dict[str, Work]:
    """The same through the default stack: tracing, logging, deadline, cache, retry, breaker, limit, ledger, timeouts."""

    async def chat(_: int) -> None:
        assert (await ai.chat(MODEL, MESSAGES)).text

    async def stream(_: int) -> None:
        seen = 0
        async with ai.stream(MODEL, MESSAGES) as events:
            async for _event in events:
                seen += 1
        assert seen == CHUNKS + 1

    async def embed(number: int) -> None:
        texts = [f"text {number} {i}" for i in range(TEXTS)]
        assert len((await ai.embed(EMBEDDER, texts)).vectors) == TEXTS

    return {"chat": chat, "stream of 500 chunks": stream, "96 embeddings": embed}


async def measure(base_url: str, rounds: int) -> dict[str, dict[str, float]]:
    serial = iter(range(10**9))
    samples: dict[str, dict[str, list[float]]] = {name: {"httpx": [], "resilient_ai": []} for name in CALLS}
    with tempfile.TemporaryDirectory() as home:
        limits = httpx.Limits(max_connections=1000, max_keepalive_connections=1000)
        settings = Settings(home=Path(home))
        async with (
            httpx.AsyncClient(base_url=base_url, limits=limits, timeout=60) as client,
            AsyncClient(api_key="bench", base_url=base_url, settings=settings) as ai,
        ):
            contenders = {"httpx": bare_httpx(client), "resilient_ai": full_stack(ai)}

            async def settled() -> None:
                """Wait for what the ledger and the cache still write, which would else be counted for whoever comes next."""
                await ai.ledger.flush()
                await ai.cache.stats()

            for number in range(rounds + 1):
                for name, calls in CALLS.items():
                    for contender, works in contenders.items():
                        started = time.process_time()
                        for _ in range(calls):
                            await works[name](next(serial))
                        if contender == "resilient_ai":
                            await settled()
                        if number:  # the first round warms up
                            samples[name][contender].append((time.process_time() - started) / calls)
    return {name: {who: statistics.median(values) for who, values in both.items()} for name, both in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.canned_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin
    assert server.stdout
    try:
        port = int(server.stdout.readline())
        found = asyncio.run(measure(f"http://127.0.0.1:{port}", rounds))
    finally:
        server.stdin.close()
        server.wait(10)
    print(f"CPU per call, median of {rounds} interleaved rounds, Python {sys.version.split()[0]}\n")
    print(f"{'':<22}{'bare httpx':>12}{'full stack':>12}{'ratio':>8}{'aim':>8}")
    for name, both in found.items():
        ratio = both["resilient_ai"] / both["httpx"]
        print(
            f"{name:<22}{both['httpx'] * 1e6:>9.0f} µs{both['resilient_ai'] * 1e6:>9.0f} µs{ratio:>8.2f}{GOALS[name]:>8.2f}"
        )


if __name__ == "__main__":
    main()
