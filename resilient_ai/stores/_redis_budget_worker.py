"""The one thread that talks to the Redis of a `RedisBudgets`: in order, many jobs in one step, each done once or not at all."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal

from resilient_ai.core.budgets import Admission, Charge, refused, taken_back
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.log import Log
from resilient_ai.stores import _redis_budget_scripts as scripts
from resilient_ai.stores._owed import Owed
from resilient_ai.stores._redis_client import Client, close, evicts, gather, hash_of

_log = Log()

_MOST_CHARGES = 500  # in one job of what is owed
_AGAIN = 1.0  # seconds for which nobody asks after a fault
_LOUD_EVERY = 60.0
_WRITER_LIFE = 7 * 86_400  # seconds for which Redis remembers the last step of a process
_LARGEST = 2**62  # a counter has 64 bits


@dataclass(slots=True, eq=False)
class Job:
    """Charges to be added where they fit ("charge"), added in any case ("settle"), or only looked at ("ask")."""

    kind: Literal["charge", "settle", "ask"]
    charges: Sequence[Charge]
    answer: "Future[Admission]" = field(default_factory=Future[Admission])


class BudgetWorker:
    """Does jobs in a thread of its own.

    After a fault charges and questions are answered with `BookUnavailable` at once, for a second. What was settled meanwhile is
    owed: it is added up and handed in as soon as Redis is back. Of the step whose answer did not come, Redis is asked what has
    become of it, so that nothing is settled twice, and a charge whose caller was told that it failed is taken back.

    Args:
        connect: Makes the client; called in the thread.
        no_script: The error of a server that does not know a script.
        prefix: What the names of keys begin with.
        place: Where Redis is, without secrets, for the log.
    """

    def __init__(self, connect: Callable[[], Client], *, no_script: type[Exception], prefix: str, place: str) -> None:
        self._connect = connect
        self._no_script = no_script
        self._prefix = prefix
        self._place = place
        self._writer = f"{prefix}:writer:{os.urandom(8).hex()}"
        self._client: Client | None = None
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._step = 0
        self._doubt: tuple[int, Sequence[Job]] | None = None
        self._owed = Owed()
        self._down = False
        self._ask_again_at = 0.0
        self._loud_at = -_LOUD_EVERY
        self.may_forget: str | None = None  # why counters may be lost there
        self.ended: Future[None] = Future()
        threading.Thread(target=self._run, name="resilient-ai-budgets", daemon=True).start()

    @property
    def usable(self) -> bool:
        """Whether Redis may be asked now."""
        return not self._down or time.monotonic() >= self._ask_again_at

    def put(self, job: Job) -> "Future[Admission]":
        """Have a job done; never waits, and may be called while the garbage collector runs."""
        self._jobs.put(job)
        return job.answer

    def settle(self, charges: Sequence[Charge]) -> None:
        """Add charges without looking at limits; never waits, as above."""
        self._jobs.put(Job("settle", tuple(charges)))

    def end(self) -> None:
        """Hand in what is owed, close the connection and end the thread, after what was put before."""
        self._jobs.put(None)

    def _run(self) -> None:
        going = True
        while going:
            # What is owed is handed in as soon as that may be tried.
            within = max(0.0, self._ask_again_at - time.monotonic()) if self._unwritten else None
            jobs, going = gather(self._jobs, within)
            if jobs or self._unwritten:
                self._do(jobs)
        if self._unwritten:
            self._ask_again_at = 0.0
            self._do([])
        if self._unwritten:
            _log.warning("Redis at %s has not got what was settled at last: it stays reserved", self._place)
        close(self._client)
        self.ended.set_result(None)

    @property
    def _unwritten(self) -> bool:
        return bool(self._owed) or self._doubt is not None

    def _do(self, jobs: Sequence[Job]) -> None:
        wanted = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
        if not self.usable:
            self._give_up(wanted, "Redis could not be reached a moment ago")
            return
        taken = wanted
        try:
            client = self._ready()
            taken = [*self._take_owed(), *wanted]
            if taken:
                for job, admission in zip(taken, self._take_step(client, taken), strict=True):
                    job.answer.set_result(admission)
        except Exception as error:  # noqa: BLE001 - whatever it is, it says that the book cannot be asked
            self._lose(error, taken)
        else:
            self._down = False

    def _ready(self) -> Client:
        if self._client is None:
            self._client = self._connect()
            _load(self._client)
            self._look_for_eviction(self._client)
        if self._doubt is not None:
            self._step += 1
            life = str(_WRITER_LIFE)
            known, fate = self._eval(self._client, scripts.FENCE, (self._writer,), (str(self._step), life))
            self._clear_doubt(*self._doubt, int(known), str(fate, "ascii"))
            self._doubt = None
        return self._client

    def _look_for_eviction(self, client: Client) -> None:
        told, self.may_forget = self.may_forget, evicts(client)
        if self.may_forget is not None and told is None:
            _log.warning("Redis at %s %s", self._place, self.may_forget)

    def _clear_doubt(self, step: int, jobs: Sequence[Job], known: int, fate: str) -> None:
        for place, job in enumerate(jobs):
            if step != known:  # the step was not taken
                if job.kind == "settle":
                    self._owed.add(job.charges)
            elif job.kind == "charge" and fate[place : place + 1] == "1":
                # Of what lives the answer told nobody has heard; it was a moment ago.
                self._owed.add(taken_back(job.charges))

    def _take_step(self, client: Client, jobs: Sequence[Job]) -> list[Admission]:
        self._step += 1
        self._doubt = (self._step, jobs)
        keys = (self._writer, *(f"{self._prefix}:budget:{_safe(one.key)}" for job in jobs for one in job.charges))
        arguments = [str(self._step), str(_WRITER_LIFE)]
        for job in jobs:
            arguments += (job.kind, str(len(job.charges)))
            for charge in job.charges:
                arguments += _arguments(charge)
        status, *answers = self._eval(client, scripts.APPLY, keys, arguments)
        if status != b"done":
            raise ValueError("not an answer of ours")
        # Read as a whole before the doubt ends: what cannot be read says nothing about what was done.
        read = [_read(job, *answer) for job, answer in zip(jobs, answers, strict=True)]
        self._doubt = None
        return read

    def _eval(self, client: Client, script: str, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        try:
            return client.evalsha(hash_of(script), len(keys), *keys, *arguments)
        except self._no_script:
            # A server that was restarted or flushed has forgotten every script, so that none of it has run.
            _load(client)
            return client.evalsha(hash_of(script), len(keys), *keys, *arguments)

    def _take_owed(self) -> list[Job]:
        charges = list(self._owed)
        self._owed.clear()
        parts = range(0, len(charges), _MOST_CHARGES)
        jobs = [Job("settle", charges[first : first + _MOST_CHARGES]) for first in parts]
        for job in jobs:
            job.answer.set_running_or_notify_cancel()
        return jobs

    def _give_up(self, jobs: Sequence[Job], reason: str) -> None:
        in_doubt = () if self._doubt is None else self._doubt[1]
        for job in jobs:
            if job.kind == "settle" and job not in in_doubt:
                self._owed.add(job.charges)
            job.answer.set_exception(BookUnavailable(reason))

    def _lose(self, error: Exception, jobs: Sequence[Job]) -> None:
        close(self._client)
        self._client = None
        now = time.monotonic()
        self._down = True
        self._ask_again_at = now + _AGAIN
        # The text of an error may quote the address, and that a password.
        reason = f"Redis at {self._place} cannot be asked ({type(error).__name__})"
        if now - self._loud_at >= _LOUD_EVERY:
            self._loud_at = now
            _log.warning("%s: hard budgets refuse calls, or let them go, as they were told", reason)
        self._give_up(jobs, reason)


def _read(job: Job, good: Any, *told: Any) -> Admission:
    count = 0 if job.kind == "settle" else len(job.charges)
    if good not in {0, 1} or len(told) != (count if good and job.kind == "ask" else 2 * count):
        raise ValueError("not an answer of ours")
    spent = tuple(map(int, told[:count]))
    if good:
        return Admission(admitted=True, spent=spent, lives=tuple(map(int, told[count:])))
    slices = {charge.key: _slices(flat) for charge, flat in zip(job.charges, told[count:], strict=True)}
    return refused(spent, job.charges, lambda charge: slices[charge.key])


def _slices(flat: Sequence[Any]) -> dict[int, int]:
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {int(slice_): int(spent) for slice_, spent in pairs if slice_ != b"life"}


def _safe(key: str) -> str:
    return key.encode(errors="backslashreplace").decode()


def _arguments(charge: Charge) -> tuple[str, ...]:
    amounts = (charge.amount, charge.limit, charge.whole)
    amount, limit, whole = ("" if one is None else str(max(-_LARGEST, min(_LARGEST, one))) for one in amounts)
    kept = str(max(1, charge.until - charge.slice))
    life = "" if charge.life is None else str(charge.life)
    return str(charge.slice), str(charge.first), amount, limit, kept, whole, life


def _load(client: Client) -> None:
    for script in (scripts.APPLY, scripts.FENCE):
        client.script_load(script)
