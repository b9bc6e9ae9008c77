"""Answers and vectors as bytes, and back."""

import sys
from array import array
from collections.abc import Mapping
from decimal import Decimal

import orjson

from resilient_ai.core.errors import OutputInvalid
from resilient_ai.core.results import ChatResult, ImageResult

# Answers that are not whole: whoever asks again may get a better one.
_NOT_WHOLE = frozenset({None, "length", "content_filter", "error"})
# What belongs to one call and not to the answer; every hit gets its own.
_OF_THE_CALL = frozenset({"cost", "attempts", "cache", "maybe_billed", "refused"})
_TYPE_CODES = {b"f": "f", b"d": "d"}
_SWAP = sys.byteorder == "big"


def encode_chat(answer: ChatResult, cost: Decimal | None) -> bytes | None:
    """Return the answer as one line with its cost and a line of JSON; None where it is not worth keeping."""
    if any(choice.finish_reason in _NOT_WHOLE for choice in answer.choices):
        return None
    try:
        for choice in answer.choices:
            for tool_call in choice.tool_calls:
                tool_call.parsed()
    except OutputInvalid:
        return None
    return _head(cost) + answer.model_dump_json(exclude=set(_OF_THE_CALL)).encode()


def decode_chat(entry: bytes) -> tuple[ChatResult, Decimal | None]:
    """Return the answer and what it cost.

    Raises:
        ValueError: If the entry is damaged or of another version.
    """
    cost, body = _split(entry)
    return ChatResult.model_validate_json(body), cost


def encode_image(answer: ImageResult, cost: Decimal | None) -> bytes | None:
    """Return the answer as two lines, cost and JSON, and the files; None where a picture was held back."""
    if any(image.flagged for image in answer.images):
        return None
    values = answer.model_dump(exclude={*_OF_THE_CALL, "images"})
    files = [image.data for image in answer.images]
    values["images"] = [
        {**image.model_dump(exclude={"data"}), "size": len(data)}
        for image, data in zip(answer.images, files, strict=True)
    ]
    return b"".join((_head(cost), orjson.dumps(values), b"\n", *files))


def decode_image(entry: bytes) -> tuple[ImageResult, Decimal | None]:
    """Return the answer and what it cost.

    Raises:
        ValueError: If the entry is damaged or of another version.
    """
    cost, body = _split(entry)
    line, _, files = body.partition(b"\n")
    values = orjson.loads(line)
    try:
        start = 0
        for image in values["images"]:
            size = image.pop("size")
            image["data"] = files[start : start + size]
            start += size
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("the list of pictures is damaged") from error
    if start != len(files):
        raise ValueError(f"the pictures have {start} bytes, the entry holds {len(files)}")
    return ImageResult.model_validate(values), cost


def encode_vector(vector: "array[float]") -> bytes:
    """Return one byte that tells the width of the numbers, and the numbers, little-endian, bit for bit."""
    return vector.typecode.encode() + _little_endian(vector).tobytes()


def decode_vectors(entries: Mapping[str, bytes]) -> "tuple[dict[str, array[float]], list[str]]":
    """Return the vectors that can be read, and the keys of the entries that cannot.

    Vectors of different lengths cannot all be of the model that is asked, so none of them is believed.
    """
    vectors: dict[str, array[float]] = {}
    damaged: list[str] = []
    for key, entry in entries.items():
        try:
            vectors[key] = _decode_vector(entry)
        except (TypeError, ValueError):  # a store that is set up wrongly may return text
            damaged.append(key)
    if len({len(vector) for vector in vectors.values()}) > 1:
        return {}, [*damaged, *vectors]
    return vectors, damaged


def _decode_vector(entry: bytes) -> "array[float]":
    code = _TYPE_CODES.get(entry[:1])
    if code is None or len(entry) < 2:  # a header and at least something
        raise ValueError("not a vector")
    vector: array[float] = array(code)
    vector.frombytes(entry[1:])
    return _little_endian(vector)


def _little_endian(vector: "array[float]") -> "array[float]":
    if not _SWAP:
        return vector
    swapped = vector[:]  # the caller's numbers stay as they are
    swapped.byteswap()
    return swapped


def _head(cost: Decimal | None) -> bytes:
    return b"1 %s\n" % ("" if cost is None else str(cost)).encode()


def _split(entry: bytes) -> tuple[Decimal | None, bytes]:
    head, _, body = entry.partition(b"\n")
    version, _, cost = head.partition(b" ")
    if version != b"1":
        raise ValueError("an entry of another version")
    try:
        amount = Decimal(cost.decode()) if cost else None
    except ArithmeticError as error:
        raise ValueError("the cost of the entry is damaged") from error
    if amount is not None and not amount.is_finite():
        raise ValueError("the cost of the entry is no number")
    return amount, body
