"""Packed vectors."""

import copy
import pickle
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.vectors import Vectors

FINITE = st.floats(allow_nan=False, allow_infinity=False)
LISTS = st.integers(1, 5).flatmap(lambda size: st.lists(st.lists(FINITE, min_size=size, max_size=size), max_size=6))


@given(LISTS)
def test_every_number_comes_back_bit_for_bit(rows):
    """What is packed is unpacked exactly, negative zero and the largest numbers included."""
    vectors = Vectors.pack(rows)
    assert [list(map(float.hex, row)) for row in vectors] == [list(map(float.hex, row)) for row in rows]
    assert Vectors.pack([tuple(row) for row in rows]) == vectors
    assert pickle.loads(pickle.dumps(vectors)) == copy.deepcopy(vectors) == vectors


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused(bad):
    """NaN and infinity are refused, also where they would cancel out in a sum."""
    with pytest.raises(ValueError, match="not finite"):
        Vectors.pack([[1.0, bad], [-bad, 2.0]])


def test_huge_numbers_are_finite():
    """A sum that overflows is no reason to refuse numbers that are finite."""
    assert Vectors.pack([[1.7e308, 1.7e308]])[0] == [1.7e308, 1.7e308]


@pytest.mark.parametrize("bad", ["x", None, [1.0], 10**400])
def test_what_is_no_machine_number_is_refused(bad):
    """The sentence names the vector."""
    with pytest.raises(ValueError, match="vector 1 holds something that is not a machine number"):
        Vectors.pack([[1.0], [bad]])
    with pytest.raises(ValueError, match="vector 1 holds something"):
        Vectors.pack([[1.0], (bad,)])


def test_ragged_and_empty_vectors_are_refused():
    """All vectors have the length of the first, which is not zero."""
    with pytest.raises(ValueError, match="vector 1 has 1 dimensions, the first has 2"):
        Vectors.pack([[1.0, 2.0], [1.0]])
    with pytest.raises(ValueError, match="vector 0 is empty"):
        Vectors.pack([[], []])


def test_arrays_of_other_kinds_are_packed():
    """Four-byte arrays and numpy rows are numbers as well."""
    assert Vectors.pack([array("f", [0.5, 1.0])]) == Vectors.pack([np.array([0.5, 1.0], dtype=np.float32)])


@pytest.mark.parametrize(("count", "dimensions"), [(3, 2), (1, 0), (0, -1)])
def test_a_buffer_is_a_whole_number_of_vectors(count, dimensions):
    """A buffer that does not fit the dimensions is refused."""
    with pytest.raises(
        ValueError, match=f"{count} numbers are not a whole number of vectors of {dimensions} dimensions"
    ):
        Vectors(array("d", [0.0] * count), dimensions)


def test_it_is_a_sequence():
    """Length, indexes from both ends, slices, iteration and membership work as for a list of lists."""
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    vectors = Vectors.pack(rows)
    assert (len(vectors), vectors[-1], vectors[1:], list(vectors)) == (3, rows[-1], rows[1:], rows)
    assert rows[1] in vectors
    assert vectors.packed(1) == array("d", rows[1])
    for index in (3, -4):
        with pytest.raises(IndexError):
            vectors[index]


@given(LISTS, st.data())
def test_join_puts_back_what_was_cut(rows, data):
    """Packs of consecutive vectors join into the whole."""
    cut = data.draw(st.integers(0, len(rows)))
    vectors = Vectors.pack(rows)
    parts = [Vectors.pack(rows[:cut]), Vectors.pack([]), Vectors.pack(rows[cut:])]
    assert Vectors.join(parts) == (vectors if rows else Vectors.pack([]))


def test_join_widens_only_where_it_must():
    """Packs of four-byte numbers stay so; beside one of eight bytes all become eight bytes wide."""
    narrow, wide = Vectors(array("f", [0.5]), 1), Vectors(array("d", [0.1]), 1)
    assert Vectors.join([narrow, narrow]).buffer == array("f", [0.5, 0.5])
    joined = Vectors.join([narrow, wide])
    assert (joined.buffer.typecode, list(joined)) == ("d", [[0.5], [0.1]])
    assert Vectors.join([narrow]) is narrow
    with pytest.raises(ValueError, match=r"packs of different dimensions: \[1, 2\]"):
        Vectors.join([narrow, Vectors.pack([[1.0, 2.0]])])


@pytest.mark.parametrize("code", ["f", "d"])
def test_numpy_sees_the_same_memory_and_may_not_write(code):
    """The view copies nothing and is read-only."""
    vectors = Vectors(array(code, [0.5, 1.0, 2.0, 4.0]), 2)
    view = vectors.to_numpy()
    assert (view.shape, view.dtype, view.tolist()) == ((2, 2), np.dtype(code), list(vectors))
    assert view.ctypes.data == vectors.buffer.buffer_info()[0]
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 9.0


def test_no_vectors_are_fine():
    """An empty pack has length 0, and numpy sees it too."""
    nothing = Vectors.pack([])
    assert (len(nothing), list(nothing), nothing.to_numpy().shape, repr(nothing)) == (0, [], (0, 0), "Vectors(0 x 0)")


def test_equal_vectors_have_equal_hashes():
    """Equality is of numbers, not of bytes: zero and negative zero, four bytes and eight are the same."""
    groups = [Vectors.pack([[0.0, 1.0]]), Vectors.pack([[-0.0, 1.0]]), Vectors(array("f", [0.0, 1.0]), 2)]
    assert len(set(groups)) == 1
    assert groups[0] != Vectors.pack([[0.0], [1.0]])
    assert groups[0] != [[0.0, 1.0]]


def test_repr_shows_the_shape_alone():
    """No numbers in logs."""
    assert repr(Vectors.pack([[1.0, 2.0]])) == "Vectors(1 x 2)"
