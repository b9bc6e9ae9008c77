"""The exact cache: the same question is asked once."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args

from typing_extensions import override

from resilient_ai.core.cache_control import CacheControl, CacheMode
from resilient_ai.core.cache_stats import CacheStats
from resilient_ai.core.call import Call, Next, OperationMiddleware
from resilient_ai.core.checks import check_able, check_at_least, check_between, check_kind, check_seconds
from resilient_ai.core.fault_window import FaultWindow
from resilient_ai.core.health import StoreState
from resilient_ai.core.ledger import Savings
from resilient_ai.core.operations import Embed
from resilient_ai.core.protocols import CacheStore, Leases, StoreUsage
from resilient_ai.core.results import ChatResult, EmbedResult, ImageResult
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware._cache_answers import AnswerCache
from resilient_ai.middleware._cache_embeddings import EmbeddingCache
from resilient_ai.middleware._cache_key import answer_key, pattern, text_keys
from resilient_ai.middleware._cache_lease import GuardedLeases
from resilient_ai.middleware._cache_policy import Policy, policy_of, why_it_may_differ
from resilient_ai.middleware._cache_state import CacheState, Shelf
from resilient_ai.middleware._cache_store import GuardedStore
from resilient_ai.middleware._cache_vectors import as_asked, on_its_model

R = TypeVar("R")
_WAIT_CLOSE = 5.0

Replaying = Literal["at_once", "recorded"]


@dataclass(frozen=True)
class Cache(OperationMiddleware):
    """Keep answers and vectors, and give them to whoever asks exactly the same again.

    A hit costs nothing, waits for nothing and trips nothing, so the cache stands outside of everything that sends. Vectors are
    kept text by text: a list of which most texts are known sends only the others. Answers are kept where asking again would
    give the same: chat and completion with `temperature=0` or a `seed`, pictures with a `seed`. A stream and a chat share
    their entries.

    Never kept are errors, answers that were cut short or filtered, partial streams, and tool calls that are not JSON.

    The key is the SHA-256 of the whole operation, the origin and the tag "tenant", so tenants never see each other's entries.

    A store that fails, or takes longer than 50 ms, is a miss; after five such faults in a minute it is left alone for a minute.

    Args:
        answers: Where answers and pictures are kept; None keeps none.
        embeddings: Where vectors are kept; None means the store of the answers.
        mode: What calls that say nothing do: "on" reads and keeps; "off" does neither; "read" keeps nothing new; "write" and
            "refresh" send, and replace what is kept.
        ttl: Seconds an entry is fresh; None is for ever.
        max_age: Seconds an entry may be old to be an answer, whatever its own time; None is any.
        stale_while_revalidate: Seconds after its time for which an entry is still an answer, while a new one is fetched.
        stale_if_error: Seconds after its time for which an entry is an answer where the service, or what stands in front of it,
            fails; but not where something is wrong with the request.
        jitter: The part of its time, 0 to 1, by which an entry's end may come early, at random, so that what was kept together
            does not end together.
        early_refresh: How eagerly entries that are asked for often are fetched anew before they end; 0 is never. At 1 it happens
            about as long before the end as the answer took to make, once for many calls.
        always: Whether answers are kept that would differ if they were made again, as those of a call that names a mode are.
        keep_truncated: Whether answers that `max_tokens` cut short are kept.
        replay: How a stream is replayed: "at_once", or at the pace that was "recorded".
        leases: Lets processes agree on who sends what several of them miss, such as the store they share; None lets all send.
        lease_time: Seconds after which the turn of a process that died passes on. More than 0.
        savings: Where it is written down what was not sent, such as the ledger; None writes nothing.

    Raises:
        ValueError: If there is no store, or an option is out of its range.

    >>> from resilient_ai.core.operations import Chat
    >>> from resilient_ai.core.pipeline import Pipeline
    >>> from resilient_ai.testing import ScriptedProvider, run
    >>> class Memory(dict):
    ...     async def get_many(self, keys): return {key: self[key] for key in keys if key in self}
    ...     async def set_many(self, entries, *, ttl=None): self.update(entries)
    >>> pipeline = Pipeline(ScriptedProvider(), [Cache(Memory())])
    >>> question = Chat(model="m", messages="hi", temperature=0)
    >>> run(pipeline.send(question)).cache, run(pipeline.send(question)).cache
    ('miss', 'hit')
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Coalesce": "calls that share one send share one look into the cache as well, and keep its answer once"
    }

    answers: CacheStore | None
    embeddings: CacheStore | None = None
    _: KW_ONLY
    mode: CacheMode = "on"
    ttl: float | None = None
    max_age: float | None = None
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    jitter: float = 0.1
    early_refresh: float = 1.0
    always: bool = False
    keep_truncated: bool = False
    replay: Replaying = "at_once"
    leases: Leases | None = None
    lease_time: float = 10.0
    savings: Savings | None = None
    _state: CacheState = field(init=False, repr=False, compare=False, default_factory=CacheState)
    _shelves: dict[int, Shelf] = field(init=False, repr=False, compare=False, default_factory=dict[int, Shelf])
    _defaults: CacheControl = field(init=False, repr=False, compare=False, default_factory=CacheControl)

    def __post_init__(self) -> None:
        """Check the options."""
        if self.answers is None and self.embeddings is None:
            raise ValueError("a cache needs a store for answers or for embeddings, got None for both")
        check_able("answers", self.answers, "get_many", "set_many")
        check_able("embeddings", self.embeddings, "get_many", "set_many")
        check_able("leases", self.leases, "acquire_lease", "release_lease")
        check_able("savings", self.savings, "spared")
        if self.mode not in get_args(CacheMode):
            raise ValueError(f"mode must be one of {get_args(CacheMode)}, got {self.mode!r}")
        if self.replay not in get_args(Replaying):
            raise ValueError(f"replay must be one of {get_args(Replaying)}, got {self.replay!r}")
        if self.ttl is not None:
            check_seconds("ttl", self.ttl)
        if self.max_age is not None:
            check_at_least("max_age", self.max_age, 0)
        check_at_least("stale_while_revalidate", self.stale_while_revalidate, 0)
        check_at_least("stale_if_error", self.stale_if_error, 0)
        check_between("jitter", self.jitter, 0, 1)
        check_at_least("early_refresh", self.early_refresh, 0)
        check_kind("always", self.always, bool)
        check_kind("keep_truncated", self.keep_truncated, bool)
        check_seconds("lease_time", self.lease_time)
        leases = None
        if self.leases is not None:
            leases = GuardedLeases(self.leases, self.lease_time, self._state.writes, FaultWindow())
        for store in self._stores():
            self._shelves[id(store)] = Shelf(self, GuardedStore(store), self._state, leases)
        object.__setattr__(
            self,
            "_defaults",
            CacheControl(
                mode=self.mode,
                ttl=self.ttl,
                max_age=self.max_age,
                stale_while_revalidate=self.stale_while_revalidate,
                stale_if_error=self.stale_if_error,
            ),
        )

    @override
    async def chat(self, call: Call[ChatResult], proceed: Next[ChatResult]) -> ChatResult:
        """Answer from the cache, or keep the answer."""
        return await self._answer(call, proceed)

    @override
    async def complete(self, call: Call[ChatResult], proceed: Next[ChatResult]) -> ChatResult:
        """Answer from the cache, or keep the answer."""
        return await self._answer(call, proceed)

    @override
    async def image(self, call: Call[ImageResult], proceed: Next[ImageResult]) -> ImageResult:
        """Answer from the cache, or keep the pictures."""
        return await self._answer(call, proceed)

    @override
    async def stream(self, call: Call[StreamResult], proceed: Next[StreamResult]) -> StreamResult:
        """Replay an answer from the cache, or keep the answer of a stream that was read to its end."""
        return await self._answer(call, proceed)

    @override
    async def embed(self, call: Call[EmbedResult], proceed: Next[EmbedResult]) -> EmbedResult:
        """Fill in the vectors that are known, and send only the texts that are not, each once."""
        shelf = self._shelf_of(call)
        policy = self.policy(call)
        if shelf is None or policy is None:
            return await proceed(call)
        asked = cast("Embed", call.operation)
        named = on_its_model(call)
        keys = text_keys(named, asked.texts)
        if keys is None:
            return await proceed(call)
        texts = dict(zip(keys, asked.texts, strict=True))
        send = proceed if named is call else as_asked(asked, proceed)
        return await EmbeddingCache(shelf, named, send, policy, texts).run(keys)

    async def _answer(self, call: Call[R], proceed: Next[R]) -> R:
        shelf = self._shelf_of(call)
        policy = self.policy(call)
        key = None if shelf is None or policy is None else answer_key(call)
        if shelf is None or policy is None or key is None:
            return await proceed(call)
        return await AnswerCache(shelf, call, proceed, policy, key).run()

    def policy(self, call: Call[Any]) -> Policy | None:
        """Return what a call may do with the cache, None where that is nothing."""
        asked = call.cache
        if not self.always and (asked is None or asked.mode is None) and why_it_may_differ(call) is not None:
            return None
        return policy_of(self._defaults, asked, self.early_refresh)

    def time_of(self, call: Call[Any], ttl: float) -> float:
        """Return the seconds for which an entry that is kept now is fresh."""
        return ttl if math.isinf(ttl) else ttl * (1.0 - self.jitter * call.clock.random())

    def keys(self, call: Call[Any]) -> list[str] | None:
        """Return the names of the entries of a call: one for an answer, one per text for vectors; None where it has none."""
        operation = call.operation
        if isinstance(operation, Embed):
            return text_keys(on_its_model(call), operation.texts)
        key = answer_key(call)
        return None if key is None else [key]

    async def why_miss(self, call: Call[Any]) -> str | None:
        """Return why a call would not be answered from the cache, None where it would be. Nothing is sent."""
        shelf, policy, asked = self._shelf_of(call), self.policy(call), call.cache
        if shelf is None:
            return "there is no store for it"
        if policy is None:
            named = asked is not None and asked.mode == "off"
            differs = None if named or self.mode == "off" else why_it_may_differ(call)
            if differs is not None:
                return f"asked again it may answer otherwise: {differs}; a call that names a mode is kept all the same"
            return "the call turns the cache off" if named else "the cache is off"
        if not policy.reads:
            return "its mode does not read what is kept"
        keys = self.keys(call)
        if keys is None:
            return "it holds something that JSON cannot say"
        if isinstance(call.operation, Embed):
            return await EmbeddingCache(
                shelf, on_its_model(call), _send_nothing, policy, dict.fromkeys(keys, "")
            ).why_missing(keys)
        return await AnswerCache(shelf, call, _send_nothing, policy, keys[0]).why_missing()

    async def forget(self, *, tenant: str | None = None, model: str | None = None) -> int:
        """Delete the entries of a tenant, of a model, or of both; of everything where neither is named. Return how many.

        What is under way while it happens may be kept after it.

        Raises:
            TypeError: If a store cannot find entries by their keys.
        """
        deleted = 0
        for store in self._stores():
            matching = getattr(store, "delete_matching", None)
            if matching is None:
                raise TypeError(f"{type(store).__name__} cannot forget by tenant or model: it has no delete_matching()")
            deleted += await matching(pattern(tenant=tenant, model=model))
        return deleted

    async def stats(self) -> CacheStats:
        """Return what was found and missed since the cache was made, and what its stores hold."""
        lines: list[StoreUsage] = []
        for store in self._stores():
            usage = getattr(store, "usage", None)
            lines.extend([] if usage is None else await usage())
        state = self._state
        return CacheStats(
            hits=state.hits,
            stale=state.stale,
            misses=state.misses,
            kept=state.kept,
            refreshed=state.refreshed,
            errors=state.errors,
            saved=state.saved,
            stores=tuple(lines),
        )

    def health(self) -> list[StoreState]:
        """Return what each store holds, as far as it knows without looking."""
        holding = [held for store in self._stores() if (held := getattr(store, "held", None)) is not None]
        lines: list[StoreUsage] = [line for held in holding for line in held()]
        return [
            StoreState(
                key=("cache", line.name), layer=line.name.split(" ")[0].lower(), entries=line.entries, size=line.size
            )
            for line in lines
        ]

    async def aclose(self) -> None:
        """Finish what goes on behind calls and close the stores."""
        for tasks, cancel in ((self._state.renewals, True), (self._state.writes, False)):
            with suppress(TimeoutError):  # a store that hangs
                await tasks.finish(_WAIT_CLOSE, cancel=cancel)
        for shelf in self._shelves.values():
            await shelf.store.close()

    def _stores(self) -> list[CacheStore]:
        found = {id(store): store for store in (self.answers, self.embeddings) if store is not None}
        return list(found.values())

    def _shelf_of(self, call: Call[Any]) -> Shelf | None:
        store = self.answers
        if self.embeddings is not None and call.operation.kind == "embed":
            store = self.embeddings
        if store is None:
            return None
        self._state.begin()
        return self._shelves[id(store)]


async def _send_nothing(call: Call[Any]) -> Any:
    raise AssertionError(f"a look into the cache must not send anything, not even a {call.operation.kind}")
