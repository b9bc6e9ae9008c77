"""Embedding a file of any length: chunk by chunk, each kept as soon as it is paid for, put together at the end."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from resilient_ai.cli._files import put
from resilient_ai.cli._lines import Chunk, Line, Plan, Source, plan, read
from resilient_ai.cli._parts import Header, Parts, packed
from resilient_ai.cli._vector_files import Shape, VectorFile
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.core.errors import InvalidResponse

if TYPE_CHECKING:
    from resilient_ai.client import AsyncClient
    from resilient_ai.core.results import EmbedResult


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How texts are embedded.

    Args:
        model: An id.
        dimensions: Numbers per vector; None for the model's own.
    """

    model: str
    dimensions: int | None

    @property
    def options(self) -> dict[str, Any]:
        """What `embed` is called with beside the texts."""
        return {} if self.dimensions is None else {"dimensions": self.dimensions}

    def fingerprint(self, server: str) -> bytes:
        """Return a digest of everything that the vectors depend on beside the texts."""
        return hashlib.sha256(orjson.dumps([server.rstrip("/"), self.model, self.dimensions])).digest()


@dataclass(slots=True)
class Totals:
    """What some parts cost together.

    Args:
        texts: Texts in them.
        hits: Those that came from the cache.
        requests: Requests that were sent.
        cost: US dollars, as far as they are known.
        complete: False where there may be more that nobody told us.
    """

    texts: int = 0
    hits: int = 0
    requests: int = 0
    cost: Decimal = Decimal(0)
    complete: bool = True

    def add(self, header: Header) -> None:
        """Count a part."""
        self.texts += header.count
        self.hits += header.hits
        self.requests += header.requests
        self.cost += header.amount or 0
        self.complete = self.complete and header.complete

    @property
    def known_cost(self) -> Decimal | None:
        """The cost as far as it is known, None where nothing is."""
        return self.cost if self.cost or self.complete else None


class Watch(Protocol):
    """Somebody who is told how far it is."""

    def phase(self, name: str, total: int | None = None, done: int = 0) -> None:
        """Something else begins, of `total` texts, `done` of which are there already."""
        ...

    def at(self, done: int) -> None:
        """`done` texts of this phase are done."""
        ...

    def paid(self, totals: Totals) -> None:
        """So much was paid in this run."""
        ...


