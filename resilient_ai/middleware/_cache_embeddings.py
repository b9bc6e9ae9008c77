"""Vectors in a cache, text by text."""

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal

from resilient_ai.core.call import Call, Next
from resilient_ai.core.errors import CallRejected, ProviderError
from resilient_ai.core.events import CacheRefreshed
from resilient_ai.core.results import EmbedResult, Usage
from resilient_ai.middleware._cache_key import list_key
from resilient_ai.middleware._cache_lease import Lease, take_turn
from resilient_ai.middleware._cache_policy import PART_FOR_ASKING, Policy, is_fault_of_the_request
from resilient_ai.middleware._cache_state import Outcome, Shelf, behind, in_time
from resilient_ai.middleware._cache_vectors import (
    Known,
    comparable,
    decode_vectors,
    encode_vectors,
    in_order,
    is_own,
    pieces_of,
    send_texts,
    shares,
    with_spares,
)
from resilient_ai.middleware._savings import write_spared


class EmbeddingCache:
    """What becomes of one call for vectors: those that are known are filled in, and only the other texts are sent, each once.

    Args:
        shelf: Where the vectors are.
        call: The call.
        proceed: Sends it, or a part of it.
        policy: What it may do with the cache.
        texts: The texts by their keys, each once.
    """

    def __init__(
        self,
        shelf: Shelf,
        call: Call[EmbedResult],
        proceed: Next[EmbedResult],
        policy: Policy,
        texts: Mapping[str, str],
    ) -> None:
        self._cache, self._store, self._state = shelf.cache, shelf.store, shelf.state
        self._leases = shelf.leases if policy.keeps else None
        self._known = Known()
        self._call = call
        self._proceed = proceed
        self._policy = policy
        self._texts = texts
        self._failed = False  # whether the store could not be read

    async def run(self, keys: Sequence[str]) -> EmbedResult:
        """Return one vector for each of `keys`, which may hold the same one several times."""
        if not self._policy.reads:
            return await self._filled(keys)
        lease: Lease | None = None
        try:
            await self._look_again()
            if self._leases is not None and self._missing():
                # The whole list names the lease, so that calls for the same list have the same, whatever is known by then.
                lease = self._leases.lease(list_key(list(self._texts)), self._call)
                await take_turn(lease, self._call, self._all_known)
            self._report()
            return await self._filled(keys)
        finally:
            if lease is not None:
                lease.give_back()

    async def why_missing(self, keys: Sequence[str]) -> str | None:
        """Return a sentence about why something would be missing, None where nothing would."""
        await self._look_again()
        if self._failed:
            return "the store cannot be read now"
        missing = self._missing()
        if not missing:
            return None
        late = sum(key in self._known.spares for key in missing)
        told = (
            f"{len(missing)} of {len(self._texts)} texts are missing, the first of them text {keys.index(missing[0])}"
        )
        return f"{told}; the time of {late} is over" if late else told

    async def _look_again(self) -> None:
        """Find out what is known by now, and whether the store failed."""
        call = self._call
        entries = await self._store.read(call, list(self._texts))
        self._failed = entries is None
        self._known = decode_vectors(
            entries or {}, now=call.clock.wall(), limits=self._policy.limits, chance=call.clock.random
        )
        if self._known.damaged:
            await self._store.forget(call, self._known.damaged)

    async def _all_known(self) -> Known | None:
        await self._look_again()
        return None if self._missing() else self._known

    def _missing(self) -> list[str]:
        return [key for key in self._texts if key not in self._known.answers]

    def _report(self) -> None:
        known = self._known
        misses = len(self._texts) - len(known.answers)
        outcome: Outcome = "stale" if known.stale else "hit"
        if misses:
            outcome = "error" if self._failed else "miss"
        self._state.looked_up(
            self._call,
            outcome,
            hits=len(known.answers),
            stale=known.stale,
            misses=misses,
            age=None if known.oldest is None else self._age(known.oldest),
            saved=known.saved,
        )
        if known.due and self._policy.keeps:
            due = {key: self._texts[key] for key in self._state.claim(known.due)}
            if due:
                self._state.refresh(list(due), self._renew(due))

    def _age(self, created: float) -> float:
        return max(0.0, self._call.clock.wall() - created)

    async def _filled(self, keys: Sequence[str]) -> EmbedResult:
        """Send what is missing, and return it together with what is known."""
        call, texts, known = self._call, self._texts, self._known
        missing = self._missing()
        if not missing:
            self._write_spared(known, stale=known.stale > 0)
            return self._of_known(keys)
        wanted = {key: texts[key] for key in missing}
        if all(key in known.spares for key in missing):
            try:
                # With old vectors in hand, a service that hangs is not waited for until the time of the call is over.
                fresh = await in_time(call, lambda: self._send(call, wanted), part=PART_FOR_ASKING)
            except (ProviderError, CallRejected) as error:
                if is_fault_of_the_request(error):
                    raise
                self._known = with_spares(known)
                age = self._age(self._known.oldest or call.clock.wall())
                self._state.spared(call, hits=len(missing), age=age, saved=self._known.saved)
                self._write_spared(self._known, stale=True)
                return self._of_known(keys)
        else:
            fresh = await self._send(call, wanted)
        if known.answers and not comparable(call, fresh, known.answers):
            usage, known, missing = fresh.usage, Known(), list(texts)
            fresh = await self._send(call, texts)
            fresh = fresh.model_copy(update={"usage": Usage.total([usage, fresh.usage])})
        if len(missing) == len(keys):  # nothing was known, and no text comes twice
            return fresh
        self._write_spared(known, stale=known.stale > 0)
        pieces = known.answers | pieces_of(missing, fresh.vectors)
        hits = sum(key in known.answers for key in keys)
        return fresh.model_copy(update={"vectors": in_order(pieces, keys), "hits": hits})

    def _write_spared(self, known: Known, *, stale: bool) -> None:
        outcome: Literal["hit", "stale"] = "stale" if stale else "hit"
        write_spared(self._cache.savings, self._call, outcome, hits=len(known.answers), saved=known.saved)

    def _of_known(self, keys: Sequence[str]) -> EmbedResult:
        model = self._call.model
        usage = Usage(input_tokens=0, output_tokens=0)
        vectors = in_order(self._known.answers, keys)
        return EmbedResult(model=model, served_by=model, vectors=vectors, usage=usage, hits=len(keys))

    async def _send(self, call: Call[EmbedResult], texts: Mapping[str, str]) -> EmbedResult:
        """Send texts and keep their vectors, those of each request as soon as they are there, whatever becomes of the others."""
        if not self._policy.keeps:
            return await send_texts(call, self._proceed, list(texts.values()))
        started = call.clock.monotonic()
        keys = {text: key for key, text in texts.items()}
        counted = _spent(call)
        kept: set[str] = set()
        writes: list[asyncio.Task[None]] = []

        def keep(some: Sequence[str], result: EmbedResult) -> None:
            nonlocal counted
            if not is_own(call, result):
                return
            before, counted = counted, _spent(call)
            paid = None if before is None or counted is None else counted - before
            # Where nobody accounts for sends, what the answer says itself.
            cost = paid if call.record.costs else _told(result)
            kept.update(some)
            # Encoded at once: the caller may change the numbers as soon as it has them.
            entries = self._encode(call, {keys[text]: text for text in some}, result, cost, started)
            write = self._state.write(self._store, call, entries, self._policy.lasts)
            writes.append(self._state.writes.start(write))

        fresh = await send_texts(call.replace(arrived=keep), self._proceed, list(texts.values()))
        if not kept:
            keep(list(texts.values()), fresh)
        if writes and not self._failed:  # else the call has waited for the store already
            await asyncio.wait(writes)
        return fresh

    def _encode(
        self,
        call: Call[EmbedResult],
        texts: Mapping[str, str],
        result: EmbedResult,
        cost: Decimal | None,
        started: float,
    ) -> dict[str, bytes]:
        entries = encode_vectors(
            result.vectors,
            created=call.clock.wall(),
            ttl=self._cache.time_of(call, self._policy.ttl),
            made_in=call.clock.monotonic() - started,
            costs=shares(cost, list(texts.values())),
        )
        return dict(zip(texts, entries, strict=True))

    async def _renew(self, texts: Mapping[str, str]) -> None:
        """Ask for vectors again behind a call that has them; what fails is only told."""
        call = behind(self._call)
        lease = None if self._leases is None else self._leases.lease(list_key(list(texts)), call)
        if lease is not None and await lease.take() is False:
            return  # another process does
        failed: Exception | None = None
        try:
            await in_time(call, lambda: self._ask_again(call, texts))
            self._state.refreshed += len(texts)
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            failed = error
        finally:
            if lease is not None:
                lease.give_back()
        self._call.emit(CacheRefreshed(call_id=self._call.id, model=call.model, error=failed))

    async def _ask_again(self, call: Call[EmbedResult], texts: Mapping[str, str]) -> None:
        await self._send(call, texts)


def _spent(call: Call[EmbedResult]) -> Decimal | None:
    """Return what the answers of a call have cost so far, None where that is not known of one."""
    cost = call.record.cost()
    if cost is None:
        return None if call.record.costs else Decimal(0)
    return cost.amount - cost.wasted


def _told(result: EmbedResult) -> Decimal | None:
    return None if result.cost is None else result.cost.amount
