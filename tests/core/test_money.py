"""Sums of money."""

from decimal import ROUND_UP, Decimal, localcontext

from resilient_ai.core.budgets import dollars, units
from resilient_ai.core.call import CallRecord
from resilient_ai.core.health import BudgetState
from resilient_ai.core.money import total
from resilient_ai.core.results import Cost


def test_the_precision_of_a_program_does_not_matter():
    """A program may round its own decimals to three digits, and money stays exact."""
    amount = Decimal("0.00043016")
    with localcontext() as context:
        context.prec = 3
        record = CallRecord(costs=[(amount, "provider", True), (amount, "provider", False)])
        costs = [Cost(amount=amount, wasted=amount, source="table")] * 2
        found = (units(amount), dollars(430_160_000), total([amount, amount]), record.cost(), Cost.total(costs))
    assert found[:3] == (430_160_000, amount, Decimal("0.00086032"))
    assert (found[3].amount, found[3].wasted) == (Decimal("0.00086032"), amount)
    assert (found[4].amount, found[4].wasted) == (Decimal("0.00086032"), Decimal("0.00086032"))


def test_nothing_adds_up_to_nothing():
    """A sum over no amounts is zero."""
    assert total([]) == 0


def test_what_is_left_of_a_budget_does_not_follow_the_program_s_context():
    """A program that rounds to two digits has as much left as any other."""
    state = BudgetState(key=("budget", "b", ""), spent=Decimal("1.234"), limit=Decimal(25), hard=True)
    with localcontext(prec=2, rounding=ROUND_UP):
        assert state.left == Decimal("23.766")
