"""Ends everything at once and within one time, also while the interpreter ends, and says what that cost."""

import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress

from resilient_ai.middleware._log_writer import is_heard

# Seconds after which it is said what is waited for.
_SOON = 2.0
_log = logging.getLogger("resilient_ai")


class Ending:
    """What there is to do at the end, each in a thread that waits for it: Python starts none any more when a process ends.

    Args:
        work: What ends something, by its name in messages. An empty name is not told.
    """

    def __init__(self, work: Mapping[str, Callable[[], object]]) -> None:
        self._work = dict(work)
        self._changed = threading.Condition()
        self._begun = self._failed = self._given_up = False
        self._start()
        if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
            start = weakref.WeakMethod(self._start_again)
            os.register_at_fork(after_in_child=lambda: (again := start()) and again())

    @property
    def is_begun(self) -> bool:
        """Whether it is under way, or over."""
        return self._begun

    def begin(self) -> bool:
        """Let all of it be done at once; return whether that was not begun before."""
        # Its lock is one that a signal handler may take again over the one it has interrupted.
        with self._changed:
            is_first, self._begun = not self._begun, True
            self._changed.notify_all()
        return is_first

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds for what was begun, and return whether it is done; who has to wait is told what for."""
        end = time.monotonic() + timeout
        try:
            if not self._waited(min(_SOON, timeout)) and timeout > _SOON:
                say(f"the end of telemetry waits up to {timeout - _SOON:.0f} s more for {self._missing()}")
                self._waited(end - time.monotonic())
        except BaseException:
            if missing := self._missing():
                say(f"the end of telemetry was interrupted while it waited for {missing}")
            raise
        if missing := self._missing():
            say(f"telemetry is lost, as it was not taken within {timeout:g} s: {missing}")
        with self._changed:
            self._given_up = True
            self._changed.notify_all()
        return self._is_done()

    def wait_as_well(self, timeout: float) -> bool:
        """Wait in silence beside the one who has begun it, no longer than that one does unless it was interrupted."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left or self._given_up, timeout)
        return self._is_done()

    def forget(self) -> None:
        """End the threads, and nothing else."""
        with self._changed:
            self._work.clear()
            self._begun = True
            self._changed.notify_all()

    def _start(self) -> None:
        self._left = dict.fromkeys(self._work)
        for name in self._work:
            threading.Thread(target=self._do, args=(name,), name="resilient-ai-telemetry", daemon=True).start()

    def _start_again(self) -> None:
        """In a child that was forked: threads stay behind, and a lock may have been held."""
        self._changed = threading.Condition()
        if self._begun:  # its end is the parent's
            self._left.clear()
        else:
            self._start()

    def _do(self, name: str) -> None:
        changed = self._changed
        with changed:
            changed.wait_for(lambda: self._begun)
            work = self._work.get(name)
        failed = False
        try:
            if work is not None:
                failed = work() is False
        except Exception as fault:  # noqa: BLE001 - an exporter that raises must not fail the application at its end
            _log.warning("telemetry could not be handed over: %s", type(fault).__name__)
            failed = True
        with changed:
            self._failed = self._failed or failed
            self._left.pop(name, None)
            changed.notify_all()

    def _waited(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._left, max(0.0, seconds))

    def _is_done(self) -> bool:
        return not self._left and not self._failed

    def _missing(self) -> str:
        with self._changed:
            return ", ".join(filter(None, self._left))


def say(sentence: str) -> None:
    """Log a warning, or print it where nobody hears the log: a process that is slow to end, or loses something, says why."""
    if is_heard(_log):
        _log.warning("%s", sentence)
    elif sys.stderr is not None:
        with suppress(OSError, ValueError):  # closed already
            sys.stderr.write(f"resilient_ai: {sentence}\n")
