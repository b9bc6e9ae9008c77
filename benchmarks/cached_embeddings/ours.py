"""Our own client with a cache and nothing else in its stack, over each of the stores."""

from array import array
from typing import Any

from benchmarks.cached_embeddings.case import MODEL, Case, NotHere
from resilient_ai import AsyncClient, stores
from resilient_ai.core.results import EmbedResult, Usage
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware.cache import Cache

_AT_ONCE = 500  # texts per call that fills
_ROOM = 2**30
# A read of so many texts from disk may take longer than a store waits by default, which is meant for a handful.
_PATIENCE = 10.0
# By default the copy in memory is gone after a minute, which the rounds of a slow contender may take.
_KEEP = 86_400.0


class Service:
    """Answers from the case while the cache is filled, and refuses while it is read."""

    origin = "http://127.0.0.1/v1"

    def __init__(self, case: Case) -> None:
        self.case = case
        self.open = True

    async def __call__(self, call: Any, /) -> Any:
        texts = call.operation.texts
        if not self.open:
            raise RuntimeError(f"{len(texts)} of {self.case.count} texts were not in the cache")
        call.send_started()
        numbers = array("f" if self.case.width == 4 else "d")
        for text in texts:
            numbers.extend(array(numbers.typecode, self.case.vector_of(text)))
        usage = Usage(input_tokens=len(texts))
        return EmbedResult(
            model=MODEL, served_by=MODEL, vectors=Vectors(numbers, self.case.dimensions), usage=usage, attempts=1
        )

    async def aclose(self) -> None:
        """There is nothing to close."""


class Ours:
    """A client that fills, and another that reads what the first left behind.

    Args:
        case: What is kept.
        kind: "memory", "disk", "tiered", "tiered-cold" or "redis".
        lists: Whether the reader wants lists of floats.
    """

    def __init__(self, case: Case, kind: str, *, lists: bool = False) -> None:
        self.case, self.kind, self.lists = case, kind, lists
        self.service = Service(case)
        self.client: AsyncClient | None = None

    async def fill(self) -> None:
        if self.kind == "memory":
            self.client = self._client()
            await self.client.embed(MODEL, self.case.texts)
        else:
            for start in range(0, self.case.count, _AT_ONCE):
                async with self._client() as ai:  # whose end waits until all is written
                    await ai.embed(MODEL, self.case.texts[start : start + _AT_ONCE])
        self.service.open = False

    async def prepare(self) -> None:
        if self.client is None or self.kind == "tiered-cold":
            await self.aclose()
            self.client = self._client()
            if self.kind == "tiered-cold":  # the file is open, only the memory is empty
                await self.client.embed(MODEL, self.case.texts[:1])

    async def read(self) -> "array[float] | list[list[float]]":
        assert self.client
        result = await self.client.embed(MODEL, self.case.texts)
        return list(result.vectors) if self.lists else result.vectors.buffer

    def shown(self, answer: "array[float] | list[list[float]]", place: int) -> list[float]:
        if isinstance(answer, list):
            return answer[place]
        return Vectors(answer, self.case.dimensions)[place]

    async def aclose(self) -> None:
        if self.client is not None:
            await self.client.aclose()
            self.client = None

    def _client(self) -> AsyncClient:
        return AsyncClient(stack=[Cache(None, self._store())], provider=self.service)

    def _store(self) -> Any:
        if self.kind == "memory":
            return stores.MemoryStore(max_bytes=_ROOM)
        if self.kind == "redis":
            return _redis(self.case)
        disk = stores.DiskStore(self.case.folder / "cache", max_bytes=_ROOM, timeout=_PATIENCE)
        if self.kind == "disk":
            return disk
        return stores.TieredStore(stores.MemoryStore(max_bytes=_ROOM), disk, fill_ttl=_KEEP)


def _redis(case: Case) -> Any:
    store = getattr(stores, "RedisStore", None)
    if store is None:
        raise NotHere("this version has no RedisStore")
    return store(f"redis://127.0.0.1:{case.redis}/0", timeout=_PATIENCE)
