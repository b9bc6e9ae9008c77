"""What a cache holds beside its stores."""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from resilient_ai.core.cache_control import CacheControl
from resilient_ai.core.call import Call, CallRecord, Departures, new_id
from resilient_ai.core.clock import within
from resilient_ai.core.errors import DeadlineExceeded
from resilient_ai.core.events import CacheLookedUp
from resilient_ai.middleware._cache_key import field_digests
from resilient_ai.middleware._cache_lease import GuardedLeases
from resilient_ai.middleware._cache_store import Background, GuardedStore
from resilient_ai.middleware._span_origin import traceparent

if TYPE_CHECKING:
    from resilient_ai.middleware.cache import Cache

T = TypeVar("T")

_RECENT = 256


class Recent:
    """The answers of this process that were kept lately, and those that were not, to tell why one is missing."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._refused: OrderedDict[str, str] = OrderedDict()

    def kept(self, call: Call[Any], key: str) -> None:
        """Take note that the answer to a call was kept."""
        self._refused.pop(key, None)
        self._kept[key] = field_digests(call)
        _shorten(self._kept)

    def refused(self, key: str, reason: str) -> None:
        """Take note of why an answer was not kept."""
        self._refused[key] = reason
        _shorten(self._refused)

    def why_missing(self, call: Call[Any], key: str) -> str:
        """Return a sentence about an entry that is not there."""
        if key in self._refused:
            return f"an answer came and was not kept: {self._refused[key]}"
        if key in self._kept:
            return "it was kept and is gone: evicted, forgotten, or its time is over"
        fields = field_digests(call)
        apart = [
            [name for name in sorted(fields.keys() | kept.keys()) if fields.get(name) != kept.get(name)]
            for kept in self._kept.values()
        ]
        nearest = min(apart, key=len, default=None)
        if nearest is None:
            return "nothing was kept under its key"
        return f"nothing was kept under its key; the nearest that was kept lately differs in {', '.join(nearest)}"


def _shorten(entries: OrderedDict[str, Any]) -> None:
    while len(entries) > _RECENT:
        entries.popitem(last=False)


Outcome = Literal["hit", "stale", "miss", "error"]


@dataclass(slots=True)
class CacheState:
    """What a cache does behind calls, what it counts, and what it remembers."""

    writes: Background = field(default_factory=Background)
    renewals: Background = field(default_factory=Background)
    recent: Recent = field(default_factory=Recent)
    # By the names of entries: the loops in which they are fetched anew.
    refreshing: dict[str, asyncio.AbstractEventLoop] = field(default_factory=dict[str, asyncio.AbstractEventLoop])
    # What streams left is written by a task, as their end cannot wait for a store; it can be read before.
    unwritten: dict[str, bytes] = field(default_factory=dict[str, bytes])
    process: int = field(default_factory=os.getpid)
    hits: int = 0
    stale: int = 0
    misses: int = 0
    kept: int = 0
    refreshed: int = 0
    errors: int = 0
    saved: Decimal = Decimal(0)

    def begin(self) -> None:
        """Let go of what a parent process was doing, whose tasks a forked child does not have."""
        if self.process != os.getpid():
            self.process = os.getpid()
            for left in (self.writes, self.renewals, self.refreshing, self.unwritten):
                left.clear()

    def looked_up(
        self,
        call: Call[Any],
        outcome: Outcome,
        *,
        hits: int = 0,
        stale: int = 0,
        misses: int = 0,
        age: float | None = None,
        saved: Decimal | None = None,
        origin: bytes = b"",
    ) -> None:
        """Count a look into a store, write it on the call and tell the listeners."""
        record = call.record
        record.cache = "miss" if outcome == "error" else outcome
        record.age, record.saved = age, saved
        self.hits += hits
        self.misses += misses
        self.stale += stale
        self.errors += outcome == "error"
        self.saved += saved or 0
        if call.listeners:
            call.emit(
                CacheLookedUp(
                    call_id=call.id,
                    model=call.model,
                    outcome=outcome,
                    hits=hits,
                    misses=misses,
                    saved=saved,
                    age=age,
                    filled_by=traceparent(origin),
                )
            )

    def spared(self, call: Call[Any], *, hits: int, age: float, saved: Decimal | None, origin: bytes = b"") -> None:
        """Correct the count of a look in vain, whose old entries are answers after all, as asking again has failed."""
        self.misses -= hits
        self.looked_up(call, "stale", hits=hits, stale=hits, age=age, saved=saved, origin=origin)

    async def write(
        self, store: GuardedStore, call: Call[Any], entries: Mapping[str, bytes], lasts: float | None
    ) -> None:
        """Write entries and count them; those that a store has dropped are none."""
        self.kept += await store.write(call, entries, lasts)

    def claim(self, names: Sequence[str]) -> list[str]:
        """Return those of the entries that nobody is fetching anew; whoever asks does it from now on."""
        free = [name for name in names if (loop := self.refreshing.get(name)) is None or loop.is_closed()]
        self.refreshing.update(dict.fromkeys(free, asyncio.get_running_loop()))
        return free

    def refresh(self, names: Sequence[str], work: Coroutine[Any, Any, None]) -> None:
        """Fetch entries anew in the background, which were claimed before."""

        def over(_: object) -> None:
            for name in names:
                self.refreshing.pop(name, None)

        self.renewals.start(work).add_done_callback(over)


@dataclass(frozen=True, slots=True)
class Shelf:
    """A store of a cache, with the options, the state and the leases of that cache."""

    cache: "Cache"
    store: GuardedStore
    state: CacheState
    leases: GuardedLeases | None


def behind(call: Call[Any]) -> Call[Any]:
    """Return a call that asks the same behind one that has its answer, with as much time and a record of its own."""
    now = call.clock.monotonic()
    return call.replace(
        id=new_id(),
        record=CallRecord(),
        departed=Departures(),
        started=now,
        deadline=None if call.deadline is None else now + (call.deadline - call.started),
        waited_for=None,
        cache=CacheControl(mode="write"),
        priority="batch",
    )


async def in_time(call: Call[Any], work: Callable[[], Awaitable[T]], *, part: float = 1.0) -> T:
    """Return what `work` returns within what is left of the time of `call`, or a part of that.

    Raises:
        DeadlineExceeded: If it takes longer.
    """
    remaining = call.remaining()
    if remaining is None:
        return await work()
    seconds = remaining * part
    departed = call.departed.count
    return await within(
        call.clock,
        seconds,
        work,
        lambda: DeadlineExceeded(timeout=seconds, elapsed=seconds, sent=call.departed.count > departed),
    )
