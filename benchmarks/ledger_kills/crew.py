"""The processes that share a ledger, and what they have told before they were killed."""

import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.ledger_kills.books import Book
from benchmarks.ledger_kills.worker import work

WORKERS = 3
_PATIENCE = 60.0


class Worker:
    """A process, and the pipe through which it tells how far it has come; it outlives the process.

    Args:
        book: The ledger.
        name: What the names of its sends begin with.
        left: A folder for the names of the sends whose bytes would have left.
    """

    def __init__(self, book: Book, name: str, left: Path) -> None:
        self.name = name
        self._told = bytearray()
        self._reads, writes = os.pipe()
        os.set_blocking(self._reads, False)
        # Forked, as a process that begins with importing would hardly ever be killed at work.
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=work, args=(book.open, name, writes, left / name), daemon=True)
        self._process.start()
        os.close(writes)

    def rounds(self) -> int:
        """Return how many rounds it has told of so far."""
        # Read again and again, as a pipe holds only so much.
        while piece := self._read():
            self._told += piece
        return self._told.count(b"r")

    def kill(self) -> int | None:
        """End it, and return what it died of, as `multiprocessing` says it."""
        self._process.kill()
        self._process.join()
        return self._process.exitcode

    def steps(self) -> str:
        """Return all that a dead worker has told, a letter for each step."""
        self.rounds()
        os.close(self._reads)
        return self._told.decode()

    def _read(self) -> bytes:
        try:
            return os.read(self._reads, 2**16)
        except BlockingIOError:
            return b""


class Crew:
    """So many processes at any time.

    Attributes:
        told: The steps of the dead, by name.
        deaths: Who ended in another way than by a kill, in words.
    """

    def __init__(self, book: Book, chance: random.Random) -> None:
        self.told: dict[str, str] = {}
        self.deaths: list[str] = []
        self._book, self._chance = book, chance
        self._left = tempfile.TemporaryDirectory()
        self._names: Iterator[str] = (f"w{number}" for number in range(10**9))
        self._workers = [self._hire() for _ in range(WORKERS)]

    def left(self) -> list[str]:
        """Return the names of all sends whose bytes would have left."""
        return [name for file in Path(self._left.name).iterdir() for name in file.read_text().split()]

    def replace_one(self) -> None:
        """Kill one of them, whichever it is, and let another one begin."""
        self._kill(self._workers.pop(self._chance.randrange(WORKERS)))
        self._workers.append(self._hire())

    def wait_for_a_round(self) -> None:
        """Wait until each has told of one more round.

        Raises:
            RuntimeError: If one does not for a minute, though it could.
        """
        until = time.monotonic() + _PATIENCE
        before = {worker.name: worker.rounds() for worker in self._workers}
        while any(worker.rounds() == before[worker.name] for worker in self._workers):
            if time.monotonic() > until:
                raise RuntimeError(f"no round was finished for {_PATIENCE:g} s")
            time.sleep(0.01)

    def kill_all(self) -> None:
        """Kill all of them."""
        for victim in self._workers:
            self._kill(victim)
        self._workers = []

    def _hire(self) -> Worker:
        return Worker(self._book, next(self._names), Path(self._left.name))

    def _kill(self, victim: Worker) -> None:
        code = victim.kill()
        if code != -signal.SIGKILL:
            self.deaths.append(f"{victim.name} had ended with {code} before it was killed")
        self.told[victim.name] = victim.steps()
