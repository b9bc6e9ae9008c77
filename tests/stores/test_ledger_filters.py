"""Conditions in SQL."""

import pytest

from resilient_ai.stores._ledger_common import Filter
from resilient_ai.stores._ledger_filters import where


@pytest.mark.parametrize(
    ("filters", "condition"),
    [
        ((None, None, None), ("1", [])),
        ((1.0, 2.0, {}), ("at >= ? AND at < ?", [1.0, 2.0])),
        ((0.0, None, {"model": "m", "kind": "chat"}), ("at >= ? AND model = ? AND kind = ?", [0.0, "m", "chat"])),
        ((None, None, {"team": "red", "user": "u"}), ("tag_of(tags, ?) = ? AND user = ?", ["team", "red", "u"])),
    ],
)
def test_conditions(filters, condition):
    """Moments, columns and other tags; names of tags are values, never SQL."""
    assert where(Filter(*filters)) == condition


def test_a_table_in_front():
    """Of every column."""
    assert where(Filter(1.0, 2.0, {"model": "m", "team": "red"}), "first.") == (
        "first.at >= ? AND first.at < ? AND first.model = ? AND tag_of(first.tags, ?) = ?",
        [1.0, 2.0, "m", "team", "red"],
    )
