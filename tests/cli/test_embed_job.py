"""The job alone, with a client that makes vectors up: its memory, widths, and what does not fit together."""

import asyncio
import tracemalloc
from array import array
from contextlib import contextmanager
from decimal import Decimal

import numpy as np
import pytest

from resilient_ai.cli import _lines
from resilient_ai.cli._embed_bar import money
from resilient_ai.cli._embed_job import How, Job, Totals
from resilient_ai.cli._lines import Given, TextFile, plan, read
from resilient_ai.cli._parts import packed, parts_of
from resilient_ai.cli._vector_files import NumpyMatrix
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.core.errors import InvalidResponse
from resilient_ai.core.results import Cost, EmbedResult
from resilient_ai.core.vectors import Vectors


class Made:
    """A client whose vectors are all ones, of the dimensions, model and number that are set."""

    dimensions, model, value, missing, cost = 4, "made", 1.0, 0, Cost(amount=Decimal("0.5"), source="provider")

    async def embed(self, model, texts, *, progress):
        progress(len(texts), len(texts))
        count = len(texts) - self.missing
        vectors = Vectors(array("d", [self.value]) * (count * self.dimensions), self.dimensions)
        return EmbedResult(model=self.model, vectors=vectors, cost=self.cost, attempts=1)


class Unwatched:
    def phase(self, name, total=None, done=0):
        pass

    def at(self, done):
        pass

    def paid(self, totals):
        pass


@contextmanager
def job(tmp_path, source):
    how = How(model="made", dimensions=None)
    with parts_of(tmp_path / "v.npy") as parts:
        begun = Job(source, parts, how, how.fingerprint("server"), Unwatched())
        begun.prepare()
        yield begun


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(_lines, "CHUNK_LINES", 4)


@pytest.fixture
def two_chunks(tmp_path, small_chunks):
    with job(tmp_path, Given(["Kiel", "Emden", "Husum", "Büsum"])) as begun:
        assert len(begun.plan.chunks) > 1
        yield begun


def first_only(begun, client):
    """Embed the first chunk."""
    asyncio.run(begun._embed_chunk(client, begun.plan.chunks[0]))


def test_memory_does_not_grow_with_the_file(tmp_path):
    """40,000 lines, 10 MB of vectors as they come: at no time is more in memory than some chunks of 1 MB."""
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"berth {number}\n" for number in range(40_000)))
    client = Made()
    client.dimensions = 32
    small = tmp_path / "small.txt"
    small.write_text("berth\n")
    with job(tmp_path / "before", TextFile(small, "small.txt")) as begun:  # what is imported for it is not of the file
        asyncio.run(begun.embed(client))
        begun.assemble(tmp_path / "before.npy", NumpyMatrix)
    tracemalloc.start()
    try:
        with job(tmp_path, TextFile(path, "lines.txt")) as begun:
            asyncio.run(begun.embed(client))
            begun.assemble(tmp_path / "v.npy", NumpyMatrix)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5e6
    assert np.load(tmp_path / "v.npy", mmap_mode="r").shape == (40_000, 32)


def test_everything_that_makes_a_difference_is_in_the_fingerprint():
    """Parts of another model, other dimensions or another server are not gone on from."""
    prints = {
        How(model=model, dimensions=dimensions).fingerprint(server)
        for model in ("m", "n")
        for dimensions in (None, 64)
        for server in ("http://a/v1", "http://b/v1")
    }
    assert len(prints) == 8
    assert How(model="m", dimensions=None).fingerprint("http://a/v1/") in prints


@pytest.mark.parametrize(
    ("values", "width"), [((1.0, 1.0), "float32"), ((1.0, 0.1), "float64"), ((0.1, 0.1), "float64")]
)
def test_numbers_take_four_bytes_where_that_is_exact(tmp_path, two_chunks, values, width):
    """One number that needs eight bytes gives eight to all, and none is changed."""
    client = Made()
    client.value = values[0]
    first_only(two_chunks, client)
    client.value = values[1]
    asyncio.run(two_chunks.embed(client))
    two_chunks.assemble(tmp_path / "v.npy", NumpyMatrix)
    matrix = np.load(tmp_path / "v.npy")
    assert (matrix.dtype, matrix[0][0], matrix[-1][0]) == (width, *values)


def test_a_later_number_may_need_eight_bytes():
    """All numbers are looked at, not only those of the first vector."""
    wide, narrow = Vectors(array("d", [1.0, 0.1]), 1), Vectors(array("f", [1.0]), 1)
    assert packed(wide) is wide
    assert packed(narrow) is narrow


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("dimensions", 8, "vectors of 8 and of 4 numbers, which cannot be compared"),
        ("model", "other", "vectors of 'other' and of 'made', which cannot be compared"),
        ("missing", 1, "texts were sent and"),
    ],
)
def test_vectors_of_another_kind_are_refused(tmp_path, two_chunks, attribute, value, sentence):
    """What changed at the service is told, and what was there before is kept."""
    client = Made()
    first_only(two_chunks, client)
    setattr(client, attribute, value)
    with pytest.raises(InvalidResponse, match=sentence):
        asyncio.run(two_chunks.embed(client))
    assert two_chunks.done == two_chunks.plan.chunks[0].count


def test_lines_that_come_twice_are_embedded_once(tmp_path, small_chunks):
    """Chunks of the same texts share a part."""
    with job(tmp_path, Given(["Kiel"] * 8)) as begun:
        asyncio.run(begun.embed(Made()))
        begun.assemble(tmp_path / "v.npy", NumpyMatrix)
    assert begun.now.requests < len(begun.plan.chunks)
    assert np.load(tmp_path / "v.npy").shape == (8, 4)


def test_a_source_that_changes_meanwhile_is_noticed(tmp_path):
    """Vectors are never written beside lines they do not belong to."""
    path = tmp_path / "lines.txt"
    path.write_text("Kiel\n")
    source = TextFile(path, "lines.txt")
    chunk = plan(source, b"").chunks[0]
    path.write_text("Husum\n")
    with pytest.raises(WrongUseError, match=r"lines\.txt: was changed while it was read"):
        read(source, chunk, b"")


def test_a_part_that_goes_meanwhile_is_noticed(tmp_path, two_chunks):
    """No file is written with a gap."""
    asyncio.run(two_chunks.embed(Made()))
    next(two_chunks.parts.folder.glob("*.part")).unlink()
    with pytest.raises(WrongUseError, match="the same command makes it again"):
        two_chunks.assemble(tmp_path / "v.npy", NumpyMatrix)


def test_long_texts_make_small_chunks(monkeypatch):
    """A chunk is bounded in bytes as well as in lines."""
    monkeypatch.setattr(_lines, "CHUNK_BYTES", 10)
    assert [chunk.count for chunk in plan(Given(["a" * 6] * 4), b"").chunks] == [2, 2]


def test_most_chunks_are_much_smaller_than_they_may_be():
    """Borders follow the texts: between half and all of what a chunk may hold."""
    counts = [chunk.count for chunk in plan(Given([f"berth {number}" for number in range(40_000)]), b"").chunks]
    assert all(1920 <= count <= 3840 for count in counts[:-1])
    assert len(set(counts)) > 5


def test_costs_that_nobody_told_stay_unknown(two_chunks):
    """A sum says that it is not whole, and is none where nothing is known."""
    client = Made()
    first_only(two_chunks, client)
    assert money(two_chunks.now) == "$0.50"
    client.cost = None
    asyncio.run(two_chunks.embed(client))
    assert money(two_chunks.now) == "at least $0.50"
    assert (money(Totals(complete=False)), Totals(complete=False).known_cost) == ("unknown", None)
