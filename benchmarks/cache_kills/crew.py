"""Processes that share a cache, and what they tell."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent.parent
_LIMIT = 40.0  # seconds for whatever is waited for
_ANSWERS = ("started", "ended", "opened")

Told = dict[str, Any]


class Crew:
    """Starts and ends workers through the program `tests.e2e.cache_worker`, and keeps their lines.

    Attributes:
        told: Every line of every worker, in the order in which they came; `id` says whose it is.
    """

    def __init__(self) -> None:
        self.told: list[Told] = []
        self._answers: queue.Queue[Told] = queue.Queue()
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.cache_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=_environment(),
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.until(lambda: bool(self.told))
        self.told.clear()

    def start(self, job: Told) -> int:
        """Start a worker and return its id."""
        started: int = self._ask({"start": job})["started"]
        return started

    def open(self) -> None:
        """Let go those that wait at the gate."""
        self._ask({"open": True})

    def kill(self, worker: int) -> int:
        """End a worker with SIGKILL and return what it died of, as `subprocess` says it."""
        ended: int = self._ask({"kill": worker})["by"]
        return ended

    def stop(self, worker: int) -> int:
        """Let a worker finish what it is doing and close its client; return its exit code."""
        ended: int = self._ask({"stop": worker})["by"]
        return ended

    def wait(self, worker: int) -> int:
        """Wait until a worker has done its work, and return its exit code; all of its lines are there by then."""
        ended: int = self._ask({"wait": worker})["by"]
        return ended

    def lines(self, key: str, workers: set[int] | None = None) -> list[Told]:
        """Return the lines that have a certain key, of some workers or of all."""
        return [line for line in list(self.told) if key in line and (workers is None or line["id"] in workers)]

    def until(self, claim: Callable[[], bool], seconds: float = _LIMIT) -> None:
        """Wait until something holds, which is looked at again with every line.

        Raises:
            TimeoutError: If it does not in time.
        """
        with self._news:
            if not self._news.wait_for(claim, seconds):
                raise TimeoutError(f"after {seconds} s, the last lines are {self.told[-5:]}")

    def run(self, jobs: list[Told]) -> list[Told]:
        """Let a worker do each job, all at the same moment, and return their lines."""
        workers = {self.start({**job, "gate": True}) for job in jobs}
        self.until(lambda: len(self.lines("ready", workers)) == len(jobs))
        self.open()
        for worker in workers:
            self.wait(worker)
        return [line for line in self.told if line["id"] in workers]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.close()
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait(10)
        self._reader.join(10)
        self._process.stdout.close()

    def _ask(self, order: Told) -> Told:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answers.get(timeout=_LIMIT)

    def _read(self) -> None:
        assert self._process.stdout
        for text in self._process.stdout:
            line: Told = json.loads(text)
            if any(key in line for key in _ANSWERS):
                self._answers.put(line)
                continue
            with self._news:
                self.told.append(line)
                self._news.notify_all()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RESILIENT_AI_")}
    return kept | {"NO_PROXY": "127.0.0.1"}
