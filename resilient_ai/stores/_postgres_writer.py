"""The thread that writes what a `PostgresLedger` is told: in groups, and again and again while the server is away."""

import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from resilient_ai.core.ledger import SendOpened
from resilient_ai.core.log import Log
from resilient_ai.stores._ledger_intents import Intents, left_behind, remove
from resilient_ai.stores._postgres_address import Target
from resilient_ai.stores._postgres_faults import of_data
from resilient_ai.stores._postgres_link import Link
from resilient_ai.stores._postgres_rows import Report, Rows
from resilient_ai.stores._postgres_sessions import Sessions
from resilient_ai.stores._worker import Worker

_log = Log("resilient_ai.stores")
_GATHER = 0.005
_MOST = 2_000
_LOUD_EVERY = 10_000
_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_BEAT = 10.0


class PostgresWriter:
    """Takes reports from any thread at once, and writes them in groups.

    Reports that cannot be written wait, up to `max_waiting` of them; those beyond are counted in `lost` and complained about.

    Args:
        target: Where to.
        intents: What the paths of the files begin with in which sends of the last moment are kept; None keeps none.
        max_waiting: Reports that may wait.
    """

    def __init__(self, target: Target, intents: Path | None = None, *, max_waiting: int = 100_000) -> None:
        self.away: str | None = None  # why nothing can be written just now
        self._target = target
        self._max_waiting = max_waiting
        self._link = Link(target)
        self._place = intents
        self._intents = None if intents is None else Intents(intents)
        self._rows = Rows(target.schema)
        self._sessions = Sessions(target.schema)
        self._beaten_at = float("-inf")
        self._begun = False
        self._refusals = itertools.count(1)
        self._refused = 0  # for want of room
        self._given_up = 0
        self._complained = 0
        self._worker: Worker[Report | Future[None]] = Worker(
            "resilient-ai-ledger", self._work, self._end, gather=_GATHER, most=_MOST, every=_BEAT
        )

    @property
    def lost(self) -> int:
        """Reports that could not be kept."""
        return self._refused + self._given_up

    @property
    def running(self) -> bool:
        """Whether there is a thread, so that something may be unwritten or open."""
        return self._worker.running

    def begin(self, row: SendOpened) -> None:
        """Take the report of a send that is about to leave, so that a kill in the next moment does not take it; never waits."""
        if self._intents is not None and self._worker.waiting < self._max_waiting:
            self._intents.put(row)
        self.put(row)

    def put(self, report: Report) -> None:
        """Take a report; never waits."""
        if self._worker.waiting >= self._max_waiting:
            # Counted without a lock, as the garbage collector may come in between; the thread complains about it.
            self._refused = next(self._refusals)
        else:
            self._worker.put(report)

    def written(self) -> "Future[None]":
        """Return what is done once everything reported so far is written, or given up."""
        mark: Future[None] = Future()
        self._worker.put(mark, awaited=True)
        return mark

    def written_if_any(self) -> "Future[None] | None":
        """Return the same, or None where nothing was reported."""
        return self.written() if self.running else None

    def finish(self, within: float) -> "Future[None]":
        """Write everything and close the connection; what cannot be written within so many seconds is lost."""
        return self._worker.finish(within)

    def _work(self, items: Sequence[Report | Future[None]]) -> None:
        reports = [item for item in items if not isinstance(item, Future)]
        if reports:
            self._write(reports)
        # Whoever only asks finds those who died before, too.
        if (items or self._begun) and self.away is None and time.monotonic() - self._beaten_at >= _BEAT:
            self._beat()
        self._complain("too many reports wait to be written")
        for mark in items:
            if isinstance(mark, Future) and mark.set_running_or_notify_cancel():
                mark.set_result(None)

    def _write(self, reports: Sequence[Report]) -> None:
        if self.away is not None and self._worker.too_late:
            self._given_up += len(reports)  # one attempt was enough; the next may take as long
            return
        for pause in _pauses():
            try:
                self._link.transact(lambda connection: self._rows.write(connection, self._link.session, reports))
            except Exception as error:  # noqa: BLE001  # there are two kinds: of the server, which may pass, and of a report
                if of_data(error):
                    self._without_the_bad(reports, error)
                elif self._wait(pause, error):
                    continue
                else:
                    self._lose(len(reports), error)
                return
            self._is_back()
            self._kept(reports)
            return

    def _without_the_bad(self, reports: Sequence[Report], error: Exception) -> None:
        if len(reports) == 1:
            self._lose(1, error)
            self._kept(reports)
            return
        middle = len(reports) // 2
        self._write(reports[:middle])
        self._write(reports[middle:])

    def _kept(self, reports: Sequence[Report]) -> None:
        if self._intents is not None:
            self._intents.drop(reports)
            self._intents.complain(self._target.place)

    def _wait(self, pause: float, error: Exception) -> bool:
        self._link.drop()
        reason = self._target.without_secrets(error)
        if self.away is None:
            _log.warning("ledger %s cannot be written just now, so reports wait: %s", self._target.place, reason)
        self.away = reason
        self._complain(reason)
        return self._worker.pause(pause)

    def _is_back(self) -> None:
        if self.away is not None:
            _log.warning("ledger %s is written again", self._target.place)
            self.away = None

    def _beat(self) -> None:
        self._beaten_at = time.monotonic()
        try:
            self._link.transact(self._sessions.bury)
            self._begun = True
        except Exception as error:  # noqa: BLE001  # whatever it is, it passes, or the next group finds it out
            _log.debug("ledger %s: no heartbeat: %s", self._target.place, self._target.without_secrets(error))
            self._link.drop()
            self._link.skip()
        if self._begun and self._place is not None:
            self._bring_in(self._place)

    def _bring_in(self, place: Path) -> None:
        """Write what dead processes of this machine were about to send and could not write down."""
        for files in left_behind(place):
            rows = [row for _, some in files for row in some]
            try:
                self._link.transact(partial(self._rows.recover, session=self._link.session, rows=rows))
            except Exception as error:  # noqa: BLE001  # as in `_beat`
                reason = self._target.without_secrets(error)
                _log.warning("ledger %s: %d sends of dead processes wait: %s", self._target.place, len(rows), reason)
                self._link.drop()
                self._link.skip()
                return
            remove(files)

    def _end(self) -> None:
        try:
            if self._link.connected:
                self._link.transact(lambda connection: self._sessions.end(connection, self._link.session))
        except Exception as error:  # noqa: BLE001  # others find a session that is dead
            _log.debug("ledger %s: session not ended: %s", self._target.place, self._target.without_secrets(error))
            self._link.skip()
        self._link.drop()
        self._begun, self._beaten_at, self.away = False, float("-inf"), None
        if self._intents is not None:
            self._intents.close()
        if self.lost != self._complained:
            self._say_lost("that was the last of them")

    def _lose(self, count: int, error: Exception) -> None:
        if not of_data(error):
            self._link.skip()  # it may have been committed, and what comes next is something else
        self._given_up += count
        self._complain(self._target.without_secrets(error))

    def _complain(self, reason: str) -> None:
        lost, before = self.lost, self._complained
        if lost and (not before or lost // _LOUD_EVERY != before // _LOUD_EVERY):
            self._say_lost(reason)

    def _say_lost(self, reason: str) -> None:
        self._complained = self.lost
        _log.error("ledger %s has lost %d reports so far: %s", self._target.place, self._complained, reason)


def _pauses() -> Iterator[float]:
    return itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]))
