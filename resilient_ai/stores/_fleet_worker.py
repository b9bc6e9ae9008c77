"""The one thread that talks to the Redis of a `RedisFleet`: in order, many requests in one round trip, never cut short."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, cast

from resilient_ai.core.log import Log
from resilient_ai.stores import _fleet_scripts as scripts
from resilient_ai.stores._redis_client import Client, close, gather, hash_of

_log = Log()

_MOST_HOLDERS = 1_000  # in one renewal; a script may not unpack much more
_AGAIN = 1.0  # seconds for which nobody asks after a fault
_REGISTER = 1.5  # seconds in which every process finds that Redis is back and takes its permits up again
_LOUD_EVERY = 60.0

_PARTS = {0.25: "a quarter of them", 0.5: "half of them", 1.0: "all of them"}

Keys = tuple[str, ...]


@dataclass(slots=True, eq=False)
class Job:
    """A script to run, and what its answer means.

    Args:
        script: The source; its hash is what is sent.
        keys: What it works on.
        arguments: What it is given.
        read: Turns the answer, None where there was none, into what the job is answered with; called in the thread.
    """

    script: str
    keys: Keys
    arguments: Sequence[str | float] = ()
    read: Callable[[Any], Any] = lambda _: None
    answer: "Future[Any]" = field(default_factory=Future[Any])


class FleetWorker:
    """Runs jobs in a thread of its own and keeps the permits that are held alive.

    After a fault every job is answered with None at once, for a second and until a job that nobody waits for has got through.
    With it travel the permits that are held, before anything else. Then 1.5 s pass in which nothing new is shared, so that the
    other processes have taken theirs up by the time the first new one is given.

    Args:
        connect: Makes the client; called in the thread.
        no_script: The error of a server that does not know a script.
        lease: Seconds a permit lives without being renewed.
        place: Where Redis is, without secrets, for the log.
        share: The part of a limit that is used meanwhile, for the log.
        ping: A key that this fleet may name; nothing is kept there.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        *,
        no_script: type[Exception],
        lease: float,
        place: str,
        share: float,
        ping: str,
    ) -> None:
        self._connect = connect
        self._no_script = no_script
        self._lease = lease
        self._place = place
        self._part = _PARTS.get(share, f"{share:.0%} of them")
        self._ping = ping
        self._client: Client | None = None
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._held: dict[Keys, dict[str, None]] = {}
        self._renew_at = time.monotonic() + lease / 3
        self._down = False
        self._ask_again_at = 0.0
        self._shared_at = 0.0
        self._loud_at = -_LOUD_EVERY
        self.reason = ""  # of the last fault
        self._heard_at = time.monotonic()
        self.ended: Future[None] = Future()
        threading.Thread(target=self._run, name="resilient-ai-fleet", daemon=True).start()

    @property
    def shared(self) -> bool:
        """Whether limits are shared now."""
        return not self._down and time.monotonic() >= self._shared_at

    @property
    def silence(self) -> float:
        """Seconds since the thread turned to Redis last, or had an answer.

        A thread that waits for Python's lock has not asked yet, and that is no silence of Redis.
        """
        return time.monotonic() - self._heard_at

    def usable(self) -> bool:
        """Whether Redis may be asked. After a fault it is first tried by a job that nobody waits for."""
        now = time.monotonic()
        if self._down and now >= self._ask_again_at:
            self._ask_again_at = now + _AGAIN
            self._jobs.put(self._pinging())
        return self.shared

    def put(self, job: Job) -> "Future[Any]":
        """Have a job done; never waits, and may be called while the garbage collector runs."""
        self._jobs.put(job)
        return job.answer

    def end(self) -> None:
        """Give every permit back, close the connection and end the thread, after what was put before."""
        self._jobs.put(None)

    def fault(self, reason: str, what: str = "cannot be reached") -> None:
        """Note that Redis cannot be asked; one warning a minute."""
        now = time.monotonic()
        self.reason = f"{what} ({reason})"
        self._ask_again_at = now + _AGAIN
        self._down = True
        if now - self._loud_at >= _LOUD_EVERY:
            self._loud_at = now
            _log.warning(
                "Redis at %s %s: limits are not shared now, this process uses %s until it is back",
                self._place,
                self.reason,
                self._part,
            )

    def holds(self, keys: Keys, holder: str) -> None:
        """Keep a permit alive; called in the thread."""
        self._held.setdefault(keys, {})[holder] = None

    def lets_go(self, keys: Keys, holder: str) -> None:
        """Keep a permit alive no longer; called in the thread."""
        holders = self._held.get(keys, {})
        holders.pop(holder, None)
        if not holders:
            self._held.pop(keys, None)

    def _run(self) -> None:
        going = True
        while going:
            # Without permits there is nothing to wake up for.
            within = max(0.0, self._wake_at() - time.monotonic()) if self._held else None
            jobs, going = gather(self._jobs, within)
            if not self._down:
                self._do(jobs)
            elif any(job.script is scripts.PING for job in jobs):
                self._do([*self._renewals(), *jobs])
            else:
                self._answer_none(jobs)
            if going and self._held and time.monotonic() >= self._wake_at():
                self._renew()
        self._finish()

    def _do(self, jobs: Sequence[Job]) -> None:
        wanted = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            answers = self._ask(wanted)
        except Exception as error:  # noqa: BLE001 - whatever it is, a limit must not fail a call
            self._lose(error)
            answers = [None] * len(wanted)
        else:
            if self._down:
                self._is_back()
        self._answer(wanted, answers)

    def _is_back(self) -> None:
        self._renew_at = 0.0  # the leases ran on, if it was a late answer and no job of ours that got through
        self._shared_at = time.monotonic() + _REGISTER
        self._down = False
        _log.info("Redis at %s answers again: limits are shared in %g s", self._place, _REGISTER)

    def _ask(self, jobs: Sequence[Job]) -> list[Any]:
        if self._client is None:
            self._client = self._connect()
            self._exchange(_load, self._client)
        answers = self._exchange(_send, self._client, jobs)
        if any(isinstance(answer, self._no_script) for answer in answers):
            # A server that was restarted or flushed has forgotten every script, so that none of them has run.
            self._exchange(_load, self._client)
            answers = self._exchange(_send, self._client, jobs)
        return answers

    def _exchange(self, trip: Callable[..., list[Any]], *arguments: object) -> list[Any]:
        self._heard_at = time.monotonic()
        try:
            return trip(*arguments)
        finally:
            self._heard_at = time.monotonic()

    def _answer_none(self, jobs: Sequence[Job]) -> None:
        wanted = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
        self._answer(wanted, [None] * len(wanted))

    def _answer(self, jobs: Sequence[Job], answers: Sequence[Any]) -> None:
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Exception):
                self.fault(type(answer).__name__, "gives no answer that can be used")
            try:
                meaning = job.read(None if isinstance(answer, Exception) else answer)
            except (TypeError, ValueError):
                self.fault("it cannot be read", "gives no answer that can be used")
                meaning = None
            job.answer.set_result(meaning)

    def _lose(self, error: Exception) -> None:
        close(self._client)
        self._client = None
        # The text of an error may quote the address, and that a password.
        self.fault(type(error).__name__)

    def _wake_at(self) -> float:
        # What is held is to be known as soon as Redis is back, also if nobody asks.
        return self._ask_again_at if self._down else self._renew_at

    def _renew(self) -> None:
        if self._down:
            self.usable()
            return
        self._renew_at = time.monotonic() + self._lease / 3
        self._do(self._renewals())

    def _renewals(self) -> list[Job]:
        lease = round(self._lease * 1000)
        return [Job(scripts.RENEW, keys, (lease, *holders)) for keys, holders in self._permits()]

    def _pinging(self) -> Job:
        return Job(scripts.PING, (self._ping,))

    def _finish(self) -> None:
        if not self._down:
            self._do([Job(scripts.RELEASE, keys, holders) for keys, holders in self._permits()])
        close(self._client)
        self._down = True
        while not self._jobs.empty():
            self._answer_none(gather(self._jobs, 0.0)[0])
        self.ended.set_result(None)

    def _permits(self) -> Iterator[tuple[Keys, tuple[str, ...]]]:
        for keys, holders in self._held.items():
            names = tuple(holders)
            for first in range(0, len(names), _MOST_HOLDERS):
                yield keys, names[first : first + _MOST_HOLDERS]


def _send(client: Client, jobs: Sequence[Job]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for job in jobs:
        pipeline.evalsha(hash_of(job.script), len(job.keys), *job.keys, *job.arguments)
    return cast("list[Any]", pipeline.execute(raise_on_error=False))


def _load(client: Client) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for script in scripts.ALL:
        pipeline.script_load(script)
    return cast("list[Any]", pipeline.execute())
