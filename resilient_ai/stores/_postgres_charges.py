"""The thread that charges budgets in a PostgreSQL, apart from the one that writes sends, so that no charge waits for those."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass

from resilient_ai.core.budgets import Charge, taken_back
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.log import Log
from resilient_ai.stores._owed import Owed
from resilient_ai.stores._postgres_address import Target
from resilient_ai.stores._postgres_batch import Ask, Batch, SeedsMissing
from resilient_ai.stores._postgres_counters import Counters
from resilient_ai.stores._postgres_faults import certain, of_data
from resilient_ai.stores._postgres_link import Link, Unreachable
from resilient_ai.stores._worker import Worker

_log = Log("resilient_ai.stores")
_LOCK_WAIT = 1_500  # milliseconds, so that whoever waits for 2 s hears why
_FLUSH_WAIT = 1.5
_PAUSE = 1.0
_IDLE = 60.0
_TIDY = 3600.0
_MANY = 10_000


@dataclass(slots=True, frozen=True)
class _Doubt:
    """What a transaction was to write of which nobody knows whether it was committed."""

    settled: Sequence[Charge]
    taken_back: Sequence[Charge]


class PostgresCharges:
    """Takes charges from any thread at once; those that come while others are under way share one transaction.

    Where the server cannot be asked whoever asks hears it at once; what was settled waits until it can.

    Args:
        target: Where to.
        flush: Returns what is done once all sends that were reported are written, as new counters begin with their costs; None
            where there are none.
    """

    def __init__(self, target: Target, flush: "Callable[[], Future[None] | None]") -> None:
        self.lost = 0
        self._target = target
        self._flush = flush
        self._link = Link(target, patience=_LOCK_WAIT)
        self._counters = Counters(target.schema)
        self._owed: list[Charge] = []
        self._doubt: _Doubt | None = None
        self._away_until = float("-inf")
        self._why = ""
        self._tidied_at = float("-inf")
        self._worker: Worker[Ask | Sequence[Charge] | Future[None]] = Worker(
            "resilient-ai-budgets", self._work, self._end, every=_IDLE
        )

    @property
    def running(self) -> bool:
        """Whether there is a thread, so that something may be unwritten or open."""
        return self._worker.running

    def ask(self, charges: Sequence[Charge]) -> Ask:
        """Ask for charges to be added; without any, for everything to be written that was settled."""
        ask = Ask(charges)
        self._worker.put(ask)
        return ask

    def settle(self, charges: Sequence[Charge]) -> None:
        """Add charges; never waits."""
        self._worker.put(charges)

    def written(self) -> "Future[None]":
        """Return what is done once everything settled so far is written, or given up."""
        mark: Future[None] = Future()
        self._worker.put(mark)
        return mark

    def finish(self, within: float) -> "Future[None]":
        """Write what was settled and close the connection; what cannot be written within so many seconds is lost."""
        return self._worker.finish(within)

    @property
    def _unwritten(self) -> bool:
        return bool(self._owed) or self._doubt is not None

    def _work(self, items: "Sequence[Ask | Sequence[Charge] | Future[None]]") -> None:
        for item in items:
            if not isinstance(item, (Ask, Future)):
                self._owed.extend(item)
        if len(self._owed) > _MANY:
            self._owed = list(Owed(self._owed))
        self._try([item for item in items if isinstance(item, Ask)])
        marks = [item for item in items if isinstance(item, Future)]
        if marks:
            self._until_written()
        for mark in marks:
            if mark.set_running_or_notify_cancel():
                mark.set_result(None)
        self._worker.every = _PAUSE if self._unwritten else _IDLE

    def _try(self, asks: Sequence[Ask]) -> None:
        """Add what is owed, and let whoever asks have an answer."""
        if not asks and not self._unwritten:
            return
        if time.monotonic() < self._away_until:
            _fail(asks, self._why)
            return
        for again in (self._link.connected, False):
            try:
                self._resolve()
                self._do(asks)
                self._tidy()
            except Exception as error:  # noqa: BLE001  # whatever it is, whoever asks must hear of it
                if of_data(error):
                    self._apart(asks, error)
                    return
                self._link.drop()
                # A server that was started anew has closed its connections, which is found when they are used.
                if again and not certain(error):
                    continue
                self._why = f"{self._target.place} cannot be asked: {self._target.without_secrets(error)}"
                if isinstance(error, Unreachable):
                    self._away_until = time.monotonic() + _PAUSE
                _fail(asks, self._why)
            return

    def _resolve(self) -> None:
        """Find out whether a transaction was committed whose end nobody saw, and put things right."""
        if self._doubt is not None:
            doubt = self._doubt
            written_now = self._link.transact(Batch(self._counters, [], doubt.settled).run)
            self._doubt = None
            if not written_now:
                self._owed.extend(doubt.taken_back)

    def _do(self, asks: Sequence[Ask]) -> None:
        batch = Batch(self._counters, [ask for ask in asks if not ask.answer.done()], tuple(self._owed))
        try:
            self._run(batch)
        except SeedsMissing:
            # Outside of the transaction, so that nobody else waits for it.
            if not self._sends_are_written():
                _fail(
                    asks,
                    f"{self._target.place}: sends of this process are not written yet, which a new counter begins with",
                )
                return
            batch.may_seed = True
            self._run(batch)
        self._owed = []
        for ask, found in batch.found:
            if ask.answer.set_running_or_notify_cancel():
                ask.answer.set_result(found)
            elif found.admitted:
                self._owed.extend(taken_back(ask.charges, found.lives))
        if self._owed:
            self._do([])

    def _run(self, batch: Batch) -> None:
        if not batch.writes:
            batch.run(self._link.connection())
            return
        try:
            self._link.transact(batch.run)
        except Exception as error:
            if batch.complete and not certain(error):
                self._doubt = _Doubt(batch.settled, batch.taken_back())
                self._owed = []
            raise

    def _sends_are_written(self) -> bool:
        flushed = self._flush()
        return flushed is None or bool(wait([flushed], _FLUSH_WAIT).done)

    def _apart(self, asks: Sequence[Ask], error: Exception) -> None:
        """Do one thing at a time, as one of them can never be done."""
        owed, self._owed = self._owed, []
        if len(owed) + len(asks) <= 1:
            self._why = f"a charge cannot be written: {self._target.without_secrets(error)}"
            _fail(asks, self._why)
            self._lose(len(owed))
            return
        kept: list[Charge] = []
        for charge in owed:
            self._owed = [charge]
            self._try([])
            kept += self._owed
        self._owed = kept
        for ask in asks:
            self._try([ask])

    def _until_written(self) -> None:
        while self._unwritten:
            if not self._worker.pause(_PAUSE / 10):
                self._lose(len(self._owed) + (len(self._doubt.settled) if self._doubt else 0))
                self._owed, self._doubt = [], None
                self._link.skip()
            self._try([])

    def _lose(self, count: int) -> None:
        self.lost += count
        if count:
            _log.error("budgets in %s: %d settled charges are lost: %s", self._target.place, self.lost, self._why)

    def _tidy(self) -> None:
        if time.monotonic() - self._tidied_at >= _TIDY:
            self._tidied_at = time.monotonic()
            self._counters.forget(self._link.connection())

    def _end(self) -> None:
        self._until_written()
        self._link.drop()
        self._away_until = float("-inf")


def _fail(asks: Iterable[Ask], why: str) -> None:
    for ask in asks:
        if not ask.answer.done() and ask.answer.set_running_or_notify_cancel():
            ask.answer.set_exception(BookUnavailable(why))
