"""Questions to the ledger's file over a connection of their own, so that a long one holds up no report and no charge."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from resilient_ai.stores._forks import using_file
from resilient_ai.stores._sqlite_schema import equip

T = TypeVar("T")

_BUSY = 2.0  # seconds SQLite waits where another process puts the file right after a crash


async def read(path: str, question: Callable[[sqlite3.Connection], T]) -> T:
    """Ask something in a thread; who is cancelled interrupts it.

    Raises:
        sqlite3.Error: If the file cannot be read, or the question is wrong.
    """
    reading = Reading(path, question)
    try:
        return await asyncio.to_thread(reading.answer)
    except asyncio.CancelledError:
        reading.stop()
        raise


class Reading(Generic[T]):
    """One question, which is answered in the thread that calls `answer`."""

    def __init__(self, path: str, question: Callable[[sqlite3.Connection], T]) -> None:
        # Written to only where the journal of a process that died has to be put right, but never made anew.
        self._address = f"{Path(path).absolute().as_uri()}?mode=rw"
        self._question = question
        self._connection: sqlite3.Connection | None = None
        self._stopped = False

    def answer(self) -> T:
        """Ask it.

        Raises:
            sqlite3.Error: If the file cannot be read, or it was stopped.
        """
        connect = partial(sqlite3.connect, uri=True, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        with using_file(), closing(connect(self._address)) as connection:
            equip(connection)
            connection.execute("PRAGMA query_only = ON")
            self._connection = connection
            if self._stopped:  # when there was nothing to interrupt yet
                raise sqlite3.OperationalError("interrupted")
            return self._question(connection)

    def stop(self) -> None:
        """Interrupt it, or have it not begin."""
        self._stopped = True
        if self._connection is not None:
            with suppress(sqlite3.ProgrammingError):  # it has just been closed
                self._connection.interrupt()
