"""Whole answers in a cache: finding, keeping and renewing them."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Generic, TypeVar, cast

from resilient_ai.core.call import Call, Next
from resilient_ai.core.errors import CallRejected, ProviderError
from resilient_ai.core.events import CacheRefreshed
from resilient_ai.core.log import Log
from resilient_ai.core.replay import PaceRecorder, Replay
from resilient_ai.core.results import ChatResult, ImageResult, Result
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.middleware._cache_codec import (
    Pace,
    decode_chat,
    decode_image,
    encode_chat,
    encode_image,
    why_not_kept,
)
from resilient_ai.middleware._cache_entry import unwrap, wrap
from resilient_ai.middleware._cache_lease import Lease, take_turn
from resilient_ai.middleware._cache_policy import PART_FOR_ASKING, Policy, is_fault_of_the_request
from resilient_ai.middleware._cache_state import Outcome, Shelf, behind, in_time
from resilient_ai.middleware._machines.freshness import Worth
from resilient_ai.middleware._savings import write_spared
from resilient_ai.middleware._span_origin import origin_of

R = TypeVar("R")

_TTL_OF_A_FALLBACK = 300.0

_log = Log()


@dataclass(frozen=True, slots=True)
class Found:
    """An answer that was kept, and what it is worth now."""

    answer: ChatResult | ImageResult
    pace: Pace
    worth: Worth
    age: float
    saved: Decimal | None
    origin: bytes


class AnswerCache(Generic[R]):
    """What becomes of one call whose answer is cached as a whole: a chat, a stream, a completion or pictures."""

    def __init__(self, shelf: Shelf, call: Call[R], proceed: Next[R], policy: Policy, key: str) -> None:
        self._cache, self._store, self._state = shelf.cache, shelf.store, shelf.state
        self._leases = shelf.leases if policy.keeps else None
        self._call = call
        self._proceed = proceed
        self._policy = policy
        self._key = key
        self._failed = False  # whether the store could not be read

    async def run(self) -> R:
        """Answer from the cache, or send the call and keep its answer."""
        if not self._policy.reads:
            return await self._send(self._call)
        found, self._failed = await self._look()
        lease = None
        if self._leases is not None and not _answers(found):
            lease = self._leases.lease(self._key, self._call)
            found = await take_turn(lease, self._call, self._look_again) or found
        if found is not None and _answers(found):
            return self._serve(found)
        if found is None:
            return await self._miss(self._call, lease)
        try:
            # With an old answer in hand, a service that hangs is not waited for until the time of the call is over.
            return await in_time(self._call, lambda: self._miss(self._call, lease), part=PART_FOR_ASKING)
        except (ProviderError, CallRejected) as error:
            if is_fault_of_the_request(error):
                raise
            return self._serve(found)

    async def why_missing(self) -> str | None:
        """Return a sentence about why nothing would be found, None where something would."""
        found, failed = await self._look(over=True)
        if failed:
            return "the store cannot be read now"
        if found is None:
            return self._state.recent.why_missing(self._call, self._key)
        return None if _answers(found) else f"it was made {found.age:.3g} s ago, which is too long for this call"

    async def _look(self, *, over: bool = False) -> tuple[Found | None, bool]:
        """Return what is kept and may be of use (or is `over`), and whether the store failed."""
        key = self._key
        unwritten = self._state.unwritten.get(key)
        entries = await self._store.read(self._call, [key]) if unwritten is None else {key: unwritten}
        found = None if entries is None or key not in entries else await self._read(entries[key])
        return (None if found is not None and found.worth == "over" and not over else found), entries is None

    async def _look_again(self) -> Found | None:
        found, _ = await self._look()
        return found if _answers(found) else None

    async def _miss(self, call: Call[R], lease: Lease | None) -> R:
        try:
            self._state.looked_up(call, "error" if self._failed else "miss", misses=1)
        except BaseException:  # a listener that ends the program
            _give_back(lease)
            raise
        return await self._send(call, lease)

    async def _read(self, data: bytes) -> Found | None:
        call = self._call
        kind = b"i" if call.operation.kind == "image" else b"c"
        try:
            entry = unwrap(kind, data)
            answer, pace = (decode_image(entry.body), ()) if kind == b"i" else decode_chat(entry.body)
        except (TypeError, ValueError):  # damaged, or text from a store that is set up wrongly
            await self._store.forget(call, [self._key])
            return None
        age = call.clock.wall() - entry.created
        chance = call.clock.random() if entry.made_in else 0.0
        worth = self._policy.limits.worth(age=age, ttl=entry.ttl, made_in=entry.made_in, chance=chance)
        return Found(answer, pace, worth, max(0.0, age), entry.saved, entry.origin)

    def _serve(self, found: Found) -> R:
        call = self._call
        if found.worth == "spare":
            self._state.spared(call, hits=1, age=found.age, saved=found.saved, origin=found.origin)
        else:
            stale = found.worth == "stale"
            outcome: Outcome = "stale" if stale else "hit"
            self._state.looked_up(
                call, outcome, hits=1, stale=int(stale), age=found.age, saved=found.saved, origin=found.origin
            )
        is_fresh = found.worth in {"fresh", "due"}
        write_spared(self._cache.savings, call, "hit" if is_fresh else "stale", hits=1, saved=found.saved)
        if found.worth in {"due", "stale"} and self._policy.keeps and self._state.claim([self._key]):
            self._state.refresh([self._key], self._renew())
        answer: object = found.answer
        if call.operation.kind == "stream" and isinstance(answer, ChatResult):
            pace = found.pace if self._cache.replay == "recorded" else ()
            source = Replay(answer, pace=pace, clock=call.clock)
            answer = StreamResult(source, model=answer.served_by or call.model, clock=call.clock)
        return cast("R", answer)

    async def _send(self, call: Call[R], lease: Lease | None = None) -> R:
        """Send the call and keep its answer; the lease is given back once that is done."""
        started = call.clock.monotonic()
        result: R | None = None
        try:
            result = await self._proceed(call)
            if isinstance(result, StreamResult):
                recorder = PaceRecorder(call.clock)
                if self._policy.keeps:
                    result.on_events(recorder)
                if lease is not None:
                    # Held for as long as it is read: a reader that stops must not hold up other processes.
                    result.on_events(lambda _: lease.is_alive())
                result.on_end(lambda end: self._keep_stream(call, end, recorder, started, lease))
            elif self._policy.keeps and isinstance(result, ChatResult | ImageResult):
                await self._keep(call, self._encode(call, result, (), started))
            return result
        finally:
            if not isinstance(result, StreamResult):
                _give_back(lease)

    async def _keep(self, call: Call[R], entry: bytes | None) -> None:
        if entry is None:
            return
        write = self._state.write(self._store, call, {self._key: entry}, self._policy.lasts)
        if self._failed:  # the call has waited for the store already
            self._state.writes.start(write)
        else:
            await write

    def _keep_stream(
        self, call: Call[R], end: StreamEnd, recorder: PaceRecorder, started: float, lease: Lease | None
    ) -> None:
        kept = self._policy.keeps and end.how == "completed"
        entry = self._encode(call, end.answer, recorder.pace, started) if kept else None
        if entry is None:
            _give_back(lease)
            return
        # A stream completes while it is being read, so there is a loop.
        self._state.unwritten[self._key] = entry
        task = self._state.writes.start(self._keep(call, entry))

        def written(_: object) -> None:
            self._state.unwritten.pop(self._key, None)
            _give_back(lease)

        task.add_done_callback(written)

    def _encode(self, call: Call[R], answer: Result, pace: Pace, started: float) -> bytes | None:
        answer = cast("ChatResult | ImageResult", answer)
        reason = why_not_kept(answer, truncated=self._cache.keep_truncated)
        if reason is None:
            try:
                body = encode_chat(answer, pace) if isinstance(answer, ChatResult) else encode_image(answer)
            except (TypeError, ValueError) as error:
                _log.warning("an answer of %s was not cached: %s", type(answer).__name__, type(error).__name__)
                reason = "JSON cannot say it"
            else:
                self._state.recent.kept(call, self._key)
                return self._wrapped(call, body, answer, started)
        self._state.recent.refused(self._key, reason)
        return None

    def _wrapped(self, call: Call[R], body: bytes, answer: ChatResult | ImageResult, started: float) -> bytes:
        cost = call.record.cost_of(answer)
        # The first model may answer better, and shall when it can again.
        own = answer.served_by in {"", call.model}
        ttl = self._policy.ttl if own else min(self._policy.ttl, _TTL_OF_A_FALLBACK)
        return wrap(
            b"c" if isinstance(answer, ChatResult) else b"i",
            body,
            created=call.clock.wall(),
            ttl=self._cache.time_of(call, ttl),
            made_in=call.clock.monotonic() - started,
            cost=None if cost is None else cost.amount - cost.wasted,
            origin=origin_of(call.span),
        )

    async def _renew(self) -> None:
        """Ask again behind a call that has its answer; what fails is only told."""
        call = behind(self._call)
        lease = None if self._leases is None else self._leases.lease(self._key, call)
        if lease is not None and await lease.take() is False:
            return  # another process does
        failed: Exception | None = None
        try:
            await in_time(call, lambda: self._ask_again(call, lease))
            self._state.refreshed += 1
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            failed = error
        self._call.emit(CacheRefreshed(call_id=self._call.id, model=call.model, error=failed))

    async def _ask_again(self, call: Call[R], lease: Lease | None) -> None:
        result = await self._send(call, lease)
        if isinstance(result, StreamResult):
            async with result:
                await result.result()


def _answers(found: Found | None) -> bool:
    return found is not None and found.worth != "spare"


def _give_back(lease: Lease | None) -> None:
    if lease is not None:
        lease.give_back()
