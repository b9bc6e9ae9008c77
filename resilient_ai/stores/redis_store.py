"""A cache store in Redis, which processes on several machines share: short waits, and trust in nothing that lies there."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast, get_origin

from resilient_ai.core.checks import check_seconds
from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.fault_window import FaultWindow
from resilient_ai.core.log import Log
from resilient_ai.core.protocols import StoreUsage
from resilient_ai.stores import _forks
from resilient_ai.stores import _redis_rows as rows
from resilient_ai.stores._first_refused import FirstRefused
from resilient_ai.stores._patterns import matcher
from resilient_ai.stores._redis_address import without_secrets
from resilient_ai.stores._redis_links import Command, NoneFree, RedisLinks, links_to

T = TypeVar("T")

_log = Log("resilient_ai.stores")
_MAX_VALUE = 4 * 2**20
_WAIT_OPEN = 2.0
_WAIT_CHANGE = 5.0
_NONSENSE = "an answer of another kind"
_REFUSED = (
    "cache store at %s: an entry does not fit its seal and is a miss; it was damaged, or written with another secret, and all"
    " processes that share a prefix need the same secret"
)


class RedisStore:
    """Keep bytes in a Redis, for processes on several machines.

    Redis must never be the reason that a call fails or waits. Where it is silent for `timeout`, that is a miss or a write that is
    dropped, and so is everything else that goes wrong (it is down, full, read-only, or answers with nonsense); all of that is
    counted in `faults`. After five faults within a minute Redis is left alone for a minute, with a warning in the log.

    As long as answers come in they are waited for, up to ten times `timeout`, so that neither a long list nor a busy event loop
    is taken for a Redis that hangs. Entries travel about 500 at a time; after a trip that failed the rest is not asked for.

    Nothing in Redis is believed. Values carry a seal that binds them to their key and their time; what does not fit its seal is
    counted in `refused` and a miss until it is written again, as another process may have the secret for it. Without a `secret`
    the seal finds damage, but not what somebody forged who may write to that Redis. A write that is dropped may leave an earlier
    value of the same key in place.

    The store may be used from several threads and event loops, which have up to 16 connections each, and after a fork. A caller
    that finds all of them in use for too long has a miss. After `aclose` it opens again when it is used. It needs one server of
    Redis 4 or later, no cluster.

    Args:
        url: Such as "redis://:password@host:6379/0", "rediss://" for TLS, or "unix:///path". Never shown with its secrets.
        prefix: What the names of its keys begin with; those with the same prefix share. Not empty.
        secret: What the seals are made with, the same in all processes that share; None uses one that everybody knows.
        timeout: Seconds Redis may be silent. More than 0. Where entries are deleted, counted or listed it may be for 5 s.
        clock: Measures the age of entries, and for how long Redis is left alone.

    Raises:
        ConfigurationError: If the package `redis` is missing, or `url` is none.
        ValueError: If `timeout` is out of its range, or `prefix` or `secret` are empty.

    >>> RedisStore("redis://:secret@10.0.0.5:6379/0")
    RedisStore('redis://10.0.0.5:6379/0', prefix='resilient_ai:cache:', timeout=0.05)
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "resilient_ai:cache:",
        secret: str | bytes | None = None,
        timeout: float = 0.05,
        clock: Clock | None = None,
    ) -> None:
        check_seconds("timeout", timeout)
        if not prefix:
            raise ValueError("prefix must not be empty, as clear() forgets everything that begins with it")
        self.prefix = prefix
        self.timeout = timeout
        self.place = without_secrets(url)
        self.refused = 0
        self._first_refused = FirstRefused(_REFUSED, f"{self.place}, {prefix}*")
        self.dropped = 0
        self._rows = rows.Rows(prefix, secret)
        self._new_links = links_to(url)
        self._clock = clock or SystemClock()
        self._window = FaultWindow()
        self._busy = 0
        self._reason = ""  # of the last fault
        self._links: dict[asyncio.AbstractEventLoop, RedisLinks] = {}
        self._lock = threading.Lock()
        _forks.watch(self)

    def __repr__(self) -> str:
        return f"RedisStore({self.place!r}, prefix={self.prefix!r}, timeout={self.timeout})"

    @property
    def faults(self) -> int:
        """How often something went wrong, so that a read was a miss or a write was dropped."""
        return self._window.total + self._busy

    async def open(self) -> None:
        """Connect, for up to 2 s; does nothing where that is not possible."""
        with suppress(Exception):  # the first read finds it out, and counts it
            async with self._clock.timeout(_WAIT_OPEN):
                await self._here().connect()

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the entries that are there and fresh; none where that takes too long or goes wrong."""
        found: dict[str, bytes] = {}
        with suppress(_NoAnswer):
            for group in rows.groups(keys):
                found |= await self._read(group, self.timeout)
        return found

    async def set_many(self, entries: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        """Keep `entries` for `ttl` seconds; those larger than 4 MiB are not kept, nor are those that Redis does not take."""
        small = {key: value for key, value in entries.items() if len(value) <= _MAX_VALUE}
        if ttl is not None and ttl <= 0:
            small = {}
        else:
            self.dropped += len(entries) - len(small)
        # What is not kept must not leave an earlier value in its place.
        await self._forget([key for key in entries if key not in small], self.timeout)
        missing = len(small)
        try:
            for group in self._rows.writes(small, created=self._clock.wall(), ttl=ttl):
                missing -= (await self._ask(group, self.timeout)).count(b"OK")
        except _NoAnswer:
            pass
        finally:
            self.dropped += missing

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget these entries."""
        await self._forget(keys, _WAIT_CHANGE)

    async def clear(self) -> None:
        """Forget everything under the prefix, and nothing else."""
        await self.delete_matching("*")

    async def aclose(self) -> None:
        """Close the connections of the running loop; those of another are closed with it."""
        with self._lock:
            links = self._links.pop(asyncio.get_running_loop(), None)
        if links is not None:
            await links.aclose()

    async def delete_matching(self, pattern: str) -> int:
        """Forget the entries whose keys match, where `?` is any character and `*` any number of them; return how many."""
        matches = matcher(pattern)
        count = 0
        with suppress(_NoAnswer):
            async for names in self._pages(pattern):
                wanted = [name for name in names if matches(self._rows.key(name))]
                if wanted:
                    count += await self._one(int, "UNLINK", *wanted)
        return count

    async def scan(self) -> AsyncIterator[Mapping[str, bytes]]:
        """Return the entries that are genuine and fresh, up to some 500 at a time; it ends early where Redis gives no answer."""
        with suppress(_NoAnswer):
            async for names in self._pages("*"):
                for group in rows.groups(map(self._rows.key, names)):
                    found = await self._read(group, _WAIT_CHANGE)
                    if found:
                        yield found

    async def usage(self) -> Sequence[StoreUsage]:
        """Count the entries and their bytes; takes a look at each, on the server."""
        entries, size, trouble = 0, 0, None
        try:
            async for names in self._pages("*"):
                entries += len(names)
                size += await self._one(int, "EVAL", rows.SIZES, len(names), *names)
        except _NoAnswer:
            trouble = f"it cannot be asked ({self._reason})"
        return (
            StoreUsage(
                name=f"Redis at {self.place}, {self.prefix}*",
                entries=entries if trouble is None else None,
                size=size if trouble is None else None,
                faults=self.faults,
                refused=self.refused,
                dropped=self.dropped,
                trouble=trouble,
            ),
        )

    async def acquire_lease(self, key: str, *, holder: str, seconds: float) -> bool | None:
        """Take the lease of `key` for `seconds`, or prolong it; None where Redis does not answer within `timeout`."""
        with suppress(_NoAnswer):
            lease = self._rows.lease(key), holder, rows.milliseconds(seconds)
            return await self._one(int, "EVAL", rows.ACQUIRE, 1, *lease, within=self.timeout) == 1
        return None

    async def release_lease(self, key: str, *, holder: str) -> None:
        """Give the lease back where `holder` has it; what was set before is there by then, as a write waits for its answer."""
        with suppress(_NoAnswer):
            await self._one(int, "EVAL", rows.RELEASE, 1, self._rows.lease(key), holder, within=self.timeout)

    def after_fork(self) -> None:
        """Leave the parent's connections alone, and open afresh when needed."""
        _forks.abandoned.append(self._links)
        self._links = {}
        self._lock = threading.Lock()
        self._window = FaultWindow()

    async def _read(self, keys: Sequence[str], within: float) -> dict[str, bytes]:
        values: list[object] = []
        for answer in await self._ask(self._rows.reads(keys), within):
            values += self._checked(list[object], answer)
        if len(values) != len(keys):
            raise self._note(_NONSENSE)
        found, refused = self._rows.read(keys, values, now=self._clock.wall())
        self.refused += len(refused)
        self._first_refused.note(len(refused))
        return found

    async def _forget(self, keys: Sequence[str], within: float) -> None:
        with suppress(_NoAnswer):
            for group in rows.groups(keys):
                await self._one(int, "UNLINK", *map(self._rows.name, group), within=within)

    async def _pages(self, pattern: str) -> AsyncIterator[list[bytes]]:
        cursor = b"0"
        while True:
            page = await self._one(
                list[object], "SCAN", cursor, "MATCH", self._rows.glob(pattern), "COUNT", 2 * rows.KEYS_AT_ONCE
            )
            if not (len(page) == 2 and isinstance(page[0], bytes) and isinstance(page[1], list)):
                raise self._note(_NONSENSE)
            cursor = page[0]
            names = [name for name in cast("list[object]", page[1]) if isinstance(name, bytes)]
            if names:
                yield names
            if cursor == b"0":
                return

    async def _one(self, kind: type[T], *command: str | bytes | int, within: float = _WAIT_CHANGE) -> T:
        (answer,) = await self._ask([command], within)
        return self._checked(kind, answer)

    def _checked(self, kind: type[T], answer: object) -> T:
        if isinstance(answer, Exception):
            raise _NoAnswer
        if not isinstance(answer, get_origin(kind) or kind):
            raise self._note(_NONSENSE)
        return cast("T", answer)

    async def _ask(self, commands: Sequence[Command], within: float) -> list[Any]:
        if self._window.paused(self._clock.monotonic()):
            raise _NoAnswer
        try:
            answers = await self._here().ask(commands, within=within)
        except NoneFree:
            # Nothing that Redis did, so that it is no reason to leave it alone.
            self._busy += 1
            self._reason = "all connections are in use"
            raise _NoAnswer from None
        except Exception as error:  # noqa: BLE001 - whatever it is, a cache must not fail a call
            raise self._note(type(error).__name__) from None
        failed = next((type(answer).__name__ for answer in answers if isinstance(answer, Exception)), None)
        if failed is not None:
            self._note(failed)
        return answers

    def _note(self, reason: str) -> "_NoAnswer":
        # Only the name of an error: its text may quote the address, and that a password.
        now = self._clock.monotonic()
        before = self._window.paused(now)
        self._reason = reason
        self._window.record(now)
        _log.debug("cache store at %s: %s", self.place, reason)
        if self._window.paused(now) and not before:
            _log.warning("cache store at %s is left alone for a minute: %s", self.place, reason)
        return _NoAnswer()

    def _here(self) -> RedisLinks:
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._links:
                self._links = {one: links for one, links in self._links.items() if not one.is_closed()}
                self._links[loop] = self._new_links()
            return self._links[loop]


class _NoAnswer(Exception):
    """Redis did not say; it is counted already."""
