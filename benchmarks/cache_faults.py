"""How long a call waits for a cache store in which everything is wrong.

Each fault happens to a real store, a file on disk or a Redis of its own, behind a real client whose provider answers at once. A
hundred calls embed texts that are known and texts that are new; none may fail, and none may wait for the store longer than 50 ms.
What a call takes without any fault stands beside it, as the machine takes its part.

`make faults`, or `python -m benchmarks.cache_faults`.
"""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from resilient_ai import AsyncClient
from resilient_ai.core.call import Call
from resilient_ai.core.results import EmbedResult
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware import Cache
from resilient_ai.stores import DiskStore, RedisStore
from resilient_ai.testing import vector_of
from tests.stores.redis_server import RedisServer, start_redis

CALLS = 100
TEXTS = 20
LIMIT = 0.05


class Oracle:
    """A provider that answers at once with the vectors that belong to the texts."""

    origin = "https://oracle.test/v1"

    async def __call__(self, call: Call[Any], /) -> Any:
        call.send_started()
        vectors = Vectors.pack([vector_of(text, 256) for text in call.operation.texts])
        return EmbedResult(model="m", served_by="m", vectors=vectors)

    async def aclose(self) -> None:
        """Nothing is open."""


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Another process is writing all the time."""
    with held(folder, "BEGIN IMMEDIATE"):
        yield


@contextmanager
def locked_before(folder: Path) -> Generator[None]:
    """Another process has the file for itself before it is opened."""
    with held(folder, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
        yield


@contextmanager
def held(folder: Path, *statements: str) -> Generator[None]:
    database = sqlite3.connect(next(folder.rglob("cache.db")), isolation_level=None, timeout=20)
    for statement in statements:
        database.execute(statement)
    yield
    database.execute("ROLLBACK")
    database.close()


@contextmanager
def full(_: Path) -> Generator[None]:
    """No file may grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@contextmanager
def corrupt(folder: Path) -> Generator[None]:
    """The file is full of something else."""
    for path in folder.rglob("cache.db*"):
        path.write_bytes(os.urandom(64 * 1024))
    yield


@contextmanager
def deleted(folder: Path) -> Generator[None]:
    """The folder is gone."""
    shutil.rmtree(folder)
    yield


@contextmanager
def replaced(folder: Path) -> Generator[None]:
    """A file lies where the folder was."""
    shutil.rmtree(folder)
    folder.write_text("something else")
    yield


@contextmanager
def none(_: Path) -> Generator[None]:
    """Nothing is wrong."""
    yield


@asynccontextmanager
async def client(store: DiskStore | RedisStore) -> AsyncGenerator[AsyncClient]:
    """A client whose only middleware is the cache."""
    async with AsyncClient(provider=Oracle(), stack=[Cache(None, store)]) as ai:
        yield ai


async def waits(ai: AsyncClient) -> list[float]:
    """Make the calls and return the seconds each took; a wrong vector or an error ends the program."""
    found: list[float] = []
    for number in range(CALLS):
        texts = [f"text {number % 7} {index}" if index % 2 else f"new {number} {index}" for index in range(TEXTS)]
        started = time.perf_counter()
        result = await ai.embed("m", texts)
        found.append(time.perf_counter() - started)
        assert list(result.vectors) == [vector_of(text, 256) for text in texts]
    return sorted(found)


async def on_disk(fault: Callable[[Path], "contextlib.AbstractContextManager[None]"], folder: Path) -> list[float]:
    """Measure one fault of a disk."""
    async with client(DiskStore(folder)) as ai:
        await waits(ai)  # fills it
        if fault is not locked_before:
            with fault(folder):
                return await waits(ai)
    async with client(DiskStore(folder)) as ai:
        with fault(folder):
            return await waits(ai)


async def in_redis(happens: Callable[[RedisServer], object], folder: Path) -> list[float]:
    """Measure what happens to a Redis."""
    server = start_redis(folder)
    try:
        async with client(RedisStore(server.url)) as ai:
            await waits(ai)
            happens(server)
            return await waits(ai)
    finally:
        server.stop()


def main() -> None:
    """Measure every fault and print a line for each; the exit code is 1 where a call waited longer than it may."""
    table = Table("fault", "calls", "median", "longest", "longest without", box=None)
    late = False
    with tempfile.TemporaryDirectory() as place:
        for store, runs in (("disk", disk_runs(Path(place))), ("redis", redis_runs(Path(place)))):
            usual: float | None = None
            for fault, found in runs:
                usual = found[-1] if usual is None else usual
                late |= found[-1] > LIMIT + max(usual, 0.02)
                cells = (f"{seconds * 1000:.1f} ms" for seconds in (found[len(found) // 2], found[-1], usual))
                table.add_row(f"{store}: {fault}", f"{len(found)}, none failed", *cells)
    Console(width=130).print(table)
    sys.exit(1 if late else 0)


def disk_runs(place: Path) -> Generator[tuple[str, list[float]]]:
    """Measure every fault of a disk; the first is none."""
    for fault in (none, locked, locked_before, full, corrupt, deleted, replaced):
        said = (fault.__doc__ or "").rstrip(".").lower()
        yield said, asyncio.run(on_disk(fault, place / fault.__name__ / "cache"))


def redis_runs(place: Path) -> Generator[tuple[str, list[float]]]:
    """Measure every fault of a Redis; the first is none."""
    if not shutil.which("redis-server"):
        print("redis-server is missing: its faults are left out")
        return
    for happens, said in (
        (repr, "nothing is wrong"),
        (RedisServer.freeze, "it hangs"),
        (RedisServer.stop, "it is killed"),
    ):
        folder = place / said
        folder.mkdir()
        yield said, asyncio.run(in_redis(happens, folder))


if __name__ == "__main__":
    main()
