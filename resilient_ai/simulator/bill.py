"""The books of the simulator: requests, statuses, what is in flight, and the sum of all costs."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

_CHARGES = 20_000  # lines of the bill that are kept one by one


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The books at one moment.

    `by_model` counts by the name that was asked for, `bill_by_model` by the model that answered. `by_status` counts
    answers by HTTP status; a request whose connection ended before the headers counts under 0. The bill is exact USD.
    `in_flight` and `peak_in_flight` count requests from arrival to the last byte.
    """

    requests: int
    by_model: Mapping[str, int]
    by_route: Mapping[str, int]
    by_status: Mapping[int, int]
    bill: Decimal
    bill_by_model: Mapping[str, Decimal]
    in_flight: int
    peak_in_flight: int
    embedded_texts: int


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One line of the bill.

    Args:
        key: The idempotency key of the request, "" where it named none.
        model: The model that answered.
        cost: Exact USD, None where no price is known.
        input_tokens: Tokens of the prompt, 0 for a picture.
        output_tokens: Tokens that were generated; of a stream whose client left, until then.
    """

    key: str
    model: str
    cost: Decimal | None
    input_tokens: int = 0
    output_tokens: int = 0


class Books:
    """Counts what happens; written by the server's thread, read by any.

    Every write is one operation on a plain dict or int and every read copies in one operation, so a reader in another
    thread needs no lock.
    """

    def __init__(self) -> None:
        self._in_flight = 0
        self._held: Counter[tuple[str, str]] = Counter()
        self.reset()

    def reset(self) -> None:
        """Start anew; requests in flight stay counted as such."""
        self._requests = 0
        self._by_model: dict[str, int] = {}
        self._by_route: dict[str, int] = {}
        self._by_status: dict[int, int] = {}
        self._bill: dict[str, Decimal] = {}
        self._charges: deque[Charge] = deque(maxlen=_CHARGES)
        self._peak = self._in_flight
        self._embedded = 0

    def arrived(self) -> None:
        """A model request came in."""
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        self._requests += 1

    def left(self) -> None:
        """Its last byte went out, or its connection was lost."""
        self._in_flight -= 1

    def named(self, model: str, route: str) -> None:
        """The request's model became known."""
        self._by_model[model] = self._by_model.get(model, 0) + 1
        self._by_route[route] = self._by_route.get(route, 0) + 1

    def answered(self, status: int) -> None:
        """The request was answered with this status."""
        self._by_status[status] = self._by_status.get(status, 0) + 1

    def charge(self, charge: Charge) -> None:
        """Add a line to the bill; an unknown cost adds nothing to its sum."""
        self._charges.append(charge)
        if charge.cost is not None:
            self._bill[charge.model] = self._bill.get(charge.model, Decimal(0)) + charge.cost

    def charges(self) -> list[Charge]:
        """Return the latest lines of the bill, in the order in which they were charged."""
        return list(self._charges)

    def embedded(self, texts: int) -> None:
        """Vectors were made for so many texts."""
        self._embedded += texts

    def acquire(self, model: str, key: str, limit: int) -> bool:
        """Take a slot of a model and key; false when all are taken."""
        if self._held[model, key] >= limit:
            return False
        self._held[model, key] += 1
        return True

    def release(self, model: str, key: str) -> None:
        """Give the slot back."""
        self._held[model, key] -= 1

    def stats(self) -> Stats:
        """The books as they stand."""
        bill = dict(self._bill)
        return Stats(
            requests=self._requests,
            by_model=MappingProxyType(dict(self._by_model)),
            by_route=MappingProxyType(dict(self._by_route)),
            by_status=MappingProxyType(dict(self._by_status)),
            bill=sum(bill.values(), Decimal(0)),
            bill_by_model=MappingProxyType(bill),
            in_flight=self._in_flight,
            peak_in_flight=self._peak,
            embedded_texts=self._embedded,
        )
