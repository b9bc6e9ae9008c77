"""Looks up what new counters begin with, beside the thread that writes: there may be many sends, and others are to be charged."""

import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

from resilient_ai.core.budgets import Charge
from resilient_ai.stores._budget_seeds import Seed, Span, span
from resilient_ai.stores._sqlite_budgets import seeds_of
from resilient_ai.stores._sqlite_reader import Reading
from resilient_ai.stores._worker import Worker

_KEPT = 60.0  # seconds for which what nobody has waited for is true enough
_MOST = 2_000  # counters that are looked up together


class _LookUp:
    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        self.future: Future[Seed] = Future()
        self.done_at = float("inf")


class LedgerSeeds:
    """Reads the file in a thread of its own, at once for all counters that were asked for while it read for others.

    Who has no patience any more leaves the work under way, and whoever asks for the same next has it. A counter that nothing can
    be looked up for fails alone.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[Span, _LookUp] = {}
        self._tidied_at = 0.0
        self._reading: Reading[dict[Span, Seed]] | None = None
        self._closing = False
        self._worker: Worker[_LookUp] = Worker("resilient-ai-seeds", self._work, self._end, most=_MOST)

    @property
    def running(self) -> bool:
        """Whether there is a thread."""
        return self._worker.running

    def look_up(self, charge: Charge) -> "Future[Seed]":
        """Return what the counters of a charge begin with, once that is known."""
        now = time.monotonic()
        if now - self._tidied_at >= 1.0:  # there may be thousands
            self._tidied_at = now
            for old in [name for name, known in list(self._known.items()) if known.done_at + _KEPT < now]:
                self._known.pop(old, None)
        known = self._known.get(span(charge))
        if known is None or known.done_at + _KEPT < now:
            known = self._known[span(charge)] = _LookUp(charge)
            self._worker.put(known)
        return known.future

    def used(self, charge: Charge) -> None:
        """Forget what was looked up, as the counters are there now."""
        self._known.pop(span(charge), None)

    def finish(self, within: float) -> "Future[None]":
        """Look up nothing more, and end the thread."""
        self._closing = True
        if self._reading is not None:
            self._reading.stop()
        return self._worker.finish(within)

    def _work(self, items: Sequence[_LookUp]) -> None:
        self._reading = Reading(self._path, partial(seeds_of, charges=[item.charge for item in items]))
        if self._closing:
            self._reading.stop()
        try:
            seeds = self._reading.answer()
        except Exception as error:  # noqa: BLE001  # of the file, or of one of the counters
            if len(items) > 1 and not isinstance(error, sqlite3.OperationalError):
                middle = len(items) // 2
                self._work(items[:middle])
                self._work(items[middle:])
                return
            for item in items:
                self._known.pop(span(item.charge), None)
                item.future.set_exception(error)
            return
        now = time.monotonic()
        for item in items:
            item.future.set_result(seeds[span(item.charge)])
            item.done_at = now

    def _end(self) -> None:
        self._reading, self._closing = None, False
