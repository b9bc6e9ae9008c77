"""Room for new keys: what is forgotten, what stays, and what it costs."""

import pytest

from resilient_ai.middleware._machines.bounded import make_room


def kept(worths, most):
    """Return the places of those that stay when there must be fewer than `most`."""
    known = dict(enumerate(worths))
    make_room(known, most, float)
    return list(known)


def test_below_the_bound_nothing_is_forgotten_and_nothing_looked_at():
    """An entry is worth what it is worth; nobody asks before the bound is reached."""
    known = {1: "one", 2: "two", 3: "three"}
    make_room(known, 4, worth=pytest.fail)
    assert known == {1: "one", 2: "two", 3: "three"}


@pytest.mark.parametrize(
    ("worths", "most", "stays"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 0], 8, [2, 3, 4, 5, 6, 7]),
        ([2, 0, 1, 0, 2, 0, 2, 1], 8, [0, 2, 4, 5, 6, 7]),
        ([2, 1, 2, 0, 2, 1, 2, 2], 8, [0, 2, 4, 5, 6, 7]),
        ([2, 2, 0, 2, 2, 2, 2, 2], 8, [1, 3, 4, 5, 6, 7]),
        ([float("inf")] * 4, 4, [1, 2, 3]),
        ([1, 0], 2, [0]),
        ([1], 1, []),
        ([0] * 9, 8, [2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_a_quarter_goes(worths, most, stays):
    """First what is worth least, of equals what came first; at least one, whatever it is worth."""
    assert kept(worths, most) == stays


def test_many_names_cost_little_each():
    """However many come, an entry is looked at a few times at most, and no more than the bound are kept."""
    known, looked = {}, []

    def worth(name):
        looked.append(name)
        return 1.0

    for name in range(20_000):
        make_room(known, 1024, worth)
        known[name] = name
        assert len(known) <= 1024
    assert len(looked) <= 4 * 20_000
