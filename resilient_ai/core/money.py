"""Sums of money that are exact, whatever precision a program has set for its own decimals."""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

# Wide enough for a million dollars to the last digit of the finest price, and for sums of billions of them.
EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)

# Nobody offers a request that costs as much. A figure above it is a mistake of whoever named it, and one alone would use up
# budgets, ruin sums, and decide over routes for days.
MOST_OF_A_SEND: Final = Decimal(1000)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Add up amounts.

    >>> total([Decimal("0.1"), Decimal("0.2")])
    Decimal('0.3')
    """
    result = Decimal(0)
    for amount in amounts:
        result = EXACT.add(result, amount)
    return result
