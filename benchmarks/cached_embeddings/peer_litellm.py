"""LiteLLM's caches, in memory and over Redis, filled through its client from a server of OpenAI's shape on 127.0.0.1."""

import asyncio
import json
import os
from typing import Any

from benchmarks.cached_embeddings.case import MODEL, Case

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch its prices otherwise

import litellm
from litellm.caching.caching import Cache, LiteLLMCacheType

_AT_ONCE = 250  # texts per request that fills
_READ_AT_ONCE = 500  # texts per read from Redis: of 10,000 at once it finds only some
_KEEP = 86_400  # seconds; by default an entry is gone from Redis after a minute


class Service:
    """Answers `POST /embeddings` from the case, and counts."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.requests = 0

    async def start(self) -> str:
        """Serve on a free port, and return the address."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = self._answer(json.loads(await reader.readexactly(length))["input"])
                kind = b"content-type: application/json\r\n"
                writer.write(b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (kind, len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, texts: list[str]) -> bytes:
        self.requests += 1
        data = [
            {"object": "embedding", "index": index, "embedding": self.case.vector_of(text).tolist()}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return json.dumps({"object": "list", "model": MODEL, "data": data, "usage": usage}).encode()


class LiteLLM:
    """Reads by `aembedding`, which looks up each text; the synchronous way looks up the list as a whole."""

    def __init__(self, case: Case, *, redis: bool = False) -> None:
        self.case = case
        self.service = Service(case)
        self.url = ""
        self.at_once = _READ_AT_ONCE if redis else case.count
        litellm.telemetry = False
        litellm.suppress_debug_info = True
        if redis:
            # By default a read of so many texts is given up after five seconds.
            address = {"host": "127.0.0.1", "port": str(case.redis), "socket_timeout": 120.0}
            litellm.cache = Cache(type=LiteLLMCacheType.REDIS, ttl=_KEEP, **address)
        else:
            litellm.cache = Cache(type=LiteLLMCacheType.LOCAL, ttl=_KEEP)
            litellm.cache.cache.max_size_in_memory = 10 * case.count  # the default holds 200

    async def fill(self) -> None:
        self.url = await self.service.start()
        for start in range(0, self.case.count, _AT_ONCE):
            await self._embed(self.case.texts[start : start + _AT_ONCE])
            await asyncio.sleep(0.05)  # it writes behind the caller's back
        await asyncio.sleep(1.0)

    async def prepare(self) -> None:
        """Nothing comes before."""

    async def read(self) -> Any:
        before = self.service.requests
        rows: list[Any] = []
        for start in range(0, self.case.count, self.at_once):
            rows += (await self._embed(self.case.texts[start : start + self.at_once])).data
        if self.service.requests > before:
            raise RuntimeError("not all texts were in the cache")
        return rows

    def shown(self, answer: Any, place: int) -> list[float]:
        return answer[place]["embedding"]

    async def aclose(self) -> None:
        self.service.server.close()

    async def _embed(self, texts: list[str]) -> Any:
        return await litellm.aembedding(
            model=f"openai/{MODEL}", input=texts, api_base=self.url, api_key="none", caching=True, max_retries=0
        )
