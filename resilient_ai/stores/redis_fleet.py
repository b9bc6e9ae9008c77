"""Limits that the processes of a fleet share through Redis."""

import asyncio
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from resilient_ai.core.checks import check_at_least, check_seconds, check_share
from resilient_ai.stores import _fleet_scripts as scripts
from resilient_ai.stores import _forks
from resilient_ai.stores._fleet_worker import FleetWorker, Job, Keys
from resilient_ai.stores._patience import Patience
from resilient_ai.stores._redis_address import without_secrets
from resilient_ai.stores._redis_client import client_of

_WAIT_CLOSE = 2.0

# The thread itself notices a silent Redis after `timeout`. A call that gives up before the thread does so after a few times that:
# on a busy machine a thread is held up as long, and only what no socket can time, such as the look-up of a name, takes longer.
_THREAD_PATIENCE = 4
_MOST_PATIENCE = 10


class RedisFleet:
    """Let all processes that name the same Redis share one limit.

    The service counts an account's requests, not a process's: ten processes that keep to 200 each come to 2000. A limit that is
    given a fleet asks Redis, in one round trip, before each request. Redis's own clock decides, so the clocks of the machines do
    not matter.

    Redis must never be the reason that a call fails or waits. Where it cannot be asked (it is down, takes longer than `timeout`,
    or answers with nonsense) the answer is None, the next second asks nobody, and the process keeps to `share` of the limit by
    itself. One warning a minute goes to the log. Once Redis answers again, it is asked again, without any call having waited.

    Permits are given in the order in which they were asked for first, whichever process asks. Who does not ask again within a
    second loses its place, so that a dead process holds nobody up.

    A permit is held by a lease that a thread renews, so the permits of a process that died come back after `lease` seconds. What
    is under way while Redis is away is registered as soon as it is back, and only 1.5 s later is the first new permit given, as
    every other process finds out within that time and does the same. More than the limit may be under way only for a while, and
    only where this cannot be known: a process that used less than its share goes up to it when Redis goes, though another one
    has more than its own; and after a restart of Redis that a process did not notice, as it asked nothing meanwhile, what that
    process holds is unknown until it asks, or to the next renewal, at most `lease / 3` seconds.

    It needs one server of Redis 5 or later, no cluster. It may be used from several threads and event loops and after a fork.
    After `aclose` it opens again when it is used.

    Args:
        url: Such as "redis://:password@host:6379/0", "rediss://" for TLS, or "unix:///path". Never shown with its secrets.
        prefix: What the names of its keys begin with; those with the same prefix share.
        share: The part of a limit, above 0 to 1, this process may use alone while Redis cannot be asked; with n processes 1/n.
        timeout: Seconds for which Redis may be silent; a call waits ten times as long at most. More than 0.
        lease: Seconds after which the permits of a process that died come back; at least 1 ms.

    Raises:
        ConfigurationError: If the package `redis` is missing, or `url` is none.
        ValueError: If a number is out of its range.

    >>> RedisFleet("redis://:secret@10.0.0.5:6379/0")
    RedisFleet('redis://10.0.0.5:6379/0', prefix='resilient_ai', share=0.25, timeout=0.25, lease=30.0)
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "resilient_ai",
        share: float = 0.25,
        timeout: float = 0.25,
        lease: float = 30.0,
    ) -> None:
        check_share("share", share)
        check_seconds("timeout", timeout)
        check_at_least("lease", lease, 0.001)
        self.prefix = prefix
        self.timeout = timeout
        self.lease = lease
        self._share = share
        self.place = without_secrets(url)
        self._connect, self._no_script = client_of(url, timeout)
        self._worker: FleetWorker | None = None
        self._lock = threading.Lock()
        _forks.watch(self)

    def __repr__(self) -> str:
        return (
            f"RedisFleet({self.place!r}, prefix={self.prefix!r}, share={self.share}, "
            f"timeout={self.timeout}, lease={self.lease})"
        )

    @property
    def share(self) -> float:
        """The part of a limit this process may use alone while Redis cannot be asked."""
        return self._share

    @property
    def reachable(self) -> bool:
        """Whether limits are shared now, as far as it is known from the last question."""
        worker = self._worker
        return worker is None or worker.shared

    async def trouble(self) -> str | None:
        """Ask Redis whether it answers; return what is wrong, None if nothing is."""
        worker = self._open()
        answer = await self._ask(worker, Job(scripts.PING, (f"{self.prefix}:ping",), (), lambda told: told))
        return None if answer is not None else worker.reason

    async def acquire(self, name: str, *, limit: int, holder: str) -> int | None:
        """Ask for one of `limit` permits called `name` for `holder`; it is kept until `release`, or until this process dies.

        Whoever asked calls `release` in the end, whatever the answer: a permit may still come after the answer was None. A caller
        that is cancelled holds nothing, also where Redis had granted the permit by then.

        Returns:
            0 with the permit; else how many permits must come back before it has one, 1 for the next in line. None where Redis
            cannot be asked.
        """
        worker, keys = self._open(), self._keys(name)

        def read(answer: Any) -> int | None:
            if answer is None:
                return None
            missing = int(answer)
            if not missing:
                worker.holds(keys, holder)
            return missing

        job = Job(scripts.ACQUIRE, keys, (holder, limit, round(self.lease * 1000)), read)
        try:
            return cast("int | None", await self._ask(worker, job))
        except BaseException:
            worker.put(_release(worker, keys, holder))
            raise

    def hold(self, name: str, *, holder: str) -> None:
        """Register that `holder` went ahead while Redis could not be asked; never waits and never raises."""
        worker, keys = self._open(), self._keys(name)
        lease = round(self.lease * 1000)
        worker.put(Job(scripts.RENEW, keys, (lease, holder), lambda _: worker.holds(keys, holder)))

    def release(self, name: str, *, holder: str) -> None:
        """Give the permit of `holder` back, or have it leave the line; never waits and never raises."""
        worker = self._worker
        if worker is not None:
            worker.put(_release(worker, self._keys(name), holder))

    async def reserve(self, name: str, *, amount: float, rate: float, burst: float) -> float | None:
        """Take `amount` from a bucket that refills by `rate` a second and holds `burst`, for all processes together.

        Who reserves goes after all who reserved before. What is more than the bucket holds goes once it is full, and the rest
        delays those who come later. A caller that is cancelled takes nothing.

        Returns:
            Seconds to wait before going, 0 for none; None where Redis cannot be asked.
        """
        worker, keys = self._open(), (self._key("rate", name),)
        job = Job(
            scripts.RESERVE, keys, (amount, rate, burst), lambda answer: None if answer is None else float(answer)
        )
        back = Job(scripts.SETTLE, keys, (-amount, rate, burst))
        return cast("float | None", await self._ask(worker, job, lambda: worker.put(back)))

    def settle(self, name: str, *, amount: float, rate: float, burst: float) -> None:
        """Take `amount` more from a bucket, or give it back where negative; never waits and never raises."""
        worker = self._worker
        if worker is not None:
            worker.put(Job(scripts.SETTLE, (self._key("rate", name),), (amount, rate, burst)))

    async def aclose(self) -> None:
        """Give every permit back and close the connection; waits up to 2 s for it."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_CLOSE):
                    await asyncio.shield(asyncio.wrap_future(worker.ended))

    def after_fork(self) -> None:
        """Leave the parent's thread, connection and permits alone, and open afresh when needed."""
        _forks.abandoned.append(self._worker)
        self._worker = None
        self._lock = threading.Lock()

    def _open(self) -> FleetWorker:
        with self._lock:
            if self._worker is None:
                self._worker = FleetWorker(
                    self._connect,
                    no_script=self._no_script,
                    lease=self.lease,
                    place=self.place,
                    share=self._share,
                    ping=f"{self.prefix}:ping",
                )
                # A fleet that nobody has any more gives its permits back and ends its thread.
                weakref.finalize(self, self._worker.end).atexit = False
            return self._worker

    async def _ask(self, worker: FleetWorker, job: Job, undo: Callable[[], object] = lambda: None) -> object:
        if not worker.usable():
            return None
        answer, loop = worker.put(job), asyncio.get_running_loop()
        try:
            async with Patience(
                _THREAD_PATIENCE * self.timeout,
                lambda: loop.time() - worker.silence,
                most=_MOST_PATIENCE * self.timeout,
            ):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            _drop(job, undo)
            worker.fault(f"no answer within {_THREAD_PATIENCE * self.timeout:g} s")
            return None
        except BaseException:
            _drop(job, undo)
            raise

    def _keys(self, name: str) -> Keys:
        return self._key("permits", name), self._key("line", name), self._key("seen", name)

    def _key(self, kind: str, name: str) -> str:
        return f"{self.prefix}:{kind}:{name}"


def _drop(job: Job, undo: Callable[[], object]) -> None:
    """Want no answer any more; where Redis gave it all the same, or still does, undo it."""
    if not job.answer.cancel():
        job.answer.add_done_callback(lambda answer: None if answer.result() is None else undo())


def _release(worker: FleetWorker, keys: Keys, holder: str) -> Job:
    return Job(scripts.RELEASE, keys, (holder,), lambda _: worker.lets_go(keys, holder))
