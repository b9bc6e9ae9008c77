"""The files that vectors are written to, each piece by piece: .jsonl, .npy and .parquet."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from typing_extensions import override

from resilient_ai.cli._extras import needed
from resilient_ai.cli._lines import Line
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.core.vectors import TypeCode, Vectors


@dataclass(frozen=True, slots=True)
class Shape:
    """How many vectors there will be, of how many numbers, in four bytes each ("f") or eight ("d")."""

    count: int
    dimensions: int
    typecode: TypeCode


class VectorFile(AbstractContextManager["VectorFile"], ABC):
    """A file that is being written.

    Args:
        path: Where; what was there is replaced.
        shape: What will be written in all.
    """

    def __init__(self, path: Path, shape: Shape) -> None:
        self.shape = shape
        self.file: BinaryIO = path.open("wb")

    @classmethod
    def check(cls) -> None:
        """Raise `WrongUseError` if a package is missing."""

    @abstractmethod
    def write(self, lines: Sequence[Line], vectors: Vectors) -> None:
        """Add one vector for each line."""

    @override
    def __exit__(self, *_: object) -> None:
        self.file.close()

    def widened(self, vectors: Vectors) -> "array[float]":
        """Return the numbers in the width of the whole file."""
        code = self.shape.typecode
        return vectors.buffer if vectors.buffer.typecode == code else array(code, vectors.buffer)


class JSONLines(VectorFile):
    """One object per line: {"index", "text", "vector"}."""

    @override
    def write(self, lines: Sequence[Line], vectors: Vectors) -> None:
        self.file.writelines(jsonl(line, vectors[row]) for row, line in enumerate(lines))


class NumpyMatrix(VectorFile):
    """One matrix of shape (vectors, dimensions), without texts and numbers of lines."""

    def __init__(self, path: Path, shape: Shape) -> None:
        np: Any = needed("numpy", "numpy")
        super().__init__(path, shape)
        header = {
            "descr": np.dtype(shape.typecode).str,
            "fortran_order": False,
            "shape": (shape.count, shape.dimensions),
        }
        np.lib.format.write_array_header_1_0(self.file, header)

    @classmethod
    @override
    def check(cls) -> None:
        needed("numpy", "numpy")

    @override
    def write(self, lines: Sequence[Line], vectors: Vectors) -> None:
        self.file.write(memoryview(self.widened(vectors)))


class Parquet(VectorFile):
    """Columns index (int64), text (string) and vector (a list of fixed size), one row group per chunk."""

    def __init__(self, path: Path, shape: Shape) -> None:
        self._pa: Any = needed("pyarrow", "parquet")
        parquet: Any = needed("pyarrow.parquet", "parquet")
        super().__init__(path, shape)
        pa = self._pa
        self._number = pa.float32() if shape.typecode == "f" else pa.float64()
        fields = [
            pa.field("index", pa.int64(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field(
                "vector", pa.list_(pa.field("item", self._number, nullable=False), shape.dimensions), nullable=False
            ),
        ]
        self._schema = pa.schema(fields)
        # A dictionary of numbers that are all different would only take time.
        self._writer = parquet.ParquetWriter(self.file, self._schema, use_dictionary=False)

    @classmethod
    @override
    def check(cls) -> None:
        needed("pyarrow.parquet", "parquet")

    @override
    def write(self, lines: Sequence[Line], vectors: Vectors) -> None:
        pa = self._pa
        buffer = self.widened(vectors)
        numbers = pa.Array.from_buffers(self._number, len(buffer), [None, pa.py_buffer(buffer)])
        columns = [
            pa.array([line.number for line in lines], pa.int64()),
            pa.array([line.text for line in lines], pa.string()),
            pa.FixedSizeListArray.from_arrays(numbers, type=self._schema.field("vector").type),
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    @override
    def __exit__(self, *_: object) -> None:
        self._writer.close()
        super().__exit__()


FORMATS: dict[str, type[VectorFile]] = {".parquet": Parquet, ".npy": NumpyMatrix, ".jsonl": JSONLines}


def format_of(output: Path) -> type[VectorFile]:
    """Return what writes this file.

    Raises:
        WrongUseError: If nothing does, or a package is missing for it.
    """
    found = FORMATS.get(output.suffix.lower())
    if found is None:
        raise WrongUseError(f"--output: the file must end in {' or '.join(FORMATS)}, got {str(output)!r}")
    found.check()
    return found


def jsonl(line: Line, vector: list[float]) -> bytes:
    """Return one record of a .jsonl file."""
    record = {"index": line.number, "text": line.text, "vector": vector}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
