"""One contender in a process of its own: `python -m benchmarks.cached_embeddings.worker KEY CASE` obeys lines of its input.

`fill`, `read` and `profile ROUNDS` are answered by one line of JSON each; the end of the input ends it.
"""

import asyncio
import json
import logging
import os
import sys
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cached_embeddings.case import Case, NotHere, Reader, check
from benchmarks.cached_embeddings.meter import measured
from benchmarks.cached_embeddings.profiling import Profiler


def reader_of(key: str, case: Case) -> Reader:
    """Return a contender; what it needs is imported only now."""
    name, _, kind = key.partition("-")
    lists = key.endswith("-lists")
    match name:
        case "ours":
            from benchmarks.cached_embeddings.ours import Ours  # noqa: PLC0415

            return Ours(case, kind.removesuffix("-lists"), lists=lists)
        case "langchain":
            from benchmarks.cached_embeddings.peer_langchain import LangChain  # noqa: PLC0415

            return LangChain(case, files=kind == "files")
        case "litellm":
            from benchmarks.cached_embeddings.peer_litellm import LiteLLM  # noqa: PLC0415

            return LiteLLM(case, redis=kind == "redis")
    from benchmarks.cached_embeddings.floors import Dict, Sqlite  # noqa: PLC0415

    return Sqlite(case) if key == "sqlite" else Dict(case, lists=lists)


class Worker:
    """Does what it is told with one contender."""

    def __init__(self, key: str, case: Case) -> None:
        self.key, self.case = key, case
        self.reader: Reader | None = None

    async def obey(self, order: str) -> dict[str, Any]:
        """Carry out an order and return what there is to tell."""
        if order == "fill":
            self.reader = reader_of(self.key, self.case)
            await self.reader.fill()
            return {}
        assert self.reader
        if order == "read":
            await self.reader.prepare()
            return await self._read(self.reader, self.reader.read)
        profiler = Profiler()
        profiler.watch_new_threads()
        read = self.reader.read
        for _ in range(int(order.split()[1])):
            await self.reader.prepare()
            await self._read(self.reader, lambda: profiler.watch(read))
        await self.reader.aclose()
        return {"profile": profiler.report()}

    async def _read(self, reader: Reader, read: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
        answer, reading = await measured(read)
        check(self.case, reader, answer)
        return asdict(reading)


async def serve(worker: Worker, answers: Any) -> None:
    while order := (await asyncio.to_thread(sys.stdin.readline)).strip():
        try:
            told = await worker.obey(order)
        except (NotHere, ModuleNotFoundError) as error:
            told = {"trouble": f"skipped: {error}"}
        except Exception as error:  # noqa: BLE001 - the others go on, and the table says what became of this one
            told = {"trouble": f"failed: {type(error).__name__}: {error}"}
        print(json.dumps(told), file=answers, flush=True)
    if worker.reader is not None:
        await worker.reader.aclose()


def main() -> None:
    key, described = sys.argv[1:]
    given = json.loads(described)
    case = Case(**{**given, "vectors": Path(given["vectors"]), "folder": Path(given["folder"])})
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    # Libraries print what they like; the lines of the answers go another way.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asyncio.run(serve(Worker(key, case), answers))


if __name__ == "__main__":
    main()
