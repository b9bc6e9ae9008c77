"""The exact cache: the same question is asked once."""

import asyncio
import logging
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from decimal import Decimal
from typing import Any, Literal, TypeVar, cast, get_args

from typing_extensions import override

from resilient_ai.core.call import CacheMode, Call, Next, OperationMiddleware
from resilient_ai.core.checks import check_able, check_kind, check_seconds
from resilient_ai.core.events import CacheLookedUp
from resilient_ai.core.operations import Complete, Conversation, Embed, Image, Sampling
from resilient_ai.core.protocols import CacheStore
from resilient_ai.core.results import ChatResult, EmbedResult, ImageResult, Result, Usage
from resilient_ai.core.streams import Replay, StreamEnd, StreamResult
from resilient_ai.middleware._cache_codec import (
    decode_chat,
    decode_image,
    decode_vectors,
    encode_chat,
    encode_image,
    encode_vector,
)
from resilient_ai.middleware._cache_key import answer_key, text_keys
from resilient_ai.middleware._cache_store import close, fetch, forget, keep
from resilient_ai.middleware._cache_vectors import comparable, in_order, is_own, send_texts

AnswerT = TypeVar("AnswerT", bound=Result)
Decode = Callable[[bytes], tuple[AnswerT, Decimal | None]]
Encode = Callable[[AnswerT, Decimal | None], bytes | None]

_log = logging.getLogger("resilient_ai")


