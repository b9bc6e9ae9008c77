"""What a router has measured of its models: scores that calls fill as they end."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from resilient_ai.core.call import Call
from resilient_ai.core.clock import time_of
from resilient_ai.core.errors import (
    FeatureNotSupported,
    ModelNotFound,
    PermissionDenied,
    ProviderError,
    RateLimited,
    StatusError,
)
from resilient_ai.core.ledger import SendClosed
from resilient_ai.core.log import Log
from resilient_ai.core.operations import Image, Operation
from resilient_ai.core.protocols import PriceBook
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._as_sent import as_sent
from resilient_ai.middleware._machines.bounded import make_room
from resilient_ai.middleware._machines.scoreboard import Look, Mean, Score
from resilient_ai.middleware._machines.turns import Turns
from resilient_ai.middleware._pricing import price
from resilient_ai.middleware._route_ranking import Entry
from resilient_ai.middleware._route_size import Lister, Size, length_of, lister, price_of, size_of_answer, units_of
from resilient_ai.middleware._tokens import TOKENS_OF_ANSWER

R = TypeVar("R")
_Key = tuple[str, str, str]

# At so many models a quarter is forgotten: those that were asked the longest ago.
_MOST_SCORES = 1024

# How long answers are is a mean of so many, and by the hour.
_ANSWERS = 200
_HOUR = 3600.0
_A_TENTH = 0.1

_log = Log()


class Measures:
    """The scores of all models of one `Routing`, for any number of loops and threads.

    A call is expected to cost `list price of its tokens * drift`, or `tokens * price of one` where no list price is known. Its
    tokens are those of the prompt, guessed from its length, and of an answer as long as this model's were lately, but
    not above `max_tokens`. A model that has answered little is taken to answer at the length of the others.

    How long a call takes is compared by its size: `1 + tokens / 50` for an answer, `1 + tokens / 1000` for texts that are
    embedded, the number of pictures, and 1 for a stream, of which the first token counts. So a long answer is no slow one.

    Args:
        prices: List prices; None knows none.
    """

    def __init__(self, prices: PriceBook | None) -> None:
        self._prices = prices
        self._scores: dict[_Key, Score] = {}
        self._answers: dict[str, Mean] = {}
        self._turns = Turns()
        self._turns.forked = self.clear

    def clear(self) -> None:
        """Forget everything, as a forked child must, in which the parent's calls never end."""
        self._scores.clear()
        self._answers.clear()

    def estimate(self, call: Call[Any], entries: Sequence[Entry]) -> None:
        """Write into each entry what a call to its model is expected to cost and to take, and how the model did lately."""
        now, kind, origin = call.clock.monotonic(), call.operation.kind, call.origin
        with self._turns:
            usual = self._usual_length(kind, now)
            scores = [self._scores.get((origin, entry.model, kind)) for entry in entries]
            looks = [Look(usual) if score is None else score.look(now, usual) for score in scores]
        size = Size.of(call.operation)
        listed = lister(self._prices, call.operation, size.prompt)
        for entry, look in zip(entries, looks, strict=True):
            _estimate(entry, look, size, listed)

    def ask(self, call: Call[R]) -> "Asked[R]":
        """Take note that a call is about to be sent to its model."""
        now = call.clock.monotonic()
        key = (call.origin, call.model, call.operation.kind)
        with self._turns:
            score = self._scores.get(key)
            if score is None:
                make_room(self._scores, _MOST_SCORES, lambda known: known.asked)
                score = self._scores[key] = Score()
            length = score.length(now, self._usual_length(call.operation.kind, now))
            return Asked(self, call, score, score.begin(now, Size.of(call.operation).work(length)))

    def post(self, work: Callable[[], None]) -> None:
        """Have `work` done in a turn; never waits."""
        self._turns.post(work)

    def settle(self, score: Score, operation: Operation[Any], row: SendClosed, now: float) -> None:
        """Learn from how a send was billed; never waits."""
        usage, length = row.usage, length_of(operation, row)
        cost = None if row.cost is None else float(row.cost)
        listed = None if cost is None else self._list_price_of(operation, row)
        units = units_of(operation, usage)

        def work() -> None:
            if cost is not None:
                score.record_cost(now, cost, listed=listed, units=units, used=row.used)
            if length is not None:
                score.record_length(now, length)
                self._answers.setdefault(operation.kind, Mean(_HOUR, _ANSWERS)).add(now, length)

        self._turns.post(work)

    def _usual_length(self, kind: str, now: float) -> float:
        known = self._answers.get(kind)
        return float(TOKENS_OF_ANSWER) if known is None else known.value(now, TOKENS_OF_ANSWER, _A_TENTH)

    def _list_price_of(self, operation: Operation[Any], row: SendClosed) -> float | None:
        """Return what the tokens that a send was billed for cost by the list."""
        if row.list_cost is not None:
            return float(row.list_cost)
        if self._prices is None:
            return None
        if isinstance(operation, Image):
            return price_of(lister(self._prices, operation, 0), operation.model, as_sent(operation).number)
        prices, usage, tier = self._prices, row.usage, row.service_tier
        return price_of(lambda _model, _units: price(prices, operation, usage, tier), operation.model, 0)


