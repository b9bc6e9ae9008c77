"""What stands in front of every value in a cache store.

version (1) | kind (1) | created (8) | ttl (8) | made in (8) | cost (8) | body

Version 3 has the ids of the span that made it (24) in front of the body.
"""

import math
import struct
from dataclasses import dataclass
from decimal import Context, Decimal

from resilient_ai.middleware._span_origin import ORIGIN_SIZE

HEADER = struct.Struct("<cc3dq")
VERSION = b"\x02"
_TRACED = b"\x03"

# A cost is kept as a whole number of these, which is more exact than any price.
UNIT = Decimal("1e-15")
UNKNOWN = -1
_MOST_DOLLARS = 9_000
# The application's own context may round.
_EXACT = Context(prec=60)


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and its story.

    Args:
        body: What was kept.
        created: Seconds since 1970-01-01 UTC.
        ttl: Seconds it is fresh, infinite where nothing ends it.
        made_in: Seconds it took to make.
        saved: US dollars it cost, None where not known.
        origin: The ids of the span that made it, as `origin_of` returns them; empty where nobody traced it.
    """

    body: bytes
    created: float
    ttl: float
    made_in: float
    saved: Decimal | None
    origin: bytes = b""


def wrap(
    kind: bytes,
    body: bytes,
    *,
    created: float,
    ttl: float,
    made_in: float,
    cost: Decimal | None,
    origin: bytes = b"",
) -> bytes:
    """Return an entry as bytes.

    >>> unwrap(b"c", wrap(b"c", b"hi", created=1.0, ttl=60.0, made_in=0.5, cost=Decimal("0.002"))).saved
    Decimal('0.002')
    """
    version = _TRACED if origin else VERSION
    return b"".join((HEADER.pack(version, kind, created, ttl, made_in, units(cost)), origin, body))


def unwrap(kind: bytes, data: bytes) -> Entry:
    """Return what `wrap` was given.

    Raises:
        TypeError: If `data` is no bytes, as a store that is set up wrongly may return text.
        ValueError: If it is damaged, of another kind, or of another version.
    """
    if len(data) < HEADER.size:
        raise ValueError("an entry that is not whole")
    version, found, created, ttl, made_in, cost = HEADER.unpack_from(data)
    start = HEADER.size + ORIGIN_SIZE if version == _TRACED else HEADER.size
    if version not in {VERSION, _TRACED} or found != kind or len(data) < start:
        raise ValueError("an entry of another version or kind")
    if not (math.isfinite(created + made_in) and ttl > 0 and made_in >= 0):
        raise ValueError("an entry whose times are no times")
    return Entry(data[start:], created, ttl, made_in, dollars(cost), data[HEADER.size : start])


def units(cost: Decimal | None) -> int:
    """Return a cost as a whole number of units."""
    if cost is None or not 0 <= cost < _MOST_DOLLARS:
        return UNKNOWN
    return int(_EXACT.to_integral_value(_EXACT.divide(cost, UNIT)))


def dollars(cost: int) -> Decimal | None:
    """Return a number of units as US dollars."""
    return None if cost < 0 else _EXACT.multiply(Decimal(cost), UNIT).normalize(_EXACT)
