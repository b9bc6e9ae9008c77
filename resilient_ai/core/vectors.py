"""Embedding vectors, packed side by side in one buffer."""

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from typing_extensions import override

if TYPE_CHECKING:
    import numpy.typing as npt

TypeCode = Literal["f", "d"]


class Vectors(Sequence[list[float]]):
    """One vector per text, all of the same length, packed as machine floats.

    A list of Python floats takes four to eight times the memory and is slow to build, so a vector becomes a list only when
    it is asked for: `vectors[i]` is a new list, `memoryview(vectors.buffer)` and `to_numpy()` copy nothing.

    Args:
        buffer: All numbers, vector after vector; `len(buffer) == count * dimensions`.
        dimensions: The length of one vector, at least 1 (0 only where there is no vector at all).

    Raises:
        ValueError: If the buffer is not a whole number of vectors.

    >>> vectors = Vectors.pack([[0.5, 1.0], [2.0, 4.0]])
    >>> len(vectors), vectors.dimensions, vectors[1]
    (2, 2, [2.0, 4.0])
    """

    __slots__ = ("buffer", "dimensions")

    def __init__(self, buffer: "array[float]", dimensions: int) -> None:
        if dimensions < 0 or (len(buffer) % dimensions if dimensions else len(buffer)):
            raise ValueError(f"{len(buffer)} numbers are not a whole number of vectors of {dimensions} dimensions")
        self.buffer = buffer
        self.dimensions = dimensions

    @classmethod
    def pack(cls, vectors: Sequence[Sequence[float]]) -> "Vectors":
        """Pack lists of numbers, eight bytes a number, so that every value comes back bit for bit.

        Raises:
            ValueError: If the vectors differ in length, or one holds something that is not a finite number.
        """
        dimensions = len(vectors[0]) if vectors else 0
        if vectors and not dimensions:
            raise ValueError("vector 0 is empty")
        packed = array("d")
        total = 0.0
        for index, vector in enumerate(vectors):
            if len(vector) != dimensions:
                raise ValueError(f"vector {index} has {len(vector)} dimensions, the first has {dimensions}")
            try:
                packed.fromlist(vector) if isinstance(vector, list) else packed.extend(iter(vector))
                total += sum(vector)
            except (TypeError, OverflowError) as error:
                raise ValueError(f"vector {index} holds something that is not a machine number") from error
        # A sum over all is finite unless one number is not, or the numbers are absurdly large: then each is looked at.
        if not math.isfinite(total) and not all(map(math.isfinite, packed)):
            raise ValueError("a vector holds a number that is not finite")
        return cls(packed, dimensions)

    @classmethod
    def join(cls, parts: Iterable["Vectors"]) -> "Vectors":
        """Put several packs one after the other.

        Raises:
            ValueError: If their dimensions differ.
        """
        packs = [part for part in parts if len(part)]
        if not packs:
            return cls(array("d"), 0)
        if len({part.dimensions for part in packs}) > 1:
            raise ValueError(f"packs of different dimensions: {sorted({part.dimensions for part in packs})}")
        if len(packs) == 1:
            return packs[0]
        code: TypeCode = "d" if any(part.buffer.typecode == "d" for part in packs) else "f"
        joined = array(code)
        for part in packs:
            joined.extend(part.buffer if part.buffer.typecode == code else array(code, part.buffer))
        return cls(joined, packs[0].dimensions)

    def packed(self, index: int) -> "array[float]":
        """Return vector `index` as an array of its own."""
        start = range(len(self))[index] * self.dimensions
        return self.buffer[start : start + self.dimensions]

    def to_numpy(self) -> "npt.NDArray[Any]":
        """Return a read-only view of shape (count, dimensions), without a copy; needs the `numpy` extra."""
        import numpy as np  # noqa: PLC0415 - an optional package, imported where it is needed

        view = np.frombuffer(self.buffer, dtype=self.buffer.typecode).reshape(len(self), self.dimensions)
        view.flags.writeable = False
        return view

    @override
    def __len__(self) -> int:
        return len(self.buffer) // self.dimensions if self.dimensions else 0

    @overload
    def __getitem__(self, index: int) -> list[float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[float]]: ...
    @override
    def __getitem__(self, index: int | slice) -> list[float] | list[list[float]]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return self.packed(index).tolist()

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vectors):
            return NotImplemented
        return self.dimensions == other.dimensions and self.buffer == other.buffer

    @override
    def __hash__(self) -> int:
        # Equal numbers may have different bytes: 0.0 and -0.0, four bytes and eight.
        return hash((self.dimensions, *self.buffer[: self.dimensions]))

    @override
    def __repr__(self) -> str:
        return f"Vectors({len(self)} x {self.dimensions})"
