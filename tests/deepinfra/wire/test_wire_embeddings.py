"""Embeddings on both routes."""

import base64
import struct
from array import array
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.errors import InvalidInput, InvalidResponse, ProviderError, RateLimited, ServerFailed
from resilient_ai.core.operations import Embed
from resilient_ai.core.results import EmbedResult
from resilient_ai.core.vectors import Vectors
from resilient_ai.deepinfra.wire.embeddings import (
    embedding_body,
    native_embedding_body,
    read_embeddings,
    read_native_embeddings,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


def embed(*texts, **options):
    return Embed(model="asked", texts=texts or ("a", "b"), **options)


def dump(body):
    return body if isinstance(body, bytes) else orjson.dumps(body)


def read(body, operation=None, **headers):
    return read_embeddings(dump(body), operation=operation or embed(), headers=headers)


def native(body, operation=None, **headers):
    return read_native_embeddings(dump(body), operation=operation or embed(), headers=headers)


def rows(*embeddings):
    return {"data": [{"index": index, "embedding": embedding} for index, embedding in enumerate(embeddings)]}


def packed(*numbers):
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


class TestBodies:
    """What is asked."""

    def test_the_shortest(self):
        """Texts always go as an array, and nothing is sent that was not given."""
        assert embedding_body(embed("tea")) == {"model": "asked", "input": ["tea"], "encoding_format": "float"}
        assert native_embedding_body(embed("tea")) == {"inputs": ["tea"]}

    def test_every_field(self):
        """Each goes by its name on the wire; only the native route has `normalize`."""
        shared = {"dimensions": 32, "service_tier": "priority", "custom": 1}
        operation = embed("a", dimensions=32, encoding="base64", service_tier="priority", extra={"custom": 1})
        assert embedding_body(operation) == {
            "model": "asked",
            "input": ["a"],
            "encoding_format": "base64",
            **shared,
        }
        assert native_embedding_body(operation.model_copy(update={"normalize": False})) == {
            "inputs": ["a"],
            "normalize": False,
            **shared,
        }

    @pytest.mark.parametrize("body", [embedding_body, native_embedding_body])
    def test_the_callers_own_fields_win(self, body):
        """But a stream of vectors does not exist."""
        assert body(embed(dimensions=64, extra={"dimensions": 32}))["dimensions"] == 32
        with pytest.raises(InvalidInput, match="extra: 'stream'"):
            body(embed(extra={"stream": True}))


class TestOpenAIRoute:
    """Answers with `data`."""

    def test_an_answer(self):
        """Vectors, usage, cost and names are those of the service."""
        body = rows([0.1, 2], [-3.0, 1e-300]) | {
            "id": "e-1",
            "model": "told",
            "service_tier": "priority",
            "usage": {"prompt_tokens": 4, "total_tokens": 4, "estimated_cost": 4.5e-08},
        }
        result = read(body)
        assert result.vectors == Vectors.pack([[0.1, 2.0], [-3.0, 1e-300]])
        assert (result.model, result.served_by, result.request_id) == ("told", "asked", "e-1")
        assert (result.usage.input_tokens, result.service_tier) == (4, "priority")
        assert (result.cost.amount, result.cost.source) == (Decimal("4.5E-8"), "provider")

    def test_what_the_service_leaves_out(self):
        """It is None, and the request goes by the name in the header."""
        result = read(rows([1.0], [2.0]), **{"x-request-id": "h"})
        assert (result.model, result.request_id) == ("asked", "h")
        assert (result.usage, result.cost, result.service_tier) == (None, None, None)

    def test_vectors_come_in_the_order_of_the_texts(self):
        """Their index decides, not their place."""
        body = {"data": [{"index": index, "embedding": [float(index)]} for index in (2, 0, 1)]}
        assert list(read(body, embed("a", "b", "c")).vectors) == [[0.0], [1.0], [2.0]]

    def test_rows_without_an_index_stand_in_order(self):
        """As some servers leave it out."""
        assert list(read({"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]}).vectors) == [[1.0], [2.0]]

    @pytest.mark.parametrize(
        "indexes", [(0, 0), (1, 2), (-1, 0), ("0", "1"), (None, 1), ([0], {}), (0.5, 1), (True, 0)]
    )
    def test_indexes_that_are_not_each_once(self, indexes):
        """No vector is given to a text on a guess."""
        body = {"data": [{"index": index, "embedding": [1.0]} for index in indexes]}
        with pytest.raises(InvalidResponse, match="its indexes are not 0 to 1, each once"):
            read(body)

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_a_wrong_count_of_vectors(self, count):
        """One for each text, or none is used."""
        with pytest.raises(InvalidResponse, match=f"it has {count} vectors for 2 texts") as caught:
            read(rows(*[[1.0]] * count))
        assert (caught.value.model, caught.value.retryable) == ("asked", True)

    @pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {"0": [1.0]}}, {"data": "x"}])
    def test_no_data(self, body):
        """An object without rows is no answer."""
        with pytest.raises(InvalidResponse, match="it has no data"):
            read(body)

    @pytest.mark.parametrize("body", [b"", b"  ", b"<html>", b"[1]", b'{"data": ['])
    def test_a_body_that_is_no_json_object(self, body):
        """It holds no vectors."""
        with pytest.raises(InvalidResponse, match="the body is"):
            read(body)

    @pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-1e400"])
    def test_a_vector_with_a_number_that_is_none(self, number):
        """What may be missing from a bill may not be missing from a vector."""
        with pytest.raises(InvalidResponse, match="vector 0 holds something that is not a number"):
            read(b'{"data": [{"embedding": [%s]}, {"embedding": [1]}]}' % number)

    def test_a_failure_behind_status_200(self):
        """An error in the body counts, with the status it names."""
        with pytest.raises(ServerFailed, match="boom"):
            read({"error": "boom"})
        with pytest.raises(RateLimited, match="slow down"):
            native({"error": {"message": "slow down", "code": 429}})

    def test_a_wrong_length_is_not_worth_another_try(self):
        """The model would answer the same again."""
        with pytest.raises(InvalidResponse, match="its vectors have 2 dimensions, asked were 32") as caught:
            read(rows([1.0, 2.0], [3.0, 4.0]), embed(dimensions=32))
        assert not caught.value.retryable
        assert read(rows([1.0] * 32, [2.0] * 32), embed(dimensions=32)).dimensions == 32


class TestVectors:
    """Numbers and base64."""

    @pytest.mark.parametrize("reader", [read, native])
    def test_numbers_keep_all_their_digits(self, reader):
        """They are packed as eight bytes each."""
        vectors = [[0.1, 1 / 3], [5e-324, 1.7976931348623157e308]]
        result = reader({"embeddings": vectors} if reader is native else rows(*vectors))
        assert (result.vectors.buffer.typecode, list(result.vectors)) == ("d", vectors)

    @pytest.mark.parametrize("encoding", ["float", "base64"])
    def test_base64_is_told_by_what_came(self, encoding):
        """Little-endian numbers of four bytes, whatever was asked for, and as they were sent."""
        result = read(rows("AACAPwAAAEA=", packed(-0.1, 0.0)), embed(encoding=encoding))
        assert result.vectors.buffer == array("f", [1.0, 2.0, -0.1, 0.0])
        assert (result.dimensions, result.vectors.buffer.typecode) == (2, "f")

    def test_absurdly_large_numbers_are_numbers(self):
        """Their sum is not finite, each of them is."""
        large = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
        assert list(read(rows(packed(large), packed(large))).vectors) == [[large], [large]]

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    def test_base64_of_what_is_no_number(self, number):
        """It is found before it spoils a sum."""
        with pytest.raises(InvalidResponse, match="a vector holds a number that is not finite"):
            read(rows(packed(1.0, 2.0), packed(3.0, number)))

    @pytest.mark.parametrize(
        ("second", "complaint"),
        [
            ("AACA*w==", "vector 1 is not base64"),
            ("AACAPw", "vector 1 is not base64"),
            ("AACAPw==\n", "vector 1 is not base64"),
            ("ä", "vector 1 is not base64"),
            (packed(1.0, 2.0), "vector 1 has 8 bytes, the first has 4"),
            ("AAA=", "vector 1 has 2 bytes, the first has 4"),
        ],
    )
    def test_base64_that_cannot_be_read(self, second, complaint):
        """The vector is named."""
        with pytest.raises(InvalidResponse, match=complaint):
            read(rows(packed(1.0), second))

    def test_base64_of_half_a_number(self):
        """A number takes four bytes."""
        with pytest.raises(InvalidResponse, match="vector 0 has 2 bytes, the first has 2, and a number takes 4"):
            read(rows("AAA=", "AAA="))

    @pytest.mark.parametrize(
        ("second", "complaint"),
        [
            ([1.0], "vector 1 has 1 dimensions, the first has 2"),
            ([1.0, 2.0, 3.0], "vector 1 has 3 dimensions, the first has 2"),
            ([1.0, "2"], "vector 1 holds something that is not a number"),
            ([1.0, None], "vector 1 holds something that is not a number"),
            ([[1.0], [2.0]], "vector 1 holds something that is not a number"),
            ([], "a vector is empty, or neither"),
            (None, "a vector is empty, or neither"),
            ("", "a vector is empty, or neither"),
            (packed(1.0, 2.0), "a vector is empty, or neither"),
            ({"0": 1.0}, "a vector is empty, or neither"),
            (7, "a vector is empty, or neither"),
        ],
    )
    @pytest.mark.parametrize("reader", [read, native])
    def test_a_vector_that_is_none(self, reader, second, complaint):
        """Every vector has the same count of numbers, and nothing but numbers."""
        vectors = [[1.0, 2.0], second]
        with pytest.raises(InvalidResponse, match=complaint):
            reader({"embeddings": vectors} if reader is native else rows(*vectors))

    def test_a_row_that_is_no_object(self):
        """It holds no vector."""
        with pytest.raises(InvalidResponse, match="a vector is empty, or neither"):
            read({"data": [[1.0], [2.0]]})


class TestNativeRoute:
    """Answers with `embeddings`."""

    def test_an_answer(self):
        """Cost and tokens are those of `inference_status`."""
        status = {"status": "succeeded", "cost": 4.5e-08, "tokens_input": 9}
        body = {"embeddings": [[1.0], [2.0]], "request_id": "r", "inference_status": status}
        result = native(body, **{"x-request-id": "header"})
        assert (list(result.vectors), result.request_id) == ([[1.0], [2.0]], "r")
        assert (result.model, result.served_by) == ("asked", "asked")
        assert (result.usage.input_tokens, result.cost.amount) == (9, Decimal("4.5E-8"))

    @pytest.mark.parametrize(("found", "count"), [(None, 0), ([], 0), ([[1.0]], 1), ("x", 0)])
    def test_a_wrong_count_of_vectors(self, found, count):
        """None at all included."""
        with pytest.raises(InvalidResponse, match=f"it has {count} vectors for 2 texts"):
            native({"embeddings": found})

    def test_a_wrong_length(self):
        """The dimensions that were asked for are compared here as well."""
        with pytest.raises(InvalidResponse, match="its vectors have 1 dimensions, asked were 64"):
            native({"embeddings": [[1.0], [2.0]]}, embed(dimensions=64))


@given(data=JSON, usage=JSON, status=JSON, error=st.none() | JSON)
@pytest.mark.parametrize("reader", [read, native])
def test_whatever_comes_is_a_result_or_an_error_of_ours(reader, data, usage, status, error):
    """No JSON makes a reader stumble."""
    body = {"data": data, "embeddings": data, "usage": usage, "inference_status": status, "error": error, "id": usage}
    try:
        result = reader(body)
    except ProviderError as failure:
        assert failure.model == "asked"
    else:
        assert isinstance(result, EmbedResult)
        assert len(result.vectors) == 2


@given(embeddings=st.lists(JSON, min_size=2, max_size=2), indexes=st.lists(JSON, min_size=2, max_size=2))
def test_whatever_stands_in_two_rows(embeddings, indexes):
    """It is two vectors of finite numbers, or an error of ours."""
    data = [{"index": index, "embedding": embedding} for index, embedding in zip(indexes, embeddings, strict=True)]
    try:
        result = read({"data": data})
    except ProviderError as failure:
        assert failure.model == "asked"
    else:
        assert len(result.vectors) == 2


@given(body=st.binary(max_size=60))
@pytest.mark.parametrize("reader", [read, native])
def test_whatever_bytes_come(reader, body):
    """Without two vectors they are an error of ours."""
    with pytest.raises(ProviderError):
        reader(body)
