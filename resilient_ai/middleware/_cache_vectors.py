"""Vectors as entries of a cache, and known vectors and new ones put together so that none is misplaced."""

import struct
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import accumulate, pairwise
from math import inf
from typing import Any, cast

from resilient_ai.core.call import Call, Next
from resilient_ai.core.errors import InvalidResponse
from resilient_ai.core.operations import Embed
from resilient_ai.core.results import EmbedResult
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware._cache_entry import HEADER, UNKNOWN, VERSION, dollars, units
from resilient_ai.middleware._machines.freshness import CLOCK_SKEW, Freshness, Worth

# What the numbers of an entry are: four bytes; eight bytes; eight bytes that are exact in four, and kept in four.
_WIDTHS = {b"f": 4, b"d": 8, b"w": 4}
_BIG_ENDIAN = sys.byteorder == "big"
_SAMPLE = 8  # numbers looked at before all are


@dataclass(slots=True)
class Piece:
    """One vector: what its numbers are, and their bytes, little-endian."""

    kind: bytes
    numbers: bytes | memoryview

    @property
    def dimensions(self) -> int:
        """How many numbers it has."""
        return len(self.numbers) // _WIDTHS[self.kind]


@dataclass(slots=True)
class Known:
    """What a cache knows of the vectors of a call, by their keys.

    Args:
        answers: Those that answer it.
        spares: Those that do where asking again fails.
        due: The keys of answers that should be fetched anew.
        damaged: The keys of entries that are none.
        oldest: When the oldest of the answers was made, in seconds since 1970-01-01 UTC; None where there is none.
        oldest_spare: The same of the spares.
        saved: US dollars that the answers cost, None where one is not known.
        stale: How many of the answers have outlived their time.
    """

    answers: dict[str, Piece] = field(default_factory=dict[str, Piece])
    spares: dict[str, Piece] = field(default_factory=dict[str, Piece])
    due: list[str] = field(default_factory=list[str])
    damaged: list[str] = field(default_factory=list[str])
    oldest: float | None = None
    oldest_spare: float | None = None
    saved: Decimal | None = None
    stale: int = 0


def encode_vectors(
    vectors: Vectors, *, created: float, ttl: float, made_in: float, costs: Sequence[int] | None = None
) -> list[bytes]:
    """Return an entry for each vector, bit for bit; numbers of eight bytes that are exact in four take four.

    Args:
        vectors: The vectors.
        created: When they were made, in seconds since 1970-01-01 UTC.
        ttl: Seconds they live.
        made_in: Seconds it took to make them.
        costs: What each cost, as `units` says; None where not known.
    """
    kind, data = _narrowed(vectors.buffer.typecode.encode(), _packed(vectors))
    size = vectors.dimensions * _WIDTHS[kind]
    pack = HEADER.pack
    if costs is None:
        head = pack(VERSION, kind, created, ttl, made_in, UNKNOWN)
        return [head + data[start : start + size] for start in range(0, len(data), size)]
    return [
        pack(VERSION, kind, created, ttl, made_in, cost) + data[start : start + size]
        for cost, start in zip(costs, range(0, len(data), size), strict=True)
    ]


