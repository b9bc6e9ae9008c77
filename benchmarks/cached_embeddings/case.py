"""What every contender is given: the texts, their vectors, and places of its own."""

from array import array
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

MODEL = "BAAI/bge-m3"
SAMPLE = 25  # vectors that are compared after every read


@dataclass(frozen=True)
class Case:
    """Known texts and their vectors, the same ones for everybody.

    Args:
        vectors: A file of 4-byte numbers, vector after vector.
        count: Texts.
        dimensions: Numbers per vector.
        folder: A directory for this contender alone.
        width: Bytes per number of what the service answers: 8 as from JSON, 4 as from base64. The values fit into 4.
        redis: The port of a private Redis, None where there is none.
    """

    vectors: Path
    count: int
    dimensions: int
    folder: Path
    width: int = 4
    redis: int | None = None

    @cached_property
    def texts(self) -> list[str]:
        return [
            f"Passage {number} of a text that is embedded once and looked up again and again." for number in self.places
        ]

    @property
    def places(self) -> range:
        return range(self.count)

    @cached_property
    def numbers(self) -> "array[float]":
        """All numbers, vector after vector."""
        read = array("f")
        with self.vectors.open("rb") as file:
            read.fromfile(file, self.count * self.dimensions)
        return read

    @cached_property
    def place_of(self) -> dict[str, int]:
        return {text: place for place, text in enumerate(self.texts)}

    def vector(self, place: int) -> "array[float]":
        """Return the vector of text number `place`."""
        return self.numbers[place * self.dimensions : (place + 1) * self.dimensions]

    def vector_of(self, text: str) -> "array[float]":
        return self.vector(self.place_of[text])

    def sample(self) -> list[int]:
        """Return places all over the list, the first and the last included."""
        return sorted({place * (self.count - 1) // max(1, SAMPLE - 1) for place in range(SAMPLE)})


class Reader(Protocol):
    """A cache that is filled once and then read again and again."""

    async def fill(self) -> None:
        """Put all vectors into the cache."""

    async def prepare(self) -> None:
        """Do what comes before a read and is not measured."""

    async def read(self) -> Any:
        """Return all vectors in the order of the texts; this is what is measured."""

    def shown(self, answer: Any, place: int) -> list[float]:
        """Return vector number `place` of an answer, to be compared."""

    async def aclose(self) -> None:
        """Let go of files and connections."""


class NotHere(Exception):
    """A contender cannot take part on this machine; the message says why."""


def check(case: Case, reader: Reader, answer: Any) -> None:
    """Compare a sample of an answer with what was put in.

    Raises:
        ValueError: If a vector is missing or differs.
    """
    for place in case.sample():
        if reader.shown(answer, place) != case.vector(place).tolist():
            raise ValueError(f"vector {place} is not what was put in")