@dataclass
class Job:
    """A file of vectors to be made.

    It reads the source twice or, where something is to be sent, three times. In memory are one chunk of at most 3,840 texts or
    8 MiB of text with its vectors, each of them a few times over on its way through the client and the cache, and some hundred
    bytes per chunk: 250 MB for the whole process at 1,024 numbers a vector, with the cache and a .parquet file 500 MB, however
    many lines there are. On the disk the parts and the finished file are there at the same time.

    Args:
        source: Where the texts are.
        parts: Where finished chunks are kept; those that were embedded otherwise are not used.
        how: The model and its options.
        fingerprint: A digest of `how` and the server.
        watch: Told how far it is.
        before: What the parts of earlier runs cost.
        now: What was done in this run.
    """

    source: Source
    parts: Parts
    how: How
    fingerprint: bytes
    watch: Watch
    before: Totals = field(default_factory=Totals)
    now: Totals = field(default_factory=Totals)

    def __post_init__(self) -> None:
        self.plan = Plan((), 0, 0)
        self._headers: dict[str, Header] = {}

    @property
    def done(self) -> int:
        """Texts whose vectors are kept."""
        return sum(chunk.count for chunk in self.plan.chunks if chunk.digest in self._headers)

    @property
    def dimensions(self) -> int:
        """Numbers per vector."""
        return next((header.dimensions for header in self._headers.values()), 0)

    def prepare(self) -> None:
        """Read everything, and look for what earlier runs have left.

        Raises:
            WrongUseError: If a line cannot be used, or there is none.
            InvalidResponse: If what was left does not fit together.
        """
        self.watch.phase("reading")
        self.plan = plan(self.source, self.fingerprint)
        if not self.plan.texts:
            raise WrongUseError(f"there is nothing to embed in {self.source.name}")
        self.watch.phase("looking for finished parts", self.plan.texts)
        seen = 0
        for chunk in self.plan.chunks:
            header = None if chunk.digest in self._headers else self.parts.known(chunk.digest)
            if header is not None:
                self._agree(header)
                self._headers[chunk.digest] = header
                self.before.add(header)
            seen += chunk.count
            self.watch.at(seen)

    async def embed(self, client: "AsyncClient") -> None:
        """Embed what is missing.

        Raises:
            InvalidResponse: If the vectors are of another kind than those that are there.
            ResilientAIError: If a chunk cannot be embedded; those before it are kept.
        """
        self.watch.phase("embedding", self.plan.texts, self.done)
        for chunk in self.plan.chunks:
            if chunk.digest not in self._headers:
                await self._embed_chunk(client, chunk)

    def assemble(self, output: Path, kind: type[VectorFile]) -> None:
        """Write the file, let it take the place of what was there, and remove the parts.

        Raises:
            WrongUseError: If the source or a part was changed meanwhile.
            OSError: If it cannot be written; the parts are kept.
        """
        self.watch.phase("writing", self.plan.texts)
        wide = any(header.typecode == "d" for header in self._headers.values())
        draft = self.parts.folder / "output"
        written = 0
        with kind(draft, Shape(self.plan.texts, self.dimensions, "d" if wide else "f")) as file:
            for chunk in self.plan.chunks:
                self._copy(chunk, file)
                written += chunk.count
                self.watch.at(written)
        if output.exists():
            draft.chmod(output.stat().st_mode & 0o777)
        put(draft, output)
        self.parts.remove()

    async def _embed_chunk(self, client: "AsyncClient", chunk: Chunk) -> None:
        lines = await asyncio.to_thread(read, self.source, chunk, self.fingerprint)
        result = await self._send(client, lines)
        vectors = await asyncio.to_thread(packed, result.vectors)
        header = _header(chunk, result, vectors.buffer.typecode)
        self._agree(header)
        await asyncio.to_thread(self.parts.write, header, vectors)
        self._headers[chunk.digest] = header
        self.now.add(header)
        self.watch.paid(self.now)
        self.watch.at(self.done)

    def _copy(self, chunk: Chunk, file: VectorFile) -> None:
        part = self.parts.read(chunk.digest)
        if part is None:
            raise WrongUseError(f"a part in {self.parts.folder} was damaged; the same command makes it again")
        file.write(read(self.source, chunk, self.fingerprint), part[1])

    async def _send(self, client: "AsyncClient", lines: list[Line]) -> "EmbedResult":
        done = self.done

        def progress(sent: int, to_send: int) -> None:
            self.watch.at(done + len(lines) - to_send + sent)

        result = await client.embed(
            self.how.model, [line.text for line in lines], progress=progress, **self.how.options
        )
        if len(result.vectors) != len(lines):
            raise InvalidResponse(
                f"{len(lines)} texts were sent and {len(result.vectors)} vectors came back", model=self.how.model
            )
        return result

    def _agree(self, header: Header) -> None:
        for other in self._headers.values():
            models = {header.model, other.model} - {None}
            if header.dimensions != other.dimensions:
                differ = f"vectors of {header.dimensions:,} and of {other.dimensions:,} numbers"
            elif len(models) > 1:
                differ = f"vectors of {header.model!r} and of {other.model!r}"
            else:
                continue
            raise InvalidResponse(
                f"the service answered with {differ}, which cannot be compared; "
                f"{self.parts.folder} holds what was there before, and without it the same command begins anew",
                model=self.how.model,
            )


def _header(chunk: Chunk, result: "EmbedResult", typecode: str) -> Header:
    cost, usage = result.cost, result.usage
    return Header(
        digest=chunk.digest,
        count=chunk.count,
        dimensions=result.dimensions,
        typecode="f" if typecode == "f" else "d",
        model=result.model if result.attempts else None,
        cost=None if cost is None else f"{cost.amount:f}",
        complete=cost is not None and cost.complete,
        hits=result.hits,
        requests=result.attempts,
        input_tokens=None if usage is None else usage.input_tokens,
    )
