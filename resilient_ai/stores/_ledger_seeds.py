"""Looks up what new counters begin with, beside the thread that writes: there may be many sends, and others are to be charged."""

import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

from resilient_ai.core.budgets import Charge
from resilient_ai.stores._ledger_budgets import Seed, Span, seed, span
from resilient_ai.stores._ledger_reader import Reading
from resilient_ai.stores._worker import Worker

_KEPT = 60.0  # seconds for which what nobody has waited for is true enough


class _LookUp:
    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        self.future: Future[Seed] = Future()
        self.done_at = float("inf")


class LedgerSeeds:
    """Reads the file in a thread of its own, for one counter after the other.

    Who has no patience any more leaves the work under way, and whoever asks for the same next has it.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[Span, _LookUp] = {}
        self._reading: Reading[Seed] | None = None
        self._closing = False
        self._worker: Worker[_LookUp] = Worker("resilient-ai-seeds", self._work, self._end)

    @property
    def running(self) -> bool:
        """Whether there is a thread."""
        return self._worker.running

    def look_up(self, charge: Charge) -> "Future[Seed]":
        """Return what the counters of a charge begin with, once that is known."""
        now = time.monotonic()
        for old in [name for name, known in list(self._known.items()) if known.done_at + _KEPT < now]:
            self._known.pop(old, None)
        known = self._known.get(span(charge))
        if known is None:
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
        for item in items:
            self._reading = Reading(self._path, partial(seed, one=item.charge))
            if self._closing:
                self._reading.stop()
            try:
                item.future.set_result(self._reading.answer())
            except sqlite3.Error as error:
                self._known.pop(span(item.charge), None)
                item.future.set_exception(error)
            item.done_at = time.monotonic()

    def _end(self) -> None:
        self._reading, self._closing = None, False