def shares(cost: Decimal | None, texts: Sequence[str]) -> list[int] | None:
    """Return the cost of each of several texts, by their length."""
    total = units(cost)
    if total == UNKNOWN:
        return None
    length = sum(map(len, texts))
    # From sums, so that what is rounded off one text is added to the next.
    bounds = [total * reached // length for reached in accumulate(map(len, texts), initial=0)]
    return [after - before for before, after in pairwise(bounds)]


def decode_vectors(
    entries: Mapping[str, bytes], *, now: float, limits: Freshness, chance: Callable[[], float]
) -> Known:
    """Return what can be read. Vectors of different lengths cannot all be of one model, so none of them is believed."""
    known = Known()
    unpack, size, widths = HEADER.unpack_from, HEADER.size, _WIDTHS
    latest = now + CLOCK_SKEW
    ageless = limits.max_age == inf
    oldest, saved = latest, 0
    for key, entry in entries.items():
        try:
            version, kind, created, ttl, made_in, cost = unpack(entry)
        except (TypeError, struct.error):  # a store that is set up wrongly may return text
            known.damaged.append(key)
            continue
        width, length = widths.get(kind, 0), len(entry) - size
        if version != VERSION or not width or not length or length % width:
            known.damaged.append(key)
            continue
        worth: Worth = "fresh"
        if not (ttl == inf and ageless and created <= latest):  # which is most often so, and asks for no sums
            worth = limits.worth(age=now - created, ttl=ttl, made_in=made_in, chance=0.0 if ttl == inf else chance())
            if worth == "over":
                continue
        piece = Piece(kind, memoryview(entry)[size:])
        if worth == "spare":
            known.spares[key] = piece
            known.oldest_spare = min(known.oldest_spare or created, created)
            continue
        known.answers[key] = piece
        oldest = min(oldest, created)
        saved = -1 if cost < 0 or saved < 0 else saved + cost
        if worth != "fresh":
            known.due.append(key)
            known.stale += worth == "stale"
    if len({piece.dimensions for found in (known.answers, known.spares) for piece in found.values()}) > 1:
        return Known(damaged=[*known.damaged, *known.answers, *known.spares])
    if known.answers:
        known.oldest, known.saved = oldest, dollars(saved)
    return known


def with_spares(known: Known) -> Known:
    """Return what is known where spares are answers as well."""
    made = [each for each in (known.oldest, known.oldest_spare) if each is not None]
    answers = known.answers | known.spares
    return Known(answers=answers, damaged=known.damaged, oldest=min(made, default=None))


def pieces_of(keys: Sequence[str], vectors: Vectors) -> dict[str, Piece]:
    """Return new vectors by their keys."""
    kind, data = vectors.buffer.typecode.encode(), _packed(vectors)
    size = vectors.dimensions * _WIDTHS[kind]
    starts = range(0, len(data), size)
    return {key: Piece(kind, data[start : start + size]) for key, start in zip(keys, starts, strict=True)}


def in_order(pieces: Mapping[str, Piece], keys: Sequence[str]) -> Vectors:
    """Return the vectors in the order of `keys`, side by side."""
    kinds = {piece.kind for piece in pieces.values()}
    dimensions = next(iter(pieces.values())).dimensions
    # Of several kinds, all become eight bytes.
    kind = b"f" if kinds == {b"f"} else b"d"
    numbers: array[float] = array(kind.decode())
    for key in keys:
        piece = pieces[key]
        numbers.frombytes(piece.numbers if piece.kind == kind else _widened(piece.numbers))
    if _BIG_ENDIAN:
        numbers.byteswap()
    return Vectors(numbers, dimensions)


async def send_texts(call: Call[EmbedResult], proceed: Next[EmbedResult], texts: Sequence[str]) -> EmbedResult:
    """Send `texts` in place of all; an answer with more or fewer vectors is none."""
    operation = call.operation.model_copy(update={"texts": tuple(texts)})
    result = await proceed(call.replace(operation=operation))
    if len(result.vectors) != len(texts):
        raise InvalidResponse(f"{len(result.vectors)} vectors came back for {len(texts)} texts", model=call.model)
    return result


def on_its_model(call: Call[Any]) -> Call[Any]:
    """Return a call for vectors on the model that would be asked for it, as vectors are that model's, and not those of "auto"."""
    model = call.would_ask(call)
    return call if model == call.model else call.replace(operation=call.operation.on(model))


def as_asked(asked: Embed, proceed: Next[EmbedResult]) -> Next[EmbedResult]:
    """Return what sends a call to the models that were asked for, whoever serves it then."""
    models = {"model": asked.model, "fallbacks": asked.fallbacks}

    async def send(call: Call[EmbedResult]) -> EmbedResult:
        return await proceed(call.replace(operation=call.operation.model_copy(update=models)))

    return send


def is_own(call: Call[Any], result: EmbedResult) -> bool:
    """Return whether the model that was asked answered, and not a fallback."""
    return result.served_by in {"", call.model}


def comparable(call: Call[Any], fresh: EmbedResult, known: Mapping[str, Piece]) -> bool:
    """Return whether new and known vectors share a space, which those of two models or of two versions of one do not."""
    return is_own(call, fresh) and fresh.dimensions == next(iter(known.values())).dimensions


def _packed(vectors: Vectors) -> bytes | memoryview:
    """Return the numbers as bytes, little-endian."""
    numbers = vectors.buffer
    if _BIG_ENDIAN:
        numbers = numbers[:]  # the caller's numbers stay as they are
        numbers.byteswap()
    return memoryview(numbers).cast("B")


def _narrowed(kind: bytes, data: bytes | memoryview) -> tuple[bytes, bytes | memoryview]:
    """Return numbers of eight bytes in four where nothing is lost by it; most are not exact, which the first ones tell."""
    if kind != b"d":
        return kind, data
    narrow = b""
    for part in (data[: 8 * _SAMPLE], data):
        try:
            narrow = _converted(part, "d", "f")
        except OverflowError:
            return kind, data
        if _widened(narrow) != part:
            return kind, data
    return b"w", narrow


def _widened(data: bytes | memoryview) -> bytes:
    return _converted(data, "f", "d")


def _converted(data: bytes | memoryview, source: str, target: str) -> bytes:
    numpy: Any = sys.modules.get("numpy")
    # Ten times as fast, where the application has it anyway; another thread may be in the middle of importing it.
    if numpy is not None and not getattr(numpy.__spec__, "_initializing", False):
        with numpy.errstate(over="ignore"):
            return cast("bytes", numpy.frombuffer(data, dtype=f"<{source}").astype(f"<{target}").tobytes())
    count = len(data) // struct.calcsize(source)
    return struct.pack(f"<{count}{target}", *struct.unpack(f"<{count}{source}", data))
