"""What all ledgers have in common; what they answer is in `test_ledger_conformance.py`."""

import inspect

import pytest

from resilient_ai.core.ledger import CostBook
from resilient_ai.stores import PostgresLedger, SQLiteLedger


@pytest.mark.parametrize("ledger", [SQLiteLedger, PostgresLedger])
@pytest.mark.parametrize("name", ["total", "by", "sends", "calls", "saved", "scan"])
def test_questions_are_those_of_a_book_of_costs(ledger, name):
    """With the same arguments, so that one ledger takes the place of the other."""
    assert inspect.signature(getattr(ledger, name)) == inspect.signature(getattr(CostBook, name))
