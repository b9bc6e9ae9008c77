"""What a careful programmer writes by hand: a dict, and a table of SQLite."""

import asyncio
import hashlib
import sqlite3
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.cached_embeddings.case import MODEL, Case

_AT_ONCE = 500


def key_of(text: str) -> str:
    return hashlib.sha256(f"{MODEL}\0{text}".encode()).hexdigest()


class Dict:
    """Bytes under real keys: nothing in Python that must not share what it keeps is quicker."""

    def __init__(self, case: Case, *, lists: bool = False) -> None:
        self.case, self.lists = case, lists
        self.kept: dict[str, bytes] = {}

    async def fill(self) -> None:
        self.kept = {key_of(text): self.case.vector_of(text).tobytes() for text in self.case.texts}

    async def prepare(self) -> None:
        """Nothing comes before."""

    async def read(self) -> "array[float] | list[list[float]]":
        found = [self.kept[key_of(text)] for text in self.case.texts]
        if self.lists:
            return [array("f", blob).tolist() for blob in found]
        packed = array("f")
        packed.frombytes(b"".join(found))
        return packed

    def shown(self, answer: "array[float] | list[list[float]]", place: int) -> list[float]:
        if isinstance(answer, list):
            return answer[place]
        size = self.case.dimensions
        return answer[place * size : (place + 1) * size].tolist()

    async def aclose(self) -> None:
        self.kept.clear()


class Sqlite:
    """Blobs in one table, read by one thread, as a client must whose event loop is to stay free."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.thread = ThreadPoolExecutor(1)
        path = case.folder / "floor.db"
        self.connection = self.thread.submit(sqlite3.connect, path).result()

    async def fill(self) -> None:
        rows = [(key_of(text), self.case.vector_of(text).tobytes()) for text in self.case.texts]
        await self._do(self._write, rows)

    async def prepare(self) -> None:
        """Nothing comes before."""

    async def read(self) -> list[bytes]:
        keys = [key_of(text) for text in self.case.texts]
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), _AT_ONCE):
            found.update(await self._do(self._select, keys[start : start + _AT_ONCE]))
        return [found[key] for key in keys]

    def shown(self, answer: list[bytes], place: int) -> list[float]:
        return array("f", answer[place]).tolist()

    async def aclose(self) -> None:
        await self._do(self.connection.close)
        self.thread.shutdown()

    def _write(self, rows: Sequence[tuple[str, bytes]]) -> None:
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("CREATE TABLE vectors (key TEXT PRIMARY KEY, value BLOB)")
        with self.connection:
            self.connection.executemany("INSERT INTO vectors VALUES (?, ?)", rows)

    def _select(self, keys: Sequence[str]) -> list[tuple[str, bytes]]:
        marks = ",".join("?" * len(keys))
        return self.connection.execute(f"SELECT key, value FROM vectors WHERE key IN ({marks})", keys).fetchall()

    async def _do(self, work, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self.thread, work, *arguments)