class Asked(Generic[R]):
    """A model that is asked on behalf of a call: takes note of how long that takes, how it ends, and what it costs.

    Args:
        measures: Where that is noted.
        call: The call as it goes to the model.
        score: What is known of the model.
        number: Of the call, at that score.
    """

    __slots__ = ("_measures", "_number", "_score", "call")

    def __init__(self, measures: Measures, call: Call[R], score: Score, number: int) -> None:
        self._measures = measures
        self._score = score
        self._number = number
        self.call = call.replace(on_send_closed=(*call.on_send_closed, self._send_closed))

    def answered(self, result: R) -> None:
        """Take note of an answer, or of a stream that has begun."""
        self._end(good=True, size=size_of_answer(result))
        if isinstance(result, StreamResult):
            result.on_end(self._stream_ended)

    def failed(self, error: BaseException) -> None:
        """Take note of an error, also one that says nothing about the model."""
        self._end(good=False if _is_fault_of_model(error) else None)

    def _end(self, *, good: bool | None, size: float | None = None) -> None:
        score, number, now = self._score, self._number, time_of(self.call.clock)
        self._measures.post(lambda: score.end(number, now, good=good, size=size))

    def _stream_ended(self, end: StreamEnd) -> None:
        if end.how == "failed" and isinstance(end.error, ProviderError):
            score, now = self._score, time_of(self.call.clock)
            self._measures.post(lambda: score.record_trouble(now))

    def _send_closed(self, row: SendClosed) -> None:
        self._measures.settle(self._score, self.call.operation, row, time_of(self.call.clock))


def _is_fault_of_model(error: BaseException) -> bool:
    """Return whether an error shows that the model cannot serve now, whatever it is asked."""
    if not isinstance(error, ProviderError) or isinstance(error, FeatureNotSupported):
        return False
    if isinstance(error, StatusError) and error.status < 500 and error.status != 408:
        return isinstance(error, RateLimited | ModelNotFound | PermissionDenied)
    return True


def _estimate(entry: Entry, look: Look, size: Size, listed: Lister | None) -> None:
    answer = size.answers * int(min(size.longest, look.length))
    price = None if listed is None else price_of(listed, entry.model, answer or size.counted)
    cost, is_measured = None, False
    if price is not None:
        cost, is_measured = price * look.drift, look.is_billed
    elif look.rate is not None:
        cost, is_measured = look.rate * (answer + (size.prompt if size.answers else size.counted)), True
    entry.did(look)
    entry.cost, entry.is_measured = cost, is_measured
    entry.seconds = None if look.pace is None else look.pace * size.work(look.length)
    entry.lacks_price = cost is None and listed is not None
