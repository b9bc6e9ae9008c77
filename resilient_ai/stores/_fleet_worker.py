"""The one thread that talks to the Redis of a `RedisFleet`: in order, many requests in one round trip, never cut short."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, Protocol, cast

from resilient_ai.stores import _fleet_scripts as scripts

_log = logging.getLogger("resilient_ai")

_MOST = 256  # requests in one round trip
_MOST_HOLDERS = 1_000  # in one renewal; a script may not unpack much more
_AGAIN = 1.0  # seconds for which nobody asks after a fault
_LOUD_EVERY = 60.0


class Client(Protocol):
    """What of a Redis client is used."""

    def pipeline(self, *, transaction: bool) -> Any:
        """Begin a list of commands that travel together."""
        ...

    def script_load(self, script: str) -> Any:
        """Have a script remembered under its hash."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """A script to run, and what its answer means.

    Args:
        script: The source; its hash is what is sent.
        key: What it works on.
        arguments: What it is given.
        read: Turns the answer, None where there was none, into what the job is answered with; called in the thread.
    """

    script: str
    key: str
    arguments: Sequence[str | float] = ()
    read: Callable[[Any], Any] = lambda _: None
    answer: "Future[Any]" = field(default_factory=Future[Any])


class FleetWorker:
    """Runs jobs in a thread of its own and keeps the permits that are held alive.

    After a fault every job is answered with None at once, for a second and until a job that nobody waits for has got through.

    Args:
        connect: Makes the client; called in the thread.
        no_script: The error of a server that does not know a script.
        lease: Seconds a permit lives without being renewed.
        place: Where Redis is, without secrets, for the log.
        ping: A key that this fleet may name; nothing is kept there.
    """

    def __init__(
        self, connect: Callable[[], Client], *, no_script: type[Exception], lease: float, place: str, ping: str
    ) -> None:
        self._connect = connect
        self._no_script = no_script
        self._lease = lease
        self._place = place
        self._ping = ping
        self._client: Client | None = None
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._held: dict[str, dict[str, None]] = {}
        self._renew_at = time.monotonic() + lease / 3
        self._down = False
        self._ask_again_at = 0.0
        self._loud_at = -_LOUD_EVERY
        self.ended: Future[None] = Future()
        threading.Thread(target=self._run, name="resilient-ai-fleet", daemon=True).start()

    def usable(self) -> bool:
        """Whether Redis may be asked. After a fault it is first tried by a job that nobody waits for."""
        if not self._down:
            return True
        now = time.monotonic()
        if now >= self._ask_again_at:
            self._ask_again_at = now + _AGAIN
            self._jobs.put(Job(scripts.PING, self._ping))
        return False

    def put(self, job: Job) -> "Future[Any]":
        """Have a job done; never waits, and may be called while the garbage collector runs."""
        self._jobs.put(job)
        return job.answer

    def end(self) -> None:
        """Give every permit back, close the connection and end the thread, after what was put before."""
        self._jobs.put(None)

    def fault(self, reason: str) -> None:
        """Note that Redis cannot be asked; one warning a minute."""
        now = time.monotonic()
        self._ask_again_at = now + _AGAIN
        self._down = True
        if now - self._loud_at >= _LOUD_EVERY:
            self._loud_at = now
            _log.warning("the fleet at %s cannot be asked (%s); this process keeps to its share", self._place, reason)

    def holds(self, key: str, holder: str) -> None:
        """Keep a permit alive; called in the thread."""
        self._held.setdefault(key, {})[holder] = None

    def lets_go(self, key: str, holder: str) -> None:
        """Keep a permit alive no longer; called in the thread."""
        holders = self._held.get(key, {})
        holders.pop(holder, None)
        if not holders:
            self._held.pop(key, None)

    def _run(self) -> None:
        going = True
        while going:
            jobs, going = self._gather()
            if self._down and not any(job.script is scripts.PING for job in jobs):
                self._answer_none(jobs)
            else:
                self._do(jobs)
            if going and time.monotonic() >= self._renew_at:
                self._renew()
        self._finish()

    def _gather(self) -> tuple[list[Job], bool]:
        """Wait for jobs; return what is there, and whether there will be more."""
        jobs: list[Job] = []
        # Without permits there is nothing to wake up for.
        patience = max(0.0, self._renew_at - time.monotonic()) if self._held else None
        with suppress(Empty):
            item = self._jobs.get(timeout=patience)
            while item is not None:
                jobs.append(item)
                if len(jobs) == _MOST:
                    return jobs, True
                item = self._jobs.get_nowait()
            return jobs, False
        return jobs, True

    def _do(self, jobs: Sequence[Job]) -> None:
        wanted = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
        if not wanted:
            return
        was_down = self._down
        try:
            answers = self._ask(wanted)
        except Exception as error:  # noqa: BLE001 - whatever it is, a limit must not fail a call
            self._lose(error)
            answers = [None] * len(wanted)
        else:
            self._down = False
            if was_down:
                self._renew_at = 0.0  # the leases ran on
                _log.info("the fleet at %s answers again", self._place)
        self._answer(wanted, answers)

    def _ask(self, jobs: Sequence[Job]) -> list[Any]:
        if self._client is None:
            self._client = self._connect()
            _load(self._client)
        answers = _send(self._client, jobs)
        if any(isinstance(answer, self._no_script) for answer in answers):
            # A server that was restarted or flushed has forgotten every script, so that none of them has run.
            _load(self._client)
            answers = _send(self._client, jobs)
        return answers

    def _answer_none(self, jobs: Sequence[Job]) -> None:
        wanted = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
        self._answer(wanted, [None] * len(wanted))

    def _answer(self, jobs: Sequence[Job], answers: Sequence[Any]) -> None:
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Exception):
                self.fault(type(answer).__name__)
            try:
                meaning = job.read(None if isinstance(answer, Exception) else answer)
            except (TypeError, ValueError):
                self.fault("an answer that cannot be read")
                meaning = None
            job.answer.set_result(meaning)

    def _lose(self, error: Exception) -> None:
        self._close()
        # The text of an error may quote the address, and that a password.
        self.fault(type(error).__name__)

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # a broken connection cannot be closed better
                client.close()

    def _renew(self) -> None:
        self._renew_at = time.monotonic() + self._lease / 3
        if self.usable():
            lease = round(self._lease * 1000)
            self._do([Job(scripts.RENEW, key, (lease, *holders)) for key, holders in self._permits()])

    def _finish(self) -> None:
        if not self._down:
            self._do([Job(scripts.RELEASE, key, holders) for key, holders in self._permits()])
        self._close()
        self._down = True
        while not self._jobs.empty():
            self._answer_none(self._gather()[0])
        self.ended.set_result(None)

    def _permits(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        for key, holders in self._held.items():
            names = tuple(holders)
            for first in range(0, len(names), _MOST_HOLDERS):
                yield key, names[first : first + _MOST_HOLDERS]


def _send(client: Client, jobs: Sequence[Job]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for job in jobs:
        pipeline.evalsha(_hash(job.script), 1, job.key, *job.arguments)
    return cast("list[Any]", pipeline.execute(raise_on_error=False))


def _load(client: Client) -> None:
    for script in scripts.ALL:
        client.script_load(script)


@cache
def _hash(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