@dataclass(frozen=True)
class Cache(OperationMiddleware):
    """Keep answers and vectors, and give them to whoever asks exactly the same again.

    A hit costs nothing, waits for nothing and trips nothing, so the cache stands outside of everything that sends. Vectors are
    kept text by text: a list of which most texts are known sends only the others. Answers are kept where asking again would
    give the same: chat and completion with `temperature=0` or a `seed`, pictures with a `seed`. A stream and a chat share
    their entries.

    Never kept are errors, answers that were cut short or filtered, partial streams, and tool calls that are not JSON.

    The key is the SHA-256 of the whole operation, the origin and the tag "tenant", so tenants never see each other's entries.

    Args:
        answers: Where answers and pictures are kept; None keeps none.
        embeddings: Where vectors are kept; None means the store of the answers.
        ttl: Seconds an entry is kept; None keeps it until the store evicts it.
        mode: What calls that say nothing do: "on"; "off"; "refresh" (send, and replace what is kept).
        always: Whether answers are kept that would differ if they were made again. A call that says `cache="on"` itself
            always keeps its answer.

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

    answers: CacheStore | None
    embeddings: CacheStore | None = None
    _: KW_ONLY
    ttl: float | None = None
    mode: CacheMode = "on"
    always: bool = False
    # Streams end in a callback, which cannot wait for a store: what they left is written by a task, and readable before.
    _unwritten: dict[str, bytes] = field(init=False, repr=False, compare=False, default_factory=dict[str, bytes])
    _writes: "set[asyncio.Task[None]]" = field(
        init=False, repr=False, compare=False, default_factory=set["asyncio.Task[None]"]
    )

    def __post_init__(self) -> None:
        """Check the options."""
        if self.answers is None and self.embeddings is None:
            raise ValueError("a cache needs a store for answers or for embeddings, got None for both")
        check_able("answers", self.answers, "get_many", "set_many")
        check_able("embeddings", self.embeddings, "get_many", "set_many")
        if self.ttl is not None:
            check_seconds("ttl", self.ttl)
        if self.mode not in get_args(CacheMode):
            raise ValueError(f"mode must be one of {get_args(CacheMode)}, got {self.mode!r}")
        check_kind("always", self.always, bool)

    @override
    async def chat(self, call: Call[ChatResult], proceed: Next[ChatResult]) -> ChatResult:
        """Answer from the cache, or keep the answer."""
        operation = cast("Conversation[ChatResult]", call.operation)
        key = self._key(call, repeatable=_repeats_itself(operation))
        return await self._answer(call, proceed, key, decode_chat, encode_chat)

    @override
    async def complete(self, call: Call[ChatResult], proceed: Next[ChatResult]) -> ChatResult:
        """Answer from the cache, or keep the answer."""
        key = self._key(call, repeatable=_repeats_itself(cast("Complete", call.operation)))
        return await self._answer(call, proceed, key, decode_chat, encode_chat)

    @override
    async def image(self, call: Call[ImageResult], proceed: Next[ImageResult]) -> ImageResult:
        """Answer from the cache, or keep the pictures."""
        key = self._key(call, repeatable=cast("Image", call.operation).seed is not None)
        return await self._answer(call, proceed, key, decode_image, encode_image)

    @override
    async def stream(self, call: Call[StreamResult], proceed: Next[StreamResult]) -> StreamResult:
        """Replay an answer from the cache, or keep the answer of a stream that was read to its end."""
        key = self._key(call, repeatable=_repeats_itself(cast("Conversation[StreamResult]", call.operation)))
        if key is None:
            return await proceed(call)
        answer = await self._look_up(call, key, decode_chat)
        if answer is not None:
            return StreamResult(Replay(answer), model=answer.served_by or call.model, clock=call.clock)
        stream = await proceed(call)
        stream.on_end(lambda end: self._keep_stream(call, key, end))
        return stream

    @override
    async def embed(self, call: Call[EmbedResult], proceed: Next[EmbedResult]) -> EmbedResult:
        """Fill in the vectors that are known, and send only the texts that are not, each once."""
        store = self.answers if self.embeddings is None else self.embeddings
        mode = self._mode(call, repeatable=True)
        operation = cast("Embed", call.operation)
        keys = None if store is None or mode == "off" else text_keys(call, operation.texts)
        if store is None or keys is None:
            return await proceed(call)
        texts = dict(zip(keys, operation.texts, strict=True))
        vectors = await self._known_vectors(call, store, list(texts)) if mode == "on" else {}
        missing = [key for key in texts if key not in vectors]
        if not missing:
            nothing = Usage(input_tokens=0, output_tokens=0)
            fresh = EmbedResult(model=call.model, served_by=call.model, vectors=in_order(vectors, keys), usage=nothing)
            return fresh.model_copy(update={"hits": len(keys)})
        fresh = await send_texts(call, proceed, [texts[key] for key in missing])
        if vectors and not comparable(call, fresh, vectors):
            missing, vectors, usage = list(texts), {}, fresh.usage
            fresh = await send_texts(call, proceed, list(texts.values()))
            fresh = fresh.model_copy(update={"usage": Usage.total([usage, fresh.usage])})
        hits = sum(key in vectors for key in keys)
        vectors |= {key: fresh.vectors.packed(index) for index, key in enumerate(missing)}
        if is_own(call, fresh):
            await keep(call, store, {key: encode_vector(vectors[key]) for key in missing}, self.ttl)
        in_order_already = len(missing) == len(keys)  # nothing was known, and no text comes twice
        if in_order_already:
            return fresh
        return fresh.model_copy(update={"vectors": in_order(vectors, keys), "hits": hits})

    async def aclose(self) -> None:
        """Finish what is being written and close the stores."""
        loop = asyncio.get_running_loop()
        writes = [task for task in self._writes if task.get_loop() is loop]
        if writes:
            await asyncio.wait(writes)
        for store in {id(store): store for store in (self.answers, self.embeddings) if store is not None}.values():
            await close(store)

    def _mode(self, call: Call[Any], *, repeatable: bool) -> CacheMode:
        if call.cache is not None:
            return call.cache
        return self.mode if repeatable or self.always else "off"

    def _key(self, call: Call[Any], *, repeatable: bool) -> str | None:
        if self.answers is None or self._mode(call, repeatable=repeatable) == "off":
            return None
        return answer_key(call)

    async def _answer(
        self,
        call: Call[AnswerT],
        proceed: Next[AnswerT],
        key: str | None,
        decode: Decode[AnswerT],
        encode: Encode[AnswerT],
    ) -> AnswerT:
        if key is None:
            return await proceed(call)
        found = await self._look_up(call, key, decode)
        if found is not None:
            return found
        answer = await proceed(call)
        entry = _encode(call, answer, encode)
        if entry is not None and self.answers is not None:
            await keep(call, self.answers, {key: entry}, self.ttl)
        return answer

    async def _look_up(self, call: Call[Any], key: str, decode: Decode[AnswerT]) -> AnswerT | None:
        if self.answers is None or (call.cache or self.mode) == "refresh":
            return None
        entries: Mapping[str, bytes] | None = (
            {key: self._unwritten[key]} if key in self._unwritten else await fetch(call, self.answers, [key])
        )
        call.record.cache = "miss"
        if entries is None:
            _report(call, "error", misses=1)
        elif (entry := entries.get(key)) is not None:
            try:
                answer, cost = decode(entry)
            except (TypeError, ValueError):  # damaged, or text from a store that is set up wrongly
                await forget(call, self.answers, [key])
            else:
                call.record.cache = "hit"
                _report(call, "hit", hits=1, saved=cost)
                return answer
        if entries is not None:
            _report(call, "miss", misses=1)
        return None

    async def _known_vectors(
        self, call: Call[Any], store: CacheStore, keys: Sequence[str]
    ) -> "dict[str, array[float]]":
        entries = await fetch(call, store, keys)
        call.record.cache = "miss"
        if entries is None:
            _report(call, "error", misses=len(keys))
            return {}
        vectors, damaged = decode_vectors(entries)
        if damaged:
            await forget(call, store, damaged)
        misses = len(keys) - len(vectors)
        call.record.cache = "miss" if misses else "hit"
        _report(call, "miss" if misses else "hit", hits=len(vectors), misses=misses)
        return vectors

    def _keep_stream(self, call: Call[Any], key: str, end: StreamEnd) -> None:
        if end.how != "completed" or self.answers is None:
            return
        entry = _encode(call, end.answer, encode_chat)
        if entry is None:
            return
        # A stream completes while it is being read, so there is a loop.
        task = asyncio.get_running_loop().create_task(keep(call, self.answers, {key: entry}, self.ttl))
        self._unwritten[key] = entry
        self._writes.add(task)

        def written(done: "asyncio.Task[None]") -> None:
            self._unwritten.pop(key, None)
            self._writes.discard(done)

        task.add_done_callback(written)


def _repeats_itself(operation: Sampling[Any]) -> bool:
    return operation.temperature == 0 or operation.seed is not None


def _encode(call: Call[Any], answer: AnswerT, encode: Encode[AnswerT]) -> bytes | None:
    cost = call.record.cost() or answer.cost
    try:
        return encode(answer, None if cost is None else cost.amount - cost.wasted)
    except (TypeError, ValueError) as error:
        _log.warning("an answer of %s was not cached: %s", type(answer).__name__, type(error).__name__)
        return None


def _report(
    call: Call[Any],
    outcome: Literal["hit", "miss", "error"],
    *,
    hits: int = 0,
    misses: int = 0,
    saved: Decimal | None = None,
) -> None:
    if call.listeners:
        call.emit(
            CacheLookedUp(call_id=call.id, model=call.model, outcome=outcome, hits=hits, misses=misses, saved=saved)
        )
