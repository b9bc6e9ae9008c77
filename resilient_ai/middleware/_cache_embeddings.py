"""Vectors in a cache, text by text."""

import asyncio
from collections.abc import Mapping, Sequence
from decimal import Decimal

from resilient_ai.core.call import Call, Next
from resilient_ai.core.errors import CallRejected, ProviderError, StatusError
from resilient_ai.core.events import CacheRefreshed
from resilient_ai.core.results import EmbedResult, Usage
from resilient_ai.middleware._cache_key import list_key
from resilient_ai.middleware._cache_lease import Lease, take_turn
from resilient_ai.middleware._cache_policy import FAULTS_OF_THE_REQUEST, Policy
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
        self._call = call
        self._proceed = proceed
        self._policy = policy
        self._texts = texts
        self._failed = False  # whether the store could not be read

    async def run(self, keys: Sequence[str]) -> EmbedResult:
        """Return one vector for each of `keys`, which may hold the same one several times."""
        known, lease = Known(), None
        if self._policy.reads:
            known, self._failed = await self.look()
            lease = self._lease() if self._missing(known) else None
            if lease is not None:
                known = await take_turn(lease, self._call, self._all_known) or known
            self._report(known)
        try:
            return await self._filled(known, keys)
        finally:
            if lease is not None:
                lease.give_back()

    async def why_missing(self, keys: Sequence[str]) -> str | None:
        """Return a sentence about why something would be missing, None where nothing would."""
        known, failed = await self.look()
        if failed:
            return "the store cannot be read now"
        missing = self._missing(known)
        if not missing:
            return None
        late = sum(key in known.spares for key in missing)
        told = (
            f"{len(missing)} of {len(self._texts)} texts are not kept, the first of them text {keys.index(missing[0])}"
        )
        return f"{told}; the time of {late} is over" if late else told

    async def look(self) -> tuple[Known, bool]:
        """Return what is known, and whether the store failed."""
        call = self._call
        entries = await self._store.read(call, list(self._texts))
        if entries is None:
            return Known(), True
        known = decode_vectors(entries, now=call.clock.wall(), limits=self._policy.limits, chance=call.clock.random)
        if known.damaged:
            await self._store.forget(call, known.damaged)
        return known, False

    async def _all_known(self) -> Known | None:
        known, _ = await self.look()
        return None if self._missing(known) else known

    def _missing(self, known: Known) -> list[str]:
        return [key for key in self._texts if key not in known.answers]

    def _report(self, known: Known) -> None:
        misses = len(self._texts) - len(known.answers)
        outcome: Outcome = "stale" if known.is_stale else "hit"
        if misses:
            outcome = "error" if self._failed else "miss"
        age = None if known.oldest is None else max(0.0, self._call.clock.wall() - known.oldest)
        self._state.looked_up(self._call, outcome, hits=len(known.answers), misses=misses, age=age, saved=known.saved)
        if known.due and self._policy.keeps:
            due = {key: self._texts[key] for key in known.due}
            self._state.refresh(list_key(known.due), self._renew(due))

    async def _filled(self, known: Known, keys: Sequence[str]) -> EmbedResult:
        call, texts = self._call, self._texts
        missing = self._missing(known)
        if not missing:
            return self._of_known(known, keys)
        try:
            fresh = await self._send(call, {key: texts[key] for key in missing})
        except (ProviderError, CallRejected) as error:
            if isinstance(error, StatusError) and error.status in FAULTS_OF_THE_REQUEST:
                raise
            if not all(key in known.spares for key in missing):
                raise
            known = with_spares(known)
            self._report(known)
            return self._of_known(known, keys)
        if known.answers and not comparable(call, fresh, known.answers):
            usage, known, missing = fresh.usage, Known(), list(texts)
            fresh = await self._send(call, texts)
            fresh = fresh.model_copy(update={"usage": Usage.total([usage, fresh.usage])})
        if len(missing) == len(keys):  # nothing was known, and no text comes twice
            return fresh
        pieces = known.answers | pieces_of(missing, fresh.vectors)
        hits = sum(key in known.answers for key in keys)
        return fresh.model_copy(update={"vectors": in_order(pieces, keys), "hits": hits})

    def _of_known(self, known: Known, keys: Sequence[str]) -> EmbedResult:
        model = self._call.model
        usage = Usage(input_tokens=0, output_tokens=0)
        vectors = in_order(known.answers, keys)
        return EmbedResult(model=model, served_by=model, vectors=vectors, usage=usage, hits=len(keys))

    async def _send(self, call: Call[EmbedResult], texts: Mapping[str, str]) -> EmbedResult:
        """Send texts and keep their vectors, those of each request as soon as they are there, whatever becomes of the others."""
        if not self._policy.keeps:
            return await send_texts(call, self._proceed, list(texts.values()))
        started = call.clock.monotonic()
        keys = {text: key for key, text in texts.items()}
        kept: set[str] = set()
        writes: list[asyncio.Task[None]] = []

        def arrived(some: Sequence[str], result: EmbedResult) -> None:
            if is_own(call, result):
                kept.update(some)
                paid = None if result.cost is None else result.cost.amount
                write = self._keep(call, {keys[text]: text for text in some}, result, paid, started)
                writes.append(self._state.writes.start(write))

        fresh = await send_texts(call.replace(arrived=arrived), self._proceed, list(texts.values()))
        if writes and not self._failed:
            await asyncio.wait(writes)
        if not kept and is_own(call, fresh):
            cost = call.record.cost() or fresh.cost
            paid = None if cost is None else cost.amount - cost.wasted
            write = self._keep(call, texts, fresh, paid, started)
            if self._failed:  # the call has waited for the store already
                self._state.writes.start(write)
            else:
                await write
        return fresh

    async def _keep(
        self,
        call: Call[EmbedResult],
        texts: Mapping[str, str],
        result: EmbedResult,
        cost: Decimal | None,
        started: float,
    ) -> None:
        entries = encode_vectors(
            result.vectors,
            created=call.clock.wall(),
            ttl=self._cache.time_of(call, self._policy),
            made_in=call.clock.monotonic() - started,
            costs=shares(cost, list(texts.values())),
        )
        self._state.kept += len(entries)
        await self._store.write(call, dict(zip(texts, entries, strict=True)), self._policy.lasts)

    async def _renew(self, texts: Mapping[str, str]) -> None:
        """Ask for vectors again behind a call that has them; what fails is only told."""
        call = behind(self._call)
        failed: Exception | None = None
        try:
            await in_time(call, lambda: self._ask_again(call, texts))
            self._state.refreshed += len(texts)
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            failed = error
        self._call.emit(CacheRefreshed(call_id=self._call.id, model=call.model, error=failed))

    async def _ask_again(self, call: Call[EmbedResult], texts: Mapping[str, str]) -> None:
        await self._send(call, texts)

    def _lease(self) -> Lease | None:
        leases = self._cache.leases if self._policy.keeps else None
        if leases is None:
            return None
        return Lease(leases, list_key(list(self._texts)), self._call, self._cache.lease_time, self._state.writes)
