"""Embeddings: the bodies of both routes, and answers as packed vectors."""

import binascii
import math
import struct
import sys
from array import array
from collections.abc import Mapping
from typing import Any

from resilient_ai.core.operations import Embed
from resilient_ai.core.results import EmbedResult
from resilient_ai.core.vectors import Vectors
from resilient_ai.deepinfra.wire.errors import malformed
from resilient_ai.deepinfra.wire.payload import (
    Malformed,
    as_list,
    as_object,
    as_text,
    load_object,
    provider_cost,
    request_id_of,
    unreadable,
    with_extra,
)
from resilient_ai.deepinfra.wire.usage import read_native_usage, read_usage


def embedding_body(operation: Embed) -> dict[str, Any]:
    """Return the body for the OpenAI route. Texts always go as an array: a lone text has another limit of length.

    >>> embedding_body(Embed(model="m", texts="tea"))
    {'model': 'm', 'input': ['tea'], 'encoding_format': 'float'}
    """
    body: dict[str, Any] = {
        "model": operation.model,
        "input": list(operation.texts),
        "encoding_format": operation.encoding,
    }
    return with_extra(body | _shared(operation), operation.extra)


def native_embedding_body(operation: Embed) -> dict[str, Any]:
    """Return the body for the native route, which alone knows `normalize`; the model stands in the path.

    >>> native_embedding_body(Embed(model="m", texts="tea", normalize=True))
    {'inputs': ['tea'], 'normalize': True}
    """
    body: dict[str, Any] = {"inputs": list(operation.texts)}
    if operation.normalize is not None:
        body["normalize"] = operation.normalize
    return with_extra(body | _shared(operation), operation.extra)


def read_embeddings(data: bytes, *, operation: Embed, headers: Mapping[str, str]) -> EmbedResult:
    """Return the vectors of the OpenAI route, in the order of the texts.

    Numbers and base64 are told apart by what came, not by what was asked. Numbers keep all their digits, base64 is kept as
    the four bytes a number that it holds.

    Args:
        data: The body of an answer with status 200.
        operation: What was asked; its texts are counted, its dimensions compared.
        headers: Headers of the answer.

    Raises:
        StatusError: If the body tells of a failure in spite of its status.
        InvalidResponse: If there is not exactly one vector for each text, all of the length asked for, of finite numbers.

    >>> body = b'{"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]}'
    >>> read_embeddings(body, operation=Embed(model="m", texts=["a", "b"]), headers={}).vectors[0]
    [1.0]
    """
    body = load_object(data, model=operation.model, headers=headers)
    try:
        rows = as_list(body.get("data"))
        if rows is None:
            raise Malformed("it has no data")  # noqa: TRY301 - one handler says whose answer it was
        vectors = _vectors(_in_order(rows, len(operation.texts)))
    except Malformed as error:
        raise malformed(error, body, data, headers, model=operation.model) from error
    _check_dimensions(vectors, data, operation, headers)
    usage, cost = read_usage(as_object(body.get("usage")))
    return EmbedResult(
        model=as_text(body.get("model")) or operation.model,
        served_by=operation.model,
        usage=usage,
        cost=provider_cost(cost, model=operation.model),
        request_id=request_id_of(body, headers),
        service_tier=as_text(body.get("service_tier")),
        vectors=vectors,
    )


