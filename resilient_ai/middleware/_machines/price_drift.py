"""How far what is billed has moved from a price list."""

import math
from decimal import Decimal

_TOLERANCE = Decimal("0.01")
# So much may be rounded off a figure with six decimals; it is more than 1 % of a short call, which costs some millionths.
_ROUNDED_OFF = Decimal("0.0000005")
# What the sums keep with every further send, so that about the last twenty decide.
_KEPT = 0.95
_BETWEEN_WARNINGS = 3600.0  # seconds


def differs(billed: Decimal, listed: Decimal) -> bool:
    """Return whether two prices are more than 1 % of the listed one apart, and more than rounding explains.

    Only a figure with six decimals or fewer can have been rounded to six.

    >>> differs(Decimal("0.00026"), Decimal("0.00026")), differs(Decimal("0.0003"), Decimal("0.00026"))
    (False, True)
    >>> differs(Decimal("0.000010"), Decimal("0.0000097")), differs(Decimal("0.0000101"), Decimal("0.0000097"))
    (False, True)
    """
    if billed == listed:
        return False
    apart = abs(billed - listed)
    if apart <= listed * _TOLERANCE:
        return False
    return apart > _ROUNDED_OFF or billed != round(billed, 6)


class PriceDrift:
    """Compares what the sends of one model are billed with what the price list says.

    Attributes:
        sends: How many were compared.
    """

    __slots__ = ("_billed", "_listed", "_warned", "sends")

    def __init__(self) -> None:
        self.sends = 0
        self._billed = 0.0
        self._listed = 0.0
        self._warned = -math.inf

    @property
    def ratio(self) -> float:
        """What is billed, divided by what the list says, of both the sums over recent sends; 1 where nothing is known."""
        if not self._listed:
            return math.inf if self._billed else 1.0
        return self._billed / self._listed

    def record(self, billed: Decimal, listed: Decimal) -> None:
        """Take in one send."""
        self.sends += 1
        paid = float(billed)
        self._billed = self._billed * _KEPT + paid
        self._listed = self._listed * _KEPT + (paid if billed == listed else float(listed))

    def try_warn(self, now: float) -> bool:
        """Return whether it is time to warn, which it is once an hour; `now` in seconds."""
        if now - self._warned < _BETWEEN_WARNINGS:
            return False
        self._warned = now
        return True