def read_native_embeddings(data: bytes, *, operation: Embed, headers: Mapping[str, str]) -> EmbedResult:
    """Return the vectors of the native route; the rules are those of `read_embeddings`.

    Raises:
        StatusError: If the body tells of a failure in spite of its status.
        InvalidResponse: If there is not exactly one vector for each text, all of the length asked for, of finite numbers.

    >>> body = b'{"embeddings": [[1.0, 2.0]], "inference_status": {"cost": 4.5e-08}}'
    >>> str(read_native_embeddings(body, operation=Embed(model="m", texts="a"), headers={}).cost)
    '0.000000045 USD'
    """
    body = load_object(data, model=operation.model, headers=headers)
    try:
        vectors = _vectors(_counted(as_list(body.get("embeddings")) or [], len(operation.texts)))
    except Malformed as error:
        raise malformed(error, body, data, headers, model=operation.model) from error
    _check_dimensions(vectors, data, operation, headers)
    usage, cost = read_native_usage(body)
    return EmbedResult(
        model=operation.model,
        served_by=operation.model,
        usage=usage,
        cost=provider_cost(cost, model=operation.model),
        request_id=request_id_of(body, headers),
        vectors=vectors,
    )


def _shared(operation: Embed) -> dict[str, Any]:
    fields = {"dimensions": operation.dimensions, "service_tier": operation.service_tier}
    return {name: value for name, value in fields.items() if value is not None}


def _counted(items: list[Any], count: int) -> list[Any]:
    if len(items) != count:
        raise Malformed(f"it has {len(items)} vectors for {count} texts")
    return items


def _in_order(rows: list[Any], count: int) -> list[Any]:
    found = [(as_object(row) or {}) for row in _counted(rows, count)]
    indexes = [row.get("index", position) for position, row in enumerate(found)]
    if indexes != list(range(count)):
        places = {index: row for index, row in zip(indexes, found, strict=True) if type(index) is int}
        if sorted(places) != list(range(count)):
            raise Malformed(f"its indexes are not 0 to {count - 1}, each once")
        found = [places[index] for index in range(count)]
    return [row.get("embedding") for row in found]


def _vectors(embeddings: list[Any]) -> Vectors:
    if all(type(embedding) is list and embedding for embedding in embeddings):
        return _pack_numbers(embeddings)
    if all(type(embedding) is str and embedding for embedding in embeddings):
        return _unpack_base64(embeddings)
    raise Malformed("a vector is empty, or neither a list of numbers nor base64")


def _pack_numbers(embeddings: list[list[Any]]) -> Vectors:
    # `Vectors.pack` would look for infinities as well, which JSON cannot hold; without that it takes half the time.
    dimensions = len(embeddings[0])
    pack = struct.Struct(f"{dimensions}d").pack
    packed = array("d")
    for index, embedding in enumerate(embeddings):
        if len(embedding) != dimensions:
            raise Malformed(f"vector {index} has {len(embedding)} dimensions, the first has {dimensions}")
        try:
            packed.frombytes(pack(*embedding))
        except struct.error as error:
            raise Malformed(f"vector {index} holds something that is not a number") from error
    return Vectors(packed, dimensions)


def _unpack_base64(embeddings: list[str]) -> Vectors:
    packed = array("f")
    size = 0
    for index, embedding in enumerate(embeddings):
        try:
            data = binascii.a2b_base64(embedding, strict_mode=True)
        except ValueError as error:
            raise Malformed(f"vector {index} is not base64") from error
        size = size or len(data)
        if len(data) != size or size % 4:
            raise Malformed(f"vector {index} has {len(data)} bytes, the first has {size}, and a number takes 4")
        packed.frombytes(data)
    if sys.byteorder == "big":  # pragma: no cover - the wire is little-endian, as is every machine that runs the tests
        packed.byteswap()
    # The sum is finite unless a number is not, or all are absurdly large: only then each is looked at.
    if not math.isfinite(sum(packed)) and not all(map(math.isfinite, packed)):
        raise Malformed("a vector holds a number that is not finite")
    return Vectors(packed, size // 4)


def _check_dimensions(vectors: Vectors, data: bytes, operation: Embed, headers: Mapping[str, str]) -> None:
    if operation.dimensions not in {None, vectors.dimensions}:
        raise unreadable(
            f"its vectors have {vectors.dimensions} dimensions, asked were {operation.dimensions}",
            data,
            model=operation.model,
            headers=headers,
            retryable=False,  # the model would answer the same again
        )
